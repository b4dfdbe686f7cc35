"""Low-pass filters, and convolutions that resample (Karras et al. 2020, "Analyzing and Improving").

Upsampling multiplies no inserted zeros: a transposed convolution with stride 2 goes before the low-pass
filter, a convolution with stride 2 comes after it. The filter runs over whole pixels in channels-last order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from napari_histogan.models.convolutions import conv2d, low_pass, strided_conv2d, transposed_conv2d

# Resampling filters ----------------------------------------------------------------------------------------


def setup_filter(taps: Sequence[float] | None) -> Tensor:
    """Normalize filter taps to sum one.

    Parameters
    ----------
    taps
        Taps of a separable filter. None is the identity.

    Returns
    -------
    Tensor
        (t, t) float32 for fewer than 8 taps, else the separable filter itself, (t,) float32.
    """
    f = torch.tensor([1.0] if taps is None else list(taps), dtype=torch.float32)
    if f.numel() < 8:
        f = torch.outer(f, f)
    return f / f.sum()


def _pair(value: int | Sequence[int]) -> tuple[int, int]:
    if isinstance(value, int):
        return value, value
    x, y = value
    return int(x), int(y)


def _four(padding: int | Sequence[int]) -> tuple[int, int, int, int]:
    if isinstance(padding, int):
        return padding, padding, padding, padding
    if len(padding) == 2:
        return padding[0], padding[0], padding[1], padding[1]
    x0, x1, y0, y1 = padding
    return x0, x1, y0, y1


def upfirdn2d(
    x: Tensor,
    f: Tensor | None,
    *,
    up: int | Sequence[int] = 1,
    down: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    flip_filter: bool = False,
    gain: float = 1.0,
) -> Tensor:
    """Insert zeros, pad, filter, keep every n-th sample.

    Parameters
    ----------
    x
        (N, C, H, W) pictures.
    f
        (t, t) filter, or (t,) separable filter; None is the identity.
    up, down
        Factors, one number or (x, y).
    padding
        Zeros to add, negative to crop: one number, (x, y) or (x before, x after, y before, y after).
    flip_filter
        Correlate with `f` instead of convolving.
    gain
        Factor on the result.

    Returns
    -------
    Tensor
        (N, C, (H up + padding - t) // down + 1, ...) in the dtype of `x`.
    """
    (up_x, up_y), (down_x, down_y), (x0, x1, y0, y1) = _pair(up), _pair(down), _four(padding)
    n, c, h, w = x.shape
    if up_x > 1 or up_y > 1:
        x = F.pad(x.reshape(n, c, h, 1, w, 1), [0, up_x - 1, 0, 0, 0, up_y - 1])
        x = x.reshape(n, c, h * up_y, w * up_x)
    if x0 or x1 or y0 or y1:
        x = F.pad(x, [x0, x1, y0, y1])
    if f is None:
        return x[:, :, ::down_y, ::down_x] * gain
    f = f * (gain ** (f.ndim / 2))
    if not flip_filter:
        f = f.flip(list(range(f.ndim)))
    f = f.to(x.dtype)
    planes = x.reshape(n * c, 1, x.shape[2], x.shape[3])
    if f.ndim == 2:
        planes = F.conv2d(planes, f[None, None], stride=(down_y, down_x))
    else:
        planes = F.conv2d(planes, f[None, None, None, :], stride=(1, down_x))
        planes = F.conv2d(planes, f[None, None, :, None], stride=(down_y, 1))
    return planes.reshape(n, c, planes.shape[2], planes.shape[3])


def filter2d(x: Tensor, f: Tensor, *, flip_filter: bool = False, gain: float = 1.0) -> Tensor:
    """Filter pictures (N, C, H, W) and keep their size."""
    t = f.shape[-1]
    after = (t - 1) // 2
    return upfirdn2d(x, f, padding=[t // 2, after, t // 2, after], flip_filter=flip_filter, gain=gain)


def upsample2d(x: Tensor, f: Tensor, *, up: int = 2, flip_filter: bool = False, gain: float = 1.0) -> Tensor:
    """Enlarge pictures (N, C, H, W) `up` times, keeping their brightness."""
    t = f.shape[-1]
    if up == 2 and tuple(f.shape) == (4, 4):
        f = f.flip([0, 1]) if flip_filter else f
        return _upsample(x, f * (4 * gain))
    before, after = (t + up - 1) // 2, (t - up) // 2
    pads = [before, after, before, after]
    return upfirdn2d(x, f, up=up, padding=pads, flip_filter=flip_filter, gain=gain * up * up)


def downsample2d(
    x: Tensor, f: Tensor, *, down: int = 2, flip_filter: bool = False, gain: float = 1.0
) -> Tensor:
    """Shrink pictures (N, C, H, W) `down` times."""
    t = f.shape[-1]
    if down == 2 and tuple(f.shape) == (4, 4):
        f = f.flip([0, 1]) if flip_filter else f
        return _downsample(x, f * gain)
    before, after = (t - down + 1) // 2, (t - down) // 2
    pads = [before, after, before, after]
    return upfirdn2d(x, f, down=down, padding=pads, flip_filter=flip_filter, gain=gain)


def _phases_to_space(x: Tensor) -> Tensor:
    """(N, 4C, H, W) -> (N, C, 2H, 2W), phase before channel: whole pixels move, as memory likes it."""
    n, c, h, w = x.shape
    pixels = x.permute(0, 2, 3, 1).reshape(n, h, w, 2, 2, c // 4).permute(0, 1, 3, 2, 4, 5)
    return pixels.reshape(n, 2 * h, 2 * w, c // 4).permute(0, 3, 1, 2)


class _Downsample(torch.autograd.Function):
    """Filter with 4 x 4 taps and keep every second pixel; the filter gets no gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, f: Tensor) -> Tensor:
        ctx.f = f
        c = x.shape[1]
        kernel = f.flip([0, 1]).to(x.dtype).expand(c, 1, 4, 4)
        return F.conv2d(x, kernel, stride=2, padding=1, groups=c)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return _upsample(grads[0], ctx.f.flip([0, 1])), None


