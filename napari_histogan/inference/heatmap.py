"""Run a segmenter over slides: class probabilities as OME-Zarr pyramids."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from napari_histogan.config import PredictHeatmapConfig
from napari_histogan.errors import ConfigError, HistoganError, SlideError
from napari_histogan.inference.net_tiles import SegmenterTiles, tiling, with_tissue
from napari_histogan.inference.shared_slide import (
    BANDS,
    SharedMap,
    Wanted,
    fill_all,
    share_slide,
    share_slides,
)
from napari_histogan.inference.tiles import TilesSummary, run_tiles
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
    model = SegmenterTiles(segmenter_folder, resolve(config), config.flips)
    writer, wanted = _prepared(reader, model, config, reporter, out)
    if config.scheduler:
        settled = _settled(config)
        done = share_slide(reader, segmenter_folder, settled, reporter, writer, wanted)
    else:
        done = run_tiles(reader, model, writer, reporter, **tiling(config), wanted=wanted)
    return _told(done, model, writer)


@dataclass(frozen=True)
class WantedHeatmap:
    """A heatmap of one of several slides.

    Attributes
    ----------
    open
        Opens the slide, or raises what is wrong with it.
    config
        As for :func:`predict_heatmap`; the config of all, but for this slide's own answers.
    reporter, out
        As for :func:`predict_heatmap`; each map needs a run folder of its own.
    """

    open: Callable[[], SlideReader]
    config: PredictHeatmapConfig
    reporter: Reporter
    out: Path


def share_heatmaps(
    maps: Sequence[WantedHeatmap],
    segmenter_folder: Path,
    config: PredictHeatmapConfig,
    reporter: Reporter,
    ended: Callable[[int, dict[str, Any] | HistoganError], None],
) -> None:
    """Write the class probabilities of several slides by the workers of a scheduler.

    Parameters
    ----------
    maps
        One for each slide.
    segmenter_folder, config
        As for :func:`predict_heatmap`; with a scheduler.
    reporter
        Of all maps together.
    ended
        Called once for each map with its number, as soon as it is done: with what
        :func:`predict_heatmap` returns, or with the error that this slide alone ran into.

    Raises
    ------
    JobError
        The scheduler does not answer, or its workers cannot do it.
    CheckpointError
        The segmenter cannot be used.
    Stopped
        If the reporter asked for it; blocks that are done stay.
    """
    model = SegmenterTiles(segmenter_folder, resolve(config), config.flips)
    shared: dict[int, SharedMap] = {}
    for number, each in enumerate(maps):
        try:
            with each.open() as reader:
                writer, wanted = _prepared(reader, model, each.config, each.reporter, each.out)
                shared[number] = SharedMap(reader.path, reader.mpp, writer, wanted, each.reporter)
        except (SlideError, ConfigError) as error:
            ended(number, error)
    numbers = list(shared)

    def end(position: int, done: TilesSummary | HistoganError) -> None:
        number = numbers[position]
        told = done if isinstance(done, HistoganError) else _told(done, model, shared[number].writer)
        ended(number, told)

    if shared:
        share_slides(list(shared.values()), segmenter_folder, _settled(config), reporter, end)


def _prepared(
    reader: SlideReader, model: SegmenterTiles, config: PredictHeatmapConfig, reporter: Reporter, out: Path
) -> tuple[PyramidWriter, Wanted]:
    """Check a slide, and return its map, new or begun, and which regions are worth predicting."""
    if warning := check_resolution(reader, model.mpp, config.accept_far_mpp):
        reporter.warn(warning)
    wanted = with_tissue(reader, model.mpp) if config.tissue_only else None
    writer = PyramidWriter(out, reader.size_at(model.mpp), model.info.class_names, np.uint8, mpp=model.mpp)
    fill_all(writer, reporter.run_dir / BANDS)
    return writer, wanted


def _settled(config: PredictHeatmapConfig) -> PredictHeatmapConfig:
    """Return the config with this process's precision, so that all workers compute alike."""
    precision = "bfloat16" if resolve(config).dtype == torch.bfloat16 else "float32"
    return config.model_copy(update={"precision": precision})


def _told(done: TilesSummary, model: SegmenterTiles, writer: PyramidWriter) -> dict[str, Any]:
    """Return what people see of a finished map."""
    return {
        **asdict(done),
        "classes": list(model.info.class_names),
        "mpp": model.mpp,
        "height": writer.size.height,
        "width": writer.size.width,
    }


def check_resolution(reader: SlideReader, mpp: float, accepted: bool) -> str:
    """Refuse a slide that is too coarse for a net, and one that is far too fine unless that is accepted.

    Parameters
    ----------
    reader
        The slide.
    mpp
        The net's um per pixel.
    accepted
        Whether it may be more than 4 times finer.

    Returns
    -------
    str
        What people should know of a slide that is taken all the same; "" if it suits.

    Raises
    ------
    SlideHasNoMpp, SlideError, ConfigError
        See :func:`predict_heatmap`.
    """
    reader.check_resolution(mpp)
    if mpp / reader.mpp <= _FAR_SCALE:
        return ""
    found = f"{reader.path.name} has {reader.mpp:g} um/px, the segmenter was trained at {mpp:g} um/px"
    if not accepted:
        raise ConfigError(
            found,
            "resolutions within a factor of 4",
            "check both; if they are right and meant, set accept_far_mpp",
        )
    return f"{found}; the slide is reduced to that"
