"""ResNet backbones under the names that the community's weight files have.

The names of all weights are those of torchvision's ResNets (``conv1.weight``,
``layer3.0.downsample.1.running_mean``, ...), so that its ImageNet files load as they are;
their last layer (``fc``) is left out.  Instead of halving the picture again, the last
stages can widen the gaps of their convolutions (atrous convolution).

Reference: K. He, X. Zhang, S. Ren, J. Sun: "Deep residual learning for image recognition",
CVPR 2016, table 1; the stride of a bottleneck sits in its 3 x 3 convolution.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from napari_histogan.errors import CheckpointError, ConfigError, ModelError
from napari_histogan.models.downloads import fetch

Backbone = Literal["resnet18", "resnet34", "resnet50", "resnet101"]

BLOCKS: dict[str, tuple[int, int, int, int]] = {
    "resnet18": (2, 2, 2, 2),
    "resnet34": (3, 4, 6, 3),
    "resnet50": (3, 4, 6, 3),
    "resnet101": (3, 4, 23, 3),
}
"""Blocks of each of the four stages."""

DOWNLOADS = {
    "resnet18": "https://download.pytorch.org/models/resnet18-f37072fd.pth",
    "resnet34": "https://download.pytorch.org/models/resnet34-b627a593.pth",
    "resnet50": "https://download.pytorch.org/models/resnet50-11ad3fa6.pth",
    "resnet101": "https://download.pytorch.org/models/resnet101-cd907fc2.pth",
}
"""Where the ImageNet weights are; the end of a name is the start of the file's SHA-256."""

_WIDTHS = (64, 128, 256, 512)


