"""The StyleGAN2 generator (Karras et al. 2020), compatible with the weights of the official PyTorch code."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from napari_histogan.errors import ModelError
from napari_histogan.models.stylegan2_layers import Dense, MappingNetwork, PlainConv
from napari_histogan.models.stylegan2_ops import (
    modulated_conv2d,
    modulated_project,
    scaled_bias_act,
    setup_filter,
    upsample2d,
)
from napari_histogan.models.stylegan2_spec import GeneratorSpec, block_resolutions

__all__ = ["FeatureMap", "Generator", "GeneratorSpec", "NoiseMode"]

NoiseMode = Literal["const", "random", "none"]
Noise = Tensor | NoiseMode


class FeatureMap(NamedTuple):
    """Output of one convolution layer, after its activation.

    Attributes
    ----------
    name
        For example "b8.conv0".
    block_resolution
        Height and width in pixels.
    tensor
        (N, C, r, r), in the dtype that the block was computed in.
    """

    name: str
    block_resolution: int
    tensor: Tensor


class GeneratorMapping(MappingNetwork):
    """Mapping network that repeats w for every layer, truncates, and tracks the mean of w."""

    def __init__(self, spec: GeneratorSpec) -> None:
        super().__init__(
            spec.z_dim,
            spec.c_dim,
            spec.w_dim,
            num_layers=spec.mapping_layers,
            lr_multiplier=spec.mapping_lr_multiplier,
            embed_features=spec.embed_features,
            layer_features=spec.layer_features,
            w_avg_beta=spec.w_avg_beta,
        )
        self.num_ws = spec.num_ws

    def forward(
        self,
        z: Tensor | None,
        c: Tensor | None = None,
        truncation_psi: float = 1.0,
        truncation_cutoff: int | None = None,
        *,
        track_mean: bool = True,
    ) -> Tensor:
        """Map latents to styles.

        Parameters
        ----------
        z
            (N, z_dim), normally distributed.
        c
            (N, c_dim) labels, only for conditional generators.
        truncation_psi
            1 leaves w alone, 0 gives the mean picture.
        truncation_cutoff
            Truncate the first so many layers only; None is all.
        track_mean
            In training mode, whether this batch counts for the running mean of w.

        Returns
        -------
        Tensor
            (N, num_ws, w_dim) float32.
        """
        w = self.map(z, c)
        if self.training and track_mean:
            self.track_mean(w)
        ws = w.unsqueeze(1).repeat(1, self.num_ws, 1)
        if truncation_psi == 1:
            return ws
        if self.w_avg_beta is None:
            raise ModelError("truncation needs the mean of w, which this generator does not keep")
        cut = self.num_ws if truncation_cutoff is None else truncation_cutoff
        return torch.cat([self.w_avg.lerp(ws[:, :cut], truncation_psi), ws[:, cut:]], dim=1)


class SynthesisLayer(nn.Module):
    """Modulated 3 x 3 convolution, noise, bias, activation."""

    noise_const: Tensor
    resample_filter: Tensor

    def __init__(
        self, spec: GeneratorSpec, in_channels: int, out_channels: int, resolution: int, up: int
    ) -> None:
        super().__init__()
        self.resolution, self.up = resolution, up
        self.activation, self.conv_clamp, self.use_noise = spec.activation, spec.conv_clamp, spec.use_noise
        self.affine = Dense(spec.w_dim, in_channels, bias_init=1.0)
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, 3, 3))
        self.register_buffer("resample_filter", setup_filter(spec.taps))
        if spec.use_noise:
            self.noise_strength = nn.Parameter(torch.zeros([]))
            self.register_buffer("noise_const", torch.randn(resolution, resolution))
        self.bias = nn.Parameter(torch.zeros(out_channels))

    def forward(self, x: Tensor, w: Tensor, noise: Noise, gain: float = 1.0) -> Tensor:
        """Map x (N, in, r / up, r / up) with w (N, w_dim) to (N, out, r, r).

        `noise` is a (N or 1, 1, r, r) unit-normal map, or how to get one.
        """
        y, scale = modulated_conv2d(x, self.weight, self.affine(w), f=self.resample_filter, up=self.up)
        added = self._noise_map(noise, x.shape[0], x.device)
        clamp = None if self.conv_clamp is None else self.conv_clamp * gain
        if added is not None:
            added = added * self.noise_strength
        return scaled_bias_act(y, scale, added, self.bias, act=self.activation, gain=gain, clamp=clamp)

    def _noise_map(self, noise: Noise, n: int, device: torch.device) -> Tensor | None:
        if not self.use_noise:
            return None
        if isinstance(noise, Tensor):
            return noise.to(device, torch.float32)
        if noise == "const":
            return self.noise_const[None, None]
        if noise == "random":
            return torch.randn(n, 1, self.resolution, self.resolution, device=device)
        return None


class ToRGB(nn.Module):
    """Modulated 1 x 1 convolution to colors, without demodulation."""

    def __init__(self, spec: GeneratorSpec, in_channels: int) -> None:
        super().__init__()
        self.conv_clamp = spec.conv_clamp
        self.affine = Dense(spec.w_dim, in_channels, bias_init=1.0)
        self.weight = nn.Parameter(torch.randn(spec.img_channels, in_channels, 1, 1))
        self.bias = nn.Parameter(torch.zeros(spec.img_channels))
        self.weight_gain = 1 / math.sqrt(in_channels)

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """Map x (N, in, r, r) with w (N, w_dim) to colors (N, channels, r, r), float32."""
        styles = self.affine(w) * self.weight_gain
        y = modulated_project(x, self.weight[:, :, 0, 0], styles) + self.bias[:, None, None]
        return y if self.conv_clamp is None else y.clamp(-self.conv_clamp, self.conv_clamp)


class SynthesisBlock(nn.Module):
    """One resolution: one or two layers, and (by architecture) a contribution to the picture."""

    resample_filter: Tensor

    def __init__(self, spec: GeneratorSpec, resolution: int) -> None:
        super().__init__()
        self.resolution, self.architecture = resolution, spec.architecture
        self.first = resolution == 4
        last = resolution == spec.img_resolution
        channels = spec.channels(resolution)
        below = 0 if self.first else spec.channels(resolution // 2)
        if self.first:
            self.const = nn.Parameter(torch.randn(channels, 4, 4))
        self.register_buffer("resample_filter", setup_filter(spec.taps))
        if not self.first:
            self.conv0 = SynthesisLayer(spec, below, channels, resolution, up=2)
        self.conv1 = SynthesisLayer(spec, channels, channels, resolution, up=1)
        self.has_rgb = last or spec.architecture == "skip"
        if self.has_rgb:
            self.torgb = ToRGB(spec, channels)
        if not self.first and spec.architecture == "resnet":
            self.skip = PlainConv(below, channels, 1, bias=False, up=2, taps=spec.taps)
        self.num_conv = 1 if self.first else 2

    def forward(
        self, x: Tensor | None, rgb: Tensor | None, ws: Tensor, noise: Sequence[Noise], dtype: torch.dtype
    ) -> tuple[Tensor, Tensor | None, list[FeatureMap]]:
        """Run the block.

        Parameters
        ----------
        x
            (N, C, r / 2, r / 2) from the block below; None in the first block.
        rgb
            (N, channels, r / 2, r / 2) float32 picture so far.
        ws
            (N, num_conv + 1, w_dim) styles of the convolutions and of the color layer.
        noise
            One entry for every convolution.
        dtype
            What to compute the convolutions in.

        Returns
        -------
        tuple[Tensor, Tensor | None, list[FeatureMap]]
            x (N, C, r, r), the picture, and the outputs of the convolutions.
        """
        maps: list[FeatureMap] = []
        if x is None:
            x = self.const.to(dtype).expand(ws.shape[0], -1, -1, -1)
            y = x.contiguous(memory_format=torch.channels_last)
        else:
            x = x.to(dtype=dtype, memory_format=torch.channels_last)
            y = self.conv0(x, ws[:, 0], noise[0])
            maps.append(FeatureMap(f"b{self.resolution}.conv0", self.resolution, y))
        residual = self.architecture == "resnet" and not self.first
        gain = math.sqrt(0.5) if residual else 1.0
        y = self.conv1(y, ws[:, self.num_conv - 1], noise[-1], gain)
        if residual:
            y = y + self.skip(x, gain)
        maps.append(FeatureMap(f"b{self.resolution}.conv1", self.resolution, y))
        if rgb is not None:
            rgb = upsample2d(rgb, self.resample_filter)
        if self.has_rgb:
            color = self.torgb(y, ws[:, self.num_conv])
            rgb = color if rgb is None else rgb + color
        return y, rgb, maps


class SynthesisNetwork(nn.Module):
    """Turn styles into pictures."""

    def __init__(self, spec: GeneratorSpec) -> None:
        super().__init__()
        self.spec = spec
        self.resolutions = block_resolutions(spec.img_resolution)
        for resolution in self.resolutions:
            setattr(self, f"b{resolution}", SynthesisBlock(spec, resolution))

    def forward(
        self,
        ws: Tensor,
        noise_mode: NoiseMode = "const",
        noise: Sequence[Tensor] | None = None,
        dtype: torch.dtype | None = None,
    ) -> Tensor:
        """Synthesize pictures.

        Parameters
        ----------
        ws
            (N, num_ws, w_dim) styles.
        noise_mode
            "const" adds the stored maps, "random" fresh ones for every sample, "none" nothing.
        noise
            One (N or 1, 1, r, r) unit-normal map for each convolution in order (b4.conv1, b8.conv0, b8.conv1,
            ...), see `noise_shapes`; replaces `noise_mode`.
        dtype
            What to compute the convolutions in. None is float32, but float16 in the `num_fp16_res` largest
            resolutions on a GPU. torch.bfloat16 is the fast choice on processors with AMX.

        Returns
        -------
        Tensor
            (N, channels, R, R) float32, nominally within [-1, 1], not clamped.
        """
        return self.features(ws, noise_mode, noise, dtype)[0]

    def features(
        self,
        ws: Tensor,
        noise_mode: NoiseMode = "const",
        noise: Sequence[Tensor] | None = None,
        dtype: torch.dtype | None = None,
    ) -> tuple[Tensor, list[FeatureMap]]:
        """Synthesize pictures as `forward` does, and return the output of every convolution layer too.

        Raises
        ------
        ModelError
            If `ws` or `noise` do not fit the network.
        """
        spec = self.spec
        if ws.ndim != 3 or ws.shape[1:] != (spec.num_ws, spec.w_dim):
            raise ModelError(f"ws has shape {tuple(ws.shape)}", f"(N, {spec.num_ws}, {spec.w_dim})")
        sources: list[Noise] = [noise_mode] * len(self.noise_shapes())
        if noise is not None:
            sources = list(self._checked(noise, ws.shape[0]))
        x: Tensor | None = None
        rgb: Tensor | None = None
        maps: list[FeatureMap] = []
        position = 0
        for resolution in self.resolutions:
            block: SynthesisBlock = getattr(self, f"b{resolution}")
            end = position + block.num_conv
            plan = self._dtype(resolution, ws.device) if dtype is None else dtype
            x, rgb, new = block(x, rgb, ws[:, position : end + 1], sources[position:end], plan)
            maps += new
            position = end
        if rgb is None:
            raise ModelError("no block made a picture")
        return rgb, maps

    def noise_shapes(self) -> list[tuple[int, int]]:
        """Return (r, r) of the noise of every convolution, in order."""
        return [(r, r) for r in self.resolutions for _ in range(1 if r == 4 else 2)]

    def _checked(self, noise: Sequence[Tensor], n: int) -> Sequence[Tensor]:
        shapes = self.noise_shapes()
        found = [tuple(m.shape) for m in noise]
        if len(found) != len(shapes) or any(
            f[0] not in (1, n) or f[1:] != (1, *s) for f, s in zip(found, shapes, strict=True)
        ):
            raise ModelError(f"the noise maps have shapes {found}", f"({n} or 1, 1, r, r) for {shapes}")
        return noise

    def _dtype(self, resolution: int, device: torch.device) -> torch.dtype:
        smallest = max(2 * self.spec.img_resolution >> self.spec.num_fp16_res, 8)
        half = self.spec.num_fp16_res > 0 and resolution >= smallest and device.type == "cuda"
        return torch.float16 if half else torch.float32


class Generator(nn.Module):
    """StyleGAN2 generator: `mapping` from latents to styles, `synthesis` from styles to pictures."""

    def __init__(self, spec: GeneratorSpec) -> None:
        super().__init__()
        self.spec = spec
        self.synthesis = SynthesisNetwork(spec)
        self.mapping = GeneratorMapping(spec)

    def forward(
        self,
        z: Tensor | None,
        c: Tensor | None = None,
        truncation_psi: float = 1.0,
        truncation_cutoff: int | None = None,
        noise_mode: NoiseMode = "const",
    ) -> Tensor:
        """Map latents (N, z_dim) and labels (N, c_dim) to pictures (N, channels, R, R), float32."""
        ws = self.mapping(z, c, truncation_psi, truncation_cutoff)
        pictures: Tensor = self.synthesis(ws, noise_mode)
        return pictures
