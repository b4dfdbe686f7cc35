"""Masked figures of a heatmap: only pixels near the true boundary count; read part by part.

Reference: paper 003, section 3; see :mod:`.masked`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from napari_histogan.evaluation.object_scores import JoinedObjects
from napari_histogan.evaluation.segmentation import classes_from_percent
from napari_histogan.evaluation.significance import Interval, bootstrap
from napari_histogan.geometry import Region, Size, grid

Mask = NDArray[np.uint8]
_HIT, _FALSE, _MISSED, _PIECES, _AREA = range(5)


@dataclass(frozen=True)
class MaskedFigures:
    """Figures of each class, with intervals over blocks, or over slides.

    Attributes
    ----------
    class_names
        Of the K classes.
    iou, dice
        Of the pixels near the true boundary of each class; NaN for a class without one.
    pieces_per_mm2
        Connected pieces of each predicted class per mm2 that has a reference.
    """

    class_names: tuple[str, ...]
    iou: list[Interval]
    dice: list[Interval]
    pieces_per_mm2: list[Interval]

    def summary(self) -> dict[str, float]:
        """Return the values without intervals, for display."""
        found = {}
        for k, name in enumerate(self.class_names):
            found[f"masked_iou_{name}"] = self.iou[k].value
            found[f"masked_dice_{name}"] = self.dice[k].value
            found[f"pieces_per_mm2_{name}"] = self.pieces_per_mm2[k].value
        return found


def count_masked(
    size: Size,
    read_truth: Callable[[Region], Mask],
    read_percent: Callable[[Region], Mask],
    num_classes: int,
    *,
    mpp: float,
    within_um: float,
    block_px: int,
    part_px: int = 2048,
) -> NDArray[np.float64]:
    """Count the likeliest classes of a heatmap near the true boundaries, block by block.

    Parameters
    ----------
    size
        Of the heatmap in pixels.
    read_truth, read_percent
        Give classes ``(H, W)``, 0 where nothing is to be counted, and percent ``(K, H, W)`` of a region
        inside of the heatmap.
    num_classes
        K.
    mpp, within_um
        Microns per pixel, and the largest distance to the boundary of pixels that count.
    block_px
        Side of a block.  A piece belongs to the block of its first pixel in the first part that holds
        some of it.
    part_px
        About the side of a part; a piece that crosses its border counts once.

    Returns
    -------
    numpy.ndarray
        ``(B, K, 5)``: hits, false alarms, misses, pieces, and mm2 with a reference, of at least one block.
    """
    halo, side = int(np.ceil(within_um / mpp)) + 1, max(1, part_px // block_px) * block_px
    rows: list[NDArray[np.float64]] = []
    pieces = [_Pieces() for _ in range(num_classes)]
    for part in grid(size, Size(side, side)):
        frame = part.grown(halo).clipped(size)
        truth = read_truth(frame)
        if not truth.any():
            continue
        predicted = classes_from_percent(read_percent(frame))
        inside = (
            slice(part.y - frame.y, part.y_end - frame.y),
            slice(part.x - frame.x, part.x_end - frame.x),
        )
        for k, each in enumerate(pieces, 1):
            says_k = (predicted[inside] == k) & (truth[inside] > 0)
            each.add(says_k, (part.y, part.x), block_px, len(rows))
        by_class = [
            _count(truth, predicted, k, inside, (within_um / mpp, block_px))
            for k in range(1, num_classes + 1)
        ]
        rows += list(np.stack(by_class, axis=1))
    counts = np.stack(rows) if rows else np.zeros((1, num_classes, 5))
    for k, each in enumerate(pieces):
        counts[:, k, _PIECES] = each.by_block(len(counts))
    counts[..., _AREA] *= (mpp / 1000) ** 2
    return counts[counts[:, :, _AREA].any(axis=1)] if counts.any() else counts[:1]


def score_masked_counts(
    counts: NDArray[np.float64], class_names: tuple[str, ...], resamples: int = 1000, seed: int = 0
) -> MaskedFigures:
    """Return the figures of counts ``(B, K, 5)``, each with an interval over their blocks."""
    return MaskedFigures(
        class_names,
        bootstrap(
            counts, lambda c: _ratio(c[..., _HIT], c[..., _HIT : _MISSED + 1].sum(-1)), resamples, seed
        ),
        bootstrap(
            counts,
            lambda c: _ratio(2 * c[..., _HIT], c[..., _HIT] + c[..., _HIT : _MISSED + 1].sum(-1)),
            resamples,
            seed,
        ),
        bootstrap(counts, lambda c: _ratio(c[..., _PIECES], c[..., _AREA]), resamples, seed),
    )


class _Pieces:
    """Connected pieces of one class, joined where parts touch, and the block that each belongs to."""

    def __init__(self) -> None:
        self._joined = JoinedObjects()
        self._blocks: list[int] = []

    def add(self, inside: NDArray[np.bool_], origin: tuple[int, int], block_px: int, row: int) -> None:
        """Take the pixels of a part, whose first block is counted in this row."""
        labels = self._joined.add(inside, origin)
        found, first = np.unique(labels, return_index=True)
        y, x = np.unravel_index(first[found > 0], labels.shape)
        across = -(-labels.shape[1] // block_px)
        self._blocks += (row + (y // block_px) * across + x // block_px).tolist()

    def by_block(self, blocks: int) -> NDArray[np.float64]:
        """Return the pieces of each block, ``(blocks,)``."""
        roots = [b for label, b in enumerate(self._blocks, 1) if self._joined.root(label) == label]
        return np.bincount(np.array(roots, np.int64), minlength=blocks).astype(np.float64)


def _count(
    truth: Mask, predicted: Mask, k: int, inside: tuple[slice, slice], how: tuple[float, int]
) -> NDArray[np.float64]:
    """Return hits, false alarms, misses, 0, and pixels with a reference of a class, a row a block."""
    within_px, block_px = how
    near = _near(truth, k, within_px)[inside]
    known, is_k, says_k = truth[inside] > 0, truth[inside] == k, predicted[inside] == k
    nothing = np.zeros_like(known)  # pieces are joined across parts first
    flags = (is_k & says_k & near, ~is_k & says_k & near, is_k & ~says_k & near, nothing, known)
    return np.stack([_by_block(flag, block_px) for flag in flags], axis=-1)


def _near(truth: Mask, k: int, within_px: float) -> NDArray[np.bool_]:
    """Return the pixels of a reference within a distance of the boundary between class k and the others.

    The boundary runs between pixels, as in :func:`.masked.near_boundary`; that to pixels without a
    reference is none.
    """
    is_k, other = truth == k, (truth > 0) & (truth != k)
    if not is_k.any() or not other.any():
        return np.zeros(truth.shape, np.bool_)
    to_other = cv2.distanceTransform((~other).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    to_k = cv2.distanceTransform((~is_k).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    near: NDArray[np.bool_] = (is_k & (to_other - 0.5 <= within_px)) | (other & (to_k - 0.5 <= within_px))
    return near


def _by_block(flags: NDArray[np.bool_], side: int) -> NDArray[np.float64]:
    """Return the sums of blocks, ``(B,)``; those at the end may be smaller."""
    rows = np.add.reduceat(flags.astype(np.int64), np.arange(0, flags.shape[0], side), axis=0)
    sums = np.add.reduceat(rows, np.arange(0, flags.shape[1], side), axis=1)
    return sums.ravel().astype(np.float64)


def _ratio(above: NDArray[np.float64], below: NDArray[np.float64]) -> NDArray[np.float64]:
    out: NDArray[np.float64] = np.full(np.shape(below), np.nan)
    np.divide(above, below, out=out, where=np.asarray(below) > 0)
    return out