class BasicBlock(nn.Module):
    """Two convolutions 3 x 3 and a shortcut."""

    expansion = 1

    def __init__(self, channels_in: int, width: int, stride: int, dilation: int) -> None:
        super().__init__()
        self.conv1 = _conv3(channels_in, width, stride, dilation)
        self.bn1: nn.Module = nn.BatchNorm2d(width)
        self.conv2 = _conv3(width, width, 1, dilation)
        self.bn2: nn.Module = nn.BatchNorm2d(width)
        self.downsample = _shortcut(channels_in, width, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Return features ``(N, width, H / stride, W / stride)``."""
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y = self.bn2(self.conv2(y))
        return F.relu(y + (x if self.downsample is None else self.downsample(x)), inplace=True)


class Bottleneck(nn.Module):
    """Convolutions 1 x 1, 3 x 3, and 1 x 1, and a shortcut."""

    expansion = 4

    def __init__(self, channels_in: int, width: int, stride: int, dilation: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, width, 1, bias=False)
        self.bn1: nn.Module = nn.BatchNorm2d(width)
        self.conv2 = _conv3(width, width, stride, dilation)
        self.bn2: nn.Module = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.bn3: nn.Module = nn.BatchNorm2d(4 * width)
        self.downsample = _shortcut(channels_in, 4 * width, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Return features ``(N, 4 width, H / stride, W / stride)``."""
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y = F.relu(self.bn2(self.conv2(y)), inplace=True)
        y = self.bn3(self.conv3(y))
        return F.relu(y + (x if self.downsample is None else self.downsample(x)), inplace=True)


class ResNet(nn.Module):
    """A ResNet without its last layer; gives the features of its first and last stage.

    Parameters
    ----------
    name
        One of :data:`BLOCKS`.
    output_stride
        How much smaller the last features are than the picture, 8 or 16.

    Raises
    ------
    ModelError
        If there is no such ResNet.
    """

    def __init__(self, name: str = "resnet50", output_stride: int = 16) -> None:
        super().__init__()
        if name not in BLOCKS or output_stride not in (8, 16):
            raise ModelError(
                f"a backbone {name!r} of output stride {output_stride} cannot be built",
                f"one of {', '.join(BLOCKS)}, and 8 or 16",
            )
        self.name, self.output_stride = name, output_stride
        block = BasicBlock if name in ("resnet18", "resnet34") else Bottleneck
        self.low_channels, self.high_channels = 64 * block.expansion, 512 * block.expansion
        self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
        self.bn1: nn.Module = nn.BatchNorm2d(64)
        channels, stages, reached, dilation = 64, [], 4, 1
        for width, count, stride in zip(_WIDTHS, BLOCKS[name], (1, 2, 2, 2), strict=True):
            before = dilation
            if reached * stride > output_stride:
                dilation, stride = dilation * stride, 1
            reached *= stride
            blocks = []
            for number in range(count):
                first = number == 0
                blocks.append(block(channels, width, stride if first else 1, before if first else dilation))
                channels = width * block.expansion
            stages.append(nn.Sequential(*blocks))
        self.layer1, self.layer2, self.layer3, self.layer4 = stages

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return features ``(N, low, H / 4, W / 4)`` and ``(N, high, H / stride, W / stride)``.

        Parameters
        ----------
        x
            ``(N, 3, H, W)``, normalized as ImageNet's pictures; sides are multiples of the
            output stride.
        """
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        low = self.layer1(F.max_pool2d(x, 3, stride=2, padding=1))
        return low, self.layer4(self.layer3(self.layer2(low)))

    def input_of_low(self, low: int, high: int) -> tuple[int, int]:
        """Return the interval of input pixels behind the first stage's features low..high, on one axis."""
        low, high = _input_of_blocks(self.layer1, low, high)
        low, high = 2 * low - 1, 2 * high + 1  # max pooling 3 x 3, stride 2
        return _input_of_conv(self.conv1, low, high)

    def input_of_high(self, low: int, high: int) -> tuple[int, int]:
        """Return the interval of input pixels behind the last stage's features low..high, on one axis."""
        for stage in (self.layer4, self.layer3, self.layer2):
            low, high = _input_of_blocks(stage, low, high)
        return self.input_of_low(low, high)


def load_imagenet(net: ResNet, source: str | Path) -> None:
    """Take the weights of a community file; its last layer is left out.

    Parameters
    ----------
    net
        Changed in place.
    source
        A ``.safetensors`` file or a ``.pth`` of tensors, in torchvision's names; or
        ``"download"``, which fetches the file of :data:`DOWNLOADS` into torch's cache.

    Raises
    ------
    ConfigError
        If there is no such file, or it cannot be downloaded.
    CheckpointError
        If the file is damaged, holds anything but tensors, or is of another net.
    """
    path = Path(source)
    if str(source) == "download":
        path = fetch(DOWNLOADS[net.name], f"the weights of {net.name}", "backbone_weights")
    if not path.is_file():
        raise ConfigError(
            f"there are no weights at {path}", f"a file of {net.name}'s weights", "check the path"
        )
    try:
        read = load_file(path) if path.suffix == ".safetensors" else torch.load(path, weights_only=True)
        weights = {name: value for name, value in dict(read).items() if not name.startswith("fc.")}
        net.load_state_dict(weights)
    except (
        OSError, EOFError, SafetensorError, RuntimeError, ValueError, TypeError, AttributeError,
        pickle.UnpicklingError,
    ) as error:  # fmt: skip
        raise CheckpointError(
            f"the weights {path} cannot be used: {(str(error).splitlines() or [type(error).__name__])[0]}",
            f"tensors under the names of torchvision's {net.name}",
            "choose the file of this backbone, or another backbone",
        ) from error


def _conv3(channels_in: int, channels_out: int, stride: int, dilation: int) -> nn.Conv2d:
    return nn.Conv2d(channels_in, channels_out, 3, stride, dilation, dilation, bias=False)


def _shortcut(channels_in: int, channels_out: int, stride: int) -> nn.Sequential | None:
    """Return the shortcut's convolution where size or channels change."""
    if stride == 1 and channels_in == channels_out:
        return None
    conv = nn.Conv2d(channels_in, channels_out, 1, stride, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(channels_out))


def _input_of_blocks(stage: nn.Sequential, low: int, high: int) -> tuple[int, int]:
    for block in reversed(list(stage)):
        for conv in reversed(list(_main_path(block))):
            low, high = _input_of_conv(conv, low, high)
    return low, high


def _main_path(block: nn.Module) -> Iterator[nn.Conv2d]:
    """Yield the convolutions of a block but its shortcut's, which sees less."""
    return (child for child in block.children() if isinstance(child, nn.Conv2d))


def _input_of_conv(conv: nn.Conv2d, low: int, high: int) -> tuple[int, int]:
    """Return the interval of inputs behind a convolution's outputs low..high."""
    stride, padding = conv.stride[0], int(conv.padding[0])
    reach = conv.dilation[0] * (conv.kernel_size[0] - 1)
    return low * stride - padding, high * stride - padding + reach
