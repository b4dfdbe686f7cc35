"""One slide by several workers: bands of blocks as tasks, one map that all of them write to.

A worker writes level 0 of its blocks and notes them in the map as they are done; this process makes the
coarser levels and tells of the blocks.  A band whose worker was lost is given to another one, which finds the
finished blocks in the map and does the others only.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

import numpy as np

from napari_histogan.config import PredictHeatmapConfig
from napari_histogan.errors import SlideError, Stopped
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
        Rows of blocks.
    """

    slide: Path
    slide_mpp: float
    segmenter: Path
    config: PredictHeatmapConfig
    out: Path
    notes: Path
    rows: range

    @property
    def note(self) -> Path:
        """The file with what the worker did."""
        return self.notes / f"{self.rows.start}.json"


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
            mine=lambda region: region.y // writer.chunk in task.rows,
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


@lru_cache(maxsize=1)
def _load(
    slide: Path, mpp: float, segmenter: Path, config: PredictHeatmapConfig
) -> tuple[SlideReader, SegmenterTiles, Wanted]:
    """Open a slide and a net once for all bands that a worker does of it."""
    reader = open_slide(slide, mpp)
    model = SegmenterTiles(segmenter, resolve(config), config.flips)
    return reader, model, with_tissue(reader, model.mpp) if config.tissue_only else None


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
    config
        With a scheduler, and a precision that is not left open.
    reporter
        Gets an event for each block, as from :func:`~napari_histogan.inference.tiles.run_tiles`.
    writer
        Of the map, at the net's resolution.
    wanted
        Tells which regions are worth predicting; all if None.

    Raises
    ------
    JobError
        If the scheduler does not answer, or its workers cannot do it.
    SlideError
        After all other blocks are done, if some could not be read; names them.
    Stopped
        If the reporter asked for it; blocks that are done stay.
    """
    started = time.perf_counter()
    notes = (reporter.run_dir / BANDS).resolve()
    watch = _Watch(writer, reporter)
    with connect(config.scheduler) as workers:
        workers.check(notes.parent)
        rows = _bands(writer, wanted, workers.count())
        files = reader.path.resolve(), reader.mpp, segmenter.resolve()
        tasks = [BandTask(*files, config, writer.path.resolve(), notes, band) for band in rows]
        notes.mkdir(exist_ok=True)
        (notes / _GO).touch()
        try:
            workers.map(run_band, tasks, lambda task: None, watch.look)
            told = [json.loads(task.note.read_text(encoding="utf-8")) for task in tasks]
        finally:
            (notes / _GO).unlink()  # a worker may still be at a block; the notes tell the next run so
            watch.look()
    shutil.rmtree(notes, ignore_errors=True)
    failed = [Region(*place) for note in told for place in note["failed"]]
    for region in failed:
        reporter.event("block_failed", y=region.y, x=region.x, height=region.height, width=region.width)
    if failed:
        raise failed_blocks(failed, reader.path.name, writer.mpp)
    done = [TilesSummary(**note["summary"]) for note in told]
    return TilesSummary(
        windows=sum(each.windows for each in done),
        skipped_windows=sum(each.skipped_windows for each in done),
        blocks=watch.told,
        resumed_blocks=watch.before,
        seconds=time.perf_counter() - started,
        model_seconds=sum(each.model_seconds for each in done),
    )


def fill_all(writer: PyramidWriter, notes: Path) -> None:
    """Make the coarser levels of all blocks of a map whose sharing did not come to its end."""
    if notes.exists():
        for region in done_blocks(writer.path):
            writer.fill_coarser(region)
        shutil.rmtree(notes, ignore_errors=True)


class _Watch:
    """Makes the coarser levels of blocks that workers have written, and tells of the blocks."""

    def __init__(self, writer: PyramidWriter, reporter: Reporter) -> None:
        self._writer, self._reporter = writer, reporter
        self._known = set(done_blocks(writer.path))
        self._total = sum(1 for _ in blocks(writer))
        self.before = len(self._known)

    @property
    def told(self) -> int:
        """Number of blocks that were told of."""
        return len(self._known) - self.before

    def look(self) -> bool:
        """See what is new; returns whether to stop."""
        for region in done_blocks(self._writer.path):
            if region in self._known:
                continue
            self._known.add(region)
            self._writer.fill_coarser(region)
            place = {"y": region.y, "x": region.x, "height": region.height, "width": region.width}
            self._reporter.event("block", **place)
        self._reporter.progress(len(self._known), self._total, "blocks", "Predicting")
        return self._reporter.should_stop()


def _bands(writer: PyramidWriter, wanted: Wanted, workers: int) -> list[range]:
    """Divide the rows of blocks into bands of about equal work: one or two for each worker."""
    work: dict[int, float] = {}
    for region in blocks(writer):
        row = region.y // writer.chunk
        cost = 0.0 if writer.done(region) else 1.0 if wanted is None or wanted(region) else 0.01
        work[row] = work.get(row, 0.0) + cost
    count = max(workers, min(_MOST_BANDS * workers, len(work) // _LEAST_ROWS))
    return _evenly([work[row] for row in range(len(work))], count)


def _evenly(work: Sequence[float], count: int) -> list[range]:
    """Cut a sequence into at most ``count`` runs of about equal sums; none without work."""
    ends = np.searchsorted(np.cumsum(work), np.linspace(0, sum(work), count + 1)[1:-1], side="left") + 1
    edges = [0, *np.unique(ends).tolist(), len(work)]
    runs = [range(a, b) for a, b in pairwise(edges) if a < b]
    return [run for run in runs if sum(work[row] for row in run)]
