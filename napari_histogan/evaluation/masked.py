"""How sharp a mask is: figures near the true boundary alone, and how many specks it has.

Far from any boundary a coarse label is as right as a fine one; only pixels within some distance of the
boundary tell the two apart.

Reference: paper 003, section 3 (masked IoU and Dice within 1,000 um, Euclidean).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from napari_histogan.errors import LabelError
from napari_histogan.evaluation.significance import Interval, bootstrap

Flags = NDArray[np.bool_]
Counts = NDArray[np.float64]

_HIT, _FALSE, _MISSED, _PIECES, _AREA = range(5)


@dataclass(frozen=True)
class MaskedScores:
    """Figures of one class.

    Attributes
    ----------
    iou, dice
        Of all counted pixels of all images together.
    components_per_mm2
        Connected pieces of the predicted class per mm2 of all images together.
    iou_per_image, dice_per_image, components_per_image
        Of each image; NaN where an image has no pixel of the class to count.
    mean_iou, mean_dice
        Means over images.
    """

    iou: Interval
    dice: Interval
    components_per_mm2: Interval
    mean_iou: Interval
    mean_dice: Interval
    iou_per_image: NDArray[np.float64]
    dice_per_image: NDArray[np.float64]
    components_per_image: NDArray[np.float64]


def near_boundary(truth: Flags, within_um: float, mpp: float) -> Flags:
    """Return the pixels within a Euclidean distance of the true boundary, ``(H, W) bool``.

    The boundary runs between pixels; the distance of a pixel is that of its middle to the middle of
    the nearest pixel of the other side, less half a pixel.  Without a boundary no pixel is near one.
    """
    if truth.all() or not truth.any():
        return np.zeros(truth.shape, np.bool_)
    inside = cv2.distanceTransform(truth.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    outside = cv2.distanceTransform((~truth).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    distance = np.asarray(np.where(truth, inside, outside), np.float64) - 0.5
    near: Flags = distance * mpp <= within_um
    return near


def count_components(predicted: Flags) -> int:
    """Return how many pieces a mask has; pixels that touch at a corner are one piece."""
    return int(cv2.connectedComponents(predicted.astype(np.uint8), connectivity=8)[0]) - 1


def masked_counts(truth: Flags, predicted: Flags, mpp: float, within_um: float) -> Counts:
    """Count one image.

    Parameters
    ----------
    truth, predicted
        ``(H, W) bool``: where the class is.
    mpp
        Microns per pixel.
    within_um
        Pixels farther from the true boundary than this are not counted; infinite counts all.

    Returns
    -------
    numpy.ndarray
        ``(5,)``: hits, false alarms, and misses among the counted pixels; pieces of the prediction and
        area in mm2 of the whole image.

    Raises
    ------
    LabelError
        If the shapes differ.
    """
    if truth.shape != predicted.shape or truth.ndim != 2:
        raise LabelError(f"truth {truth.shape} and prediction {predicted.shape}", "masks (H, W) of one size")
    counted = np.ones_like(truth) if np.isinf(within_um) else near_boundary(truth, within_um, mpp)
    hit, false = truth & predicted & counted, ~truth & predicted & counted
    missed = truth & ~predicted & counted
    area = truth.size * (mpp / 1000) ** 2
    return np.array([hit.sum(), false.sum(), missed.sum(), count_components(predicted), area], np.float64)


def score_masked(counts: Iterable[Counts], resamples: int = 1000, seed: int = 0) -> MaskedScores:
    """Return the figures of images, each with an interval over images.

    Parameters
    ----------
    counts
        Of each image, as :func:`masked_counts` gives them.
    resamples, seed
        Of the bootstrap over images.

    Raises
    ------
    LabelError
        If no image has a boundary.
    """
    rows = np.stack(list(counts))
    if not rows[:, : _MISSED + 1].any():
        raise LabelError(
            "no image has a pixel of the class near a boundary",
            "images that hold the class and something else",
            "choose other images, or a larger distance",
        )
    blocks = rows[:, None]
    iou, dice = _iou(rows), _dice(rows)
    return MaskedScores(
        iou=bootstrap(blocks, lambda c: _iou(c[..., 0, :]), resamples, seed)[0],
        dice=bootstrap(blocks, lambda c: _dice(c[..., 0, :]), resamples, seed)[0],
        components_per_mm2=bootstrap(blocks, lambda c: _pieces(c[..., 0, :]), resamples, seed)[0],
        mean_iou=_mean(iou, resamples, seed),
        mean_dice=_mean(dice, resamples, seed),
        iou_per_image=iou,
        dice_per_image=dice,
        components_per_image=_pieces(rows),
    )


def _mean(values: NDArray[np.float64], resamples: int, seed: int) -> Interval:
    """Return the mean over images that have a value."""
    known = values[np.isfinite(values)]
    pairs = np.stack([known, np.ones_like(known)], axis=-1)[:, None]
    return bootstrap(pairs, lambda c: c[..., 0, 0] / c[..., 0, 1], resamples, seed)[0]


def _iou(c: Counts) -> NDArray[np.float64]:
    return _ratio(c[..., _HIT], c[..., _HIT] + c[..., _FALSE] + c[..., _MISSED])


def _dice(c: Counts) -> NDArray[np.float64]:
    return _ratio(2 * c[..., _HIT], 2 * c[..., _HIT] + c[..., _FALSE] + c[..., _MISSED])


def _pieces(c: Counts) -> NDArray[np.float64]:
    return _ratio(c[..., _PIECES], c[..., _AREA])


def _ratio(above: Counts, below: Counts) -> NDArray[np.float64]:
    out: NDArray[np.float64] = np.full(np.shape(below), np.nan)
    np.divide(above, below, out=out, where=np.asarray(below) > 0)
    return out
