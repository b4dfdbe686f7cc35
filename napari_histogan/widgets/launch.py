"""``python -m napari_histogan.widgets.launch [PROJECT]``: napari with the dock open."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import napari

from napari_histogan.widgets.dock import PLUGIN, HistoganDock
from napari_histogan.widgets.key_help import show_keys

DOCK = "HistoGAN"


def open_dock(viewer: Any, root: Path | None = None) -> HistoganDock:
    """Open the dock in a viewer, with a project if one is given.

    Parameters
    ----------
    viewer
        A napari viewer.
    root
        The project's folder.
    """
    dock: HistoganDock
    _, dock = viewer.window.add_plugin_dock_widget(PLUGIN, DOCK)
    if root is not None:
        dock.open_when_ready(root)
    return dock


def open_dock_here() -> None:
    """Open the dock in the present viewer; for napari's menu Layers > Segment."""
    viewer = napari.current_viewer()
    if viewer is not None:
        open_dock(viewer)


def show_keys_here() -> None:
    """Show the table of keys; for napari's menus."""
    viewer = napari.current_viewer()
    if viewer is not None:
        show_keys(open_dock(viewer))


def main(arguments: list[str] | None = None) -> int:
    """Open napari; returns when its window is closed."""
    given = sys.argv[1:] if arguments is None else arguments
    viewer = napari.Viewer(title="HistoGAN")
    open_dock(viewer, Path(given[0]) if given else None)
    napari.run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
