"""Two objectives over one set of weights: alpha * diffusion + (1 - alpha) * autoregression.

The same rows are read twice, causally to predict the next token and bidirectionally to recover masked ones. The model
then generates either way, or drafts by diffusion and verifies by autoregression.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from transformerlm.models.transformer import TransformerLM
from transformerlm.objectives.autoregressive import Autoregressive
from transformerlm.objectives.base import LossOutput, NoiseContext
from transformerlm.objectives.masked_diffusion import MaskedDiffusion


@dataclass(frozen=True, slots=True)
class Joint:
    """The weighted sum of both losses."""

    diffusion: MaskedDiffusion
    alpha: float = 0.5
    """Share of the diffusion loss."""
    initial_alpha: float = 0.5
    """Its share at the first step; it goes to `alpha` in a straight line..."""
    alpha_steps: int = 0
    """...over so many steps. 0: `alpha` from the beginning."""
    lookahead: int = 1

    def __call__(self, model: nn.Module, batch: Mapping[str, Tensor], context: NoiseContext) -> LossOutput:
        """Score rows of context + 1 tokens; diffusion reads the context alone.

        Weighed like the losses, so that each token counts as one. The metrics hold either loss.
        """
        alpha = self.alpha_at(context.step)
        causal = Autoregressive()(model, batch, context)
        diffusion = self.diffusion(model, {name: tensor[:, :-1] for name, tensor in batch.items()}, context)
        return LossOutput(
            alpha * diffusion.loss_sum + (1 - alpha) * causal.loss_sum,
            alpha * diffusion.weight + (1 - alpha) * causal.weight,
            {
                **diffusion.metrics,
                "diffusion_loss": diffusion.loss_sum.detach(),
                "autoregressive_loss": causal.loss_sum.detach(),
            },
        )

    def alpha_at(self, step: int) -> float:
        """Return the share of the diffusion loss at a step; step 0, an evaluation, has the final one."""
        if not 0 < step <= self.alpha_steps:
            return self.alpha
        return self.initial_alpha + (self.alpha - self.initial_alpha) * (step - 1) / self.alpha_steps

    def training_flops(self, model: TransformerLM, seq: int) -> int:
        """Count both passes."""
        return Autoregressive().training_flops(model, seq) + self.diffusion.training_flops(model, seq)
