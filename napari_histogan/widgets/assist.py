"""What of a stroke, or of a place, a predicted mask agrees with; plain arrays."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage


def agreed_stroke(
    mask: NDArray[np.uint8], before: NDArray[np.uint8], predicted: NDArray[np.uint8], chosen: int
) -> NDArray[np.bool_] | None:
    """Return the pixels of the last stroke at which the prediction is its class; None if all of them are.

    Parameters
    ----------
    mask, before
        ``(R, R)`` with and without the stroke.
    predicted
        ``(R, R)`` most probable classes.
    chosen
        Class of the stroke.
    """
    stroke = (mask != before) & (mask == chosen)
    if not stroke.any() or (predicted[stroke] == chosen).all():
        return None
    return np.asarray(stroke & (predicted == chosen))


def region_at(labels: NDArray[np.uint8], y: int, x: int) -> NDArray[np.bool_]:
    """Return the connected region of one class at a pixel; everything if that lies outside."""
    if not (0 <= y < labels.shape[0] and 0 <= x < labels.shape[1]):
        return np.ones(labels.shape, np.bool_)
    parts, _ = ndimage.label(labels == labels[y, x])
    return np.asarray(parts == parts[y, x])
