"""The map of a slide by a net that is still in training, by the same tiling engine as every heatmap."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from napari_histogan.inference.net_tiles import NetTiles
from napari_histogan.inference.tiles import TilesSummary, run_tiles
from napari_histogan.models.device import Compute
from napari_histogan.models.segmenter import SegmenterNet
from napari_histogan.progress import Reporter
from napari_histogan.slides.reader import SlideReader
from napari_histogan.slides.tissue import TissueMask
from napari_histogan.slides.zarr_pyramid import PyramidWriter


def write_slide_map(
    net: SegmenterNet,
    reader: SlideReader,
    tissue: TissueMask,
    out: Path,
    reporter: Reporter,
    *,
    mpp: float,
    class_names: Sequence[str],
    compute: Compute,
    tile_px: int = 512,
) -> TilesSummary:
    """Write a slide's class probabilities where there is tissue.

    Parameters
    ----------
    net
        Copied first.
    reader, tissue
        The slide; windows without tissue are not computed, and come out 0.
    out
        The pyramid to write: uint8 percent, one channel a class, at ``mpp``.
    reporter
        Asked whether to stop, and told of windows and blocks.
    mpp, class_names, compute, tile_px
        The net's um/px, names of its classes, where to compute, and the side of a window.

    Raises
    ------
    SlideError
        If some blocks cannot be read.
    Stopped
        If the reporter asked for it.
    """
    model = NetTiles(net, mpp, compute)
    writer = PyramidWriter(out, reader.size_at(mpp), class_names, np.uint8, mpp=mpp)
    try:
        return run_tiles(
            reader,
            model,
            writer,
            reporter,
            tile_px=tile_px,
            batch=1 if tile_px > 512 else 2,
            wanted=lambda region: tissue.fraction(region, mpp) > 0,
        )
    finally:
        writer.close()
