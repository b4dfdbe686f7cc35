"""Whether slides and lesions are found: ROC of slides, and FROC of lesions as in CAMELYON16.

Reference: B. Ehteshami Bejnordi et al.: "Diagnostic assessment of deep learning algorithms for detection
of lymph node metastases in women with breast cancer", JAMA 318 (2017), supplement.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, stats
from skimage.measure import regionprops

from napari_histogan.errors import LabelError
from napari_histogan.evaluation.significance import Interval

FALSE_POSITIVES = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
"""False positives per slide at which sensitivities are averaged."""

JOIN_UM = 75.0
"""Malign regions nearer to each other than this are one lesion: the mask grows by half of it."""

ISOLATED_UM = 275.0
"""A lesion whose longest axis is shorter is isolated tumor cells, which count neither for nor against."""

OUTSIDE, ISOLATED = 0, -1


@dataclass(frozen=True, eq=False)
class SlideDetections:
    """The detections on one slide, already laid over its lesions.

    Parameters
    ----------
    scores
        ``(n,)`` float, of each detection.
    lesions
        ``(n,)`` int: number of the lesion that a detection lies in, from 1; 0 outside of all
        (:data:`OUTSIDE`), -1 in isolated tumor cells (:data:`ISOLATED`).
    lesion_count
        Lesions of the slide without isolated tumor cells; 0 on a benign slide.
    """

    scores: NDArray[np.float64]
    lesions: NDArray[np.int64]
    lesion_count: int


def roc_auc(malign: NDArray[np.bool_], scores: NDArray[np.float64]) -> float:
    """Return the area under the ROC curve: how often a malign score exceeds a benign one; ties count half.

    Raises
    ------
    LabelError
        If there are not both kinds.
    """
    malign = np.asarray(malign, bool)
    positives, negatives = int(malign.sum()), int((~malign).sum())
    if not positives or not negatives:
        raise LabelError(
            f"there are {positives} malign and {negatives} benign scores", "at least one of each"
        )
    ranks = stats.rankdata(scores)
    return float((ranks[malign].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def roc_curve(
    malign: NDArray[np.bool_], scores: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return false and true positive rates from the strictest threshold to the loosest, with both ends."""
    order = np.argsort(scores)[::-1]
    sorted_scores, sorted_malign = np.asarray(scores)[order], np.asarray(malign, bool)[order]
    # Scores that are equal pass a threshold together.
    last = np.flatnonzero(np.append(np.diff(sorted_scores) != 0, True)) if len(order) else order
    true, false = (np.cumsum(kind)[last] for kind in (sorted_malign, ~sorted_malign))
    return tuple(  # type: ignore[return-value]
        np.concatenate([[0.0], found / max(1, int(found.max(initial=0)))]) for found in (false, true)
    )


