"""Slides by several workers: a whole slide is a task, or a band of its blocks where workers would wait else.

A worker writes its blocks and notes them in the map as they are done; this process tells of them.  Where
several workers share a map, they write its level 0 only, and this process makes the coarser levels, whose
chunks four blocks share.  A task whose worker was lost is given to another one, which finds the
finished blocks in the map and does the others only.
"""

from __future__ import annotations

import heapq
import json
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from itertools import pairwise
from math import ceil
from pathlib import Path

import numpy as np

from napari_histogan.config import PredictHeatmapConfig
from napari_histogan.errors import HistoganError, SlideError, Stopped
from napari_histogan.geometry import Region
from napari_histogan.inference.net_tiles import SegmenterTiles, tiling, with_tissue
from napari_histogan.inference.tiles import TilesSummary, blocks, failed_blocks, run_tiles
from napari_histogan.inference.workers import connect
from napari_histogan.models.device import resolve
from napari_histogan.progress import QuietReporter, Reporter
from napari_histogan.slides.reader import SlideReader, open_slide
from napari_histogan.slides.zarr_pyramid import PyramidWriter, done_blocks

BANDS = "heatmap-bands"
"""Folder in the run folder with what the workers tell; it stays until a map is whole."""

_MOST_BANDS, _LEAST_ROWS = 2, 10
"""Bands for each worker, and rows of a band: both sides of a border predict the windows over it."""
_MUCH_LONGER = 1.1
"""The last worker's time, as multiples of an even share, above which slides are cut."""

_WELL_MIXED = 4
"""With so many slides for each worker, none has to wait long, however they are cut."""

_GO = "go"

Wanted = Callable[[Region], bool] | None


@dataclass(frozen=True)
class BandTask:
    """What a worker needs to do some rows of blocks; slide, net, and map are files that it sees too.

    Attributes
    ----------
    slide, slide_mpp
        The file, and its resolution in um/px.
    segmenter
        Folder of the net.
    config
        With a precision that is not left open, so that all workers compute alike.
    out
        The map.
    notes
        Where the worker writes what it did; without the file "go" there, it stops.
    rows
        Rows of blocks; None for the whole slide, with its coarser levels.
    """

    slide: Path
    slide_mpp: float
    segmenter: Path
    config: PredictHeatmapConfig
    out: Path
    notes: Path
    rows: range | None

    @property
    def note(self) -> Path:
        """The file with what the worker did."""
        return self.notes / f"{self.rows.start if self.rows else 0}.json"


def run_band(task: BandTask) -> None:
    """Do the blocks of a band that are missing."""
    go = task.notes / _GO
    if not go.exists():
        return
    reader, model, wanted = _load(task.slide, task.slide_mpp, task.segmenter, task.config)
    size, names = reader.size_at(model.mpp), model.info.class_names
    writer = PyramidWriter(task.out, size, names, np.uint8, mpp=model.mpp)
    reporter = QuietReporter(task.notes, stop_when=lambda: not go.exists())
    failed: list[list[int]] = []
    summary: TilesSummary | None = None
    try:
        summary = run_tiles(
            reader,
            model,
            writer,
            reporter,
            **tiling(task.config),
            wanted=wanted,
            mine=None if task.rows is None else partial(_within, task.rows, writer.chunk),
        )
    except Stopped:
        return
    except SlideError:
        gone = [event for event in reporter.events if event["kind"] == "block_failed"]
        failed = [[event[side] for side in ("y", "x", "height", "width")] for event in gone]
        if not failed:
            raise
    told = {"summary": asdict(summary) if summary else None, "failed": failed}
    task.note.write_text(json.dumps(told), encoding="utf-8")


def _within(rows: range, chunk: int, region: Region) -> bool:
    """Whether a block lies in some rows of blocks."""
    return region.y // chunk in rows


@lru_cache(maxsize=1)
def _load(
    slide: Path, mpp: float, segmenter: Path, config: PredictHeatmapConfig
) -> tuple[SlideReader, SegmenterTiles, Wanted]:
    """Open a slide and a net once for all bands that a worker does of it."""
    reader = open_slide(slide, mpp)
    model = SegmenterTiles(segmenter, resolve(config), config.flips)
    return reader, model, with_tissue(reader, model.mpp) if config.tissue_only else None


