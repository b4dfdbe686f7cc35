"""The one tiling engine: any net over any slide, block by block, onto disk.

Windows lie on one grid over the slide, whose step is a multiple of the net's stride, so
that every window sees the pixel grid that one pass over the whole slide would see.  Where
windows overlap, their predictions are blended; the rim of a window, where the net lacks
context, has weight 0.  Blocks of the output are written once, as soon as the windows over
them are done; a run that was stopped goes on with the blocks that are missing.  Shares are added
up as whole numbers, so that a block comes out the same in whichever order its windows are done.

Reading runs ahead in threads, writing runs behind in one, the net runs in the caller's.  A net on another
device gets the next windows before this process waits for the last ones and blends them.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_histogan.errors import SlideError, Stopped
from napari_histogan.geometry import Region
from napari_histogan.inference.window_grid import Window, WindowGrid
from napari_histogan.progress import Reporter
from napari_histogan.slides.reader import SlideReader
from napari_histogan.slides.zarr_pyramid import PyramidWriter

_READ_THREADS = 2
_BATCHES_AHEAD = 4
_MOST_PENDING_WRITES = 4
_MOST_LISTED = 20
_UNIT = 2**22
"""A probability of 1 as a whole number; its sums fit into 32 bits, and float32 holds them exactly."""


class TileModel(Protocol):
    """Anything that gives class probabilities to pixels.

    A model that computes elsewhere may also have a method ``begin``: it takes what a call takes, returns at
    once, and gives back a function that waits for what a call would return.

    Attributes
    ----------
    mpp
        Microns per pixel that it works at.
    margin_px
        Pixels at the rim of a window whose prediction lacks context.
    stride_px
        Windows whose origins differ by multiples of this see the same pixel grid.
    num_classes
        K.
    """

    mpp: float
    margin_px: int
    stride_px: int
    num_classes: int

    def __call__(self, pixels: Tensor) -> Tensor:
        """Predict.

        Parameters
        ----------
        pixels
            ``(n, 3, S, S) uint8``, RGB, channels-last in memory, on the CPU.

        Returns
        -------
        Tensor
            ``(n, K, S, S) float32``, 0..1, on the CPU.
        """


@dataclass(frozen=True, slots=True)
class TilesSummary:
    """What :func:`run_tiles` did.

    Attributes
    ----------
    windows, skipped_windows
        Windows predicted, and skipped for lack of tissue.
    blocks, resumed_blocks
        Blocks written now, and found on disk from an earlier run.
    seconds, model_seconds
        Duration of it all, and of the calls of the model.
    """

    windows: int
    skipped_windows: int
    blocks: int
    resumed_blocks: int
    seconds: float
    model_seconds: float


def run_tiles(
    reader: SlideReader,
    model: TileModel,
    writer: PyramidWriter,
    reporter: Reporter,
    *,
    tile_px: int = 256,
    overlap: float = 0.25,
    batch: int = 4,
    wanted: Callable[[Region], bool] | None = None,
    mine: Callable[[Region], bool] | None = None,
) -> TilesSummary:
    """Predict a whole slide and write percentages 0..100 as they become final.

    Parameters
    ----------
    reader
        The slide.
    model
        Called with windows at its own resolution.
    writer
        A map of K channels, uint8, at the model's resolution; blocks that it has are kept.
    reporter
        Gets ``event("block", y, x, height, width)`` for each block that is on disk, and
        ``event("block_failed", ...)`` for each that could not be read.
    tile_px, overlap, batch
        Side of a window, share of it that overlaps the next, and windows per call.
    wanted
        Tells whether a region, in pixels at the model's resolution, is worth predicting;
        what is not becomes 0 in all classes.
    mine
        Tells which blocks to do, where several processes share a map; one of them then calls the
        writer's ``fill_coarser``.  All if not given.

    Raises
    ------
    SlideError
        After all other blocks are done, if some could not be read; names them.
    Stopped
        If the reporter asked for it; blocks that are done stay.
    """
    grid = WindowGrid(writer.size, tile_px, overlap, model.margin_px, model.stride_px)
    return _TileRun(reader, model, writer, reporter, grid, batch, wanted, mine).run()


@dataclass
class _OpenBlock:
    """A block that some windows were blended into."""

    region: Region
    remaining: int
    sums: Tensor | None = None


Pixels = NDArray[np.uint8]


class _TileRun:
    """One pass of :func:`run_tiles`."""

    def __init__(
        self,
        reader: SlideReader,
        model: TileModel,
        writer: PyramidWriter,
        reporter: Reporter,
        grid: WindowGrid,
        batch: int,
        wanted: Callable[[Region], bool] | None,
        mine: Callable[[Region], bool] | None,
    ) -> None:
        self._reader, self._model, self._writer, self._reporter = reader, model, writer, reporter
        self._grid, self._batch = grid, batch
        self._wanted = wanted or (lambda region: True)
        self._mine, self._alone = mine or (lambda region: True), mine is None
        self._open: dict[Window, _OpenBlock] = {}
        self._failed: list[Region] = []
        self._writes: deque[tuple[Region, Future[None]]] = deque()
        self._begun: deque[tuple[list[Window], Callable[[], Tensor]]] = deque()
        self._written = 0
        self._model_seconds = 0.0

    def run(self) -> TilesSummary:
        """Do all blocks that are missing."""
        started = time.perf_counter()
        windows, skipped, resumed = self._plan()
        batches = [windows[i : i + self._batch] for i in range(0, len(windows), self._batch)]
        done = 0
        with ThreadPoolExecutor(_READ_THREADS) as readers, ThreadPoolExecutor(1) as self._write_thread:
            ahead: deque[Future[tuple[list[Window], list[Window], Pixels]]] = deque()
            try:
                self._finish_untouched()
                for upcoming in range(len(batches) + _BATCHES_AHEAD):
                    if upcoming < len(batches):
                        ahead.append(readers.submit(self._read, batches[upcoming]))
                    if upcoming < _BATCHES_AHEAD or not ahead:
                        continue
                    if self._reporter.should_stop():
                        raise Stopped(f"stopped after {self._written} blocks; they are kept")
                    read, unreadable, pixels = ahead.popleft().result()
                    self._begin(read, pixels)
                    for window in unreadable:
                        self._fail(window)
                    done += len(read) + len(unreadable)
                    self._reporter.progress(done, len(windows), "windows", "Predicting")
                self._collect_predictions(most_pending=0)
            finally:
                for future in ahead:
                    future.cancel()
                self._collect_writes(most_pending=0)
        if self._failed:
            raise failed_blocks(self._failed, self._reader.path.name, self._model.mpp)
        seconds = time.perf_counter() - started
        return TilesSummary(len(windows), skipped, self._written, resumed, seconds, self._model_seconds)

    def _plan(self) -> tuple[list[Window], int, int]:
        """Return the windows to predict, block by block; also how many are skipped and resumed."""
        needed: dict[Window, bool] = {}
        resumed = 0
        for region in filter(self._mine, blocks(self._writer)):
            if self._writer.done(region):
                resumed += 1
                continue
            over = list(self._grid.over(region))
            for window in over:
                if window not in needed:
                    needed[window] = self._wanted(self._grid.support(*window))
            count = sum(needed[window] for window in over)
            self._open[self._block_key(region)] = _OpenBlock(region, count)
        windows = [window for window, is_wanted in needed.items() if is_wanted]
        return windows, len(needed) - len(windows), resumed

    def _read(self, windows: Sequence[Window]) -> tuple[list[Window], list[Window], Pixels]:
        """Return the windows that could be read, those that could not, and pixels (n, S, S, 3)."""
        side, step = self._grid.tile_px, self._grid.step_px
        read: list[Window] = []
        unreadable: list[Window] = []
        pixels = np.empty((len(windows), side, side, 3), np.uint8)
        for run in _runs(windows):
            first = self._grid.window(*run[0])
            strip = Region(first.y, first.x, side, side + (len(run) - 1) * step)
            try:
                stripe = self._reader.read_at(strip, self._model.mpp)
            except OSError:  # a SlideError is one; find out which window it is
                if len(run) == 1:
                    unreadable.append(run[0])
                    continue
                parts = [self._read([window]) for window in run]
                for good, bad, part in parts:
                    pixels[len(read) : len(read) + len(good)] = part[: len(good)]
                    read += good
                    unreadable += bad
                continue
            for k in range(len(run)):
                pixels[len(read) + k] = stripe[:, k * step : k * step + side]
            read += run
        return read, unreadable, pixels[: len(read)]

    def _begin(self, windows: list[Window], pixels: Pixels) -> None:
        """Give the model windows; blend those that it was given before, or these if it does not begin."""
        if not windows:
            return
        started, x = time.perf_counter(), torch.from_numpy(pixels).permute(0, 3, 1, 2)
        begin: Callable[[Tensor], Callable[[], Tensor]] | None = getattr(self._model, "begin", None)
        self._begun.append((windows, begin(x) if begin else partial(self._model, x)))
        self._model_seconds += time.perf_counter() - started
        self._collect_predictions(most_pending=1 if begin else 0)

    def _collect_predictions(self, most_pending: int) -> None:
        """Wait for windows that the model was given, while more than ``most_pending`` batches are there."""
        while len(self._begun) > most_pending:
            windows, wait = self._begun.popleft()
            started = time.perf_counter()
            probabilities = wait()
            self._model_seconds += time.perf_counter() - started
            self._blend_all(windows, probabilities)

    def _blend_all(self, windows: list[Window], probabilities: Tensor) -> None:
        """Blend probabilities of windows into the open blocks."""
        for window, prediction in zip(windows, probabilities, strict=True):
            weighted = (prediction * (self._grid.weights(*window) * _UNIT)).to(torch.int32)
            origin = self._grid.window(*window)
            for block in self._blocks_under(window):
                self._blend(block, weighted, origin, self._grid.support(*window))

    def _blend(self, block: _OpenBlock, weighted: Tensor, origin: Region, support: Region) -> None:
        """Add a window's share to a block; write the block if it was the last."""
        if block.sums is None:
            block.sums = torch.zeros((self._model.num_classes, *block.region.size.shape), dtype=torch.int32)
        y0, x0 = max(block.region.y, support.y), max(block.region.x, support.x)
        y1, x1 = min(block.region.y_end, support.y_end), min(block.region.x_end, support.x_end)
        inside = block.sums[
            :, y0 - block.region.y : y1 - block.region.y, x0 - block.region.x : x1 - block.region.x
        ]
        inside += weighted[:, y0 - origin.y : y1 - origin.y, x0 - origin.x : x1 - origin.x]
        block.remaining -= 1
        if not block.remaining:
            self._write(block)

    def _write(self, block: _OpenBlock) -> None:
        """Hand a finished block to the writing thread."""
        del self._open[self._block_key(block.region)]
        if block.sums is None:
            percent = np.zeros((self._model.num_classes, *block.region.size.shape), np.uint8)
        else:
            percent = (block.sums.float() * (100 / _UNIT)).round_().clamp_(0, 100).to(torch.uint8).numpy()
        future = self._write_thread.submit(self._writer.write, block.region, percent, self._alone)
        self._writes.append((block.region, future))
        self._collect_writes(_MOST_PENDING_WRITES)

    def _collect_writes(self, most_pending: int) -> None:
        """Report blocks that are on disk; wait while more than ``most_pending`` are not."""
        while self._writes and (len(self._writes) > most_pending or self._writes[0][1].done()):
            region, future = self._writes.popleft()
            future.result()
            self._written += 1
            self._reporter.event("block", y=region.y, x=region.x, height=region.height, width=region.width)

    def _finish_untouched(self) -> None:
        """Write the blocks that no window has a say in, as zeros."""
        for block in [block for block in self._open.values() if not block.remaining]:
            self._write(block)

    def _fail(self, window: Window) -> None:
        """Give up the blocks under a window that could not be read."""
        for block in self._blocks_under(window):
            del self._open[self._block_key(block.region)]
            self._failed.append(block.region)
            r = block.region
            self._reporter.event("block_failed", y=r.y, x=r.x, height=r.height, width=r.width)

    def _blocks_under(self, window: Window) -> list[_OpenBlock]:
        """Return the blocks, not yet done, that a window has a say in."""
        support, side = self._grid.support(*window), self._writer.chunk
        keys = (
            (row, column)
            for row in range(support.y // side, (support.y_end - 1) // side + 1)
            for column in range(support.x // side, (support.x_end - 1) // side + 1)
        )
        return [self._open[key] for key in keys if key in self._open]

    def _block_key(self, region: Region) -> Window:
        """Return row and column of a block."""
        return region.y // self._writer.chunk, region.x // self._writer.chunk


def failed_blocks(failed: Sequence[Region], slide: str, mpp: float) -> SlideError:
    """Return the error that says which blocks could not be read."""
    listed = ", ".join(f"(y={region.y}, x={region.x})" for region in failed[:_MOST_LISTED])
    more = f" and {len(failed) - _MOST_LISTED} more" if len(failed) > _MOST_LISTED else ""
    return SlideError(
        f"{len(failed)} blocks of {slide} could not be read: {listed}{more} (pixels at {mpp:g} um/px)",
        "a slide that can be read everywhere",
        "the other blocks are done; copy the slide again and resume to fill the gaps",
    )


def blocks(writer: PyramidWriter) -> Iterator[Region]:
    """Yield the blocks of a map."""
    for y in range(0, writer.size.height, writer.chunk):
        for x in range(0, writer.size.width, writer.chunk):
            yield Region(y, x, writer.chunk, writer.chunk).clipped(writer.size)


def _runs(windows: Sequence[Window]) -> list[list[Window]]:
    """Group neighbors in a row, which are read in one go."""
    runs: list[list[Window]] = []
    for row, column in windows:
        if runs and runs[-1][-1] == (row, column - 1):
            runs[-1].append((row, column))
        else:
            runs.append([(row, column)])
    return runs
