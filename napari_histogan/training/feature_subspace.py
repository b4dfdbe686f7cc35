"""The leading directions of painted pixels' features: a small space in which a classifier trains quickly.

Hypercolumns of thousands of channels lie close to a space of a few hundred directions, for neighboring maps
tell much the same.  A net whose first layer reads x V instead of x costs C / D times less to train, and with
orthonormal V it *is* a net on x: its first layer is V W.  So nothing but training knows of the directions.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from napari_histogan.models.pixel_classifier import PixelClassifier

ROWS = 4096
"""Pixels that the directions are found from."""
_CHUNK = 4096
_SPARE = 32


def leading_directions(
    x: Tensor, count: int, prepare: Callable[[Tensor], Tensor] | None = None, seed: int = 0
) -> Tensor:
    """Find directions that hold most of the second moment of the features.

    Randomized range finder with one power iteration (Halko, Martinsson, Tropp 2011, algorithm 4.4).

    Parameters
    ----------
    x
        (P, C) features of any number type; at most ``ROWS`` of them are looked at.
    count
        Directions D wanted.
    prepare
        Brings rows to the scale that the classifier reads, float32.
    seed
        Of the choice of rows and of the random start.

    Returns
    -------
    Tensor
        (C, min(D, C, P)) float32 with orthonormal columns, the most telling first.
    """
    g = torch.Generator().manual_seed(seed)
    rows = torch.randperm(len(x), generator=g)[:ROWS].sort().values.to(x.device)
    a = x[rows].float()
    a = a if prepare is None else prepare(a)
    count = min(count, *a.shape)
    width = min(count + _SPARE, *a.shape)
    start = torch.randn(len(a), width, generator=g).to(a)
    q = torch.linalg.qr(a.t() @ start).Q
    q = torch.linalg.qr(a.t() @ (a @ q)).Q
    # Within the found space the best directions follow from a small symmetric matrix.
    inside = a @ q
    vectors = torch.linalg.eigh((inside.t() @ inside).double()).eigenvectors.float()
    basis: Tensor = q @ vectors.flip(1)[:, :count]
    return basis.contiguous()


def project_rows(x: Tensor, basis: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Return ``((x - mean) / std) @ basis``, (P, D) float32, from products in the number type of ``x``.

    Piece by piece and with the scale folded into the basis, so that no second (P, C) is held or written.
    """
    scaled = (basis / std[:, None]).to(x.dtype)
    shift = mean @ scaled.float()
    out = torch.empty(len(x), basis.shape[1], device=x.device)
    for first in range(0, len(x), _CHUNK):
        out[first : first + _CHUNK] = (x[first : first + _CHUNK] @ scaled).float() - shift
    return out


def common_scale(std: Tensor) -> Tensor:
    """Return one deviation for all channels: the root of their mean variance.

    A deviation of each channel's own would blow up channels that hardly vary, in which a net finds what sets
    the painted images apart rather than the classes; see ``docs/experiments.md``.

    Parameters
    ----------
    std
        (C,) deviations of the channels.

    Returns
    -------
    Tensor
        (C,), all the same.
    """
    return std.square().mean().sqrt().expand(len(std))


@torch.no_grad()
def share_directions(net: PixelClassifier, x: Tensor, count: int, seed: int = 0) -> None:
    """Bring the first layers of all members down to a few directions that they share.

    Of all layers of rank ``count`` the ones whose answers to these features are closest to the old, by least
    squares: the old answers' principal components, with the old mean.

    Parameters
    ----------
    net
        Its first weights (M, D, H) and biases are changed, if ``count`` is less than D and M H.
    x
        (P, D) what the nets read; at most ``ROWS`` of them are looked at.
    count
        Directions wanted.
    seed
        Of the choice of rows.
    """
    members, inputs, width = net.weights[0].shape
    if count >= min(inputs, members * width):
        return
    rows = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))[:ROWS].sort().values
    flat = net.weights[0].permute(1, 0, 2).reshape(inputs, -1)
    answers = (x[rows.to(x.device)].float() @ flat).double()
    mean = answers.mean(dim=0)
    vectors = torch.linalg.eigh((answers - mean).t() @ (answers - mean)).eigenvectors[:, -count:].float()
    lost = mean.float() - (mean.float() @ vectors) @ vectors.t()
    shared = ((flat @ vectors) @ vectors.t()).view(inputs, members, width).permute(1, 0, 2)
    net.weights[0] = nn.Parameter(shared.contiguous())
    net.biases[0] = nn.Parameter(net.biases[0] + lost.view(members, width))
