"""Whether probabilities mean what they say: expected calibration error.

Pixels are binned by the probability of their likeliest class.  In each bin, the share of
right pixels is compared with the mean probability.

Reference: C. Guo, G. Pleiss, Y. Sun, K. Q. Weinberger: "On calibration of modern neural
networks", ICML 2017, equation 3.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

BINS = 10


def calibration_counts(
    truth: NDArray[np.uint8], percent: NDArray[np.uint8], bins: int = BINS
) -> NDArray[np.float64]:
    """Sum up pixels by the probability of their likeliest class.

    Parameters
    ----------
    truth
        ``(H, W)`` classes 0..K; 0 is left out, and so are pixels without a prediction.
    percent
        ``(K, H, W)``, 0..100.
    bins
        Number of bins of equal width over 0..1; a border belongs to the upper bin, 1 to the last.

    Returns
    -------
    numpy.ndarray
        ``(bins, 3)``: pixels, sum of their probabilities, and right pixels.
    """
    best, highest = percent.argmax(axis=0) + 1, percent.max(axis=0)
    counted = (truth > 0) & (highest > 0)
    sure = highest[counted].astype(np.int64)
    right = (best == truth)[counted]
    number = np.minimum(sure * bins // 100, bins - 1)
    return np.stack(
        [
            np.bincount(number, minlength=bins),
            np.bincount(number, weights=sure / 100, minlength=bins),
            np.bincount(number, weights=right, minlength=bins),
        ],
        axis=1,
    ).astype(np.float64)


def calibration_error(counts: NDArray[Any]) -> NDArray[np.float64]:
    """Return the expected calibration error ``(...)`` of counts ``(..., bins, 3)``; NaN without pixels."""
    pixels, sure, right = np.moveaxis(np.asarray(counts, np.float64), -1, 0)
    total = pixels.sum(axis=-1)
    gap = np.abs(right - sure).sum(axis=-1)
    return np.where(total > 0, gap / np.where(total > 0, total, 1), np.nan)
