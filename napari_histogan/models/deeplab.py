"""DeepLabV3+ for segmentation: atrous pyramid pooling on a ResNet, and a small decoder.

Pixels ``(N, 3, H, W)`` go in as floats in -1..1, logits ``(N, K, H, W)`` come out, as for
the U-Net.  One branch of the pyramid averages the features.  In the paper it averages the
whole picture; then what the net says of a pixel depends on where a window was cut, however
far its rim is.  Here the average is over a window of ``context_px`` around each pixel, so
that the net's margin is finite and windows of a slide agree.

Reference: L.-C. Chen, Y. Zhu, G. Papandreou, F. Schroff, H. Adam: "Encoder-decoder with
atrous separable convolution for semantic image segmentation", ECCV 2018, sections 3.1 and
4.1 (48 channels of the first stage, two convolutions 3 x 3 of 256 channels); the rates
6, 12, 18 are those of "Rethinking atrous convolution", 2017, section 3.3, doubled at
output stride 8.
"""

from __future__ import annotations

from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from napari_histogan.errors import ModelError
from napari_histogan.models.resnet import ResNet
from napari_histogan.models.unet import padded_to

_RATES = (6, 12, 18)
_CHANNELS = 256
_LOW_CHANNELS = 48
_MEAN = (0.485, 0.456, 0.406)
_SPREAD = (0.229, 0.224, 0.225)


class DeepLab(nn.Module):
    """DeepLabV3+.

    Parameters
    ----------
    num_classes
        Classes K, at least 2.
    backbone
        Name of a ResNet; see :data:`napari_histogan.models.resnet.BLOCKS`.
    output_stride
        16, or 8 for finer features at about three times the work.
    context_px
        Side in pixels of the window that the averaging branch sees around a pixel.

    Raises
    ------
    ModelError
        If there is no such net.
    """

    gain: Tensor
    offset: Tensor

    def __init__(
        self, num_classes: int, backbone: str = "resnet50", output_stride: int = 16, context_px: int = 256
    ) -> None:
        super().__init__()
        if num_classes < 2 or context_px < 1:
            raise ModelError(
                f"a DeepLab of {num_classes} classes and a context of {context_px} px cannot be built",
                "at least 2 classes, and 1 px",
            )
        self.num_classes, self.context_px = num_classes, context_px
        self.backbone = ResNet(backbone, output_stride)
        rates = [rate * 16 // output_stride for rate in _RATES]
        self.pyramid = _Pyramid(self.backbone.high_channels, rates, context_px // (2 * output_stride))
        self.low = _conv_norm(self.backbone.low_channels, _LOW_CHANNELS, 1)
        self.mix1 = _conv_norm(_CHANNELS + _LOW_CHANNELS, _CHANNELS, 3)
        self.mix2 = _conv_norm(_CHANNELS, _CHANNELS, 3)
        self.head = nn.Conv2d(_CHANNELS, num_classes, 1)
        # ImageNet's pictures are normalized in 0..1, ours come in -1..1.
        mean, spread = torch.tensor(_MEAN), torch.tensor(_SPREAD)
        self.register_buffer("gain", (0.5 / spread).view(3, 1, 1), persistent=False)
        self.register_buffer("offset", ((0.5 - mean) / spread).view(3, 1, 1), persistent=False)

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
        low, high = self.backbone(x * self.gain + self.offset)
        x = _larger(self.pyramid(high), self.stride_px // 4)
        x = self.mix2(self.mix1(torch.cat((x, self.low(low)), dim=1)))
        logits = _larger(self.head(x), 4)
        return logits[..., :height, :width]

    @property
    def output_stride(self) -> int:
        """How much smaller the last features are than the picture."""
        return self.backbone.output_stride

    @property
    def stride_px(self) -> int:
        """Shifts of the input by multiples of this shift the output alike."""
        return self.backbone.output_stride

    @cached_property
    def margin_px(self) -> int:
        """Farthest input pixel that an output pixel depends on."""
        farthest = 0
        for pixel in range(self.stride_px):
            low, high = _smaller(pixel, pixel, 4)
            low, high = low - 2, high + 2
            near = self.backbone.input_of_low(low, high)
            low, high = _smaller(low, high, self.stride_px // 4)
            far = self.backbone.input_of_high(low - self.pyramid.reach, high + self.pyramid.reach)
            farthest = max(farthest, pixel - min(near[0], far[0]), max(near[1], far[1]) - pixel)
        return farthest

    def layers(self) -> list[list[nn.Parameter]]:
        """Return all weights in groups, from the input to the output."""
        b = self.backbone
        parts: list[list[nn.Module]] = [
            [b.conv1, b.bn1],
            [b.layer1],
            [b.layer2],
            [b.layer3],
            [b.layer4],
            [self.pyramid, self.low, self.mix1, self.mix2, self.head],
        ]
        return [[p for module in part for p in module.parameters()] for part in parts]


class _Pyramid(nn.Module):
    """Atrous spatial pyramid pooling."""

    def __init__(self, channels: int, rates: list[int], half_window: int) -> None:
        super().__init__()
        self.point = _conv_norm(channels, _CHANNELS, 1)
        self.atrous = nn.ModuleList(_conv_norm(channels, _CHANNELS, 3, rate) for rate in rates)
        self.context = _conv_norm(channels, _CHANNELS, 1, relu=False)
        self.project = _conv_norm((2 + len(rates)) * _CHANNELS, _CHANNELS, 1)
        self.half_window = half_window
        self.reach = max(*rates, half_window)

    def forward(self, x: Tensor) -> Tensor:
        # The mean and an affine map commute; this order averages a fraction of the channels.
        mean = F.avg_pool2d(
            self.context(x), 2 * self.half_window + 1, 1, self.half_window, count_include_pad=False
        )
        branches = [self.point(x), *(branch(x) for branch in self.atrous), F.relu(mean)]
        y: Tensor = self.project(torch.cat(branches, dim=1))
        return y


def _conv_norm(channels_in: int, channels_out: int, side: int, rate: int = 1, relu: bool = True) -> nn.Module:
    """Return convolution, batch normalization, and ReLU."""
    padding = rate * (side // 2)
    conv = nn.Conv2d(channels_in, channels_out, side, padding=padding, dilation=rate, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(channels_out), *([nn.ReLU(inplace=True)] if relu else []))


def _larger(x: Tensor, factor: int) -> Tensor:
    return F.interpolate(x, scale_factor=float(factor), mode="bilinear", align_corners=False)


def _smaller(low: int, high: int, factor: int) -> tuple[int, int]:
    """Return the interval behind low..high of a picture that was enlarged bilinearly by an even factor."""
    half = factor // 2
    return (low - half) // factor, (high - half) // factor + 1