def slide_auc(
    malign: NDArray[np.bool_],
    scores: NDArray[np.float64],
    resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """Return the slides' AUC with its interval; slides are resampled within their kind."""
    malign, scores = np.asarray(malign, bool), np.asarray(scores, float)
    kinds = [np.flatnonzero(malign), np.flatnonzero(~malign)]

    def drawn(rng: np.random.Generator) -> float:
        chosen = np.concatenate([rng.choice(kind, len(kind)) for kind in kinds])
        return roc_auc(malign[chosen], scores[chosen])

    return _interval(roc_auc(malign, scores), drawn, resamples, seed, level)


def lesion_map(malign: NDArray[np.bool_], cell_um: float) -> NDArray[np.int64]:
    """Return the lesions of a mask, ``(h, w)``: numbers from 1, :data:`ISOLATED` for isolated tumor cells.

    Parameters
    ----------
    malign
        ``(h, w) bool``.
    cell_um
        Side of a cell in um; well below :data:`JOIN_UM`.
    """
    grown = ndimage.distance_transform_edt(~np.pad(malign, 1)) * cell_um <= JOIN_UM / 2
    grown = ndimage.binary_fill_holes(grown)[1:-1, 1:-1] if malign.any() else np.zeros_like(malign)
    pieces, _ = ndimage.label(grown, np.ones((3, 3)))
    lesions, number = np.zeros(malign.shape, np.int64), 0
    for piece in regionprops(pieces):
        large = piece.axis_major_length * cell_um >= ISOLATED_UM
        number += large
        lesions[tuple(piece.coords.T)] = number if large else ISOLATED
    return lesions


def find_peaks(
    probability: NDArray[np.float32], radius: float, least: float = 0.05
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return peaks of a map by non-maximum suppression, the highest first.

    Parameters
    ----------
    probability
        ``(h, w)``, 0..1.
    radius
        Cells around a peak in which there is no other, at least 0.
    least
        Lower peaks are left out.

    Returns
    -------
    tuple
        Rows and columns ``(n, 2)``, and the probabilities there ``(n,)``.
    """
    left = np.array(probability, np.float64)
    reach = int(np.ceil(radius))
    ys, xs = np.ogrid[-reach : reach + 1, -reach : reach + 1]
    disc = ys**2 + xs**2 <= radius**2
    places: list[tuple[int, int]] = []
    scores: list[float] = []
    while left.size:
        row, column = np.unravel_index(int(left.argmax()), left.shape)
        y, x = int(row), int(column)
        if left[y, x] < least or left[y, x] <= 0:
            break
        places.append((y, x))
        scores.append(float(left[y, x]))
        y0, x0 = max(0, y - reach), max(0, x - reach)
        window = left[y0 : y + reach + 1, x0 : x + reach + 1]
        part = disc[y0 - y + reach :, x0 - x + reach :][: window.shape[0], : window.shape[1]]
        window[part] = 0
    return np.array(places, np.int64).reshape(-1, 2), np.array(scores, np.float64)


def detections_on(
    places: NDArray[np.int64], scores: NDArray[np.float64], lesions: NDArray[np.int64]
) -> SlideDetections:
    """Lay detections ``(n, 2)``, in cells of :func:`lesion_map`, over the lesions of a slide."""
    return SlideDetections(scores, lesions[tuple(places.T)], int(max(0, lesions.max(initial=0))))


def froc_curve(
    slides: Sequence[SlideDetections],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return false positives per slide, and the share of lesions that are found, from strict to loose.

    Several hits of a lesion count once, with the highest score.

    Raises
    ------
    LabelError
        If no slide has a lesion.
    """
    total = sum(slide.lesion_count for slide in slides)
    if not total:
        raise LabelError("no slide has a lesion", "at least one lesion", "give outlines of malign slides")
    false = np.concatenate([slide.scores[slide.lesions == OUTSIDE] for slide in slides])
    best = [
        float(slide.scores[slide.lesions == number].max())
        for slide in slides
        for number in range(1, slide.lesion_count + 1)
        if (slide.lesions == number).any()
    ]
    hits = np.array(best, np.float64)
    thresholds = np.unique(np.concatenate([false, hits]))[::-1]
    rates = (false[None] >= thresholds[:, None]).sum(axis=1) / len(slides)
    found = (hits[None] >= thresholds[:, None]).sum(axis=1) / total
    return np.concatenate([[0.0], rates]), np.concatenate([[0.0], found])


def froc_score(slides: Sequence[SlideDetections]) -> float:
    """Return the mean sensitivity at 1/4, 1/2, 1, 2, 4, and 8 false positives per slide.

    Between thresholds the curve is straight; beyond the loosest it is level.
    """
    rates, found = froc_curve(slides)
    # Of several sensitivities at one rate, the highest is reached.
    last = np.flatnonzero(np.append(np.diff(rates) > 0, True))
    return float(np.interp(FALSE_POSITIVES, rates[last], found[last]).mean())


def lesion_froc(
    slides: Sequence[SlideDetections], resamples: int = 1000, seed: int = 0, level: float = 0.95
) -> Interval:
    """Return :func:`froc_score` with its interval over slides; draws without a lesion do not count."""

    def drawn(rng: np.random.Generator) -> float:
        chosen = [slides[k] for k in rng.integers(len(slides), size=len(slides))]
        return froc_score(chosen) if any(slide.lesion_count for slide in chosen) else float("nan")

    return _interval(froc_score(slides), drawn, resamples, seed, level)


def _interval(
    value: float, draw: Callable[[np.random.Generator], float], resamples: int, seed: int, level: float
) -> Interval:
    """Return the percentile interval of a figure's resamples."""
    rng = np.random.default_rng(seed)
    drawn = np.array([draw(rng) for _ in range(resamples)], float)
    drawn = drawn[np.isfinite(drawn)]
    tail = (1 - level) / 2
    low, high = np.quantile(drawn, [tail, 1 - tail]) if len(drawn) else (float("nan"), float("nan"))
    return Interval(value, float(low), float(high))
