"""Arithmetic of StyleGAN2: resampling filters, activations, convolutions that resample, modulated convolution.

Everything here is a pure function of tensors and differentiable at least twice: R1 and path length
regularization (Karras et al. 2020, "Analyzing and Improving the Image Quality of StyleGAN", sections 3.2 and
B) take the gradient of a gradient.

Two ideas make it fast on processors without a GPU.

* `conv2d` is its own autograd function. Its backward pass consists of convolutions again, so that the second
  derivative costs as much as the first; the second derivative of torch's convolution is ten times slower.
* Upsampling (or downsampling) by two, the low-pass filter and the convolution are linear, so `conv2d_up2` and
  `conv2d_down2` merge filter and weight into one 6 x 6 kernel and evaluate it at the lower resolution, one
  3 x 3 kernel per phase. No filtered picture of full size and full channel count is ever written.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from napari_histogan.errors import ModelError

ACTIVATION_GAINS: dict[str, float] = {
    "linear": 1.0,
    "relu": math.sqrt(2),
    "lrelu": math.sqrt(2),
    "tanh": 1.0,
    "sigmoid": 1.0,
    "elu": 1.0,
    "selu": 1.0,
    "softplus": 1.0,
    "swish": math.sqrt(2),
}
LRELU_SLOPE = 0.2


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
    before, after = (t + up - 1) // 2, (t - up) // 2
    pads = [before, after, before, after]
    return upfirdn2d(x, f, up=up, padding=pads, flip_filter=flip_filter, gain=gain * up * up)


def downsample2d(
    x: Tensor, f: Tensor, *, down: int = 2, flip_filter: bool = False, gain: float = 1.0
) -> Tensor:
    """Shrink pictures (N, C, H, W) `down` times."""
    t = f.shape[-1]
    before, after = (t - down + 1) // 2, (t - down) // 2
    pads = [before, after, before, after]
    return upfirdn2d(x, f, down=down, padding=pads, flip_filter=flip_filter, gain=gain)


# Bias and activation ---------------------------------------------------------------------------------------


def bias_act(
    x: Tensor,
    b: Tensor | None = None,
    *,
    act: str = "linear",
    gain: float | None = None,
    clamp: float | None = None,
    dim: int = 1,
) -> Tensor:
    """Compute clamp(gain * act(x + b), -clamp, clamp).

    Parameters
    ----------
    x
        (N, C, ...) input.
    b
        (C,) bias along axis `dim`.
    act
        A key of `ACTIVATION_GAINS`.
    gain
        Factor after the activation; None is the activation's own gain, which keeps the variance.
    clamp
        Bound on the absolute value, None for none.
    """
    gain = ACTIVATION_GAINS[act] if gain is None else gain
    if act in ("linear", "relu", "lrelu") and gain > 0 and b is not None:
        # These commute with a positive gain, so the gain goes into the (small) bias where that saves a pass.
        b = b * gain
        x = torch.add(b.to(x.dtype).view([-1 if i == dim else 1 for i in range(x.ndim)]), x, alpha=gain)
        gain = 1.0
    elif b is not None:
        x = x + b.to(x.dtype).view([-1 if i == dim else 1 for i in range(x.ndim)])
    x = activate(x, act)
    if gain != 1:
        x = x * gain
    return x if clamp is None else x.clamp(-clamp, clamp)


def activate(x: Tensor, act: str) -> Tensor:
    """Apply the bare activation `act` (a key of `ACTIVATION_GAINS`), without gain."""
    match act:
        case "linear":
            return x
        case "relu":
            return x.relu()
        case "lrelu":
            return F.leaky_relu(x, LRELU_SLOPE)
        case "tanh":
            return x.tanh()
        case "sigmoid":
            return x.sigmoid()
        case "elu":
            return F.elu(x)
        case "selu":
            return F.selu(x)
        case "softplus":
            return F.softplus(x)
        case "swish":
            return x * x.sigmoid()
    raise ModelError(f"the activation is {act!r}", f"one of {', '.join(ACTIVATION_GAINS)}")


# Convolution that stays cheap when differentiated twice -----------------------------------------------------


class _Conv(torch.autograd.Function):
    """Stride 1 convolution whose gradients are convolutions by `conv2d` and `_ConvWeightGrad`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, padding: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.padding = padding
        return F.conv2d(x, weight, padding=padding)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        (grad,) = grads
        x, weight = ctx.saved_tensors
        grad_x = grad_weight = None
        if ctx.needs_input_grad[0]:
            grad_x = _conv_input_grad(grad, weight, ctx.padding)
        if ctx.needs_input_grad[1]:
            grad_weight = cast(Tensor, _ConvWeightGrad.apply(grad, x, weight.shape[2], ctx.padding))
        return grad_x, grad_weight, None


