"""A segmentation net as the tiling engine wants it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypedDict

import torch
from torch import Tensor

from napari_histogan.config import PredictHeatmapConfig
from napari_histogan.geometry import Region
from napari_histogan.models.device import Compute, resolve
from napari_histogan.models.freed_memory import keep_freed_memory
from napari_histogan.models.segmenter import (
    SegmenterNet,
    fold_batch_norm,
    load_segmenter,
    pixels_to_input,
)
from napari_histogan.slides.reader import SlideReader
from napari_histogan.slides.tissue import tissue_mask

_CPU_PIXELS, _GPU_WINDOWS = 512**2, 4


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
        if compute.device.type == "cpu":
            keep_freed_memory()
        folded = fold_batch_norm(net).to(compute.device, compute.dtype)
        self._net = folded.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if compute.device.type == "cuda":
            self._copies = torch.cuda.Stream(compute.device)  # type: ignore[no-untyped-call]
            self.begin = self._begin_on_cuda

    def __call__(self, pixels: Tensor) -> Tensor:
        """Return probabilities ``(n, K, S, S) float32`` of pixels ``(n, 3, S, S) uint8``."""
        return self._predicted(pixels.to(self._compute.device)).cpu()

    def _begin_on_cuda(self, pixels: Tensor) -> Callable[[], Tensor]:
        """Start a prediction; returns what waits for it.

        Pixels go to the device from pinned memory in a stream of their own, while it computes the windows
        before; probabilities come back to pinned memory while this process blends earlier ones.
        """
        device = self._compute.device
        with torch.cuda.stream(self._copies):
            there = pixels.pin_memory().to(device, non_blocking=True)
        computing = torch.cuda.current_stream(device)
        computing.wait_stream(self._copies)
        there.record_stream(computing)
        probabilities = self._predicted(there)
        here = torch.empty(probabilities.shape, dtype=probabilities.dtype, pin_memory=True)
        here.copy_(probabilities, non_blocking=True)
        arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
        arrived.record(computing)

        def wait() -> Tensor:
            arrived.synchronize()
            return here

        return wait

    @torch.inference_mode()
    def _predicted(self, pixels: Tensor) -> Tensor:
        """Return probabilities of pixels on the device, on the device."""
        x = pixels_to_input(pixels).to(self._compute.dtype)
        probabilities = self._probabilities(x)
        if self._flips:
            for axes in ((2,), (3,), (2, 3)):
                probabilities = probabilities + self._probabilities(x.flip(axes)).flip(axes)
            probabilities = probabilities / 4
        return probabilities

    def _probabilities(self, x: Tensor) -> Tensor:
        x = x.contiguous(memory_format=torch.channels_last)
        logits: Tensor = self._net(x)
        return logits.float().softmax(dim=1)


class SegmenterTiles(NetTiles):
    """A trained segmenter on disk as the tiling engine wants it; see :class:`NetTiles`."""

    def __init__(self, folder: Path, compute: Compute, flips: bool = False) -> None:
        net, self.info = load_segmenter(folder)
        super().__init__(net, self.info.mpp, compute, flips)


class Tiling(TypedDict):
    """The options of :func:`~napari_histogan.inference.tiles.run_tiles` that a config gives."""

    tile_px: int
    overlap: float
    batch: int


def tiling(config: PredictHeatmapConfig) -> Tiling:
    """Return how a config wants a slide cut into windows."""
    batch = config.batch or _usual_batch(config.tile_px, resolve(config).device.type)
    return {"tile_px": config.tile_px, "overlap": config.overlap, "batch": batch}


def _usual_batch(tile_px: int, device: str) -> int:
    """Return how many windows a pass takes if nobody says so.

    On a CPU, activations of more pixels outgrow caches, and the blocks that the C library keeps: a pass
    of four windows of 512 px took 12 % more time a pixel than a pass of one.
    """
    return max(1, _CPU_PIXELS // tile_px**2) if device == "cpu" else _GPU_WINDOWS


def with_tissue(reader: SlideReader, mpp: float) -> Callable[[Region], bool]:
    """Return a test for regions, in pixels of ``mpp`` um, that hold any tissue."""
    mask = tissue_mask(reader)
    return lambda region: mask.fraction(region, mpp) > 0
