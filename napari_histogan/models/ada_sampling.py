"""Resampling for the augmentation of pictures: wavelet filters, and linear maps with cheap derivatives.

Each map here is linear in the picture and comes with its adjoint, so that its first and second derivatives
are maps of the same kind. Filters run as products with small band matrices, which is what processors do best.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor

SYM6 = (
    0.015404109327027373,
    0.0034907120842174702,
    -0.11799011114819057,
    -0.048311742585633,
    0.4910559419267466,
    0.787641141030194,
    0.3379294217276218,
    -0.07263752278646252,
    -0.021060292512300564,
    0.04472490177066578,
    0.0017677118642428036,
    -0.007800708325034148,
)
"""Low-pass taps of the symlet wavelet with six vanishing moments (Daubechies 1992, table 8.2)."""

FILTER_REACH = len(SYM6) // 4
"""Pixels of the original picture that the filter reaches beyond its border."""

LOW_PASS = (-1 / 32, 0.0, 9 / 32, 1 / 2, 9 / 32, 0.0, -1 / 32)
"""Low pass of the wavelet with two vanishing moments, correlated with itself; the high pass is 1 minus it."""

CHUNK = 512
"""Rows of a band matrix that are multiplied at once: many for speed, few to skip zeros in large pictures."""


def lowpass() -> Tensor:
    """Return the sym6 filter, (12,) float64 of sum 1."""
    taps = torch.tensor(SYM6, dtype=torch.float64)
    return taps / taps.sum()


def filter_bank() -> Tensor:
    """Return filters (4, 43) float64 that split a signal in octaves, the lowest first; they add up to it.

    The band of an octave is the high pass of that octave after the low passes of all finer ones.
    """
    low = torch.tensor(LOW_PASS, dtype=torch.float64)
    high = -low
    high[3] += 1
    bands, coarser = [], torch.ones(1, dtype=torch.float64)
    for octave in range(3):
        bands.append(_convolve(coarser, _stretch(high, 2**octave)))
        coarser = _convolve(coarser, _stretch(low, 2**octave))
    rows = [coarser, *reversed(bands)]
    width = coarser.numel()
    return torch.stack([F.pad(row, [(width - row.numel()) // 2] * 2) for row in rows])


def band_matrices(size: int) -> Tensor:
    """Return (4, size, size) float64: the filters of `filter_bank` over a signal mirrored at its ends."""
    bank = filter_bank()
    reach = bank.shape[1] // 2
    source = _mirror(torch.arange(size)[:, None] + torch.arange(-reach, reach + 1), size)
    out = torch.zeros(4, size, size, dtype=torch.float64)
    # Correlation and convolution are the same here: the filters are symmetric.
    return out.scatter_add_(2, source.expand(4, -1, -1), bank[:, None].expand(4, size, -1))


def upsample(x: Tensor, axis: int, before: int, after: int) -> Tensor:
    """Mirror pictures at their borders and enlarge them twice, along one axis.

    Parameters
    ----------
    x
        (N, C, H, W), at least 2 px along the axis.
    axis
        -1 for x, -2 for y.
    before, after
        Pixels to add at either end, each less than the size.

    Returns
    -------
    Tensor
        2 (before + size + after) px long on that axis.
    """
    size = x.shape[axis]
    whole = before + size + after
    taps = 2 * lowpass().to(x)
    # y[n] = sum over k of taps[k] * padded[(n + 5 - k) / 2], where that is a pixel.
    n = torch.arange(2 * whole, device=x.device)[:, None]
    k = 2 * torch.arange(len(SYM6) // 2, device=x.device) + (n + 5) % 2
    source = (n + 5 - k) // 2
    values = torch.where((source >= 0) & (source < whole), taps[k], 0.0)
    matrix = x.new_zeros(2 * whole, size).scatter_add_(1, _mirror(source - before, size), values)
    return _filter(x, matrix, axis)


def shrink(x: Tensor, axis: int) -> Tensor:
    """Shrink pictures twice along one axis and crop `FILTER_REACH` px at either end.

    Parameters
    ----------
    x
        (N, C, H, W), 2 (size + 6) px along the axis.
    axis
        -1 for x, -2 for y.

    Returns
    -------
    Tensor
        `size` px long on that axis.
    """
    length = x.shape[axis]
    size = length // 2 - 2 * FILTER_REACH
    taps = lowpass().to(x)
    # y[m] = sum over k of taps[k] * x[2m + k + 1].
    k = torch.arange(len(SYM6), device=x.device)
    source = 2 * torch.arange(size, device=x.device)[:, None] + k + 1
    matrix = x.new_zeros(size, length).scatter_(1, source, taps.expand(size, -1))
    return _filter(x, matrix, axis)


def sample(x: Tensor, grid: Tensor) -> Tensor:
    """Interpolate pictures linearly at points.

    Parameters
    ----------
    x
        (N, C, H, W); zero outside.
    grid
        (N, h, w, 2) as `torch.nn.functional.grid_sample` takes it; gets no gradient.
    """
    return _sample(x, grid)


class _Filter(torch.autograd.Function):
    """Multiply pictures by a band matrix along one axis; the derivative is the transposed product."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, matrix: Tensor, axis: int) -> Tensor:
        ctx.save_for_backward(matrix)
        ctx.axis = axis
        pieces = []
        for rows in torch.split(matrix, CHUNK):
            # Skip the columns that hold only zeros; for small pictures there are none.
            used = rows.any(dim=0).nonzero() if len(rows) < len(matrix) else None
            first, last = (0, rows.shape[1]) if used is None else (int(used[0]), int(used[-1]) + 1)
            part, band = x.narrow(axis, first, last - first), rows[:, first:last]
            pieces.append(part @ band.t() if axis == -1 else band @ part)
        return pieces[0] if len(pieces) == 1 else torch.cat(pieces, dim=axis)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (matrix,) = ctx.saved_tensors
        return _filter(grads[0], matrix.t().contiguous(), ctx.axis), None, None


