"""How well outlines fit: boundary F1 with a tolerance.

A boundary pixel of a class is a pixel of the class with a pixel of no or another class
above, below, left, or right of it.  Precision is the share of predicted boundary pixels
with a true one within the tolerance, recall the share of true ones with a predicted one.

Reference: G. Csurka, D. Larlus, F. Perronnin: "What is a good evaluation measure for
semantic segmentation?", BMVC 2013, section 2.3.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.int64]
Mask = NDArray[np.uint8]


def boundary_counts(
    truth: Mask, predicted: Mask, num_classes: int, tolerance_px: float, halo: int = 0
) -> Counts:
    """Count boundary pixels, and those that have a partner.

    Parameters
    ----------
    truth, predicted
        ``(H, W)`` classes 0..K.  Where the truth is 0 nothing is counted, and the border
        between labeled and unlabeled pixels is no boundary.
    num_classes
        K.
    tolerance_px
        Largest distance of partners in pixels.
    halo
        Pixels at the rim that are looked at but not counted; parts of a picture that
        overlap by a halo of at least ``tolerance_px + 1`` add up to the picture's counts.

    Returns
    -------
    numpy.ndarray
        ``(K, 4) int64``: predicted with a partner, predicted, true with a partner, true.
    """
    counted = truth > 0
    inner = np.zeros_like(counted)
    inner[halo : truth.shape[0] - halo, halo : truth.shape[1] - halo] = True
    counts = np.zeros((num_classes, 4), np.int64)
    for k in range(num_classes):
        true, found = (_boundary(mask == k + 1, counted) for mask in (truth, predicted))
        near_true, near_found = _within(true, tolerance_px), _within(found, tolerance_px)
        counts[k] = [
            np.count_nonzero(part & inner) for part in (found & near_true, found, true & near_found, true)
        ]
    return counts


def boundary_f1(counts: NDArray[Any]) -> NDArray[np.float64]:
    """Return F1 of each class ``(..., K)`` from counts ``(..., K, 4)``; NaN for a class without boundary."""
    hit_p, all_p, hit_t, all_t = np.moveaxis(np.asarray(counts, np.float64), -1, 0)
    precision = hit_p / np.where(all_p > 0, all_p, 1)
    recall = hit_t / np.where(all_t > 0, all_t, 1)
    total = precision + recall
    f1 = np.where(total > 0, 2 * precision * recall / np.where(total > 0, total, 1), 0.0)
    return np.where((all_p > 0) | (all_t > 0), f1, np.nan)


def _boundary(inside: NDArray[np.bool_], counted: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the pixels inside that touch a counted pixel outside."""
    inside = inside & counted
    other = counted & ~inside
    touched = np.zeros_like(inside)
    touched[1:] |= other[:-1]
    touched[:-1] |= other[1:]
    touched[:, 1:] |= other[:, :-1]
    touched[:, :-1] |= other[:, 1:]
    return inside & touched


def _within(points: NDArray[np.bool_], distance: float) -> NDArray[np.bool_]:
    """Return the pixels whose nearest point is at most ``distance`` away."""
    if not points.any():
        return points
    away = cv2.distanceTransform((~points).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return np.asarray(away <= distance + 1e-4, np.bool_)
