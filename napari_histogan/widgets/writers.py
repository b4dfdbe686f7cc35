"""What napari saves with this plugin: a layer of labels, as outlines for QuPath or as an indexed PNG."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import napari
import numpy as np
from numpy.typing import NDArray

from napari_histogan.errors import LabelError
from napari_histogan.geometry import Point
from napari_histogan.labels.classes import MAX_CLASSES, ClassInfo, ClassTable
from napari_histogan.labels.interchange import write_annotations, write_png_mask
from napari_histogan.labels.outlines import polygonize
from napari_histogan.widgets.session import Session
from napari_histogan.widgets.session_view import main_window_of


def write_labels(path: str, data: Any, meta: dict[str, Any]) -> list[str]:
    """Write a layer of labels.

    Parameters
    ----------
    path
        ``.geojson`` or ``.xml``: outlines, in pixels of the slide that the dock shows if it shows one, else
        of the layer.  ``.png``: the mask itself, with class numbers as values and colors for viewers.
    data
        ``(y, x)`` whole numbers, 0 = unlabeled; a pyramid's finest level is written.
    meta
        Of napari: scale and translation in um, and the layer's features, which may name the classes.

    Returns
    -------
    list of str
        The path.

    Raises
    ------
    LabelError
        If there are more classes than 255, or the layer is not flat.
    """
    mask = _mask(data[0] if meta.get("multiscale") or isinstance(data, list | tuple) else data)
    classes = classes_of(mask, meta)
    if Path(path).suffix.lower() == ".png":
        write_png_mask(path, mask, classes)
        return [path]
    mpp = _shown_mpp()
    scale, corner = _place(meta)
    if mpp is None:
        outlines = polygonize(mask, classes)
    else:
        outlines = polygonize(mask, classes, Point(corner[0] / scale, corner[1] / scale), scale / mpp)
    write_annotations(path, outlines)
    return [path]


def classes_of(mask: NDArray[np.uint8], meta: dict[str, Any]) -> ClassTable:
    """Return the classes that a layer's features name; "class 1" and so on where they name none."""
    features = meta.get("features")
    names: dict[int, str] = {}
    if features is not None and "index" in features and "class" in features:
        pairs = zip(list(features["index"]), list(features["class"]), strict=True)
        names = {int(index): str(name) for index, name in pairs if int(index) > 0}
    session = _session()
    known = session.project.classes if session is not None and session.project is not None else ClassTable()
    colors = {info.name: info.color for info in known}
    top = max([int(mask.max(initial=0)), *names])
    told = [names.get(index, f"class {index}") for index in range(1, top + 1)]
    return ClassTable(tuple(ClassInfo(k, name, colors.get(name, "")) for k, name in enumerate(told, 1)))


def _mask(data: Any) -> NDArray[np.uint8]:
    mask = np.asarray(data)
    if mask.ndim != 2 or (mask.size and not 0 <= int(mask.min()) <= int(mask.max()) <= MAX_CLASSES):
        raise LabelError(
            f"the layer has {mask.ndim} dimensions and values up to {mask.max(initial=0)}",
            f"a flat picture of class numbers up to {MAX_CLASSES}",
            "objects with a number each are not classes; napari's own formats save them",
        )
    return mask.astype(np.uint8)


def _place(meta: dict[str, Any]) -> tuple[float, tuple[float, float]]:
    """Return um per pixel, and the (y, x) of the first pixel's corner in um; napari tells its center."""
    scale = float(np.asarray(meta.get("scale", (1.0, 1.0)), float)[-1])
    first = np.asarray(meta.get("translate", (0.0, 0.0)), float)[-2:]
    return scale, (float(first[0]) - scale / 2, float(first[1]) - scale / 2)


def _session() -> Session | None:
    """Return the session of the present window; None without one."""
    viewer = napari.current_viewer()
    window = None
    if viewer is not None:
        docks = viewer.window.dock_widgets
        inner = next(iter(docks.values()), None)
        native = getattr(inner, "native", inner)
        window = main_window_of(native) if native is not None else None
    return window.findChild(Session) if window is not None else None


def _shown_mpp() -> float | None:
    """Return um per pixel of the slide that the dock shows; None if it shows none."""
    session = _session()
    reader = session.slide_view.reader if session is not None else None
    return float(reader.mpp) if reader is not None else None
