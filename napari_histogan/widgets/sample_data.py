"""The slide that ships, for napari's menu File > Open Sample."""

from __future__ import annotations

from pathlib import Path

import napari_histogan
from napari_histogan.slides.reader import open_slide
from napari_histogan.widgets.readers import LayerData, slide_layer

DEMO_SLIDE = Path(napari_histogan.__file__).parent / "demo_data" / "CMU-1-Small-Region.svs"


def demo_slide() -> list[LayerData]:
    """Return the demo slide (skin, CC0) as a layer in micrometers."""
    data, meta, kind = slide_layer(open_slide(DEMO_SLIDE))
    return [(data, {**meta, "name": "HistoGAN demo slide"}, kind)]