class _ConvWeightGrad(torch.autograd.Function):
    """Gradient of a convolution with respect to its weight, itself bilinear in (grad, x)."""

    @staticmethod
    def forward(ctx: Any, grad: Tensor, x: Tensor, kernel: int, padding: int) -> Tensor:
        ctx.save_for_backward(grad, x)
        ctx.padding = padding
        weight = x.new_empty((grad.shape[1], x.shape[1], kernel, kernel))
        layout = torch.channels_last if x.is_contiguous(memory_format=torch.channels_last) else None
        if layout is not None:
            weight = weight.contiguous(memory_format=layout)
            grad = grad.contiguous(memory_format=layout)
        p = [padding, padding]
        out = torch.ops.aten.convolution_backward(
            grad, x, weight, None, [1, 1], p, [1, 1], False, [0, 0], 1, [False, True, False]
        )
        return cast(Tensor, out[1])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        (grad_weight,) = grads
        grad, x = ctx.saved_tensors
        to_grad = to_x = None
        if ctx.needs_input_grad[0]:
            to_grad = conv2d(x, grad_weight, ctx.padding)
        if ctx.needs_input_grad[1]:
            to_x = _conv_input_grad(grad, grad_weight, ctx.padding)
        return to_grad, to_x, None, None


def _conv_input_grad(grad: Tensor, weight: Tensor, padding: int) -> Tensor:
    """Return the adjoint of `conv2d` in its input: the convolution with the flipped, transposed kernel."""
    return conv2d(grad, weight.flip([2, 3]).transpose(0, 1), weight.shape[2] - 1 - padding)


def conv2d(x: Tensor, weight: Tensor, padding: int = 0) -> Tensor:
    """Cross-correlate with stride 1, fast in the first and in higher derivatives.

    Parameters
    ----------
    x
        (N, I, H, W), best in channels-last order.
    weight
        (O, I, k, k) with the dtype of `x`.
    padding
        Zeros on every side, at most k - 1.
    """
    return cast(Tensor, _Conv.apply(x, weight, padding))


# Resampling convolutions ------------------------------------------------------------------------------------


def _merge_filter(weight: Tensor, f: Tensor) -> Tensor:
    """Convolve each k x k kernel (k = 1 or 3) with the 4 x 4 filter; (O, I, 6, 6), 1 x 1 kernels centered."""
    o, i, k, _ = weight.shape
    flipped = f.flip([0, 1])[None, None].to(weight.dtype)
    merged = F.conv2d(weight.reshape(o * i, 1, k, k), flipped, padding=3 if k == 3 else 4)
    return merged.reshape(o, i, 6, 6)


def can_merge(weight: Tensor, f: Tensor | None) -> bool:
    """Tell whether `conv2d_up2` and `conv2d_down2` take this kernel and filter."""
    return f is not None and tuple(f.shape) == (4, 4) and tuple(weight.shape[2:]) in ((1, 1), (3, 3))


def conv2d_up2(x: Tensor, weight: Tensor, f: Tensor) -> Tensor:
    """Enlarge twice: transposed convolution with stride 2, then the low-pass filter with gain 4.

    Parameters
    ----------
    x
        (N, I, H, W).
    weight
        (O, I, k, k), k = 1 or 3, float32; used as a transposed convolution uses it, that is unflipped.
    f
        (4, 4) filter of sum 1.

    Returns
    -------
    Tensor
        (N, O, 2H, 2W) in the dtype of `x`.
    """
    o, i = weight.shape[:2]
    # y[2q + r] = sum over taps t of x[q + t - 1] * kernel[r + 4 - 2t], on both axes.
    phases = _merge_filter(weight * 4, f).reshape(o, i, 3, 2, 3, 2).flip([2, 4])
    phases = phases.permute(0, 3, 5, 1, 2, 4).reshape(o * 4, i, 3, 3)
    return F.pixel_shuffle(conv2d(x, phases.to(x.dtype), 1), 2)


