"""The nets that run over slides: how one is built, and the two files that keep it."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from napari_histogan.errors import DAMAGE, CheckpointError
from napari_histogan.models.deeplab import DeepLab
from napari_histogan.models.resnet import load_imagenet
from napari_histogan.models.unet import UNet
from napari_histogan.models.weak_unet import WeakUNet
from napari_histogan.models.weights import filled

WEIGHTS_FILE = "segmenter.safetensors"
INFO_FILE = "segmenter.json"
_FORMAT = 1
_LARGEST = 100_000
"""No size of a net, and no resolution in um/px, is larger."""

SegmenterNet: TypeAlias = UNet | WeakUNet | DeepLab
_Net = TypeVar("_Net", bound=nn.Module)


@dataclass(frozen=True, slots=True)
class NetShape:
    """Which net, and how large.

    Attributes
    ----------
    architecture
        ``"unet"``, ``"weak_unet"``, or ``"deeplab"``.
    width, depth
        Of a U-Net; see :class:`.UNet` and :class:`.WeakUNet`.  0 for others.
    backbone, output_stride, context_px
        Of a DeepLab; see :class:`.DeepLab`.  Empty and 0 for others.
    """

    architecture: str = "unet"
    width: int = 0
    depth: int = 0
    backbone: str = ""
    output_stride: int = 0
    context_px: int = 0

    def __str__(self) -> str:
        """Return the net in words."""
        if self.architecture in ("unet", "weak_unet"):
            return f"a U-Net of width {self.width} and depth {self.depth}"
        return f"a DeepLab on {self.backbone} of output stride {self.output_stride}"

    def build(self, num_classes: int) -> SegmenterNet:
        """Return such a net with random weights; raise ``ModelError`` if there is none."""
        if self.architecture == "unet":
            return UNet(num_classes, self.width, self.depth)
        if self.architecture == "weak_unet":
            return WeakUNet(num_classes, self.width, self.depth)
        return DeepLab(num_classes, self.backbone, self.output_stride, self.context_px)


@dataclass(frozen=True, slots=True)
class SegmenterInfo:
    """What a segmenter's JSON file says beside the weights.

    Attributes
    ----------
    num_classes
        Number of classes K, without "unlabeled".
    class_names
        Names of the K classes.
    mpp
        Microns per pixel that the net was trained at.
    margin_px
        Pixels around a window in which its prediction lacks context.
    stride_px
        Windows whose origins differ by multiples of this see the same pixel grid.
    architecture, width, depth, backbone, output_stride, context_px
        See :class:`NetShape`.
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
    margin_px: int
    stride_px: int
    architecture: str = "unet"
    width: int = 0
    depth: int = 0
    backbone: str = ""
    output_stride: int = 0
    context_px: int = 0
    patch_px: int = 0
    absent_classes: tuple[int, ...] = ()
    validation: dict[str, float] = field(default_factory=dict)

    @property
    def shape(self) -> NetShape:
        """Which net it is."""
        return NetShape(
            self.architecture, self.width, self.depth, self.backbone, self.output_stride, self.context_px
        )


def shape_of(net: SegmenterNet) -> NetShape:
    """Return which net it is, and how large."""
    if isinstance(net, UNet):
        return NetShape("unet", net.width, net.depth)
    if isinstance(net, WeakUNet):
        return NetShape("weak_unet", net.width, net.depth)
    backbone = net.backbone.name
    return NetShape("deeplab", backbone=backbone, output_stride=net.output_stride, context_px=net.context_px)


def new_net(shape: NetShape, num_classes: int, seed: int, backbone_weights: str = "") -> SegmenterNet:
    """Return an untrained net, the same for the same seed.

    Parameters
    ----------
    shape, num_classes
        What to build.
    seed
        Of the random weights; torch's own random state is left as it was.
    backbone_weights
        ImageNet weights of a DeepLab's backbone; see :func:`.load_imagenet`.  Empty: random.

    Raises
    ------
    ModelError, ConfigError, CheckpointError
        If there is no such net, or its backbone's weights cannot be had.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = shape.build(num_classes)
    if backbone_weights and isinstance(net, DeepLab):
        load_imagenet(net.backbone, backbone_weights)
    return net


def fold_batch_norm(net: _Net) -> _Net:
    """Return a copy for inference whose convolutions hold the batch normalization.

    The copy computes the same logits up to rounding, in fewer passes over memory.  A module
    of ours registers a normalization right after the convolution that it follows.
    """
    folded = copy.deepcopy(net).eval().requires_grad_(False)
    for module in list(folded.modules()):
        for (conv_name, conv), (norm_name, norm) in pairwise(list(module.named_children())):
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                setattr(module, conv_name, fuse_conv_bn_eval(conv, norm))
                setattr(module, norm_name, nn.Identity())
    return folded


def pixels_to_input(pixels: Tensor) -> Tensor:
    """Scale pixels 0..255 of any type to float32 in -1..1, as the nets expect them."""
    return pixels.float() / 127.5 - 1


def save_segmenter(
    folder: Path,
    net: SegmenterNet,
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
        margin_px=net.margin_px,
        stride_px=net.stride_px,
        patch_px=patch_px,
        absent_classes=tuple(absent_classes),
        validation=dict(validation or {}),
        **asdict(shape_of(net)),
    )
    folder.mkdir(parents=True, exist_ok=True)
    weights = {name: value.detach().cpu().contiguous() for name, value in net.state_dict().items()}
    save_file(weights, folder / WEIGHTS_FILE)
    document = {"format": _FORMAT, **asdict(info)}
    (folder / INFO_FILE).write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    return info


def load_segmenter(folder: Path) -> tuple[SegmenterNet, SegmenterInfo]:
    """Read what :func:`save_segmenter` wrote; the net comes in evaluation mode, on the CPU.

    Raises
    ------
    CheckpointError
        If a file is missing or damaged, or weights and JSON do not fit together.
    """
    info = load_segmenter_info(folder)
    net = filled(lambda: info.shape.build(info.num_classes), folder / WEIGHTS_FILE, str(info.shape))
    return net, info


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
        known = document["architecture"] in ("unet", "weak_unet", "deeplab")
        if document.pop("format") != _FORMAT or not known:
            raise ValueError("it describes another kind or version of segmenter")
        for name in ("class_names", "absent_classes"):
            document[name] = tuple(document[name])
        info = SegmenterInfo(**document)
        sizes = [info.num_classes, info.margin_px, info.stride_px, info.width, info.depth]
        sizes += [info.output_stride, info.context_px, info.patch_px]
        if not all(isinstance(size, int) and 0 <= size < _LARGEST for size in sizes):
            raise ValueError(f"its sizes are {sizes}")
        if not 0 < float(info.mpp) < _LARGEST or len(info.class_names) != info.num_classes:
            raise ValueError(f"it has {info.num_classes} classes {info.class_names} at {info.mpp} um/px")
        return info
    except DAMAGE as error:
        raise CheckpointError(
            f"the segmenter's description {path} cannot be used: {_first_line(error)}",
            f"a folder with {INFO_FILE} and {WEIGHTS_FILE}",
            "choose the folder of a trained segmenter",
        ) from error


def _first_line(error: Exception) -> str:
    """Return the first line of an error's message, or its kind."""
    return (str(error).splitlines() or [type(error).__name__])[0]
