"""Losses that match counted classes of blocks to their labels' statistics (label super-resolution).

A block of N pixels has a label z.  The target says which share ``eta[z, l]`` of such blocks belongs to
class l on average, and how much this varies, ``rho[z, l]``.  A net gives each pixel's probabilities; from
them follow mean and variance of the share that it predicts, and the loss compares the two Gaussians.

Reference: paper 003 (label super-resolution with inter-instance loss), section 2; Malkin et al.: "Label
super-resolution networks", ICLR 2019, section 3, for the overlap.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from napari_histogan.errors import TrainingError

CountModel = Literal["intra", "inter", "intra+inter"]
Matching = Literal["overlap", "bhattacharyya", "kl"]

LEAST_SD = 1e-3
"""Standard deviation of a share that is added, squared, to every variance; keeps logarithms finite."""


class Moments(NamedTuple):
    """Mean and variance of the predicted share of each class; both ``(G, n, K)``, or ``(G, 1, K)``."""

    mean: Tensor
    variance: Tensor


def block_moments(probabilities: Tensor) -> Moments:
    """Return mean and variance of each block's share, its pixels being independent draws.

    ``mu = sum_i p(i) / N`` and ``s2 = sum_i p(i) (1 - p(i)) / N^2``.

    Parameters
    ----------
    probabilities
        ``(..., K, H, W)``, 0..1, over the classes 1.

    Returns
    -------
    Moments
        Both ``(..., K)`` float32 (or float64, if the probabilities are).
    """
    p = probabilities if probabilities.dtype == torch.float64 else probabilities.float()
    flat = p.flatten(-2)
    return Moments(flat.mean(-1), (flat * (1 - flat)).mean(-1) / flat.shape[-1])


def count_moments(probabilities: Tensor, model: CountModel) -> Moments:
    """Return what a net predicts for groups of blocks, by one of the three models.

    ``intra``: each block by itself.  ``inter``: mean and unbiased variance over the blocks of a group.
    ``intra+inter``: a block is drawn, then its count; by the law of total variance the variances add.

    Parameters
    ----------
    probabilities
        ``(G, n, K, H, W)``: G groups of n blocks of one label.
    model
        Which.

    Returns
    -------
    Moments
        ``(G, n, K)`` for ``intra``, ``(G, 1, K)`` for the others.

    Raises
    ------
    TrainingError
        If a variance over blocks is asked for and groups have fewer than two.
    """
    return group_moments(block_moments(probabilities), model)


def group_moments(blocks: Moments, model: CountModel) -> Moments:
    """Return the moments ``(..., n, K)`` or ``(..., 1, K)`` of groups, given those of their n blocks.

    Raises
    ------
    TrainingError
        As :func:`count_moments`.
    """
    mean, variance = blocks
    if model == "intra":
        return blocks
    if mean.shape[-2] < 2:
        raise TrainingError(
            f"a group has {mean.shape[-2]} block",
            f"at least 2 blocks of one label, for the variance that {model} compares",
            "set per_group to 2 or more, or the model to intra",
        )
    across = mean.var(dim=-2, keepdim=True)
    within = variance.mean(dim=-2, keepdim=True) if model == "intra+inter" else 0.0
    return Moments(mean.mean(dim=-2, keepdim=True), across + within)


def mismatch(predicted: Moments, eta: Tensor, rho: Tensor, matching: Matching) -> Tensor:
    """Compare Gaussians N(m, v) with N(eta, rho^2), class by class.

    ``overlap``: -log of the integral of the product, ``(m - eta)^2 / 2(v + rho^2) + log(2 pi (v + rho^2))
    / 2``.  It is least at v = 0, not at v = rho^2.  ``bhattacharyya`` and ``kl`` (of the prediction from
    the target) are 0 exactly where both moments agree.

    Parameters
    ----------
    predicted
        Means and variances.
    eta, rho
        Broadcast against them; shares, 0..1.

    Returns
    -------
    Tensor
        Of the shape of the moments.  Every variance has ``LEAST_SD ** 2`` added.
    """
    v, r = predicted.variance + LEAST_SD**2, rho.square() + LEAST_SD**2
    squared = (predicted.mean - eta).square()
    if matching == "overlap":
        return 0.5 * squared / (v + r) + 0.5 * (2 * math.pi * (v + r)).log()
    if matching == "bhattacharyya":
        # Logarithms apart: a product of two small variances leaves float32's range first.
        return 0.25 * squared / (v + r) + 0.5 * (((v + r) / 2).log() - 0.5 * (v.log() + r.log()))
    return 0.5 * ((r + squared) / v - 1 + v.log() - r.log())


def count_loss(
    logits: Tensor, eta: Tensor, rho: Tensor, model: CountModel = "intra+inter", matching: Matching = "kl"
) -> Tensor:
    """Return the loss of groups of blocks, a scalar: the sum over classes, the mean over all else.

    Parameters
    ----------
    logits
        ``(G, n, K, H, W)``, in any float type; computed in float32 at least.
    eta, rho
        ``(G, K)``: mean and standard deviation of the share of each class in blocks of the group's label.
    model, matching
        See :func:`count_moments` and :func:`mismatch`.

    Raises
    ------
    TrainingError
        If shapes do not fit, or groups are too small for the model.
    """
    if logits.ndim != 5 or eta.shape != (logits.shape[0], logits.shape[2]) or eta.shape != rho.shape:
        raise TrainingError(
            f"logits are {tuple(logits.shape)}, eta {tuple(eta.shape)}, and rho {tuple(rho.shape)}",
            "(G, n, K, H, W), (G, K), and (G, K)",
        )
    exact = logits if logits.dtype == torch.float64 else logits.float()
    moments = count_moments(exact.softmax(dim=2), model)
    return mismatch(moments, eta[:, None], rho[:, None], matching).sum(-1).mean()