@dataclass(frozen=True)
class SharedMap:
    """A map that workers are to complete.

    Attributes
    ----------
    slide, slide_mpp
        The file, and its resolution in um/px.
    writer
        Of the map, at the net's resolution.
    wanted
        Tells which regions are worth predicting; all if None.
    reporter
        Gets an event for each block, as from :func:`~napari_histogan.inference.tiles.run_tiles`; what the
        workers tell lies in its run folder until the map is whole.
    """

    slide: Path
    slide_mpp: float
    writer: PyramidWriter
    wanted: Wanted
    reporter: Reporter


def share_slide(
    reader: SlideReader,
    segmenter: Path,
    config: PredictHeatmapConfig,
    reporter: Reporter,
    writer: PyramidWriter,
    wanted: Wanted,
) -> TilesSummary:
    """Let the workers of a scheduler complete a map; see :func:`~napari_histogan.inference.heatmap`.

    Parameters
    ----------
    reader, segmenter
        The slide, and the folder of the net.
    config, reporter, writer, wanted
        See :func:`share_slides` and :class:`SharedMap`.

    Raises
    ------
    JobError
        If the scheduler does not answer, or its workers cannot do it.
    SlideError
        After all other blocks are done, if some could not be read; names them.
    Stopped
        If the reporter asked for it; blocks that are done stay.
    """
    ends: list[TilesSummary | HistoganError] = []
    only = SharedMap(reader.path, reader.mpp, writer, wanted, reporter)
    share_slides([only], segmenter, config, reporter, lambda number, end: ends.append(end))
    if isinstance(ends[0], HistoganError):
        raise ends[0]
    return ends[0]


def share_slides(
    maps: Sequence[SharedMap],
    segmenter: Path,
    config: PredictHeatmapConfig,
    reporter: Reporter,
    ended: Callable[[int, TilesSummary | HistoganError], None],
) -> None:
    """Let the workers of a scheduler complete several maps.

    Parameters
    ----------
    maps
        One for each slide.
    segmenter
        The folder of the net.
    config
        With a scheduler, and a precision that is not left open.
    reporter
        Gets the progress of all; its run folder must be seen by the workers.
    ended
        Called once for each map, with its number, when its tasks are done: with what was done, or with the
        error that this slide alone ran into.

    Raises
    ------
    JobError
        If the scheduler does not answer, or its workers cannot do it.
    Stopped
        If the reporter asked for it; blocks that are done stay.
    """
    with connect(config.scheduler) as workers:
        workers.check(reporter.run_dir.resolve())
        cuts = _cuts(maps, workers.count())
        shared = [_MapAtWork(each, segmenter, config, cut) for each, cut in zip(maps, cuts, strict=True)]
        owners = {task: number for number, work in enumerate(shared) for task in work.tasks}

        def end(task: BandTask, error: HistoganError | None = None) -> None:
            work = shared[owners[task]]
            work.end(task, error)
            if not work.left:
                ended(owners[task], work.outcome())

        def look() -> bool:
            for work in shared:
                work.look()
            known, total = (sum(getattr(work, name) for work in shared) for name in ("known", "total"))
            reporter.progress(known, total, "blocks", "Predicting")
            return reporter.should_stop()

        try:
            for number, work in enumerate(shared):
                if not work.left:  # whole already
                    ended(number, work.outcome())
            first = sorted(owners, key=lambda task: -shared[owners[task]].cost(task))
            workers.map(run_band, first, end, look, failed=end)
        finally:
            for work in shared:
                work.halt()


