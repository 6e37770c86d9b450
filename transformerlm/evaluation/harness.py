"""Our checkpoints as a model of EleutherAI's lm-evaluation-harness (optional: the extra `lm-eval`).

    transformerlm-lm-eval run --model transformerlm --model_args path=runs/latest --tasks ...

A text follows an end-of-text token, as in training. Autoregressive likelihoods are exact. Those of diffusion models are
lower bounds on the log-likelihood, estimated with `draws` random masks which all continuations of one context share, so
that a choice between them is fair; a sum over bounds is no perplexity but an upper bound on it.
"""

from collections.abc import Sequence
from typing import Any

import lm_eval.models  # noqa: F401 - its own models must be registered before ours
import torch
from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM
from lm_eval.api.registry import register_model

from transformerlm.checkpoint import load_model
from transformerlm.evaluation.pairs import continuation_passage
from transformerlm.inference.canvas import Canvas
from transformerlm.inference.predictor import Generation, GenerationSettings, Predictor
from transformerlm.inference.request import encode_prompt
from transformerlm.inference.sampling import SamplingSettings
from transformerlm.likelihood.score import Passage
from transformerlm.likelihood.scorer import LikelihoodKind, LikelihoodSettings, open_likelihood

DEFAULT_NEW_TOKENS = 128
DEFAULT_BATCH_SIZE = 16


@register_model("transformerlm")
class TransformerLMHarness(TemplateLM):
    """A checkpoint; the arguments are those of --model_args."""

    def __init__(
        self,
        path: str = "runs/latest",
        draws: int = 16,
        seed: int = 0,
        likelihood: LikelihoodKind = "auto",
        block_length: int = 32,
        device: str | None = None,
        batch_size: int | str | None = None,
        **unused: Any,
    ) -> None:
        """Load a run or checkpoint folder.

        draws: random masks of bounds.  block_length: of denoising.  unused: what the harness adds for all models.
        """
        super().__init__()
        is_number = str(batch_size).isdigit()
        self.batch_size = int(batch_size) if is_number else DEFAULT_BATCH_SIZE  # "auto" has nothing to find out here
        loaded = load_model(path, choose_device(device))
        self.predictor = Predictor(loaded)
        settings = LikelihoodSettings(draws, seed, batch_size=self.batch_size)
        self.likelihood = open_likelihood(loaded, settings, likelihood)
        self.seed, self.block_length = seed, block_length
        self.context_length = loaded.model.shape.context_length
        self.words = loaded.tokenizer

    @property
    def tokenizer_name(self) -> str:
        """Name the vocabulary, for the harness's cache."""
        return self.words.fingerprint()

    @property
    def eot_token_id(self) -> int:
        """The token that begins and ends a text."""
        return self.words.end_of_text_id

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
        """Tokenize a text; no special token is recognised in it."""
        return self.words.encode(string, allowed_special="none")

    def _loglikelihood_tokens(
        self, requests: Sequence[tuple[tuple[str, str], list[int], list[int]]], **_: Any
    ) -> list[tuple[float, bool]]:
        """Return log p(continuation | context), and whether greedy decoding writes it (never known of diffusion)."""
        passages, streams, contexts = [], [], {}
        for (context, _continuation), before, behind in requests:
            beginning = before if before[:1] == [self.eot_token_id] else [self.eot_token_id, *before]
            passages.append(continuation_passage(beginning, behind, self.context_length))
            streams.append(contexts.setdefault(context, len(contexts)))
        scores = self.likelihood.score(passages, streams)
        return [(-score.nats, bool(score.is_greedy)) for score in scores]

    def loglikelihood_rolling(self, requests: Sequence[Instance], disable_tqdm: bool = False) -> list[float]:
        """Return log p of whole texts, in windows of the context that each see the last token of the one before."""
        passages, owners = [], []
        for owner, request in enumerate(requests):
            tokens = [self.eot_token_id, *self.tok_encode(request.args[0])]
            windows = Passage.windows(tokens, self.context_length) if len(tokens) > 1 else []
            passages += windows
            owners += [owner] * len(windows)
        totals = [0.0] * len(requests)
        for owner, score in zip(owners, self.likelihood.score(passages) if passages else [], strict=True):
            totals[owner] -= score.nats
        return totals

    def generate_until(self, requests: Sequence[Instance], disable_tqdm: bool = False) -> list[str]:
        """Continue each context up to a stop string, a number of tokens or the end of the text."""
        return [self._generate(*request.args).completion for request in requests]

    def _generate(self, context: str, options: dict[str, Any]) -> Generation:
        """Continue one context, which loses its beginning where it leaves too little room."""
        until = options.get("until") or []
        new_tokens = min(int(options.get("max_gen_toks") or DEFAULT_NEW_TOKENS), self.context_length - 1)
        temperature = float(options.get("temperature") or 0.0) if options.get("do_sample") else 0.0
        room = self.context_length - new_tokens
        tokens = encode_prompt(self.words, context)
        prompt = tokens if len(tokens) <= room else [tokens[0], *tokens[len(tokens) - room + 1 :]]
        canvas = Canvas.continuing(prompt, len(prompt) + new_tokens)
        settings = GenerationSettings(
            total_length=len(canvas.tokens),
            sampling=SamplingSettings(temperature),
            seed=self.seed,
            stop=(until,) if isinstance(until, str) else tuple(until),
            block_length=min(self.block_length, len(canvas.tokens)),
        )
        (generation,) = self.predictor.generate([canvas], settings)
        return generation


def choose_device(wanted: str | None) -> str:
    """Return where to run: lm_eval asks for "cuda:0" unless it is told otherwise, whether or not there is one."""
    has_gpu = torch.cuda.is_available()
    if wanted is None or (wanted.startswith("cuda") and not has_gpu):
        return "cuda" if has_gpu else "cpu"
    return wanted
