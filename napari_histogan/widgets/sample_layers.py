"""The four layers on which samples are shown and painted."""

from __future__ import annotations

from typing import Any

import numpy as np

from napari_histogan.labels.classes import ClassTable
from napari_histogan.widgets.class_colors import label_colormap, label_features, uncertainty_colormap

_SURELY_UNSURE = 0.4
"""Uncertainty, of at most 1, that is drawn in the brightest color; more is rare."""


def add_sample_layers(viewer: Any, side: int, table: ClassTable) -> tuple[Any, Any, Any, Any]:
    """Add picture, prediction, uncertainty, and mask, from bottom to top, and return them.

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
    place: dict[str, Any] = {"scale": (1.0, 1.0), "units": ("um", "um")}
    picture = viewer.add_image(
        np.zeros((side, side, 3), np.uint8), rgb=True, name="Picture", interpolation2d="linear", **place
    )
    colors = label_colormap(table)
    prediction = viewer.add_labels(blank.copy(), name="Prediction", opacity=0.35, colormap=colors, **place)
    uncertainty = viewer.add_image(
        blank.astype(np.float32),
        name="Uncertainty",
        colormap=uncertainty_colormap(),
        opacity=0.85,
        contrast_limits=(0.0, _SURELY_UNSURE),
        blending="translucent",
        visible=False,
        **place,
    )
    mask = viewer.add_labels(blank.copy(), name="Mask", opacity=0.6, colormap=colors, **place)
    mask.brush_size = max(2, side // 12)
    mask.features = label_features(table)
    layers = picture, prediction, uncertainty, mask
    for layer in layers:
        layer.locked = True
    prediction.editable = False
    return layers
