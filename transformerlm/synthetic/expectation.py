"""Sum over every text of a grammar at once, by the chain rule.

    H(position) = H(choice) + sum_i p_i H(position after alternative i)

The future depends on the past only through the remembered things whose lists are still to be chosen from; everything
else that is remembered (a hero's name, say) changes the words but not the odds. Memoised on those few slots, a grammar
with more texts than there are atoms is summed in a fraction of a second.

Lengths need more: the words of a mention depend on what was remembered. They are linear, though, so a position's
expected length is kept as a number plus expected counts of mentions, resolved when the summation reaches the binding.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from transformerlm.synthetic.grammar import Choice, Choose, Grammar, Mention, Template, Thing
from transformerlm.synthetic.reading import Rest, rest_after, rest_within


@dataclass(frozen=True, slots=True)
class Tally:
    """What is still to come, on average over all futures of a position.

    entropy_nats: of the choices to come.  characters: of fixed text.
    mentions: (slot, form) -> expected number of times it is written, for what is remembered already.
    """

    entropy_nats: float
    characters: float
    mentions: Mapping[tuple[str, str], float]


def expect(grammar: Grammar) -> Tally:
    """Return the entropy [nats] and the mean length [characters] of a text, both exact."""
    tally = _Summation(grammar).tally((grammar.root, 0, None), {})
    assert not tally.mentions, "something is mentioned before it is chosen"
    return tally


class _Summation:
    """The memoised recursion over positions."""

    def __init__(self, grammar: Grammar) -> None:
        self.grammar = grammar
        self.steering = _Steering(grammar)
        self.known: dict[tuple[Rest, tuple[Thing | None, ...]], Tally] = {}

    def tally(self, rest: Rest, slots: Mapping[str, Thing]) -> Tally:
        """Return the expectation over everything that may be written from here on."""
        characters = 0
        mentioned: list[tuple[str, str]] = []
        while rest is not None and not isinstance(item := rest[0].items[rest[1]], Choose):
            if isinstance(item, str):
                characters += len(item)
            else:
                mentioned.append((item.slot, item.form))
            rest = rest_after(rest)
        tally = self._tally_from_choice(rest, slots)
        if not characters and not mentioned:
            return tally
        mentions = dict(tally.mentions)
        for mention in mentioned:
            mentions[mention] = mentions.get(mention, 0.0) + 1.0
        return Tally(tally.entropy_nats, tally.characters + characters, mentions)

    def _tally_from_choice(self, rest: Rest, slots: Mapping[str, Thing]) -> Tally:
        if rest is None:
            return Tally(0.0, 0.0, {})
        key = (rest, tuple(slots.get(slot) for slot in self.steering.slots(rest)))
        if key not in self.known:
            self.known[key] = self._sum_choice(rest, slots)
        return self.known[key]

    def _sum_choice(self, rest: Rest, slots: Mapping[str, Thing]) -> Tally:
        item, after = rest[0].items[rest[1]], rest_after(rest)
        options = self.grammar.find(item, slots)
        entropy_nats, characters, mentions = options.entropy_nats, 0.0, {}
        for option, probability in zip(options.alternatives, options.probabilities, strict=True):
            if item.slot is None:
                branch = self.tally(rest_within(option, after), slots)
            else:
                branch = _resolve(self.tally(after, {**slots, item.slot: option}), item.slot, option)
            entropy_nats += probability * branch.entropy_nats
            characters += probability * branch.characters
            for mention, count in branch.mentions.items():
                mentions[mention] = mentions.get(mention, 0.0) + probability * count
        return Tally(entropy_nats, characters, mentions)


def _resolve(tally: Tally, slot: str, thing: Thing) -> Tally:
    """Turn the expected mentions of a slot into characters, now that the thing in it is known."""
    resolved = [mention for mention in tally.mentions if mention[0] == slot]
    if not resolved:
        return tally
    mentions = dict(tally.mentions)
    characters = sum(mentions.pop((slot, form)) * len(thing.forms[form]) for _, form in resolved)
    return Tally(tally.entropy_nats, tally.characters + characters, mentions)


class _Steering:
    """Which slots can still steer a choice, from a given position on."""

    def __init__(self, grammar: Grammar) -> None:
        self.grammar = grammar
        self.lists = self._all_lists()
        self.reached: dict[Template, frozenset[str]] = {}
        self.known: dict[Rest, tuple[str, ...]] = {}

    def slots(self, rest: Rest) -> tuple[str, ...]:
        """Return the slots whose things' lists are chosen from at or after a position, sorted."""
        if rest not in self.known:
            remaining: set[str] = set()
            template, index, following = rest or (Template(()), 0, None)
            for item in template.items[index:]:
                remaining |= self._of_item(item)
            self.known[rest] = tuple(sorted(remaining.union(self.slots(following) if following else ())))
        return self.known[rest]

    def _of_item(self, item: str | Mention | Choose) -> frozenset[str]:
        if not isinstance(item, Choose):
            return frozenset()
        choices = [self.grammar.rules[item.rule]] if item.owner is None else self.lists[item.rule]
        owner = frozenset() if item.owner is None else frozenset([item.owner])
        return owner.union(*(self._of_template(option) for options in choices for option in _templates(options)))

    def _of_template(self, template: Template) -> frozenset[str]:
        if template not in self.reached:
            self.reached[template] = frozenset().union(*(self._of_item(item) for item in template.items))
        return self.reached[template]

    def _all_lists(self) -> dict[str, list[Choice]]:
        """Collect the lists of every thing in the grammar by name."""
        lists: dict[str, list[Choice]] = {}
        pending, seen = list(self.grammar.rules.values()), set()
        while pending:
            for thing in _things(pending.pop()):
                for name, options in thing.lists.items():
                    if options not in seen:
                        seen.add(options)
                        lists.setdefault(name, []).append(options)
                        pending.append(options)
        return lists


def _templates(options: Choice) -> Iterable[Template]:
    return (option for option in options.alternatives if isinstance(option, Template))


def _things(options: Choice) -> Iterable[Thing]:
    return (option for option in options.alternatives if isinstance(option, Thing))