def conv2d_down2(x: Tensor, weight: Tensor, f: Tensor) -> Tensor:
    """Shrink twice: low-pass filter, then convolution with stride 2.

    Parameters
    ----------
    x
        (N, I, 2H, 2W).
    weight
        (O, I, k, k), k = 1 or 3, float32.
    f
        (4, 4) filter of sum 1.

    Returns
    -------
    Tensor
        (N, O, H, W) in the dtype of `x`.
    """
    o, i = weight.shape[:2]
    # y[q] = sum over taps e of x[2q + e - 2] * kernel[e]; e = 2t + r picks phase r of x.
    phases = _merge_filter(weight, f.flip([0, 1])).reshape(o, i, 3, 2, 3, 2)
    phases = phases.permute(0, 1, 3, 5, 2, 4).reshape(o, i * 4, 3, 3)
    return conv2d(F.pixel_unshuffle(x, 2), phases.to(x.dtype), 1)


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
            return conv2d(x, weight if flip_weight else weight.flip([2, 3]), padding)
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


def modulated_conv2d(
    x: Tensor,
    weight: Tensor,
    styles: Tensor,
    *,
    f: Tensor | None = None,
    up: int = 1,
    demodulate: bool = True,
) -> tuple[Tensor, Tensor | None]:
    """Convolve with a weight scaled per sample and input channel, the scale of the output divided out later.

    Equations 1 and 3 of Karras et al. 2020, evaluated as *scale the input, convolve with the shared weight,
    scale the output*, so that one convolution serves the batch.

    Parameters
    ----------
    x
        (N, I, H, W).
    weight
        (O, I, k, k) float32.
    styles
        (N, I) float32.
    f
        Low-pass filter, needed for `up` = 2.
    up
        1 or 2.
    demodulate
        Whether to compute the factor that brings the output back to unit variance.

    Returns
    -------
    tuple[Tensor, Tensor | None]
        The convolution (N, O, H up, W up), and the factor (N, O) float32 still to be multiplied, which the
        caller merges with what else it does to the output; None without demodulation.
    """
    scale = None
    if demodulate:
        if x.dtype == torch.float16:
            # Cancelled by the demodulation; keeps products within the range of half precision.
            fan_in = weight[0].numel()
            weight = weight / (weight.abs().amax(dim=[1, 2, 3], keepdim=True) * math.sqrt(fan_in))
            styles = styles / styles.abs().amax(dim=1, keepdim=True)
        scale = ((styles.square() @ weight.square().sum(dim=[2, 3]).t()) + 1e-8).rsqrt()
    x = x * styles.to(x.dtype)[:, :, None, None]
    if up == 2:
        if f is None:
            raise ModelError("a modulated convolution with up=2 got no low-pass filter")
        if can_merge(weight, f):
            return conv2d_up2(x, weight, f), scale
        padding = weight.shape[2] // 2
        return conv2d_resample(x, weight.to(x.dtype), f, up=2, padding=padding, flip_weight=False), scale
    return conv2d(x, weight.to(x.dtype), weight.shape[2] // 2), scale


def modulated_project(x: Tensor, weight: Tensor, styles: Tensor) -> Tensor:
    """Mix channels with a weight scaled per sample: a modulated 1 x 1 convolution without demodulation.

    Parameters
    ----------
    x
        (N, I, H, W), channels-last.
    weight
        (O, I) float32.
    styles
        (N, I) float32.

    Returns
    -------
    Tensor
        (N, O, H, W) float32.
    """
    n, i, h, w = x.shape
    kernels = (weight.t()[None] * styles[:, :, None]).to(x.dtype)
    mixed = torch.bmm(x.permute(0, 2, 3, 1).reshape(n, h * w, i), kernels)
    return mixed.to(torch.float32).transpose(1, 2).reshape(n, weight.shape[0], h, w)


def scaled_bias_act(
    y: Tensor,
    scale: Tensor | None,
    noise: Tensor | None,
    bias: Tensor,
    *,
    act: str,
    gain: float = 1.0,
    clamp: float | None = None,
) -> Tensor:
    """Compute clamp(gain * default_gain * act(y * scale + noise + bias)).

    Parameters
    ----------
    y
        (N, C, H, W) output of `modulated_conv2d`.
    scale
        (N, C) demodulation factor.
    noise
        (N or 1, 1, H, W), already multiplied by its strength.
    bias
        (C,).
    act
        A key of `ACTIVATION_GAINS`.
    gain
        Factor on the activation's own gain.
    clamp
        Bound on the absolute value, None for none.
    """
    total = ACTIVATION_GAINS[act] * gain
    # These activations commute with a positive factor, which is cheapest on the small tensors.
    early = total if act in ("linear", "relu", "lrelu") else 1.0
    if scale is not None:
        y = y * (scale * early).to(y.dtype)[:, :, None, None]
    if noise is not None:
        y = y + (noise * early).to(y.dtype)
    y = activate(y + (bias * early).to(y.dtype)[:, None, None], act)
    if total != early:
        y = y * total
    return y if clamp is None else y.clamp(-clamp, clamp)
