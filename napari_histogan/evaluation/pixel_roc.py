"""Whether pixels are told apart: AUC inside fields of view, by picture and pooled (paper 004)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_histogan.evaluation.detection import roc_auc, roc_curve
from napari_histogan.evaluation.plots import Axes, Curve

_SHOWN_POINTS = 400


@dataclass(frozen=True, eq=False)
class ScoredPicture:
    """The probability of the object in one picture, beside the truth.

    Attributes
    ----------
    name
        Of the picture.
    probability
        ``(n,) float``, of the pixels that count.
    truth
        ``(n,) bool``, True on the object.
    """

    name: str
    probability: NDArray[np.float32]
    truth: NDArray[np.bool_]


@dataclass(frozen=True)
class PixelAuc:
    """Areas under ROC curves, 0..1.

    Attributes
    ----------
    pooled
        Of the pixels of all pictures together.
    by_picture
        Of each picture, by its name.
    """

    pooled: float
    by_picture: dict[str, float]

    @property
    def mean(self) -> float:
        """Mean of the pictures' areas."""
        return float(np.mean(list(self.by_picture.values())))


def scored(
    name: str, probability: NDArray[np.float32], truth: NDArray[np.bool_], inside: NDArray[np.bool_]
) -> ScoredPicture:
    """Take the pixels inside the field of view; all arrays ``(H, W)``."""
    return ScoredPicture(name, probability[inside], np.asarray(truth[inside], bool))


def pixel_auc(pictures: Sequence[ScoredPicture]) -> PixelAuc:
    """Return the areas under the ROC curves; raise ``LabelError`` if a picture has only one kind of pixel."""
    by_picture = {p.name: roc_auc(p.truth, p.probability.astype(np.float64)) for p in pictures}
    return PixelAuc(roc_auc(*_pooled(pictures)), by_picture)


def pooled_curve(name: str, pictures: Sequence[ScoredPicture]) -> Curve:
    """Return the ROC curve of all pixels together, thinned out for drawing."""
    false, true = roc_curve(*_pooled(pictures))
    kept = np.unique(np.searchsorted(false + true, np.linspace(0, 2, _SHOWN_POINTS)).clip(0, len(false) - 1))
    return Curve(name, false[kept].tolist(), true[kept].tolist())


ROC_AXES = Axes(
    "share of background pixels taken for the object",
    "share of the object found",
    x_range=(0, 1),
    y_range=(0, 1.02),
    diagonal=True,
)
"""Of :func:`pooled_curve`, for :func:`~napari_histogan.evaluation.plots.line_plot`."""


def _pooled(pictures: Sequence[ScoredPicture]) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    truth = np.concatenate([p.truth for p in pictures])
    return truth, np.concatenate([p.probability for p in pictures]).astype(np.float64)
