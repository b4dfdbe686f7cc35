"""The StyleGAN2 discriminator, compatible with the weights of the official PyTorch code."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from napari_histogan.errors import ModelError
from napari_histogan.models.stylegan2_layers import Dense, MappingNetwork, PlainConv
from napari_histogan.models.stylegan2_ops import downsample2d, setup_filter
from napari_histogan.models.stylegan2_spec import DiscriminatorSpec, block_resolutions

__all__ = ["Discriminator", "DiscriminatorSpec", "minibatch_std"]


def minibatch_std(x: Tensor, group_size: int | None, num_channels: int = 1) -> Tensor:
    """Append how much the samples of a group differ, as constant feature maps.

    Karras et al. 2018, "Progressive Growing of GANs", section 3; group j holds samples j, j + n, j + 2n, ...

    Parameters
    ----------
    x
        (N, C, H, W).
    group_size
        Samples in a group, at most N; None is N.
    num_channels
        Maps to append; C is split in as many parts.

    Returns
    -------
    Tensor
        (N, C + num_channels, H, W).

    Raises
    ------
    ModelError
        If the batch is no multiple of the group size.
    """
    n, c, h, w = x.shape
    group = n if group_size is None else min(group_size, n)
    if n % group:
        raise ModelError(f"the batch has {n} samples", f"a multiple of the group size {group}")
    y = x.reshape(group, n // group, num_channels, c // num_channels, h, w)
    std = (y.var(dim=0, unbiased=False) + 1e-8).sqrt().mean(dim=[2, 3, 4])
    maps = std.repeat(group, 1)[:, :, None, None].expand(n, num_channels, h, w)
    return torch.cat([x, maps], dim=1)


class DiscriminatorBlock(nn.Module):
    """Two convolutions that halve the resolution."""

    resample_filter: Tensor

    def __init__(self, spec: DiscriminatorSpec, resolution: int) -> None:
        super().__init__()
        self.architecture = spec.architecture
        channels, deeper = spec.channels(resolution), spec.channels(resolution // 2)
        act, taps, clamp = spec.activation, spec.taps, spec.conv_clamp
        self.register_buffer("resample_filter", setup_filter(taps))
        self.has_rgb = resolution == spec.img_resolution or spec.architecture == "skip"
        if self.has_rgb:
            self.fromrgb = PlainConv(
                spec.img_channels, channels, 1, activation=act, taps=taps, conv_clamp=clamp
            )
        self.conv0 = PlainConv(channels, channels, 3, activation=act, taps=taps, conv_clamp=clamp)
        self.conv1 = PlainConv(channels, deeper, 3, activation=act, down=2, taps=taps, conv_clamp=clamp)
        if spec.architecture == "resnet":
            self.skip = PlainConv(channels, deeper, 1, bias=False, down=2, taps=taps)

    def forward(
        self, x: Tensor | None, img: Tensor | None, dtype: torch.dtype
    ) -> tuple[Tensor, Tensor | None]:
        """Map features (N, C, r, r) and the picture at r px to both at r / 2 px."""
        if x is not None:
            x = x.to(dtype=dtype, memory_format=torch.channels_last)
        if self.has_rgb:
            if img is None:
                raise ModelError("a block that reads the picture got none")
            y = self.fromrgb(img.to(dtype=dtype, memory_format=torch.channels_last))
            x = y if x is None else x + y
            img = downsample2d(img, self.resample_filter) if self.architecture == "skip" else None
        if self.architecture != "resnet":
            return self.conv1(self.conv0(x)), img
        half = math.sqrt(0.5)
        return self.skip(x, half) + self.conv1(self.conv0(x), half), img


class DiscriminatorEpilogue(nn.Module):
    """Minibatch spread, a convolution and two dense layers at 4 px, in float32 (or float64) always."""

    def __init__(self, spec: DiscriminatorSpec, out_features: int) -> None:
        super().__init__()
        self.group_size, self.num_channels = spec.mbstd_group_size, spec.mbstd_num_channels
        channels, act, taps = spec.channels(4), spec.activation, spec.taps
        self.has_rgb = spec.architecture == "skip"
        if self.has_rgb:
            self.fromrgb = PlainConv(spec.img_channels, channels, 1, activation=act, taps=taps)
        self.conv = PlainConv(
            channels + self.num_channels, channels, 3, activation=act, taps=taps, conv_clamp=spec.conv_clamp
        )
        self.fc = Dense(channels * 16, channels, activation=act)
        self.out = Dense(channels, out_features)

    def forward(self, x: Tensor, img: Tensor | None) -> Tensor:
        """Map (N, C, 4, 4), and the 4 px picture for `skip`, to (N, out_features)."""
        x = x.to(torch.promote_types(x.dtype, torch.float32))
        if self.has_rgb:
            if img is None:
                raise ModelError("the last block reads the picture but got none")
            x = x + self.fromrgb(img.to(x.dtype))
        if self.num_channels:
            x = minibatch_std(x, self.group_size, self.num_channels)
        logits: Tensor = self.out(self.fc(self.conv(x).flatten(1)))
        return logits


class Discriminator(nn.Module):
    """StyleGAN2 discriminator: one logit per picture, high for real ones."""

    def __init__(self, spec: DiscriminatorSpec) -> None:
        super().__init__()
        self.spec = spec
        self.resolutions = block_resolutions(spec.img_resolution)[:0:-1]
        for resolution in self.resolutions:
            setattr(self, f"b{resolution}", DiscriminatorBlock(spec, resolution))
        self.cmap_dim = (spec.cmap_dim or spec.channels(4)) if spec.c_dim else 0
        if spec.c_dim:
            self.mapping = MappingNetwork(0, spec.c_dim, self.cmap_dim, num_layers=spec.mapping_layers)
        self.b4 = DiscriminatorEpilogue(spec, self.cmap_dim or 1)

    def forward(self, img: Tensor, c: Tensor | None = None, dtype: torch.dtype | None = None) -> Tensor:
        """Judge pictures.

        Parameters
        ----------
        img
            (N, channels, R, R) float32, within [-1, 1].
        c
            (N, c_dim) labels, only for conditional networks.
        dtype
            What to compute the convolutions above 4 px in; None is float32, but float16 in the
            `num_fp16_res` largest resolutions on a GPU.

        Returns
        -------
        Tensor
            (N, 1) float32 logits.
        """
        x: Tensor | None = None
        rgb: Tensor | None = img
        for resolution in self.resolutions:
            plan = self._dtype(resolution, img.device) if dtype is None else dtype
            x, rgb = getattr(self, f"b{resolution}")(x, rgb, plan)
        logits: Tensor = self.b4(x, rgb)
        if self.spec.c_dim:
            label = self.mapping.map(None, c)
            logits = (logits * label).sum(dim=1, keepdim=True) / math.sqrt(self.cmap_dim)
        return logits

    def _dtype(self, resolution: int, device: torch.device) -> torch.dtype:
        smallest = max(2 * self.spec.img_resolution >> self.spec.num_fp16_res, 8)
        half = self.spec.num_fp16_res > 0 and resolution >= smallest and device.type == "cuda"
        return torch.float16 if half else torch.float32
