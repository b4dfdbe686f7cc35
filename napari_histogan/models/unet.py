"""A compact U-Net for segmentation.

Pixels ``(N, 3, H, W)`` go in as floats in -1..1, logits ``(N, K, H, W)`` come out; logit
``k`` means class ``k + 1``, because 0 is unlabeled in masks.  Normalization is by batch
statistics, so that :func:`.segmenter.fold_batch_norm` can merge it into the convolutions: after
training the net is convolutions and nothing else.

Reference: O. Ronneberger, P. Fischer, T. Brox: "U-Net: Convolutional networks for
biomedical image segmentation", MICCAI 2015, figure 1; here with same-size convolutions,
batch normalization, and bilinear upsampling.
"""

from __future__ import annotations

from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from napari_histogan.errors import ModelError

_MOST_WIDENING = 8


class UNet(nn.Module):
    """Encoder and decoder with shortcuts between stages of the same size.

    Parameters
    ----------
    num_classes
        Classes K, at least 2.
    width
        Channels of the first stage; doubled at each stage, up to 8 times.
    depth
        How often the picture is halved.
    """

    def __init__(self, num_classes: int, width: int = 16, depth: int = 4) -> None:
        super().__init__()
        if num_classes < 2 or width < 1 or depth < 1:
            raise ModelError(
                f"a U-Net of {num_classes} classes, width {width}, and depth {depth} cannot be built",
                "at least 2 classes, width 1, and depth 1",
            )
        self.num_classes, self.width, self.depth = num_classes, width, depth
        channels = [width * min(2**stage, _MOST_WIDENING) for stage in range(depth + 1)]
        inputs = [3, *channels[:-1]]
        self.encoders = nn.ModuleList(_Stage(a, b) for a, b in zip(inputs, channels, strict=True))
        self.bridges = nn.ModuleList(nn.Conv2d(channels[i + 1], channels[i], 1) for i in range(depth))
        self.decoders = nn.ModuleList(_Stage(2 * channels[i], channels[i]) for i in range(depth))
        self.head = nn.Conv2d(width, num_classes, 1)

    def forward(self, pixels: Tensor) -> Tensor:
        """Return logits.

        Parameters
        ----------
        pixels
            ``(N, 3, H, W)``, -1..1, of any size; sides that are no multiple of
            :attr:`stride_px` are padded by repeating the last pixel, and cropped back.

        Returns
        -------
        Tensor
            ``(N, K, H, W)``.
        """
        height, width = pixels.shape[-2:]
        x = padded_to(pixels, self.stride_px)
        shortcuts = []
        for encoder in self.encoders[:-1]:
            x = encoder(x)
            shortcuts.append(x)
            x = F.max_pool2d(x, 2)
        x = self.encoders[-1](x)
        for stage in range(self.depth - 1, -1, -1):
            # A 1 x 1 convolution and bilinear upsampling commute; this order is 4 times cheaper.
            x = self.bridges[stage](x)
            x = F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)
            x = self.decoders[stage](torch.cat((shortcuts.pop(), x), dim=1))
        logits: Tensor = self.head(x)
        return logits[..., :height, :width]

    @property
    def stride_px(self) -> int:
        """Shifts of the input by multiples of this shift the output alike."""
        return 1 << self.depth

    @cached_property
    def margin_px(self) -> int:
        """Farthest input pixel that an output pixel depends on."""
        return margin_of(self.depth)

    def layers(self) -> list[list[nn.Parameter]]:
        """Return all weights in groups, from the input to the output."""
        rest = [*self.bridges, *self.decoders, self.head]
        encoders = [list(encoder.parameters()) for encoder in self.encoders]
        return [*encoders, [p for module in rest for p in module.parameters()]]


def padded_to(pixels: Tensor, stride_px: int) -> Tensor:
    """Return pixels ``(N, C, H, W)`` with sides that are multiples of a stride, the last ones repeated."""
    down, right = (-side % stride_px for side in pixels.shape[-2:])
    return F.pad(pixels, (0, right, 0, down), mode="replicate") if down or right else pixels


def margin_of(depth: int) -> int:
    """Return how far an output pixel sees, in pixels, where a stage has two convolutions 3 x 3.

    Parameters
    ----------
    depth
        How often the picture is halved by pooling, and doubled by bilinear upsampling.
    """
    farthest = 0
    for pixel in range(1 << depth):
        low, high = _input_of_decoder(0, depth, pixel, pixel)
        farthest = max(farthest, pixel - low, high - pixel)
    return farthest


def _input_of_decoder(stage: int, depth: int, low: int, high: int) -> tuple[int, int]:
    """Return the input interval that decoder ``stage`` needs for its pixels low..high."""
    if stage == depth:
        return _input_of_encoder(stage, low, high)
    low, high = low - 2, high + 2
    near = _input_of_encoder(stage, low, high)
    # Bilinear upsampling: pixel 2k mixes k - 1 and k, pixel 2k + 1 mixes k and k + 1.
    far = _input_of_decoder(stage + 1, depth, (low + 1) // 2 - 1, high // 2 + high % 2)
    return min(near[0], far[0]), max(near[1], far[1])


def _input_of_encoder(stage: int, low: int, high: int) -> tuple[int, int]:
    """Return the input interval that encoder ``stage`` needs for its pixels low..high."""
    low, high = low - 2, high + 2
    return (low, high) if stage == 0 else _input_of_encoder(stage - 1, 2 * low, 2 * high + 1)


class _Stage(nn.Module):
    """Twice: convolution 3 x 3, batch normalization, ReLU."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, padding=1, bias=False)
        self.norm1: nn.Module = nn.BatchNorm2d(channels_out)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, padding=1, bias=False)
        self.norm2: nn.Module = nn.BatchNorm2d(channels_out)

    def forward(self, x: Tensor) -> Tensor:
        """Return features of the same height and width."""
        x = F.relu(self.norm1(self.conv1(x)), inplace=True)
        return F.relu(self.norm2(self.conv2(x)), inplace=True)
