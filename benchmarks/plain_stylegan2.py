"""StyleGAN2 computed the plain way, on the weights of our modules: the peer of the speed benchmarks.

As the papers describe it and the public PyTorch codes run it on a processor without their CUDA extensions:
zeros are inserted and filtered away at full size, a kernel is made for every sample and convolved in groups
(or, as the public code does in training, activations are scaled around one convolution), every step is an
operation of its own, in float32 and contiguous memory, differentiated by torch alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from napari_histogan.models.stylegan2 import Discriminator, Generator
from napari_histogan.models.stylegan2_discriminator import DiscriminatorBlock
from napari_histogan.models.stylegan2_generator import SynthesisBlock, SynthesisLayer, ToRGB
from napari_histogan.models.stylegan2_layers import Dense, PlainConv

SLOPE = 0.2


def synthesize(generator: Generator, ws: Tensor, noise: Sequence[Tensor], grouped: bool) -> Tensor:
    """Paint pictures (N, 3, R, R) from styles (N, num_ws, w_dim); the architecture is `skip`."""
    x = None
    rgb = None
    maps = iter(noise)
    position = 0
    for resolution in generator.synthesis.resolutions:
        block: SynthesisBlock = getattr(generator.synthesis, f"b{resolution}")
        if x is None:
            x = block.const[None].repeat(len(ws), 1, 1, 1)
        else:
            x = styled(block.conv0, x, ws[:, position], next(maps), grouped)
            position += 1
        x = styled(block.conv1, x, ws[:, position], next(maps), grouped)
        position += 1
        if rgb is not None:
            rgb = fir(rgb, block.resample_filter, up=2, padding=(2, 1), gain=4)
        color = to_rgb(block.torgb, x, ws[:, position], grouped)
        rgb = color if rgb is None else rgb + color
    return rgb


def judge(discriminator: Discriminator, images: Tensor) -> Tensor:
    """Return logits (N, 1) of pictures by a discriminator of the `resnet` architecture."""
    x = None
    for resolution in discriminator.resolutions:
        block: DiscriminatorBlock = getattr(discriminator, f"b{resolution}")
        x = plain(block.fromrgb, images) if x is None else x
        y = plain(block.skip, x, math.sqrt(0.5))
        x = plain(block.conv1, plain(block.conv0, x), math.sqrt(0.5)) + y
    last = discriminator.b4
    n, c, h, w = x.shape
    group = min(last.group_size or n, n)
    y = x.reshape(group, -1, last.num_channels, c // last.num_channels, h, w)
    y = y - y.mean(dim=0)
    y = (y.square().mean(dim=0) + 1e-8).sqrt().mean(dim=[2, 3, 4])
    y = y.reshape(-1, last.num_channels, 1, 1).repeat(group, 1, h, w)
    x = plain(last.conv, torch.cat([x, y], dim=1))
    return dense(last.out, dense(last.fc, x.flatten(1)))


def styles(generator: Generator, z: Tensor, other: Tensor | None = None, cut: int = 0) -> Tensor:
    """Map latents (N, z_dim) to (N, num_ws, w_dim), those of `other` from layer `cut` on."""
    ws = mapped(generator, z)
    return ws if other is None else torch.cat([ws[:, :cut], mapped(generator, other)[:, cut:]], dim=1)


def mapped(generator: Generator, z: Tensor) -> Tensor:
    x = z * (z.square().mean(dim=1, keepdim=True) + 1e-8).rsqrt()
    for i in range(generator.mapping.num_layers):
        x = dense(getattr(generator.mapping, f"fc{i}"), x)
    return x[:, None].repeat(1, generator.spec.num_ws, 1)


def fir(
    x: Tensor, f: Tensor, *, up: int = 1, down: int = 1, padding: tuple[int, int] = (0, 0), gain: float = 1
) -> Tensor:
    """Insert zeros, pad, filter at full size, keep every n-th."""
    n, c, h, w = x.shape
    x = x.reshape(n, c, h, 1, w, 1)
    x = F.pad(x, [0, up - 1, 0, 0, 0, up - 1]).reshape(n, c, h * up, w * up)
    x = F.pad(x, [*padding, *padding])
    kernel = (f * gain).flip([0, 1])[None, None].repeat(c, 1, 1, 1)
    return F.conv2d(x, kernel, groups=c)[:, :, ::down, ::down]


def styled(layer: SynthesisLayer, x: Tensor, w: Tensor, noise: Tensor, grouped: bool) -> Tensor:
    y = modulated(x, layer.weight, dense(layer.affine, w), layer.resample_filter, layer.up, True, grouped)
    y = y + noise * layer.noise_strength
    return activated(y, layer.bias, "lrelu", 1.0, layer.conv_clamp)


def to_rgb(layer: ToRGB, x: Tensor, w: Tensor, grouped: bool) -> Tensor:
    scales = dense(layer.affine, w) * layer.weight_gain
    y = modulated(x, layer.weight, scales, None, 1, False, grouped)
    return activated(y, layer.bias, "linear", 1.0, layer.conv_clamp)


def modulated(
    x: Tensor, weight: Tensor, scales: Tensor, f: Tensor | None, up: int, demodulate: bool, grouped: bool
) -> Tensor:
    n = len(x)
    kernels = weight[None] * scales[:, None, :, None, None]
    factor = (kernels.square().sum(dim=[2, 3, 4]) + 1e-8).rsqrt() if demodulate else None
    if not grouped:
        x = x * scales[:, :, None, None]
        x = enlarged_or_not(x, weight, f, up, 1)
        return x if factor is None else x * factor[:, :, None, None]
    if factor is not None:
        kernels = kernels * factor[:, :, None, None, None]
    x = x.reshape(1, -1, *x.shape[2:])
    x = enlarged_or_not(x, kernels.flatten(0, 1), f, up, n)
    return x.reshape(n, -1, *x.shape[2:])


def enlarged_or_not(x: Tensor, weight: Tensor, f: Tensor | None, up: int, groups: int) -> Tensor:
    if up == 1:
        return F.conv2d(x, weight, padding=weight.shape[2] // 2, groups=groups)
    out, into = weight.shape[0] // groups, weight.shape[1]
    turned = weight.reshape(groups, out, into, 3, 3).transpose(1, 2).reshape(groups * into, out, 3, 3)
    x = F.conv_transpose2d(x, turned, stride=2, groups=groups)
    return fir(x, f, padding=(1, 1), gain=4)


def plain(layer: PlainConv, x: Tensor, gain: float = 1.0) -> Tensor:
    weight = layer.weight * layer.weight_gain
    side = weight.shape[2]
    if layer.down == 1:
        x = F.conv2d(x, weight, padding=side // 2)
    elif side == 1:
        x = F.conv2d(fir(x, layer.resample_filter, down=2, padding=(1, 1)), weight)
    else:
        x = F.conv2d(fir(x, layer.resample_filter, padding=(2, 2)), weight, stride=2)
    return activated(x, layer.bias, layer.activation, gain, layer.conv_clamp)


def dense(layer: Dense, x: Tensor) -> Tensor:
    y = x @ (layer.weight * layer.weight_gain).t()
    return activated(y, layer.bias * layer.bias_gain, layer.activation, 1.0, None)


def activated(x: Tensor, bias: Tensor | None, act: str, gain: float, clamp: float | None) -> Tensor:
    if bias is not None:
        x = x + bias.reshape(1, -1, *[1] * (x.ndim - 2))
    if act == "lrelu":
        x = F.leaky_relu(x, SLOPE)
        gain = gain * math.sqrt(2)
    if gain != 1:
        x = x * gain
    return (
        x if clamp is None else x.clamp(-clamp * gain_of_clamp(act, gain), clamp * gain_of_clamp(act, gain))
    )


def gain_of_clamp(act: str, gain: float) -> float:
    """Return the layer's own gain, by which the bound grows."""
    return gain / math.sqrt(2) if act == "lrelu" else gain