class _Upsample(torch.autograd.Function):
    """Insert zeros and filter with 4 x 4 taps, one 3 x 3 kernel per phase; adjoint of `_Downsample`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, f: Tensor) -> Tensor:
        ctx.f = f
        c = x.shape[1]
        # y[2q + r] = sum over taps t of x[q + t - 1] * f[r + 3 - 2t], on both axes.
        phases = (
            F.pad(f, [1, 1, 1, 1]).reshape(3, 2, 3, 2).flip([0, 2]).permute(1, 3, 0, 2).reshape(4, 1, 3, 3)
        )
        kernel = phases.to(x.dtype).repeat_interleave(c, dim=0)
        copies = x.permute(0, 2, 3, 1).repeat(1, 1, 1, 4).permute(0, 3, 1, 2)
        return _phases_to_space(F.conv2d(copies, kernel, padding=1, groups=4 * c))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return _downsample(grads[0], ctx.f.flip([0, 1])), None


_downsample = cast(Callable[..., Tensor], _Downsample.apply)
_upsample = cast(Callable[..., Tensor], _Upsample.apply)


# Resampling convolutions ------------------------------------------------------------------------------------


def can_merge(weight: Tensor, f: Tensor | None) -> bool:
    """Tell whether `conv2d_up2` and `conv2d_down2` take this kernel and filter."""
    return f is not None and tuple(f.shape) == (4, 4) and tuple(weight.shape[2:]) == (3, 3)


def conv2d_up2(x: Tensor, weight: Tensor, f: Tensor) -> Tensor:
    """Enlarge twice: transposed convolution with stride 2, then the low-pass filter with gain 4.

    Parameters
    ----------
    x
        (N, I, H, W).
    weight
        (O, I, 3, 3) float32; used as a transposed convolution uses it, that is unflipped.
    f
        (4, 4) filter of sum 1.

    Returns
    -------
    Tensor
        (N, O, 2H, 2W) in the dtype of `x`.
    """
    y = transposed_conv2d(x, weight.to(x.dtype).transpose(0, 1))
    return low_pass(y, f.flip([0, 1]) * 4, 1)


def conv2d_down2(x: Tensor, weight: Tensor, f: Tensor, bias: Tensor | None = None) -> Tensor:
    """Shrink twice: low-pass filter, then convolution with stride 2.

    Parameters
    ----------
    x
        (N, I, 2H, 2W).
    weight
        (O, I, 3, 3) float32.
    f
        (4, 4) filter of sum 1.
    bias
        (O,) with the dtype of `x`.

    Returns
    -------
    Tensor
        (N, O, H, W) in the dtype of `x`.
    """
    return strided_conv2d(low_pass(x, f.flip([0, 1]), 2), weight.to(x.dtype), bias)


def conv2d_resample(
    x: Tensor,
    weight: Tensor,
    f: Tensor | None = None,
    *,
    up: int = 1,
    down: int = 1,
    padding: int = 0,
    groups: int = 1,
    flip_weight: bool = True,
) -> Tensor:
    """Convolve, and resample by `up` or `down` around the convolution.

    Parameters
    ----------
    x
        (N, I, H, W).
    weight
        (O, I / groups, k, k).
    f
        Low-pass filter from `setup_filter`.
    up, down
        Factors; at most one of them is above 1.
    padding
        Zeros on each side with respect to the picture at its higher resolution.
    groups
        Groups of channels.
    flip_weight
        True is torch's cross-correlation, False a true convolution.
    """
    if groups == 1 and padding == weight.shape[2] // 2 and {up, down} <= {1, 2} and up * down <= 2:
        if up == down:
            return conv2d(x, weight if flip_weight else weight.flip([2, 3]), padding=padding)
        if f is not None and weight.shape[2] == 1:
            if up == 2:
                return upsample2d(conv2d(x, weight), f)
            return conv2d(downsample2d(x, f), weight)
        if f is not None and can_merge(weight, f):
            if up == 2:
                return conv2d_up2(x, weight.flip([2, 3]) if flip_weight else weight, f)
            return conv2d_down2(x, weight if flip_weight else weight.flip([2, 3]), f)
    kernel = weight if flip_weight else weight.flip([2, 3])
    t = 1 if f is None else f.shape[-1]
    if up > 1:
        pads = [padding + (t + up - 1) // 2, padding + (t - up) // 2] * 2
        return F.conv2d(upfirdn2d(x, f, up=up, padding=pads, gain=up * up), kernel, groups=groups)
    if down > 1:
        pads = [padding + (t - down + 1) // 2, padding + (t - down) // 2] * 2
        return F.conv2d(upfirdn2d(x, f, padding=pads), kernel, stride=down, groups=groups)
    return F.conv2d(x, kernel, padding=padding, groups=groups)
