"""Run a segmenter over a slide: class probabilities as an OME-Zarr pyramid."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from napari_histogan.config import PredictHeatmapConfig
from napari_histogan.errors import ConfigError
from napari_histogan.inference.net_tiles import SegmenterTiles, tiling, with_tissue
from napari_histogan.inference.shared_slide import BANDS, fill_all, share_slide
from napari_histogan.inference.tiles import run_tiles
from napari_histogan.models.device import resolve
from napari_histogan.progress import Reporter
from napari_histogan.slides.reader import SlideReader
from napari_histogan.slides.zarr_pyramid import PyramidWriter

_FAR_SCALE = 4.2


def predict_heatmap(
    reader: SlideReader,
    segmenter_folder: Path,
    config: PredictHeatmapConfig,
    reporter: Reporter,
    out: Path,
) -> dict[str, Any]:
    """Write a slide's class probabilities.

    Parameters
    ----------
    reader
        The slide; its resolution must be known, and not coarser than the segmenter's.
    segmenter_folder
        With ``segmenter.safetensors`` and ``segmenter.json``.
    config
        See :class:`PredictHeatmapConfig`.
    reporter
        Gets an event "block" for each block that is on disk.
    out
        The pyramid to write, such as ``.../heatmap.zarr``: uint8 percent 0..100, one channel
        a class, at the segmenter's resolution.  If it is there, it is completed.

    Returns
    -------
    dict
        For display: numbers of windows and blocks, seconds, classes, resolution, and size.

    Raises
    ------
    SlideHasNoMpp, SlideError
        The slide's resolution is unknown or too coarse; or some blocks could not be read
        (all others are written).
    ConfigError
        The slide is more than 4 times finer than the segmenter, and the config does not accept that.
    JobError
        A scheduler was asked for and does not answer, or its workers cannot do it.
    CheckpointError
        The segmenter cannot be used.
    NoTissue
        ``tissue_only`` is set and no tissue is found.
    Stopped
        If the reporter asked for it; blocks that are done stay.
    """
    compute = resolve(config)
    model = SegmenterTiles(segmenter_folder, compute, config.flips)
    _check_resolution(reader, model.mpp, config.accept_far_mpp, reporter)
    size = reader.size_at(model.mpp)
    wanted = with_tissue(reader, model.mpp) if config.tissue_only else None
    writer = PyramidWriter(out, size, model.info.class_names, np.uint8, mpp=model.mpp)
    try:
        if config.scheduler or (reporter.run_dir / BANDS).exists():
            fill_all(writer, reporter.run_dir / BANDS)
        if config.scheduler:
            precision = "bfloat16" if compute.dtype == torch.bfloat16 else "float32"
            settled = config.model_copy(update={"precision": precision})
            done = share_slide(reader, segmenter_folder, settled, reporter, writer, wanted)
        else:
            done = run_tiles(reader, model, writer, reporter, **tiling(config), wanted=wanted)
    finally:
        writer.close()
    return {
        **asdict(done),
        "classes": list(model.info.class_names),
        "mpp": model.mpp,
        "height": size.height,
        "width": size.width,
    }


def _check_resolution(reader: SlideReader, mpp: float, accepted: bool, reporter: Reporter) -> None:
    """Refuse a slide that is too coarse, and one that is far too fine unless that is accepted."""
    reader.check_resolution(mpp)
    if mpp / reader.mpp <= _FAR_SCALE:
        return
    found = f"{reader.path.name} has {reader.mpp:g} um/px, the segmenter was trained at {mpp:g} um/px"
    if not accepted:
        raise ConfigError(
            found,
            "resolutions within a factor of 4",
            "check both; if they are right and meant, set accept_far_mpp",
        )
    reporter.warn(f"{found}; the slide is reduced to that")
