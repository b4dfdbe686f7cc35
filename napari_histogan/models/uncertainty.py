"""How much the members of an ensemble disagree."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def ensemble_statistics(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean probabilities and disagreement of an ensemble.

    The Jensen-Shannon divergence is H(mean of p) - mean of H(p), with the natural logarithm (DatasetGAN,
    section 3.2).

    Parameters
    ----------
    logits
        (M, K, P).

    Returns
    -------
    tuple[Tensor, Tensor]
        (K, P) probabilities and (P,) divergences, 0 to ln K.
    """
    logs = F.log_softmax(logits, dim=1)
    p = logs.exp()
    mean = p.mean(dim=0)
    own = -(p * logs).sum(dim=1).mean(dim=0)
    together = -torch.xlogy(mean, mean).sum(dim=0)
    return mean, (together - own).clamp_(min=0)


def image_uncertainty(uncertainty: Tensor, share: float = 0.1) -> Tensor:
    """Return the mean of the most uncertain ``share`` of the pixels of each image: (N, R, R) to (N,)."""
    flat = uncertainty.flatten(1)
    return flat.topk(max(round(share * flat.shape[1]), 1), dim=1, sorted=False).values.mean(dim=1)
