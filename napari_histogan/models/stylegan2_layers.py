"""Layers shared by the StyleGAN2 generator and discriminator, with equalized learning rate."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from napari_histogan.errors import ModelError
from napari_histogan.models.stylegan2_ops import (
    ACTIVATION_GAINS,
    activate,
    bias_act,
    can_merge,
    conv2d,
    conv2d_down2,
    conv2d_resample,
    setup_filter,
)


def normalize_second_moment(x: Tensor) -> Tensor:
    """Scale each row of x (N, features) to a mean square of one."""
    return x * (x.square().mean(dim=1, keepdim=True) + 1e-8).rsqrt()


class Dense(nn.Module):
    """Fully connected layer; stored weights have variance 1 / lr_multiplier^2, scaled at run time.

    Parameters
    ----------
    in_features, out_features
        Sizes.
    activation
        A key of `ACTIVATION_GAINS`.
    lr_multiplier
        Factor that slows learning down (0.01 in mapping networks).
    bias_init
        Value of every bias at the start.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        activation: str = "linear",
        lr_multiplier: float = 1.0,
        bias_init: float = 0.0,
    ) -> None:
        super().__init__()
        self.activation = activation
        self.weight = nn.Parameter(torch.randn(out_features, in_features) / lr_multiplier)
        self.bias = nn.Parameter(torch.full((out_features,), bias_init))
        self.weight_gain = lr_multiplier / math.sqrt(in_features)
        self.bias_gain = lr_multiplier

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in) to (N, out), in the dtype of `x`."""
        weight = (self.weight * self.weight_gain).to(x.dtype)
        bias = self.bias if self.bias_gain == 1 else self.bias * self.bias_gain
        if self.activation == "linear":
            return F.linear(x, weight, bias.to(x.dtype))
        return bias_act(F.linear(x, weight), bias, act=self.activation)


class PlainConv(nn.Module):
    """Convolution with equalized learning rate, optional resampling, bias and activation.

    Parameters
    ----------
    in_channels, out_channels, kernel_size
        Shape of the kernel.
    bias
        Whether there is a bias.
    activation
        A key of `ACTIVATION_GAINS`.
    up, down
        Resampling factor, 1 or 2.
    taps
        Low-pass filter of the resampling.
    conv_clamp
        Bound on the absolute output, None for none.
    """

    resample_filter: Tensor

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        bias: bool = True,
        activation: str = "linear",
        up: int = 1,
        down: int = 1,
        taps: tuple[float, ...] = (1, 3, 3, 1),
        conv_clamp: float | None = None,
    ) -> None:
        super().__init__()
        self.activation, self.up, self.down, self.conv_clamp = activation, up, down, conv_clamp
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, kernel_size, kernel_size))
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None
        self.register_buffer("resample_filter", setup_filter(taps))
        self.weight_gain = 1 / math.sqrt(in_channels * kernel_size**2)

    def forward(self, x: Tensor, gain: float = 1.0) -> Tensor:
        """Map (N, in, H, W) to (N, out, H up / down, W up / down); `gain` also scales the clamp."""
        total = ACTIVATION_GAINS[self.activation] * gain
        clamp = None if self.conv_clamp is None else self.conv_clamp * gain
        # These activations commute with a positive factor, which is cheapest on the weight.
        early = total if self.activation in ("linear", "relu", "lrelu") else 1.0
        weight = self.weight * (self.weight_gain * early)
        bias = None if self.bias is None else (self.bias * early).to(x.dtype)
        padding = weight.shape[2] // 2
        if self.up == self.down:
            y = conv2d(x, weight.to(x.dtype), bias, padding=padding)
        elif self.down == 2 and can_merge(weight, self.resample_filter):
            y = conv2d_down2(x, weight, self.resample_filter, bias)
        else:
            y = conv2d_resample(
                x,
                weight if can_merge(weight, self.resample_filter) else weight.to(x.dtype),
                self.resample_filter,
                up=self.up,
                down=self.down,
                padding=padding,
                flip_weight=self.up == 1,
            )
            y = y if bias is None else y + bias[:, None, None]
        y = activate(y, self.activation, overwrite=True)
        if total != early:
            y = y * total
        return y if clamp is None else y.clamp(-clamp, clamp)


class MappingNetwork(nn.Module):
    """Turn latents and labels into styles: normalized inputs through a few slow dense layers.

    Parameters
    ----------
    z_dim
        Latent features; 0 in discriminators, which map the label alone.
    c_dim
        Label features, 0 without labels.
    w_dim
        Features of the result.
    num_layers
        Dense layers.
    lr_multiplier
        Factor on their learning rate.
    embed_features, layer_features
        Sizes of the label embedding and of the hidden layers; None is `w_dim`.
    w_avg_beta
        Decay of the running mean of w; None keeps no mean.
    activation
        Activation of the dense layers.
    """

    w_avg: Tensor

    def __init__(
        self,
        z_dim: int,
        c_dim: int,
        w_dim: int,
        *,
        num_layers: int = 8,
        lr_multiplier: float = 0.01,
        embed_features: int | None = None,
        layer_features: int | None = None,
        w_avg_beta: float | None = None,
        activation: str = "lrelu",
    ) -> None:
        super().__init__()
        self.z_dim, self.c_dim, self.num_layers, self.w_avg_beta = z_dim, c_dim, num_layers, w_avg_beta
        embedded = (embed_features or w_dim) if c_dim else 0
        if w_avg_beta is not None:
            self.register_buffer("w_avg", torch.zeros(w_dim))
        if c_dim:
            self.embed = Dense(c_dim, embedded)
        sizes = [z_dim + embedded] + [layer_features or w_dim] * (num_layers - 1) + [w_dim]
        for i in range(num_layers):
            layer = Dense(sizes[i], sizes[i + 1], activation=activation, lr_multiplier=lr_multiplier)
            setattr(self, f"fc{i}", layer)

    def map(self, z: Tensor | None, c: Tensor | None) -> Tensor:
        """Map z (N, z_dim) and labels c (N, c_dim) to w (N, w_dim), float32.

        Raises
        ------
        ModelError
            If a needed input is missing or has the wrong width.
        """
        parts: list[Tensor] = []
        for name, value, size in (("z", z, self.z_dim), ("c", c, self.c_dim)):
            if not size:
                continue
            if value is None or value.ndim != 2 or value.shape[1] != size:
                found = "nothing" if value is None else str(tuple(value.shape))
                raise ModelError(f"the mapping network got {name} of shape {found}", f"(N, {size})")
            value = value.to(torch.float32)
            parts.append(normalize_second_moment(value if name == "z" else self.embed(value)))
        x = torch.cat(parts, dim=1)
        for i in range(self.num_layers):
            x = getattr(self, f"fc{i}")(x)
        return x

    def track_mean(self, w: Tensor) -> None:
        """Move the running mean toward the mean of w (N, w_dim)."""
        if self.w_avg_beta is not None:
            self.w_avg.copy_(w.detach().mean(dim=0).lerp(self.w_avg, self.w_avg_beta))
