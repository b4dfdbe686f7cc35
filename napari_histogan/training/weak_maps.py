"""Probability maps that are made anew while training goes on, and the process that makes them.

A map is written under another name and renamed when it is whole; what places are drawn from is one object
per slide, replaced at once.  So the trainer sees the old map or the new one, never a part of either.
"""

from __future__ import annotations

import copy
import shutil
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from napari_histogan.errors import Stopped
from napari_histogan.models.weak_unet import WeakUNet
from napari_histogan.progress import Reporter
from napari_histogan.slides.reader import SlideReader
from napari_histogan.slides.tissue import TissueMask
from napari_histogan.slides.zarr_pyramid import open_pyramid
from napari_histogan.training.weak_sampling import PlaceSampler
from napari_histogan.training.weak_sharing import TimeShare

MOST_CELLS = 1_000_000
"""Places are drawn on the finest level of a map that has no more cells: at most 8 MB a slide."""

_MALIGN = 1
_IDLE_S = 0.05


@dataclass(frozen=True)
class WeakSlide:
    """A slide and what is known of it.

    Parameters
    ----------
    name
        How people call it.
    reader
        Open until the training ends.
    malign
        Its label; None if it is unknown.
    tissue
        Where patches may come from, and which pixels count.
    held_out
        Kept back: it is mapped at the end, and never learned from.
    """

    name: str
    reader: SlideReader
    malign: bool | None
    tissue: TissueMask
    held_out: bool = False


MapSlide = Callable[[WeakUNet, WeakSlide, Path, Reporter], None]
"""Writes the map of a slide: an OME-Zarr pyramid of uint8 percent, channel 0 benign and 1 malign."""


@dataclass(frozen=True)
class Mapped:
    """The latest map of a slide.

    Parameters
    ----------
    step
        Training step of the weights that made it; -1 if there is no map yet.
    path
        The pyramid; None if there is no map yet.
    places
        What places are drawn from.
    cell_px
        Side of a cell in pixels of the net's resolution.
    error
        Sum of the map over the tissue, in um2.
    """

    step: int
    path: Path | None
    places: PlaceSampler
    cell_px: float
    error: float