class _Sample(torch.autograd.Function):
    """Linear interpolation; linear in the picture."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, grid: Tensor) -> Tensor:
        ctx.save_for_backward(grid)
        ctx.shape = x.shape
        return F.grid_sample(x, grid, mode="bilinear", padding_mode="zeros", align_corners=False)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (grid,) = ctx.saved_tensors
        return _spread(grads[0], grid, ctx.shape), None


class _Spread(torch.autograd.Function):
    """Adjoint of `_Sample`: add each value to the pixels that it was read from."""

    @staticmethod
    def forward(ctx: Any, grad: Tensor, grid: Tensor, shape: torch.Size) -> Tensor:
        ctx.save_for_backward(grid)
        # The picture itself matters only to the gradient of the grid, which is not asked for.
        picture = grad.new_zeros(shape)
        out = torch.ops.aten.grid_sampler_2d_backward(grad, picture, grid, 0, 0, False, [True, False])
        return cast(Tensor, out[0])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (grid,) = ctx.saved_tensors
        return _sample(grads[0], grid), None, None


_filter = cast(Callable[..., Tensor], _Filter.apply)
_sample = cast(Callable[..., Tensor], _Sample.apply)
_spread = cast(Callable[..., Tensor], _Spread.apply)


def _mirror(index: Tensor, size: int) -> Tensor:
    """Return which of `size` pixels an index beyond them shows, mirrored at the centers of the outermost."""
    index = index % (2 * (size - 1))
    return torch.where(index < size, index, 2 * (size - 1) - index)


def _stretch(taps: Tensor, step: int) -> Tensor:
    """Put step - 1 zeros between taps."""
    out = taps.new_zeros((taps.numel() - 1) * step + 1)
    out[::step] = taps
    return out


def _convolve(a: Tensor, b: Tensor) -> Tensor:
    padding = b.numel() - 1
    return F.conv1d(a[None, None], b.flip(0)[None, None], padding=padding)[0, 0]
