"""Run a segmenter over a slide: class probabilities as an OME-Zarr pyramid."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from napari_histogan.config import PredictHeatmapConfig
from napari_histogan.geometry import Region
from napari_histogan.inference.tiles import run_tiles
from napari_histogan.models.device import Compute, resolve
from napari_histogan.models.segmenter import (
    SegmenterNet,
    fold_batch_norm,
    load_segmenter,
    pixels_to_input,
)
from napari_histogan.progress import Reporter
from napari_histogan.slides.reader import SlideReader
from napari_histogan.slides.tissue import tissue_mask
from napari_histogan.slides.zarr_pyramid import PyramidWriter

_FAR_SCALE = 4.2


class NetTiles:
    """A net as the tiling engine wants it.

    Batch normalization is folded into the convolutions, which run in channels-last and in
    bfloat16 where that pays; probabilities differ from float32 by less than 0.01.

    Parameters
    ----------
    net
        Copied; may be trained on meanwhile.
    mpp
        Its resolution in um/px.
    compute
        Device and precision.
    flips
        Average over the picture and its three mirror images; 4 times the work.
    """

    def __init__(self, net: SegmenterNet, mpp: float, compute: Compute, flips: bool = False) -> None:
        self.mpp, self.num_classes = mpp, net.num_classes
        self.margin_px, self.stride_px = net.margin_px, net.stride_px
        self._compute, self._flips = compute, flips
        folded = fold_batch_norm(net).to(compute.device, compute.dtype)
        self._net = folded.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @torch.inference_mode()
    def __call__(self, pixels: Tensor) -> Tensor:
        """Return probabilities ``(n, K, S, S) float32`` of pixels ``(n, 3, S, S) uint8``."""
        x = pixels_to_input(pixels.to(self._compute.device)).to(self._compute.dtype)
        probabilities = self._probabilities(x)
        if self._flips:
            for axes in ((2,), (3,), (2, 3)):
                probabilities = probabilities + self._probabilities(x.flip(axes)).flip(axes)
            probabilities = probabilities / 4
        return probabilities.cpu()

    def _probabilities(self, x: Tensor) -> Tensor:
        x = x.contiguous(memory_format=torch.channels_last)
        logits: Tensor = self._net(x)
        return logits.float().softmax(dim=1)


class SegmenterTiles(NetTiles):
    """A trained segmenter on disk as the tiling engine wants it; see :class:`NetTiles`."""

    def __init__(self, folder: Path, compute: Compute, flips: bool = False) -> None:
        net, self.info = load_segmenter(folder)
        super().__init__(net, self.info.mpp, compute, flips)


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
        The slide; its resolution must be known and not much coarser than the segmenter's.
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
    CheckpointError
        The segmenter cannot be used.
    NoTissue
        ``tissue_only`` is set and no tissue is found.
    Stopped
        If the reporter asked for it; blocks that are done stay.
    """
    model = SegmenterTiles(segmenter_folder, resolve(config), config.flips)
    reader.check_resolution(model.mpp)
    if model.mpp / reader.mpp > _FAR_SCALE:
        reporter.warn(
            f"{reader.path.name} has {reader.mpp:g} um/px, the segmenter was trained at {model.mpp:g} um/px; "
            "the slide is reduced to that"
        )
    size = reader.size_at(model.mpp)
    wanted = _with_tissue(reader, model.mpp) if config.tissue_only else None
    writer = PyramidWriter(out, size, model.info.class_names, np.uint8, mpp=model.mpp)
    try:
        done = run_tiles(
            reader,
            model,
            writer,
            reporter,
            tile_px=config.tile_px,
            overlap=config.overlap,
            batch=config.batch,
            wanted=wanted,
        )
    finally:
        writer.close()
    return {
        **asdict(done),
        "classes": list(model.info.class_names),
        "mpp": model.mpp,
        "height": size.height,
        "width": size.width,
    }


def _with_tissue(reader: SlideReader, mpp: float) -> Callable[[Region], bool]:
    """Return a test for regions, in pixels of ``mpp`` um, that hold any tissue."""
    mask = tissue_mask(reader)
    return lambda region: mask.fraction(region, mpp) > 0
