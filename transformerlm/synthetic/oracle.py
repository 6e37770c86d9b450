"""The perfect model of a hidden Markov source: its answers are exact posteriors, so every score of it is known.

Called as a model is, it goes wherever a model goes. Its bound on the likelihood is no bound but the likelihood itself,
in every order: what an estimator makes of it beyond that is the estimator's own error.
"""

import numpy as np
import torch
from torch import Tensor, nn

from transformerlm.synthetic.hidden_markov import UNKNOWN, HiddenMarkov


class OracleDenoiser(nn.Module):
    """Answer log p(x_i | known tokens), without any weights.

    Ids 0 .. num_symbols - 1 are the source's symbols; the next one is the mask.
    """

    def __init__(self, source: HiddenMarkov) -> None:
        super().__init__()
        self.source = source
        self.mask_id = source.num_symbols

    def forward(self, tokens: Tensor, *, is_causal: bool, valid: Tensor | None = None) -> Tensor:
        """Return logits [batch, seq, num_symbols + 1], float64: of every token given the rest, or of the next one.

        tokens: [batch, seq] int64.  valid: [batch, seq] bool; what is not valid is taken as unknown.
        """
        symbols = tokens.cpu().numpy()
        is_known = symbols < self.mask_id if valid is None else (symbols < self.mask_id) & valid.cpu().numpy()
        symbols = np.where(is_known, symbols, UNKNOWN)
        answers = self.source.predictions(symbols)[:, 1:] if is_causal else self.source.conditionals(symbols)
        log_p = torch.from_numpy(answers).log()
        return torch.nn.functional.pad(log_p, (0, 1), value=-torch.inf).to(tokens.device)
