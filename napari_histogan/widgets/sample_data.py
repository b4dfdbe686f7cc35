"""The slide and the project that ship, for napari's menu File > Open Sample."""

from __future__ import annotations

from pathlib import Path

import napari
from qtpy.QtCore import QTimer

import napari_histogan
from napari_histogan.slides.reader import open_slide
from napari_histogan.widgets.demo_project import demo_folder
from napari_histogan.widgets.launch import open_dock
from napari_histogan.widgets.readers import LayerData, slide_layer

DEMO_SLIDE = Path(napari_histogan.__file__).parent / "demo_data" / "CMU-1-Small-Region.svs"


def demo_slide() -> list[LayerData]:
    """Return the demo slide (skin, CC0) as a layer in micrometers."""
    data, meta, kind = slide_layer(open_slide(DEMO_SLIDE))
    return [(data, {**meta, "name": "HistoGAN demo slide"}, kind)]


def demo_project() -> list[LayerData]:
    """Open the dock with the demo project, made the first time; return its slide as a layer."""
    viewer = napari.current_viewer()
    if viewer is not None:
        # The window must finish this call before docks are added to it.
        QTimer.singleShot(0, lambda: open_dock(viewer).try_demo_when_ready(demo_folder()))
    return demo_slide()
