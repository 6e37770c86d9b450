"""All the ways in which a gap in a text of a grammar can be filled, with their exact probabilities.

The grammar is followed as in reading.py, but what stands in the gap is free: a derivation may write anything there, as
long as what it writes afterwards is the rest of the text, to the letter. A gap of a word or two leaves few derivations.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from transformerlm.synthetic.grammar import Grammar, Mention, Thing
from transformerlm.synthetic.reading import Rest, rest_after, rest_within


@dataclass(frozen=True, slots=True)
class _Partial:
    """A derivation on its way."""

    rest: Rest
    text: str = ""
    log_probability: float = 0.0
    slots: Mapping[str, Thing] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Gap:
    """What stands around it."""

    before: str
    behind: str
    max_blanks: int

    def allows(self, text: str) -> bool:
        """Tell whether a text may be the beginning of one that fills the gap."""
        if len(text) <= len(self.before):
            return self.before.startswith(text)
        if not text.startswith(self.before):
            return False
        free = text[len(self.before) :]
        blanks = [place for place, letter in enumerate(free) if letter == " "]
        if len(blanks) <= self.max_blanks:
            return True
        return any(self.behind.startswith(free[length:]) for length in range(blanks[self.max_blanks] + 1))

    def filling(self, text: str) -> str | None:
        """Return what stands in the gap of a whole text, None if it does not read so."""
        if not (text.startswith(self.before) and text.endswith(self.behind)):
            return None
        if len(text) < len(self.before) + len(self.behind):
            return None
        filling = text[len(self.before) : len(text) - len(self.behind)]
        return filling if filling.count(" ") <= self.max_blanks else None


def fillings(grammar: Grammar, before: str, behind: str, max_blanks: int) -> dict[str, float]:
    """Return p(gap | text before it and behind it) for every filling with at most max_blanks blanks in it.

    Empty where no text of the grammar reads so.
    """
    gap = _Gap(before, behind, max_blanks)
    log_p: dict[str, float] = {}
    for partial in _derivations(grammar, gap):
        filling = gap.filling(partial.text)
        if filling is not None:
            log_p[filling] = _add(log_p.get(filling, -math.inf), partial.log_probability)
    if not log_p:
        return {}
    largest = max(log_p.values())
    total = math.fsum(math.exp(each - largest) for each in log_p.values())
    return {filling: math.exp(each - largest) / total for filling, each in log_p.items()}


def _derivations(grammar: Grammar, gap: _Gap) -> Iterator[_Partial]:
    """Yield every complete derivation that the gap allows."""
    stack = [_Partial((grammar.root, 0, None))]
    while stack:
        partial = stack.pop()
        if partial.rest is None:
            yield partial
            continue
        template, index, _ = partial.rest
        item, after = template.items[index], rest_after(partial.rest)
        if isinstance(item, str | Mention):
            text = partial.text + (item if isinstance(item, str) else item.text(partial.slots))
            if gap.allows(text):
                stack.append(_Partial(after, text, partial.log_probability, partial.slots))
            continue
        options = grammar.find(item, partial.slots)
        for option, log_p in zip(options.alternatives, options.log_probabilities, strict=True):
            summed = partial.log_probability + log_p
            if item.slot is None:
                stack.append(_Partial(rest_within(option, after), partial.text, summed, partial.slots))
            else:
                stack.append(_Partial(after, partial.text, summed, {**partial.slots, item.slot: option}))


def _add(a: float, b: float) -> float:
    """Return log(exp(a) + exp(b))."""
    high, low = max(a, b), min(a, b)
    return high if low == -math.inf else high + math.log1p(math.exp(low - high))
