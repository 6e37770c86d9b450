"""Read a text back into the choices that wrote it.

All derivations that agree with the text are followed, depth first, by the very templates that the writer uses. In an
unambiguous grammar whose alternatives differ early, all but one die within a few words, so this is quick.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from transformerlm.synthetic.grammar import Decision, Grammar, Mention, Template, Thing

History = tuple[Decision, "History"] | None  # the last decision, and those before it
Rest = tuple[Template, int, "Rest"] | None  # a template, the item to write next, and what follows the template


def rest_after(rest: Rest) -> Rest:
    """Return what remains after the next item; a finished template leaves no trace, so equal futures are equal keys."""
    template, index, following = rest
    return (template, index + 1, following) if index + 1 < len(template.items) else following


def rest_within(option: Template | Thing, following: Rest) -> Rest:
    """Return what remains when an alternative is about to be written."""
    template = option.written
    return (template, 0, following) if template.items else following


@dataclass(frozen=True, slots=True)
class Partial:
    """A derivation on its way: what it has read and chosen, and what it still has to write."""

    rest: Rest
    offset: int = 0
    slots: Mapping[str, Thing] = field(default_factory=dict)
    history: "History" = None

    @property
    def decisions(self) -> tuple[Decision, ...]:
        """The choices made so far, from left to right."""
        made, history = [], self.history
        while history:
            decision, history = history
            made.append(decision)
        return tuple(reversed(made))


class Reading:
    """All derivations of a grammar that agree with a text, and how far the best of them came.

    furthest: the number of leading characters that some derivation can write.
    expected: the words that derivations wanted to write there instead.
    """

    def __init__(self, grammar: Grammar, text: str) -> None:
        self.grammar = grammar
        self.text = text
        self.furthest = 0
        self.expected: dict[str, None] = {}  # an ordered set

    def derivations(self) -> Iterator[Partial]:
        """Yield every complete derivation of exactly this text."""
        for partial in self._walk(stop_at_end=False):
            if partial.offset == len(self.text):
                yield partial
            else:
                self._note_failure(partial.offset, "", "nothing")

    def beginnings(self) -> Iterator[Partial]:
        """Yield every derivation, cut at the choice after which it has written the whole text or more.

        No two of them can grow into the same derivation: their probabilities may be added.
        """
        for partial in self._walk(stop_at_end=True):
            if partial.offset >= len(self.text):
                yield partial

    def _walk(self, stop_at_end: bool) -> Iterator[Partial]:
        """Yield derivations that are finished, or (stop_at_end) that have nothing left to read."""
        stack = [Partial((self.grammar.root, 0, None))]
        while stack:
            partial = stack.pop()
            if partial.rest is None or (stop_at_end and partial.offset >= len(self.text)):
                yield partial
                continue
            template, index, _ = partial.rest
            item = template.items[index]
            after = rest_after(partial.rest)
            if isinstance(item, str | Mention):
                words = item if isinstance(item, str) else item.text(partial.slots)
                offset = self._match(partial.offset, words, stop_at_end)
                if offset is not None:
                    stack.append(Partial(after, offset, partial.slots, partial.history))
            else:
                stack.extend(self._branches(partial, after))

    def _branches(self, partial: Partial, after: Rest) -> list[Partial]:
        """Return the derivations one choice later, the most likely last (it is popped first)."""
        template, index, _ = partial.rest
        item = template.items[index]
        options = self.grammar.find(item, partial.slots)
        branches = []
        for number, (option, log_p) in enumerate(zip(options.alternatives, options.log_probabilities, strict=True)):
            history = (Decision(item.rule, number, log_p), partial.history)
            if item.slot is None:
                branches.append(Partial(rest_within(option, after), partial.offset, partial.slots, history))
            else:
                branches.append(Partial(after, partial.offset, {**partial.slots, item.slot: option}, history))
        return branches[::-1]

    def _match(self, offset: int, words: str, stop_at_end: bool) -> int | None:
        """Return the offset after `words`, or None where the text says something else."""
        if self.text.startswith(words, offset):
            return offset + len(words)
        found = self.text[offset : offset + len(words)]
        agreed = next((n for n, (a, b) in enumerate(zip(words, found, strict=False)) if a != b), len(found))
        if stop_at_end and offset + agreed == len(self.text):
            return offset + len(words)
        self._note_failure(offset + agreed, words[:agreed], words[agreed:])
        return None

    def _note_failure(self, offset: int, agreed: str, wanted: str) -> None:
        """Remember that `wanted` was wanted, if nothing came further; `agreed` is what was just read before it."""
        if offset > self.furthest:
            self.furthest = offset
            self.expected.clear()
        if offset == self.furthest:
            begun = agreed[agreed.rfind(" ") + 1 :]
            word_end = wanted.find(" ", 1)
            self.expected[begun + (wanted if word_end < 0 else wanted[:word_end])] = None
