"""Masked-diffusion decoding, block by block (after LLaDA, Nie et al. 2025, arXiv 2502.09992).

    prompt prompt prompt [ M M M M ][ M M M M ]      M: mask
    prompt prompt prompt [ a M b M ][ M M M M ]      each step: predict every mask of the block,
    prompt prompt prompt [ a c b d ][ M M M M ]      commit some of the predictions, forget the others
    prompt prompt prompt [ a c b d ][ M e M f ]      then the next block

A policy (policies.py) chooses what to commit, a denoiser (denoisers.py) what to recompute. Every row keeps its own
plan, block, step and random stream: a row of a batch becomes what it would have become alone. With a planned policy the
host knows how many tokens each step commits and never waits for the device; it looks now and then whether all is done.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from transformerlm.inference.canvas import OPEN, Canvas
from transformerlm.inference.decoded import Change, Decoded
from transformerlm.inference.denoisers import CacheName, Request, Window, make_denoiser
from transformerlm.inference.plan import Block, Policy, plan_blocks
from transformerlm.inference.policies import (
    Candidates,
    choose_commits,
    chosen_log_probs,
    next_hitting_time,
    remasking_coins,
)
from transformerlm.inference.rows import Row
from transformerlm.inference.sampling import SamplingSettings, draw_uniforms, penalize_repeats, sample_tokens
from transformerlm.models.transformer import TransformerLM

Listener = Callable[[Sequence[Change]], Collection[int]]
"""Called with what a step changed; returns the rows that shall end there."""
CHECK_EVERY_STEPS = 8  # on a GPU, where looking means waiting


@dataclass(frozen=True, slots=True)
class DiffusionSettings:
    """How to unmask."""

    mask_id: int
    end_id: int | None
    """The token that ends a text; None if none does."""
    block_length: int
    steps: int | None = None
    """Passes for a whole row, for policies that plan; None: one per token."""
    policy: Policy = field(default_factory=Policy)
    cache: CacheName = "none"
    is_block_causal: bool = False
    """Whether the model was trained so that no token sees a later block; blocks begin at multiples of the length."""
    cfg_scale: float = 0.0
    """Classifier-free guidance: logits = un + (scale + 1) (cond - un), where `un` sees the given tokens masked."""

    def plan(self, canvas: Canvas) -> list[Block]:
        """Plan the blocks of a row; raises ValueError if the steps do not suffice."""
        steps = self.steps if self.policy.uses_steps else None
        return plan_blocks(canvas.is_open.tolist(), self.block_length, steps, self.is_block_causal)


class DiffusionDecoder:
    """One call of the sampler: the buffers of a batch, and the step that is repeated."""

    def __init__(
        self,
        model: TransformerLM,
        canvases: Sequence[Canvas],
        settings: DiffusionSettings,
        sampling: SamplingSettings,
        generators: Sequence[torch.Generator],
        listener: Listener | None = None,
    ) -> None:
        self.settings, self.sampling, self.listener = settings, sampling, listener
        self.device = device = model.embedding.weight.device
        self.lengths = [len(canvas.tokens) for canvas in canvases]
        self.batch, self.width = len(canvases), max(self.lengths)
        plans = [settings.plan(canvas) for canvas in canvases]
        self.rows = [
            Row(index, plan, generator) for index, (plan, generator) in enumerate(zip(plans, generators, strict=True))
        ]
        # The last column takes idle writes; there and behind shorter rows stand masks that count as given.
        tokens = torch.full((self.batch, self.width + 1), settings.mask_id)
        is_given = torch.ones_like(tokens, dtype=torch.bool)
        for row, canvas in enumerate(canvases):
            written = torch.from_numpy(canvas.tokens)
            is_given[row, : len(written)] = written != OPEN
            tokens[row, : len(written)] = written.masked_fill(written == OPEN, settings.mask_id)
        copies = [tokens]
        if settings.cfg_scale > 0:  # the second half of the batch sees nothing that was given
            copies.append(torch.full_like(tokens, settings.mask_id))
        self.tokens = torch.cat(copies).to(device)
        self.is_given = is_given[:, : self.width].to(device)
        self.log_probs = torch.zeros((self.batch, self.width + 1), dtype=torch.float64, device=device)
        self.earliest_end = torch.tensor([canvas.earliest_end for canvas in canvases]).to(device)
        self.denoiser = make_denoiser(
            settings.cache,
            model,
            self.tokens[:, : self.width],
            self.lengths * len(copies),
            settings.block_length if settings.is_block_causal else None,
        )

    @torch.inference_mode()
    def run(self) -> Decoded:
        """Fill every canvas."""
        self.end_settled(self.rows)
        while rows := [row for row in self.rows if not row.is_done]:
            self.step(rows)
        tokens = self.tokens[: self.batch]
        tokens = tokens.masked_fill(tokens == self.settings.mask_id, OPEN).tolist()
        log_probs, lengths = self.log_probs.tolist(), self.lengths
        return Decoded(
            [row[:length] for row, length in zip(tokens, lengths, strict=True)],
            [row[:length] for row, length in zip(log_probs, lengths, strict=True)],
            self.denoiser.cost,
        )

    def look(self, rows: list[Row]) -> tuple[Window, Tensor]:
        """Return the rows' blocks, and which of their positions are masked: [rows, block] bool."""
        ranges = [(row.block.start, row.block.end) for row in rows]
        window = Window.over([row.index for row in rows], ranges, self.device)
        is_masked = self.tokens[window.rows[:, None], window.positions] == self.settings.mask_id
        return window, is_masked & window.is_inside

    def step(self, rows: list[Row]) -> None:
        """Predict, choose, commit: one step of every row that is not done."""
        window, is_open = self.look(rows)
        asked = self.choose_columns(rows, is_open)
        noise = draw_uniforms([row.generator for row in rows], (2, self.settings.block_length), self.device)
        noise = noise.gather(2, asked[:, None].expand(-1, 2, -1))  # [rows, 2, asked]
        logits = self.predict(rows, window, asked)
        log_probs = logits.log_softmax(dim=-1)
        scores = log_probs if self.sampling.repetition_penalty == 1 else self.penalize(logits, window.rows)
        drawn = sample_tokens(scores, self.sampling, noise[:, 0])
        candidates = Candidates(log_probs, drawn, is_open.gather(1, asked), noise[:, 1])
        targets = window.positions.gather(1, asked)
        is_inside = window.is_inside.gather(1, asked)
        commits, remasks = self.choose(rows, candidates, is_inside & ~self.is_given[window.rows[:, None], targets])
        self.write(window.rows, targets.where(is_inside, self.width), candidates, commits, remasks)
        ended = self.report(rows, targets, candidates, commits, remasks)
        self.advance(rows, ended)

    def choose_columns(self, rows: list[Row], is_open: Tensor) -> Tensor:
        """Return the columns of the block that must be predicted: the open ones, first; [rows, k] int64.

        Only they go through the head. remdm looks at committed tokens too, so it asks for all.
        """
        count = is_open.shape[1]
        if self.settings.policy.name == "remdm":
            return torch.arange(count, device=self.device).expand_as(is_open)
        count = max(row.num_open for row in rows)
        return is_open.int().argsort(dim=1, descending=True, stable=True)[:, :count]

    def predict(self, rows: list[Row], window: Window, asked: Tensor) -> Tensor:
        """Predict the columns asked for, guided if so set; never the mask, and no end where it is too early.

        Returns logits [rows, k, vocab_size], at least float32.
        """
        indices, blocks = [row.index for row in rows], [row.block for row in rows]
        is_first = [row.step == 0 for row in rows]
        request = Request(indices, blocks, is_first, window, asked)
        scale = self.settings.cfg_scale
        if scale > 0:
            twice = Window(
                torch.cat((window.rows, window.rows + self.batch)),
                window.positions.repeat(2, 1),
                window.is_inside.repeat(2, 1),
                window.start,
            )
            masked = [index + self.batch for index in indices]
            logits = self.denoiser.predict(
                Request(indices + masked, blocks * 2, is_first * 2, twice, asked.repeat(2, 1))
            )
            conditional, unconditional = (logits if logits.dtype == torch.float64 else logits.float()).chunk(2)
            logits = unconditional + (scale + 1) * (conditional - unconditional)
        else:
            logits = self.denoiser.predict(request)
        logits = logits if logits.dtype == torch.float64 else logits.float()
        logits[..., self.settings.mask_id] = -torch.inf
        if self.settings.end_id is not None:
            is_early = window.positions.gather(1, asked) < self.earliest_end[window.rows, None]
            logits[..., self.settings.end_id].masked_fill_(is_early, -torch.inf)
        return logits

    def penalize(self, logits: Tensor, rows: Tensor) -> Tensor:
        """Apply the repetition penalty."""
        penalty = self.sampling.repetition_penalty
        is_seen = torch.zeros((len(rows), logits.shape[-1]), dtype=torch.bool, device=self.device)
        is_seen.scatter_(1, self.tokens[rows, : self.width], True)
        return penalize_repeats(logits, is_seen[:, None], penalty)

    def choose(self, rows: list[Row], candidates: Candidates, is_ours: Tensor) -> tuple[Tensor, Tensor]:
        """Return what to commit and what to mask again: [rows, k] bool each.

        is_ours: [rows, k] bool, positions that were not given.
        """
        policy = self.settings.policy
        if policy.name == "remdm":
            progress = [(row.step / row.block.steps, (row.step + 1) / row.block.steps) for row in rows]
            progress = torch.tensor(progress, dtype=torch.float64).to(self.device)
            return remasking_coins(policy, candidates, is_ours & ~candidates.is_open, progress)
        quotas = torch.tensor([row.quota for row in rows]).to(self.device)
        commits = choose_commits(policy, candidates, quotas, self.settings.end_id)
        return commits, torch.zeros_like(commits)

    def write(self, rows: Tensor, targets: Tensor, candidates: Candidates, commits: Tensor, remasks: Tensor) -> None:
        """Write what was chosen; everything else keeps what it had."""
        where = (rows[:, None], targets)
        kept = self.log_probs[where].masked_fill(remasks, 0.0)
        self.log_probs[where] = torch.where(commits, chosen_log_probs(candidates).double(), kept)
        for half in range(0, self.tokens.shape[0], self.batch):
            where = (rows[:, None] + half, targets)
            kept = self.tokens[where].masked_fill(remasks, self.settings.mask_id)
            self.tokens[where] = torch.where(commits, candidates.tokens, kept)

    def report(
        self, rows: list[Row], targets: Tensor, candidates: Candidates, commits: Tensor, remasks: Tensor
    ) -> Collection[int]:
        """Tell the listener what changed; returns the rows it wants to end."""
        times = [self.pass_time(row) for row in rows]
        if self.listener is None:
            return ()
        log_probs = chosen_log_probs(candidates).tolist()
        positions, tokens = targets.tolist(), candidates.tokens.tolist()
        changes = []
        for i, k in (commits | remasks).nonzero().tolist():
            row, is_commit = rows[i], bool(commits[i, k])
            token, log_prob = (tokens[i][k], log_probs[i][k]) if is_commit else (self.settings.mask_id, 0.0)
            changes.append(Change(row.index, row.steps_done, positions[i][k], token, log_prob, times[i]))
        return self.listener(changes)

    def pass_time(self, row: Row) -> float | None:
        """Let the time of first-hitting sampling fall to the next hit; None for the other policies."""
        if self.settings.policy.name != "first_hitting":
            return None
        uniform = torch.rand((), dtype=torch.float64, generator=row.generator).item()
        row.time = next_hitting_time(row.time, row.num_open, uniform)
        return row.time

    def advance(self, rows: list[Row], ended: Collection[int]) -> None:
        """Count the step, close finished blocks, and end rows that are settled."""
        policy = self.settings.policy
        if not policy.is_planned:
            open_counts = self.look(rows)[1].sum(dim=1).tolist()
        for index, row in enumerate(rows):
            row.num_open = row.num_open - row.quota if policy.is_planned else open_counts[index]
            row.step, row.steps_done = row.step + 1, row.steps_done + 1
            row.is_ended = row.index in ended
        is_checked = self.device.type == "cpu" or max(row.steps_done for row in rows) % CHECK_EVERY_STEPS == 0
        if is_checked and policy.name != "remdm":
            self.end_settled(rows)
        closing = [row for row in rows if not row.is_done and self.closes_block(row)]
        if policy.name == "remdm":
            self.end_settled(closing)
            closing = [row for row in closing if not row.is_done]
        for row in closing:
            row.enter_next_block()

    def closes_block(self, row: Row) -> bool:
        """Tell whether a row is through with its block; remdm uses all its steps."""
        return row.step >= row.block.steps if self.settings.policy.name == "remdm" else row.num_open == 0

    def end_settled(self, rows: list[Row]) -> None:
        """End the rows that hold an end-of-text token of their own with no mask before it."""
        if self.settings.end_id is None:
            return
        tokens = self.tokens[: self.batch, : self.width]
        is_end = (tokens == self.settings.end_id) & ~self.is_given
        has_no_mask_before = (tokens == self.settings.mask_id).cumsum(dim=1) == 0
        is_settled = (is_end & has_no_mask_before).any(dim=1).tolist()
        for row in rows:
            row.is_ended |= is_settled[row.index]


def decode_diffusion(
    model: TransformerLM,
    canvases: Sequence[Canvas],
    settings: DiffusionSettings,
    sampling: SamplingSettings,
    generators: Sequence[torch.Generator],
    listener: Listener | None = None,
) -> Decoded:
    """Fill the open positions of every canvas by denoising.

    Canvases may differ in length; each row is what it would be alone. A row ends early once it is settled up to an
    end-of-text token.
    """
    return DiffusionDecoder(model, canvases, settings, sampling, generators, listener).run()
