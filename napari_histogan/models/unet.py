"""A compact U-Net for segmentation, and its files.

Pixels ``(N, 3, H, W)`` go in as floats in -1..1, logits ``(N, K, H, W)`` come out; logit
``k`` means class ``k + 1``, because 0 is unlabelled in masks.  Normalization is by batch
statistics, so that :func:`fold_batch_norm` can merge it into the convolutions: after
training the net is convolutions and nothing else.

Reference: O. Ronneberger, P. Fischer, T. Brox: "U-Net: Convolutional networks for
biomedical image segmentation", MICCAI 2015, figure 1; here with same-size convolutions,
batch normalization, and bilinear upsampling.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from napari_histogan.errors import CheckpointError, ModelError

WEIGHTS_FILE = "segmenter.safetensors"
INFO_FILE = "segmenter.json"
_FORMAT = 1
_MOST_WIDENING = 8


@dataclass(frozen=True, slots=True)
class SegmenterInfo:
    """What a segmenter's JSON file says beside the weights.

    Attributes
    ----------
    num_classes
        Number of classes K, without "unlabelled".
    class_names
        Names of the K classes.
    mpp
        Microns per pixel that the net was trained at.
    width, depth
        Shape of the U-Net; see :class:`UNet`.
    margin_px
        Pixels around a window in which its prediction lacks context.
    stride_px
        Windows whose origins differ by multiples of this see the same pixel grid.
    patch_px
        Side of the patches that it was trained on.
    absent_classes
        Indices of classes that no training mask held; never predicted.
    validation
        Figures on held-out pairs, such as ``mcc``; empty if there were none.
    """

    num_classes: int
    class_names: tuple[str, ...]
    mpp: float
    width: int
    depth: int
    margin_px: int
    stride_px: int
    patch_px: int = 0
    absent_classes: tuple[int, ...] = ()
    validation: dict[str, float] = field(default_factory=dict)


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
        down, right = -height % self.stride_px, -width % self.stride_px
        x = F.pad(pixels, (0, right, 0, down), mode="replicate") if down or right else pixels
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
        farthest = 0
        for pixel in range(self.stride_px):
            low, high = self._input_of_decoder(0, pixel, pixel)
            farthest = max(farthest, pixel - low, high - pixel)
        return farthest

    def _input_of_decoder(self, stage: int, low: int, high: int) -> tuple[int, int]:
        """Return the input interval that decoder ``stage`` needs for its pixels low..high."""
        if stage == self.depth:
            return _input_of_encoder(stage, low, high)
        low, high = low - 2, high + 2
        near = _input_of_encoder(stage, low, high)
        # Bilinear upsampling: pixel 2k mixes k - 1 and k, pixel 2k + 1 mixes k and k + 1.
        far = self._input_of_decoder(stage + 1, (low + 1) // 2 - 1, high // 2 + high % 2)
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


def fold_batch_norm(net: UNet) -> UNet:
    """Return a copy for inference whose convolutions hold the batch normalization.

    The copy computes the same logits up to rounding, in fewer passes over memory.
    """
    folded = copy.deepcopy(net).eval().requires_grad_(False)
    for module in folded.modules():
        if isinstance(module, _Stage):
            for conv, norm in (("conv1", "norm1"), ("conv2", "norm2")):
                fused = fuse_conv_bn_eval(getattr(module, conv), getattr(module, norm))
                setattr(module, conv, fused)
                setattr(module, norm, nn.Identity())
    return folded


def pixels_to_input(pixels: Tensor) -> Tensor:
    """Scale pixels 0..255 of any type to float32 in -1..1, as the net expects them."""
    return pixels.float() / 127.5 - 1


def save_segmenter(
    folder: Path,
    net: UNet,
    class_names: Sequence[str],
    mpp: float,
    patch_px: int = 0,
    absent_classes: Sequence[int] = (),
    validation: dict[str, float] | None = None,
) -> SegmenterInfo:
    """Write ``segmenter.safetensors`` and ``segmenter.json`` into a folder.

    Parameters
    ----------
    folder
        Made if missing.
    net
        Not folded, so that it can be trained on.
    class_names, mpp, patch_px, absent_classes, validation
        See :class:`SegmenterInfo`.
    """
    info = SegmenterInfo(
        num_classes=net.num_classes,
        class_names=tuple(class_names),
        mpp=float(mpp),
        width=net.width,
        depth=net.depth,
        margin_px=net.margin_px,
        stride_px=net.stride_px,
        patch_px=patch_px,
        absent_classes=tuple(absent_classes),
        validation=dict(validation or {}),
    )
    folder.mkdir(parents=True, exist_ok=True)
    weights = {name: value.detach().cpu().contiguous() for name, value in net.state_dict().items()}
    save_file(weights, folder / WEIGHTS_FILE)
    document = {"format": _FORMAT, "architecture": "unet", **asdict(info)}
    (folder / INFO_FILE).write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    return info


def load_segmenter(folder: Path) -> tuple[UNet, SegmenterInfo]:
    """Read what :func:`save_segmenter` wrote; the net comes in evaluation mode, on the CPU.

    Raises
    ------
    CheckpointError
        If a file is missing or damaged, or weights and JSON do not fit together.
    """
    info = load_segmenter_info(folder)
    net = UNet(info.num_classes, info.width, info.depth)
    try:
        net.load_state_dict(load_file(folder / WEIGHTS_FILE))
    except (OSError, SafetensorError, RuntimeError) as error:
        raise CheckpointError(
            f"the weights {folder / WEIGHTS_FILE} cannot be used: {_first_line(error)}",
            f"the weights of a U-Net of width {info.width} and depth {info.depth}",
            "train the segmenter again, or copy the folder again",
        ) from error
    return net.eval(), info


def load_segmenter_info(folder: Path) -> SegmenterInfo:
    """Read only the JSON file of a segmenter.

    Raises
    ------
    CheckpointError
        If the file is missing, is damaged, or describes another kind of net.
    """
    path = folder / INFO_FILE
    try:
        document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if document.pop("format") != _FORMAT or document.pop("architecture") != "unet":
            raise ValueError("it describes another kind or version of segmenter")
        for name in ("class_names", "absent_classes"):
            document[name] = tuple(document[name])
        return SegmenterInfo(**document)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"the segmenter's description {path} cannot be used: {_first_line(error)}",
            f"a folder with {INFO_FILE} and {WEIGHTS_FILE}",
            "choose the folder of a trained segmenter",
        ) from error


def _first_line(error: Exception) -> str:
    """Return the first line of an error's message, or its kind."""
    return (str(error).splitlines() or [type(error).__name__])[0]