class MapStore:
    """The maps of all slides on disk, below one folder, and in use.

    Parameters
    ----------
    folder
        Made if missing; parts that a stopped run left are removed.
    slides, mpp
        The slides, and the net's um per pixel.
    """

    def __init__(self, folder: Path, slides: Sequence[WeakSlide], mpp: float) -> None:
        self._folder, self._slides, self._mpp = folder, slides, mpp
        folder.mkdir(parents=True, exist_ok=True)
        for part in folder.glob("*/*.part"):
            shutil.rmtree(part)
        self.latest: list[Mapped] = [self._unmapped(slide) for slide in slides]

    def draft(self, slide: int) -> Path:
        """Return an empty place for the next map of a slide."""
        path = self._folder / f"{slide:04d}" / "next.part"
        shutil.rmtree(path, ignore_errors=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def publish(self, slide: int, step: int) -> Mapped:
        """Swap the draft in as the map of a slide, made with the weights of a step."""
        path = self._path(slide, step)
        shutil.rmtree(path, ignore_errors=True)  # left by a run that was stopped before its checkpoint
        self.draft_path(slide).replace(path)
        self.latest[slide] = mapped = self._mapped(slide, step)
        return mapped

    def draft_path(self, slide: int) -> Path:
        """Return where :meth:`draft` is."""
        return self._folder / f"{slide:04d}" / "next.part"

    def steps(self) -> list[int]:
        """Return the step of each slide's latest map, -1 where there is none."""
        return [mapped.step for mapped in self.latest]

    def counts(self, malign: bool) -> NDArray[np.int64]:
        """Return the area in um2 of each percent on the latest maps of one kind of slides, ``(256,)``."""
        found = np.zeros(256, np.int64)
        for slide, mapped in zip(self._slides, list(self.latest), strict=True):
            if slide.malign is malign and not slide.held_out and mapped.places.is_mapped:
                found += np.rint(mapped.places.counts * (mapped.cell_px * self._mpp) ** 2).astype(np.int64)
        return found

    def restore(self, steps: Sequence[int]) -> None:
        """Take the maps of these steps again, as a checkpoint names them."""
        self.latest = [
            self._mapped(slide, step) if step >= 0 else self._unmapped(self._slides[slide])
            for slide, step in enumerate(steps)
        ]

    def prune(self, needed: Sequence[Sequence[int]]) -> None:
        """Delete the maps that neither a checkpoint (its steps, in ``needed``) nor the training uses."""
        for slide, mapped in enumerate(self.latest):
            kept = {self._path(slide, steps[slide]) for steps in needed} | {mapped.path}
            for path in (self._folder / f"{slide:04d}").glob("*.zarr"):
                # A map that is newer than all was published meanwhile.
                if path not in kept and path.name < self._path(slide, mapped.step).name:
                    shutil.rmtree(path, ignore_errors=True)

    def _path(self, slide: int, step: int) -> Path:
        return self._folder / f"{slide:04d}" / f"{max(step, 0):09d}.zarr"

    def _unmapped(self, slide: WeakSlide) -> Mapped:
        cell_px = slide.tissue.mpp / self._mpp
        return Mapped(-1, None, PlaceSampler(None, slide.tissue.mask), cell_px, float("nan"))

    def _mapped(self, slide: int, step: int) -> Mapped:
        path, tissue = self._path(slide, step), self._slides[slide].tissue
        percent, cell_px = malign_percent(path)
        cell_um = cell_px * self._mpp
        places = PlaceSampler(percent, tissue_cells(tissue, percent.shape, cell_um))
        return Mapped(step, path, places, cell_px, places.error * cell_um**2)


def malign_percent(path: Path, most_cells: int = MOST_CELLS) -> tuple[NDArray[np.uint8], float]:
    """Return the malign channel ``(h, w) uint8`` of a map's finest level that is small enough.

    Also returns the side of its cells in pixels of level 0.
    """
    levels = open_pyramid(path).levels
    number = next((k for k, level in enumerate(levels) if level[0].size <= most_cells), len(levels) - 1)
    return np.asarray(levels[number][_MALIGN], np.uint8), float(2**number)


def highest_probability(path: Path) -> float:
    """Return the highest malign probability 0..1 of a map, read in strips."""
    level = open_pyramid(path).levels[0]
    strips = range(0, level.shape[1], level.chunks[1])
    return max(float(level[_MALIGN, y : y + level.chunks[1]].max()) for y in strips) / 100


def tissue_cells(tissue: TissueMask, shape: tuple[int, ...], cell_um: float) -> NDArray[np.bool_]:
    """Return the tissue ``(h, w) bool`` on cells of ``cell_um`` um; at least one cell where there is any."""
    rows, columns = (
        np.minimum(((np.arange(count) + 0.5) * cell_um / tissue.mpp).astype(int), limit - 1)
        for count, limit in zip(shape, tissue.mask.shape, strict=True)
    )
    found = tissue.mask[np.ix_(rows, columns)]
    return found if found.any() else np.ones(shape, bool)


class MapReporter:
    """What the making of a map is told and asked: when to stop, and to leave time to the trainer.

    Parameters
    ----------
    run_dir
        Of the training.
    stop
        Asks to stop.
    share
        Says when to pause; None never does.
    """

    def __init__(self, run_dir: Path, stop: Callable[[], bool], share: TimeShare | None = None) -> None:
        self.run_dir, self._stop, self._share = run_dir, stop, share

    def progress(self, done: float, total: float, unit: str = "", message: str = "") -> None:
        """Pause if it is time to."""
        if self._share is not None:
            self._share.rest(self._stop)

    def metric(self, step: int, **values: float) -> None:
        """Say nothing; the training tells of the whole map."""

    def preview(self, name: str, path: Path) -> None:
        """Say nothing."""

    def event(self, kind: str, **data: Any) -> None:
        """Say nothing."""

    def warn(self, message: str) -> None:
        """Say nothing."""

    def should_stop(self) -> bool:
        """Whether the training stops."""
        return self._stop()


class Mapper(threading.Thread):
    """Makes maps with the newest weights, the slide with the oldest map first, until it is stopped.

    The arithmetic runs outside of Python's lock, so it works beside the trainer like a process would, and
    shares its slides' open files and tissue.

    Parameters
    ----------
    net
        Copied; the copy is in evaluation mode.
    slides, numbers, store, map_slide
        The slides and which of them are mapped, where to, and by what.
    run_dir, share
        See :class:`MapReporter`.
    """

    def __init__(
        self,
        net: WeakUNet,
        slides: Sequence[WeakSlide],
        numbers: Sequence[int],
        store: MapStore,
        map_slide: MapSlide,
        run_dir: Path,
        share: TimeShare,
    ) -> None:
        super().__init__(name="mapper", daemon=True)
        self._net = copy.deepcopy(net).eval().requires_grad_(False)
        self._slides, self._numbers = slides, numbers
        self._store, self._map_slide = store, map_slide
        self._ending = threading.Event()
        self._share = share
        self._reporter = MapReporter(run_dir, self._ending.is_set, share)
        self._newest: tuple[int, dict[str, Tensor]] | None = None
        self.error: BaseException | None = None

    def publish(self, step: int, weights: dict[str, Tensor]) -> None:
        """Offer newer weights, copied here; the map that is being made is finished with its own."""
        self._newest = step, {name: value.detach().clone() for name, value in weights.items()}

    def stop(self) -> None:
        """End after the present windows; a map that is not whole is dropped."""
        self._ending.set()
        if self.is_alive():
            self.join()

    def run(self) -> None:
        """Map until :meth:`stop`; an error is kept for the trainer to raise."""
        try:
            while not self._ending.is_set():
                steps = self._store.steps()
                slide, newest = min(self._numbers, key=steps.__getitem__), self._newest
                if newest is None or newest[0] <= steps[slide]:
                    self._ending.wait(_IDLE_S)
                    continue
                self._net.load_state_dict(newest[1])
                what = slide, newest[0], self._slides, self._store, self._map_slide
                with self._share.working():
                    map_one(self._net, *what, self._reporter)
        except Stopped:
            return
        except BaseException as error:  # noqa: BLE001 - raised again in the trainer's thread
            self.error = error


def map_one(
    net: WeakUNet,
    slide: int,
    step: int,
    slides: Sequence[WeakSlide],
    store: MapStore,
    map_slide: MapSlide,
    reporter: Reporter,
) -> None:
    """Make the map of one slide and swap it in when it is whole."""
    map_slide(net, slides[slide], store.draft(slide), reporter)
    store.publish(slide, step)
