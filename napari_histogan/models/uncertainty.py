"""How much the members of an ensemble disagree."""

from __future__ import annotations

import torch
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
    shifted = logits - logits.amax(dim=1, keepdim=True)
    p = shifted.exp()
    total = p.sum(dim=1, keepdim=True)
    p /= total
    mean = p.mean(dim=0)
    own = (total[:, 0].log() - (p * shifted).sum(dim=1)).mean(dim=0)
    together = -torch.xlogy(mean, mean).sum(dim=0)
    return mean, (together - own).clamp_(min=0)


def largest(mean: Tensor) -> Tensor:
    """Return the first class of the largest probability, (K, P) to (P,) uint8; faster than argmax."""
    best, where = mean[0], torch.zeros(mean.shape[1], dtype=torch.uint8, device=mean.device)
    for k in range(1, len(mean)):
        where.masked_fill_(mean[k] > best, k)
        best = torch.maximum(best, mean[k])
    return where


def image_uncertainty(uncertainty: Tensor, share: float = 0.1) -> Tensor:
    """Return the mean of the most uncertain ``share`` of the pixels of each image: (N, R, R) to (N,)."""
    flat = uncertainty.flatten(1)
    return flat.topk(max(round(share * flat.shape[1]), 1), dim=1, sorted=False).values.mean(dim=1)
