"""Weighted grammars with memory: a text is a sequence of choices, and nothing else.

A grammar is a set of rules; a rule is a weighted list of alternatives; an alternative is a template:

    plain text                      stands for itself
    <greeting>                      choose an alternative of the rule `greeting` and write it here
    <world.scenes>                  the same, from a list that the remembered thing `world` brings along
    <hero=names>                    choose a thing and remember it as `hero`; writes nothing
    {hero}  {hero.his}  {^hero.he}  mention what was remembered, in one of its forms; ^ begins it with a capital

Memory is what makes agreement possible: a name is chosen once, and every later mention of it is free. Templates are
followed strictly from left to right, so any prefix of the choices fixes a prefix of the text.

One `Grammar` has three readers, and none has rules of its own: `Grammar.write` (here) turns choices into text,
`reading.py` turns text back into choices, `expectation.py` sums over all of them.
"""

import math
import re
from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate

_MARKUP = re.compile(
    r"<(?:(?P<slot>\w+)=)?(?:(?P<owner>\w+)\.)?(?P<rule>\w+)>|\{(?P<capital>\^?)(?P<who>\w+)(?:\.(?P<form>\w+))?\}"
)


@dataclass(frozen=True, slots=True)
class Mention:
    """Write a form of the thing remembered in a slot."""

    slot: str
    form: str
    is_capital: bool

    def text(self, slots: Mapping[str, "Thing"]) -> str:
        """Return the words that stand here, given what was remembered."""
        words = slots[self.slot].forms[self.form]
        return words[0].upper() + words[1:] if self.is_capital else words


@dataclass(frozen=True, slots=True)
class Choose:
    """Take one alternative of a rule (or of a remembered thing's list) and write it, or remember it in `slot`."""

    rule: str
    owner: str | None
    slot: str | None


Item = str | Mention | Choose


@dataclass(frozen=True, eq=False)
class Template:
    """A parsed alternative. Compared by identity, so that positions inside a grammar are cheap dictionary keys."""

    items: tuple[Item, ...]

    @property
    def written(self) -> "Template":
        """What choosing this alternative writes: itself."""
        return self

    @staticmethod
    def of(markup: str) -> "Template":
        """Parse the markup described at the top of this file. Raises ValueError on stray brackets."""
        items: list[Item] = []
        end = 0
        for match in _MARKUP.finditer(markup):
            items.append(markup[end : match.start()])
            end = match.end()
            if match["rule"]:
                items.append(Choose(match["rule"], match["owner"], match["slot"]))
            else:
                items.append(Mention(match["who"], match["form"] or "name", bool(match["capital"])))
        items.append(markup[end:])
        if any(isinstance(item, str) and re.search(r"[<>{}]", item) for item in items):
            raise ValueError(f"stray bracket in template {markup!r}: write <rule>, <slot=rule> or {{slot.form}}")
        return Template(tuple(item for item in items if item != ""))


@dataclass(frozen=True, eq=False)
class Thing:
    """Something a text can remember: the forms of its name, and the lists of choices it brings along."""

    forms: Mapping[str, str]
    lists: Mapping[str, "Choice"] = field(default_factory=dict)

    @cached_property
    def written(self) -> Template:
        """What choosing this thing writes when nobody remembers it: its name."""
        return Template((self.forms["name"],))


@dataclass(frozen=True, eq=False)
class Choice:
    """A categorical distribution over alternatives, each a template to write or a thing to remember."""

    alternatives: tuple[Template | Thing, ...]
    probabilities: tuple[float, ...]

    @cached_property
    def cumulative(self) -> tuple[float, ...]:
        """Upper ends of the alternatives' shares of [0, 1); the last is exactly 1."""
        return (*accumulate(self.probabilities[:-1]), 1.0)

    @cached_property
    def log_probabilities(self) -> tuple[float, ...]:
        """Natural logarithms of the probabilities."""
        return tuple(map(math.log, self.probabilities))

    @cached_property
    def entropy_nats(self) -> float:
        """Entropy of this choice alone."""
        return -math.fsum(p * log_p for p, log_p in zip(self.probabilities, self.log_probabilities, strict=True))

    def draw(self, uniform: float) -> int:
        """Return the index of the alternative whose share of [0, 1) contains `uniform`."""
        return bisect_right(self.cumulative, uniform)


Alternatives = Sequence[str | Thing] | Mapping[str | Thing, float]


def choice(alternatives: Alternatives) -> Choice:
    """Build a choice: a mapping gives weights, a sequence is ranked and weighted as 1 / (rank + 3).

    These harmonic weights are Zipf's law with a flattened head: common things are common, and rare ones do turn up.
    Raises ValueError if there is nothing to choose from, or a weight is not positive.
    """
    if isinstance(alternatives, Mapping):
        weights = list(alternatives.values())
    else:
        weights = [1 / (rank + 3) for rank in range(len(alternatives))]
    if not weights or min(weights) <= 0:
        raise ValueError(f"a choice needs alternatives with positive weights, not {alternatives!r}")
    total = math.fsum(weights)
    compiled = tuple(Template.of(each) if isinstance(each, str) else each for each in alternatives)
    return Choice(compiled, tuple(weight / total for weight in weights))


@dataclass(frozen=True, slots=True)
class Decision:
    """One choice that was made: where, which alternative, and how likely it was."""

    rule: str
    index: int
    log_probability: float


class Grammar:
    """Rules by name; a text is an expansion of the rule `start`.

    rules: name -> alternatives, as `choice` takes them.
    """

    def __init__(self, rules: Mapping[str, Alternatives], start: str = "start") -> None:
        self.rules = {name: choice(alternatives) for name, alternatives in rules.items()}
        self.root = Template((Choose(start, None, None),))

    def find(self, item: Choose, slots: Mapping[str, Thing]) -> Choice:
        """Return the choice that an item stands for, given what was remembered."""
        return self.rules[item.rule] if item.owner is None else slots[item.owner].lists[item.rule]

    def write(self, pick: Callable[[Choice], int]) -> str:
        """Write a text, asking `pick` for the index of an alternative at every choice, from left to right."""
        slots: dict[str, Thing] = {}
        pieces: list[str] = []

        def expand(template: Template) -> None:
            for item in template.items:
                if type(item) is str:
                    pieces.append(item)
                elif type(item) is Mention:
                    pieces.append(item.text(slots))
                else:
                    options = self.find(item, slots)
                    chosen = options.alternatives[pick(options)]
                    if item.slot is None:
                        expand(chosen.written)
                    else:
                        slots[item.slot] = chosen

        expand(self.root)
        return "".join(pieces)

    def replay(self, indices: Iterable[int]) -> str:
        """Write the text that a recorded sequence of alternatives stands for."""
        recorded = iter(indices)
        return self.write(lambda _: next(recorded))