class _MapAtWork:
    """One map while workers are at it: tells of its blocks, and knows what is left to do."""

    def __init__(
        self, wanted: SharedMap, segmenter: Path, config: PredictHeatmapConfig, bands: Sequence[range] | None
    ) -> None:
        self._map, self._writer, self._reporter = wanted, wanted.writer, wanted.reporter
        self._notes = (wanted.reporter.run_dir / BANDS).resolve()
        self._started = time.perf_counter()
        self._cut = bands is not None
        self._done = set(done_blocks(self._writer.path))
        self._before = len(self._done)
        self._error: HistoganError | None = None
        self.total = sum(1 for _ in blocks(self._writer))
        files = wanted.slide.resolve(), wanted.slide_mpp, segmenter.resolve()
        settled = config, self._writer.path.resolve(), self._notes
        rows: Sequence[range | None] = [None] if bands is None else bands
        self.tasks = [BandTask(*files, *settled, band) for band in rows]
        self.left = set(self.tasks)
        self._notes.mkdir(exist_ok=True)
        (self._notes / _GO).touch()

    @property
    def known(self) -> int:
        """Number of blocks that are on disk."""
        return len(self._done)

    def cost(self, task: BandTask) -> int:
        """Return about how many blocks a task has to do."""
        return (self.total - self._before) // len(self.tasks)

    def end(self, task: BandTask, error: HistoganError | None) -> None:
        """Take note of the end of a task."""
        self.left.discard(task)
        self._error = self._error or error

    def look(self) -> None:
        """Tell of new blocks, and make their coarser levels if workers share this map."""
        if len(self._done) == self.total:
            return
        for region in done_blocks(self._writer.path):
            if region in self._done:
                continue
            self._done.add(region)
            if self._cut:
                self._writer.fill_coarser(region)
            place = {"y": region.y, "x": region.x, "height": region.height, "width": region.width}
            self._reporter.event("block", **place)

    def halt(self) -> None:
        """Let no task begin or go on; blocks that a worker is at are told to the next run by the notes."""
        (self._notes / _GO).unlink(missing_ok=True)
        if self._notes.exists():
            self.look()

    def outcome(self) -> TilesSummary | HistoganError:
        """Return what was done once no task is left, or what went wrong."""
        self.look()
        if self._error:
            return self._error
        told = [json.loads(task.note.read_text(encoding="utf-8")) for task in self.tasks]
        shutil.rmtree(self._notes, ignore_errors=True)
        failed = [Region(*place) for note in told for place in note["failed"]]
        for r in failed:
            self._reporter.event("block_failed", y=r.y, x=r.x, height=r.height, width=r.width)
        if failed:
            return failed_blocks(failed, self._map.slide.name, self._writer.mpp)
        done = [TilesSummary(**note["summary"]) for note in told]
        return TilesSummary(
            windows=sum(each.windows for each in done),
            skipped_windows=sum(each.skipped_windows for each in done),
            blocks=len(self._done) - self._before,
            resumed_blocks=self._before,
            seconds=time.perf_counter() - self._started,
            model_seconds=sum(each.model_seconds for each in done),
        )


def fill_all(writer: PyramidWriter, notes: Path) -> None:
    """Make the coarser levels of all blocks of a map whose sharing did not come to its end."""
    if notes.exists():
        for region in done_blocks(writer.path):
            writer.fill_coarser(region)
        shutil.rmtree(notes, ignore_errors=True)


def _cuts(maps: Sequence[SharedMap], workers: int) -> list[list[range] | None]:
    """Return the bands of each map, or None for one that a single worker does."""
    if len(maps) == 1:
        rows = _row_work(maps[0])
        count = max(workers, min(_MOST_BANDS * workers, len(rows) // _LEAST_ROWS))
        return [_evenly(rows, count)]
    if len(maps) >= _WELL_MIXED * workers:
        return [None] * len(maps)
    work = [_row_work(each) for each in maps]
    counts = _parts([sum(rows) for rows in work], workers)
    return [None if count == 1 else _evenly(rows, count) for rows, count in zip(work, counts, strict=True)]


def _row_work(shared: SharedMap) -> list[float]:
    """Return the work in each row of blocks."""
    work: dict[int, float] = {}
    for region in blocks(shared.writer):
        row = region.y // shared.writer.chunk
        is_wanted = shared.wanted is None or shared.wanted(region)
        cost = 0.0 if shared.writer.done(region) else 1.0 if is_wanted else 0.01
        work[row] = work.get(row, 0.0) + cost
    return [work[row] for row in range(len(work))]


def _parts(costs: Sequence[float], workers: int) -> list[int]:
    """Return into how many parts slides are cut so that no worker works much longer than the others.

    Each border between parts costs the windows over it, so the fewest are taken that do.
    """
    share = sum(costs) / workers
    counts = [1] * len(costs)
    for limit in (share, share / 2, share / 4):
        counts = [max(1, ceil(cost / limit - 1e-9)) if limit else 1 for cost in costs]
        pieces = [cost / count for cost, count in zip(costs, counts, strict=True) for _ in range(count)]
        loads = [0.0] * workers
        for piece in sorted(pieces, reverse=True):
            heapq.heapreplace(loads, loads[0] + piece)
        if max(loads) <= _MUCH_LONGER * share:
            break
    return counts


def _evenly(work: Sequence[float], count: int) -> list[range]:
    """Cut a sequence into at most ``count`` runs of about equal sums; none without work."""
    ends = np.searchsorted(np.cumsum(work), np.linspace(0, sum(work), count + 1)[1:-1], side="left") + 1
    edges = [0, *np.unique(ends).tolist(), len(work)]
    runs = [range(a, b) for a, b in pairwise(edges) if a < b]
    return [run for run in runs if sum(work[row] for row in run)]
