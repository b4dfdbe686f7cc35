"""Colors of classes, maps, and uncertainty as napari wants them."""

from __future__ import annotations

from typing import Any

import numpy as np
from napari.utils.colormaps import Colormap, DirectLabelColormap

from napari_histogan.labels.classes import ClassTable


def label_colormap(table: ClassTable) -> Any:
    """Return the colors of a labels layer; unlabeled and unknown values are transparent."""
    clear = np.zeros(4, np.float32)
    colors: dict[int | None, Any] = {None: clear, 0: clear}
    colors.update({info.index: info.color for info in table})
    return DirectLabelColormap(color_dict=colors)


def label_features(table: ClassTable) -> dict[str, list[Any]]:
    """Return what the status bar shows for each value of a mask."""
    return {
        "index": [0, *(info.index for info in table)],
        "class": ["unlabeled", *(info.name for info in table)],
    }


def heat_colormap(color: str) -> Any:
    """Return a colormap of one class: transparent where improbable, its color where sure."""
    red, green, blue = (int(color[i : i + 2], 16) / 255 for i in (1, 3, 5))
    stops = [(red, green, blue, 0.0), (red, green, blue, 0.55), (red, green, blue, 0.9)]
    return Colormap(np.array(stops, np.float32), controls=[0.0, 0.5, 1.0], name=f"heat {color}")


def uncertainty_colormap() -> Any:
    """Return a colormap that is transparent where the ensemble agrees."""
    stops = [(0, 0, 0, 0), (0.25, 0.05, 0.45, 0.5), (0.9, 0.3, 0.2, 0.8), (1.0, 0.95, 0.3, 0.95)]
    return Colormap(np.array(stops, np.float32), controls=[0.0, 0.34, 0.67, 1.0], name="disagreement")
