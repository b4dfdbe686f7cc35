"""Arithmetic of StyleGAN2 beside resampling: activations and modulated convolution.

Pure functions of tensors, differentiable at least twice.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from napari_histogan.errors import ModelError
from napari_histogan.models.convolutions import conv2d
from napari_histogan.models.resampling import (
    can_merge,
    conv2d_down2,
    conv2d_resample,
    conv2d_up2,
    downsample2d,
    filter2d,
    setup_filter,
    upfirdn2d,
    upsample2d,
)

__all__ = [
    "ACTIVATION_GAINS",
    "activate",
    "bias_act",
    "can_merge",
    "conv2d",
    "conv2d_down2",
    "conv2d_resample",
    "conv2d_up2",
    "downsample2d",
    "filter2d",
    "modulated_conv2d",
    "modulated_project",
    "scaled_bias_act",
    "setup_filter",
    "upfirdn2d",
    "upsample2d",
]

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


def activate(x: Tensor, act: str, *, overwrite: bool = False) -> Tensor:
    """Apply the bare activation `act` (a key of `ACTIVATION_GAINS`), without gain; may `overwrite` x."""
    match act:
        case "linear":
            return x
        case "relu":
            return x.relu()
        case "lrelu":
            return F.leaky_relu(x, LRELU_SLOPE, inplace=overwrite)
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
            # Canceled by the demodulation; keeps products within the range of half precision.
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
    return conv2d(x, weight.to(x.dtype), padding=weight.shape[2] // 2), scale


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
    y = y * (scale * early).to(y.dtype)[:, :, None, None] if scale is not None else y * early
    # y is ours from here on; writing in place saves as many passes over fresh memory.
    if noise is not None:
        y += (noise * early).to(y.dtype)
    y += (bias * early).to(y.dtype)[:, None, None]
    y = activate(y, act, overwrite=True)
    if total != early:
        y = y * total
    return y if clamp is None else y.clamp(-clamp, clamp)
