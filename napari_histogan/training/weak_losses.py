"""The loss of learning from slide labels: l_beta, and pooling of pixels to patches (paper 002, section 2).

A patch has the label of its slide.  Its logits are made of its pixels' logits: the mean for "benign", and
the mean of the highest ``eta`` percent for "malign", since a malign patch is malign in part.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from napari_histogan.errors import ModelError

_SMALL_BETA = 1e-6
_LEAST_LOG = -1e4


def l_beta(p: Tensor, log_q: Tensor, beta: tuple[float, ...]) -> Tensor:
    """Return ``- sum_i (p_i / beta_i) ((q_i / p_i)^beta_i - 1)`` of each row.

    It is written as ``-p_i expm1(beta_i log(q_i / p_i)) / beta_i``, which is finite at q = 0 and goes over
    into the cross-entropy as beta_i goes to 0.  Terms of p_i = 0 are 0.

    Parameters
    ----------
    p
        ``(N, K)`` float, 0..1, rows summing to 1.
    log_q
        ``(N, K)`` float, logarithms of the predicted probabilities; -inf counts as -10,000.
    beta
        One for each class, at least 0.

    Returns
    -------
    Tensor
        ``(N,)``.
    """
    log_q = log_q.clamp(min=_LEAST_LOG)
    terms = []
    for k, each in enumerate(beta):
        held = p[:, k] > 0
        share = torch.where(held, p[:, k], torch.ones_like(p[:, k]))
        lost = _lost(log_q[:, k] - share.log(), each)
        terms.append(torch.where(held, share * lost, torch.zeros_like(lost)))
    return torch.stack(terms, dim=1).sum(dim=1)


def _lost(log_ratio: Tensor, beta: float) -> Tensor:
    """Return ``(1 - ratio^beta) / beta``; below 1e-6 its series, as rounding would eat the difference."""
    if abs(beta) < _SMALL_BETA:
        return -log_ratio * (1 + beta * log_ratio / 2)
    return -torch.expm1(beta * log_ratio) / beta


def pool_logits(logits: Tensor, valid: Tensor, eta: float) -> Tensor:
    """Return patch logits of pixel logits.

    Parameters
    ----------
    logits
        ``(N, 2, H, W)``, benign before malign.
    valid
        ``(N, H, W) bool``: pixels that count; not padding, not background.
    eta
        Percent of a patch's valid pixels whose highest malign logits are averaged, in (0, 100]; at least
        one pixel is, so that toward 0 this is the maximum, and 100 is the mean.

    Returns
    -------
    Tensor
        ``(N, 2)``.

    Raises
    ------
    ModelError
        If eta is out of range, or a patch has no valid pixel.
    """
    if not 0 < eta <= 100:
        raise ModelError(f"eta is {eta:g} %", "more than 0, and at most 100 %")
    flat, counts = valid.flatten(1), valid.flatten(1).sum(dim=1)
    most = int(counts.max())
    if int(counts.min()) == 0:
        raise ModelError("a patch has no valid pixel", "tissue in every patch", "leave empty patches out")
    benign, malign = logits.flatten(2).unbind(dim=1)
    mean = torch.where(flat, benign, torch.zeros_like(benign)).sum(dim=1) / counts
    kept = (counts * (eta / 100)).ceil().clamp(min=1).to(torch.int64)
    length = min(int(kept.max()), most)
    highest = malign.masked_fill(~flat, float("-inf")).topk(length, dim=1).values
    counted = torch.arange(length, device=logits.device)[None] < kept[:, None]
    top = torch.where(counted, highest, torch.zeros_like(highest)).sum(dim=1) / kept
    return torch.stack((mean, top), dim=1)


def slide_label_losses(
    logits: Tensor, valid: Tensor, malign: Tensor, beta: tuple[float, float], eta: float
) -> Tensor:
    """Return each patch's loss, given its slide's label.

    Parameters
    ----------
    logits, valid, eta
        As in :func:`pool_logits`.
    malign
        ``(N,) int64``: 0 benign, 1 malign.
    beta
        (beta_0, beta_1); the paper's is (0, 1).

    Returns
    -------
    Tensor
        ``(N,)``.
    """
    log_q = F.log_softmax(pool_logits(logits.float(), valid, eta), dim=1)
    return l_beta(F.one_hot(malign, 2).to(log_q.dtype), log_q, beta)
