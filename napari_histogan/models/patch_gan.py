"""Networks of the patch classifier: a discriminator that also classifies, and its generator (paper 004).

A square patch gets the class of its middle pixel.  The classifier's convolutions have no padding, and a
stride of 2, so that it sees exactly the patch: 31, 15, 7, and 3 pixels a side after the layers for 64 px.
Where it normalizes every pixel over its channels, a patch's logits do not depend on what lies around the
patch, and all patches of a picture are computed at once by dilated convolutions
(:meth:`PatchClassifier.dense`).  Instance normalization, as in the paper, is over the patch, so its patches
can only be computed one beside the other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from napari_histogan.errors import ConfigError

PATCH_SIDES = (32, 64, 128)
SLOPE = 0.1
"""Slope of the leaky rectifiers below 0, as in the paper."""

Normalization = Literal["channel", "instance"]
_SMALLEST = 4
_MOST_DOUBLINGS = 3


@dataclass(frozen=True, slots=True)
class PatchNetShape:
    """Sizes of both networks.

    Attributes
    ----------
    patch_px
        Side of a patch: 32, 64, or 128 px.
    channels
        Channels of a patch, at least 1.
    num_classes
        K, at least 2.
    fake
        Whether the classifier has a logit K + 1 for what a generator made.
    width
        Channels of the classifier's first layer; doubled in each layer up to 8 times it.
    normalization
        ``"channel"``: each pixel over its channels; ``"instance"``: each channel over the patch.
    """

    patch_px: int
    channels: int
    num_classes: int
    fake: bool
    width: int = 32
    normalization: Normalization = "channel"

    def __post_init__(self) -> None:
        """Refuse sizes that have no network."""
        if self.patch_px not in PATCH_SIDES:
            raise ConfigError(
                f"patches of {self.patch_px} px were asked for",
                f"one of {', '.join(map(str, PATCH_SIDES))} px",
                "set patch_px to one of these",
            )
        if self.channels < 1 or self.num_classes < 2 or self.width < 1:
            raise ConfigError(
                f"there are {self.channels} channels, {self.num_classes} classes, and width {self.width}",
                "at least 1 channel, 2 classes, and width 1",
            )

    @property
    def layers(self) -> int:
        """Layers with a stride of 2 in the classifier; the generator doubles the picture as often."""
        return (self.patch_px // _SMALLEST).bit_length() - 1

    @property
    def outputs(self) -> int:
        """Logits: K, or K + 1."""
        return self.num_classes + self.fake

    @property
    def strides(self) -> tuple[int, ...]:
        """Steps in px at which :meth:`PatchClassifier.dense` can look."""
        return tuple(2**k for k in range(self.layers + 1))

    def widths(self) -> list[int]:
        """Channels after each layer of the classifier."""
        return [self.width * 2 ** min(k, _MOST_DOUBLINGS) for k in range(self.layers)]


class ChannelNorm(nn.Module):
    """Bring each pixel's channels to mean 0 and deviation 1, then scale and shift each channel.

    What one pixel becomes depends on no other pixel.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Normalize ``(N, C, H, W)``, best in channels-last order."""
        last = x.permute(0, 2, 3, 1)
        return F.layer_norm(last, self.weight.shape, self.weight, self.bias).permute(0, 3, 1, 2)


class PatchClassifier(nn.Module):
    """The discriminator-classifier (DC net of the paper), and the plain CNN if ``shape.fake`` is False.

    Strided convolutions, each with normalization and a leaky rectifier, then one convolution to the logits.
    """

    def __init__(self, shape: PatchNetShape) -> None:
        super().__init__()
        self.shape = shape
        widths = [shape.channels, *shape.widths()]
        self.convolutions = nn.ModuleList(
            nn.Conv2d(widths[k], widths[k + 1], 4 if k == 0 else 3, stride=2) for k in range(shape.layers)
        )
        norm = ChannelNorm if shape.normalization == "channel" else _instance_norm
        self.norms = nn.ModuleList(norm(width) for width in widths[1:])
        self.head = nn.Conv2d(widths[-1], shape.outputs, 3)
        for module in self.modules():
            if isinstance(module, nn.Conv2d) and module.bias is not None:
                nn.init.kaiming_normal_(module.weight, a=SLOPE)
                nn.init.zeros_(module.bias)
        nn.init.normal_(self.head.weight, std=0.02)

    def forward(self, patches: Tensor) -> Tensor:
        """Return logits ``(N, K)`` or ``(N, K + 1)`` of patches ``(N, C, S, S)``, -1..1."""
        x = patches
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            x = F.leaky_relu(norm(convolution(x)), SLOPE)
        return cast(Tensor, self.head(x))[:, :, 0, 0]

    def dense(self, pictures: Tensor, stride: int = 1) -> Tensor:
        """Return the logits of every patch of pictures, as :meth:`forward` gives them, without cutting any.

        Layers keep their stride as long as no patch that is asked for is lost; from there on they move by one
        pixel, and the layers after them look at every second, fourth, ... pixel.

        Parameters
        ----------
        pictures
            ``(N, C, H, W)``, -1..1, at least a patch high and wide.
        stride
            Pixels between patches, one of ``shape.strides``.

        Returns
        -------
        Tensor
            ``(N, K, h, w)`` or ``(N, K + 1, h, w)``: entry y, x is of the patch whose corner is at
            ``stride * (y, x)``; h is ``(H - S) // stride + 1``.

        Raises
        ------
        ConfigError
            With instance normalization, or a stride that is not among ``shape.strides``.
        """
        if self.shape.normalization != "channel" or stride not in self.shape.strides:
            raise ConfigError(
                f"a step of {stride} px with {self.shape.normalization} normalization was asked for at once",
                f"channel normalization, and one of {', '.join(map(str, self.shape.strides))} px",
                "compute patch by patch, or choose another step",
            )
        x, step, dilation = pictures, 1, 1
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            strided = step < stride
            layer = cast(nn.Conv2d, convolution)
            moved = F.conv2d(x, layer.weight, layer.bias, stride=2 if strided else 1, dilation=dilation)
            x = F.leaky_relu(norm(moved), SLOPE)
            step, dilation = (step * 2, dilation) if strided else (step, dilation * 2)
        logits = F.conv2d(x, self.head.weight, self.head.bias, dilation=dilation)
        height, width = ((n - self.shape.patch_px) // stride + 1 for n in pictures.shape[2:])
        return logits[:, :, :height, :width]


class PatchGenerator(nn.Module):
    """Paints patches from noise by transposed convolutions, with instance normalization; tanh at the end.

    Parameters
    ----------
    shape
        Of the classifier that it plays against.
    noise
        Numbers of standard normal noise a patch; 300 in the paper.
    conditional
        Whether it is told the class that it is to paint (the paper's future work).
    """

    def __init__(self, shape: PatchNetShape, noise: int = 300, conditional: bool = False) -> None:
        super().__init__()
        self.shape, self.noise, self.conditional = shape, noise, conditional
        widths = shape.widths()[::-1]
        inputs = noise + (shape.num_classes if conditional else 0)
        self.first = nn.ConvTranspose2d(inputs, widths[0], _SMALLEST)
        self.convolutions = nn.ModuleList(
            nn.ConvTranspose2d(before, after, 4, stride=2, padding=1)
            for before, after in zip(widths, [*widths[1:], shape.channels], strict=True)
        )
        self.norms = nn.ModuleList(_instance_norm(width) for width in widths)
        for module in self.modules():
            if isinstance(module, nn.ConvTranspose2d) and module.bias is not None:
                nn.init.normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def forward(self, noise: Tensor, classes: Tensor | None = None) -> Tensor:
        """Paint.

        Parameters
        ----------
        noise
            ``(N, noise)``, standard normal.
        classes
            ``(N,)`` int64, 0 to K - 1; needed if conditional, else not used.

        Returns
        -------
        Tensor
            ``(N, C, S, S)``, -1..1.
        """
        x = noise
        if self.conditional:
            if classes is None:
                raise ValueError("a conditional generator needs the classes to paint")
            x = torch.cat([x, F.one_hot(classes, self.shape.num_classes).to(x.dtype)], dim=1)
        x = self.first(x[:, :, None, None]).contiguous(memory_format=torch.channels_last)
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            x = convolution(F.relu(norm(x)))
        return torch.tanh(x)


def _instance_norm(channels: int) -> nn.Module:
    return nn.InstanceNorm2d(channels, affine=True)
