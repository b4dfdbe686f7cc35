"""The four layers on which samples are shown and painted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from napari_histogan.labels.classes import ClassTable
from napari_histogan.widgets.class_colors import label_colormap, label_features, uncertainty_colormap

_SURELY_UNSURE = 0.4
"""Uncertainty, of at most 1, that is drawn in the brightest color; more is rare."""


def add_sample_layers(viewer: Any, side: int, table: ClassTable) -> Iterator[Any]:
    """Add picture, prediction, uncertainty, and mask, from bottom to top, hidden, one at each turn.

    Parameters
    ----------
    viewer
        The napari viewer.
    side
        Side of a sample in pixels; samples of another size may follow.
    table
        The classes, for their colors.
    """
    blank = np.zeros((side, side), np.uint8)
    place: dict[str, Any] = {"scale": (1.0, 1.0), "units": ("um", "um"), "visible": False}
    picture = viewer.add_image(
        np.zeros((side, side, 3), np.uint8), rgb=True, name="Picture", interpolation2d="linear", **place
    )
    picture.locked = True
    yield picture
    colors = label_colormap(table)
    prediction = viewer.add_labels(blank.copy(), name="Prediction", opacity=0.35, colormap=colors, **place)
    prediction.locked, prediction.editable = True, False
    yield prediction
    uncertainty = viewer.add_image(
        blank.astype(np.float32),
        name="Uncertainty",
        colormap=uncertainty_colormap(),
        opacity=0.85,
        contrast_limits=(0.0, _SURELY_UNSURE),
        blending="translucent",
        **place,
    )
    uncertainty.locked = True
    yield uncertainty
    mask = viewer.add_labels(blank.copy(), name="Mask", opacity=0.6, colormap=colors, **place)
    mask.brush_size = max(2, side // 12)
    mask.features = label_features(table)
    mask.locked, mask.editable = True, False
    yield mask


class Making:
    """Adds layers one at a time; what fails in the middle is begun anew, nothing is begun twice at once."""

    def __init__(self) -> None:
        self.made: list[Any] = []
        self._steps: Iterator[Any] | None = None
        self._busy = False

    def step(self, begin: Callable[[], Iterator[Any]]) -> bool:
        """Add one more; False when all are there, or while one is being added."""
        if self._busy:
            return False
        if self._steps is None:
            self.made, self._steps = [], begin()
        self._busy = True
        try:
            layer = next(self._steps, None)
        except BaseException:
            self._steps = None
            raise
        finally:
            self._busy = False
        if layer is None:
            self._steps = None
            return False
        self.made.append(layer)
        return True
