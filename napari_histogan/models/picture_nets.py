"""Nets that label synthetic pictures by what they show, beside the classifier of the generator's features.

The pixel classifier sees a pixel's features and nothing around them.  A picture net sees the neighborhood and
no features; the two err in different places, and the mean of their probabilities errs less
(``docs/experiments.md``).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from .device import Compute
from .pixel_predictor import Prediction
from .segmenter import SegmenterNet, fold_batch_norm, load_segmenter, pixels_to_input, save_segmenter

PICTURE_NETS = "picture_nets"
"""Folder beside a classifier's weights; in it a folder for each net."""
WINDOW_PX = 1024
"""Larger pictures are labeled window by window, with the nets' margin around."""


class PictureOpinion(NamedTuple):
    """What the picture nets say about N pictures.

    Attributes
    ----------
    probabilities
        (N, K, R, R) float32: mean of the nets.
    entropy
        (N, R, R) float32, nats: mean of the nets' own entropies.
    """

    probabilities: Tensor
    entropy: Tensor


class PictureNets:
    """Trained picture nets, made ready to label.

    Parameters
    ----------
    nets
        Copied.
    compute
        Device and precision.
    """

    def __init__(self, nets: Sequence[SegmenterNet], compute: Compute) -> None:
        self._compute, self.num_classes = compute, nets[0].num_classes
        self._margin = max(net.margin_px for net in nets)
        self._margin += -self._margin % max(net.stride_px for net in nets)
        folded = [fold_batch_norm(net).to(compute.device, compute.dtype) for net in nets]
        self._nets = [net.to(memory_format=torch.channels_last) for net in folded]  # type: ignore[call-overload]

    @torch.inference_mode()
    def __call__(self, pictures: Tensor) -> PictureOpinion:
        """Judge pictures (N, 3, R, R) uint8."""
        n, _, height, width = pictures.shape
        device = self._compute.device
        mean = torch.empty(n, self.num_classes, height, width, device=device)
        entropy = torch.empty(n, height, width, device=device)
        for picture in range(n):
            for top in range(0, height, WINDOW_PX):
                for left in range(0, width, WINDOW_PX):
                    bottom, right = min(top + WINDOW_PX, height), min(left + WINDOW_PX, width)
                    y, x = max(top - self._margin, 0), max(left - self._margin, 0)
                    seen = pictures[picture, :, y : bottom + self._margin, x : right + self._margin]
                    p, own = self._judge(seen)
                    inner = (..., slice(top - y, bottom - y), slice(left - x, right - x))
                    mean[picture, :, top:bottom, left:right] = p[inner]
                    entropy[picture, top:bottom, left:right] = own[inner]
        return PictureOpinion(mean, entropy)

    def _judge(self, window: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean probabilities (K, H, W) and mean entropies (H, W) of a window (3, H, W)."""
        x = pixels_to_input(window[None].to(self._compute.device)).to(self._compute.dtype)
        x = x.contiguous(memory_format=torch.channels_last)
        each = torch.cat([net(x).float().softmax(dim=1) for net in self._nets])
        return each.mean(dim=0), entropy_of(each, dim=1).mean(dim=0)


def save_picture_nets(folder: Path, nets: Sequence[SegmenterNet]) -> None:
    """Write nets for :func:`load_picture_nets`; their classes are the classifier's."""
    for number, net in enumerate(nets):
        names = [str(k) for k in range(1, net.num_classes + 1)]
        save_segmenter(folder / PICTURE_NETS / str(number), net, names, mpp=1.0)


def load_picture_nets(folder: Path) -> list[SegmenterNet]:
    """Read the picture nets in a classifier's folder, in order; none if it has none.

    Raises
    ------
    CheckpointError
        If a file is missing or damaged.
    """
    parts = sorted((folder / PICTURE_NETS).glob("*/"), key=lambda part: int(part.name))
    return [load_segmenter(part)[0] for part in parts]


def combine(features: Prediction, pictures: PictureOpinion) -> Prediction:
    """Return the mean of both views, and its disagreement.

    Parameters
    ----------
    features
        Of the pixel classifier, with probabilities.
    pictures
        Of the same pictures.

    Returns
    -------
    Prediction
        ``uncertainty`` is the Jensen-Shannon divergence among all nets, the two kinds weighing alike.
    """
    mean = (features.probabilities + pictures.probabilities) / 2
    # The members' mean entropy is that of their mean less their divergence.
    own = (entropy_of(features.probabilities, dim=1) - features.uncertainty + pictures.entropy) / 2
    uncertainty = (entropy_of(mean, dim=1) - own).clamp_(min=0)
    return Prediction(mean.argmax(dim=1).add_(1).to(torch.uint8), mean, uncertainty)


def entropy_of(probabilities: Tensor, dim: int) -> Tensor:
    """Return the entropy along a dimension, in nats."""
    return -torch.xlogy(probabilities, probabilities).sum(dim=dim)
