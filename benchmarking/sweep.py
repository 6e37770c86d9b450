"""A grid of samplers over one checkpoint: what each costs, and what it does to the texts.

Costs per text: passes through the network (NFE), token-forwards per token, wall-clock. Quality: story_quality.py.
"""

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from typing import Any

from benchmarking.story_quality import Quality, grade_texts
from transformerlm.inference.plan import Policy
from transformerlm.inference.predictor import GenerationSettings, Predictor

POLICY_KEYS = {"confidence_threshold": "threshold", "entropy_bound": "entropy_bound"}
COSTS = ("nfe", "forwards_per_token", "seconds_per_text")


@dataclass(frozen=True, slots=True)
class Cell:
    """One combination of the grid."""

    values: Mapping[str, Any]
    """What it sets, by the keys of [inference]; only what its policy looks at."""
    settings: GenerationSettings

    @property
    def label(self) -> str:
        """Name it in one line."""
        return ", ".join(f"{key} {value}" for key, value in self.values.items())


@dataclass(frozen=True, slots=True)
class Result:
    """What became of a combination."""

    values: Mapping[str, Any]
    nfe: float
    forwards_per_token: float
    seconds_per_text: float
    """Median."""
    tokens_per_second: float
    quality: Quality

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain values on one level."""
        plain = asdict(self)
        return {**plain.pop("values"), **{key: plain[key] for key in plain if key != "quality"}, **plain["quality"]}


def make_grid(base: GenerationSettings, lists: Mapping[str, Sequence[Any]]) -> list[Cell]:
    """Combine the lists, each combination once.

    lists: values by the keys of [inference]; the policy is called remasking.
    """
    cells: dict[tuple[Any, ...], Cell] = {}
    for combination in product(*lists.values()):
        values = dict(zip(lists, combination, strict=True))
        policy = replace(base.policy, name=values.get("remasking", base.policy.name))
        used = {key: value for key, value in values.items() if _is_used(key, policy)}
        cells.setdefault(tuple(used.items()), Cell(used, _apply(base, policy, used)))
    return list(cells.values())


def _is_used(key: str, policy: Policy) -> bool:
    if key == "confidence_threshold":
        return policy.name == "threshold"
    if key == "entropy_bound":
        return policy.name == "entropy_bound"
    return key != "steps" or policy.uses_steps


def _apply(base: GenerationSettings, policy: Policy, values: Mapping[str, Any]) -> GenerationSettings:
    for key, field in POLICY_KEYS.items():
        if key in values:
            policy = replace(policy, **{field: values[key]})
    if "temperature" in values:
        base = replace(base, sampling=replace(base.sampling, temperature=values["temperature"]))
    direct = {key: values[key] for key in ("steps", "block_length", "cache") if key in values}
    return replace(base, policy=policy, **direct)


def run_cell(predictor: Predictor, cell: Cell, prompt: str, num_texts: int, warmup: int) -> Result:
    """Write the texts of one combination, one at a time, and grade them; raises ValueError if it is impossible."""
    generations, costs = [], []
    for seed in (*range(warmup), *range(num_texts)):
        generations += predictor.generate([prompt], cell.settings, seeds=[seed])
        costs.append(predictor.last_cost)
    generations, costs = generations[warmup:], costs[warmup:]
    seconds, tokens = [cost.seconds for cost in costs], sum(cost.tokens for cost in costs)
    return Result(
        cell.values,
        statistics.mean(cost.evaluations for cost in costs),
        sum(cost.work.token_forwards for cost in costs) / tokens,
        statistics.median(seconds),
        tokens / sum(seconds),
        grade_texts([generation.text for generation in generations], predictor.tokenizer),
    )


def pareto_front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Return the indices of points (cost, quality) that no other point beats in both, cheapest first."""
    order = sorted(range(len(points)), key=lambda index: (points[index][0], -points[index][1]))
    front: list[int] = []
    for index in order:
        if not front or points[index][1] > points[front[-1]][1]:
            front.append(index)
    return front


def format_results(results: Sequence[Result]) -> Iterator[str]:
    """Lay the results out as a table, the best agreement first; a star marks who is beaten by nobody in wall-clock."""
    front = set(pareto_front([(each.seconds_per_text, each.quality.agreed_share) for each in results]))
    labels = [", ".join(f"{key} {value}" for key, value in each.values.items()) for each in results]
    width = max(map(len, labels))
    yield f"  {'':<{width}}  {'NFE':>6} {'fwd/token':>9} {'s/text':>7} {'agreed %':>12} {'stories %':>9} {'entropy':>8}"
    for index in sorted(range(len(results)), key=lambda index: -results[index].quality.agreed_share):
        each, quality = results[index], results[index].quality
        agreed = f"{100 * quality.agreed_share:.1f} ± {100 * quality.agreed_share_error:.1f}"
        yield (
            f"{'*' if index in front else ' '} {labels[index]:<{width}}  {each.nfe:>6.1f} "
            f"{each.forwards_per_token:>9.1f} {each.seconds_per_text:>7.3f} {agreed:>12} "
            f"{100 * quality.valid_share:>9.0f} {quality.sample_entropy:>8.3f}"
        )
