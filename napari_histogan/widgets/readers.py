"""What napari opens with this plugin: projects, heatmaps, and slides.

Slides and heatmaps come in with their scale in micrometers.  Opening a project opens
the dock with it; the layer that napari wants in return is the first slide.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import napari
from qtpy.QtCore import QTimer

from napari_histogan.errors import HistoganError, SlideUnreadable
from napari_histogan.project.store import Project
from napari_histogan.slides.reader import SlideReader, open_slide
from napari_histogan.slides.zarr_pyramid import open_pyramid
from napari_histogan.widgets.class_colors import heat_colormap
from napari_histogan.widgets.launch import open_dock
from napari_histogan.widgets.layer_data import HEATMAP_STORE, heatmap_levels, slide_levels

LayerData = tuple[Any, dict[str, Any], str]
Reader = Callable[[Any], list[LayerData]]
_PALETTE = ("#0072b2", "#e69f00", "#cc79a7", "#009e73", "#56b4e9", "#d55e00", "#f0e442", "#999999")


def get_project_reader(path: str | Sequence[str] = "") -> Reader | None:
    """Return a reader if the path is a project folder."""
    folder = _single(path)
    return read_project if folder is not None and _project_root(folder) is not None else None


def get_heatmap_reader(path: str | Sequence[str] = "") -> Reader | None:
    """Return a reader if the path is a map of class probabilities, or an artifact that holds one."""
    folder = _single(path)
    return read_heatmap if folder is not None and _heatmap_store(folder) is not None else None


def get_slide_reader(path: str | Sequence[str] = "") -> Reader | None:
    """Return a reader if the path looks like a slide; whether it is one shows when it is read."""
    paths = [path] if isinstance(path, str) else list(path)
    return read_slides if paths and all(p and Path(p).exists() for p in paths) else None


def read_project(path: Any) -> list[LayerData]:
    """Open the dock with a project; its first slide comes as a layer of the dock's own."""
    given = Path(_first(path))
    root = Project.open(_project_root(given) or given).root
    viewer = napari.current_viewer()
    if viewer is not None:
        # The window must finish this read before docks are added to it.
        QTimer.singleShot(0, lambda: open_dock(viewer, root))
    return [(None,)]  # type: ignore[list-item]  # napari's way to say "done, no layer"


def read_heatmap(path: Any) -> list[LayerData]:
    """Return one layer per class, the first visible, in micrometers."""
    store = _heatmap_store(Path(_first(path)))
    if store is None:
        raise SlideUnreadable(
            f"{path} is no heatmap", "a folder that predict-heatmap wrote", "check the path"
        )
    pyramid = open_pyramid(store)
    layers: list[LayerData] = []
    for index, name in enumerate(pyramid.channels, 1):
        meta = {
            "name": f"Heatmap: {name}",
            "multiscale": True,
            "scale": (pyramid.mpp, pyramid.mpp),
            "translate": (pyramid.mpp / 2, pyramid.mpp / 2),
            "units": ("um", "um"),
            "contrast_limits": (0, 100),
            "colormap": heat_colormap(_PALETTE[(index - 1) % len(_PALETTE)]),
            "blending": "translucent",
            "visible": index == 1,
        }
        layers.append((heatmap_levels(pyramid, index), meta, "image"))
    return layers


def read_slides(path: Any) -> list[LayerData]:
    """Return slides as multiscale layers in micrometers; one without mpp comes in pixels and says so."""
    paths = [path] if isinstance(path, str | Path) else list(path)
    return [slide_layer(open_slide(Path(p))) for p in paths]


def slide_layer(reader: SlideReader) -> LayerData:
    """Return a slide as napari's layer data."""
    meta: dict[str, Any] = {"name": reader.path.name, "rgb": True, "multiscale": True}
    if reader.has_mpp:
        meta |= {"scale": (reader.mpp, reader.mpp), "units": ("um", "um")}
        # The middle of the corner pixel lies half a pixel from the slide's corner, as with heatmaps.
        meta["translate"] = (reader.mpp / 2, reader.mpp / 2)
    else:
        meta["name"] += " (resolution unknown: in pixels)"
    return slide_levels(reader), meta, "image"


def _project_root(path: Path) -> Path | None:
    """Return the project that a folder, or its project.toml, belongs to."""
    root = path.parent if path.name == "project.toml" else path
    return root if (root / "project.toml").is_file() else None


def _heatmap_store(folder: Path) -> Path | None:
    """Return the map's folder if there is one that this program wrote."""
    for store in (folder, folder / HEATMAP_STORE):
        if (store / "blocks.jsonl").is_file():
            try:
                open_pyramid(store)
            except HistoganError:
                continue
            return store
    return None


def _single(path: str | Sequence[str]) -> Path | None:
    """Return the one path that was given, or None."""
    if isinstance(path, str):
        return Path(path) if path else None
    return Path(path[0]) if len(path) == 1 else None


def _first(path: Any) -> str:
    return str(path) if isinstance(path, str | Path) else str(path[0])
