"""The tissue of many slides, found by the workers of a scheduler: what a stream of patches is planned from.

A worker writes a slide's mask and, last and by one rename, a note into the run folder.  So a worker that is
lost, and a run that is stopped, cost the slides that were at work, and no more.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from napari_histogan.errors import SlideError
from napari_histogan.inference.workers import connect
from napari_histogan.progress import Reporter
from napari_histogan.slides.patch_plan import PatchPlan, PlannedSlide, check_fits, plan_slide, tissue_file
from napari_histogan.slides.reader import open_slide

NOTES = "tissue"
"""Folder in the run folder with masks and notes; it stays until the plan is written."""

_MOST_SLIDES = 16
"""Slides of a task; the scheduler keeps every task in memory."""

_TASKS = 4
"""Tasks for each worker, at least, if there are as many slides."""


@dataclass(frozen=True)
class SlideToPlan:
    """A slide whose tissue is wanted.

    Attributes
    ----------
    name
        In the project, for messages.
    path
        The file, which workers see under the same path.
    mpp
        Resolution that was given for it in um/px, or None if the file says it.
    fingerprint
        Of the file that was added; empty if unknown.
    """

    name: str
    path: Path
    mpp: float | None
    fingerprint: str


@dataclass(frozen=True)
class TissueTask:
    """Some slides for one worker.

    Attributes
    ----------
    slides
        By their number in the plan.
    patch_px, mpp
        Side of a patch in pixels, and its resolution in um/px.
    folder
        Gets masks and notes.
    """

    slides: dict[int, SlideToPlan]
    patch_px: int
    mpp: float
    folder: Path


def find_tissue_of(task: TissueTask) -> None:
    """Write mask and note of each slide of a task, unless they are there."""
    for number, wanted in task.slides.items():
        note = _note(task.folder, number)
        if note.exists():
            continue
        with open_slide(wanted.path, wanted.mpp) as reader:
            if wanted.fingerprint and reader.fingerprint() != wanted.fingerprint:
                raise SlideError(
                    f"the file of slide {wanted.name} ({wanted.path}) is not the one that was added",
                    "the same content as when it was added",
                    "put the old file back, or add the slide again",
                )
            check_fits(reader, task.patch_px, task.mpp)
            planned = plan_slide(reader, number, task.folder)
        draft = note.with_suffix(f".{os.getpid()}.part")
        draft.write_text(json.dumps(asdict(planned)), encoding="utf-8")
        draft.replace(note)


def share_plan(
    slides: Sequence[SlideToPlan],
    patch_px: int,
    mpp: float,
    folder: Path,
    scheduler: str,
    reporter: Reporter,
) -> PatchPlan:
    """Let workers find the tissue of slides, and write a plan as :func:`~.plan_patches` does.

    Parameters
    ----------
    slides
        At least one.
    patch_px, mpp
        Side of a patch in pixels, and its resolution in um/px.
    folder
        Gets ``plan.json`` and one mask a slide; must exist.
    scheduler
        Address of a dask scheduler.
    reporter
        Its run folder, which workers see, keeps what is done; it is told of each slide.

    Raises
    ------
    JobError
        If the scheduler does not answer, or its workers cannot do it.
    SlideError, SlideTooSmall, NoTissue
        If a slide cannot be used.
    Stopped
        If the reporter asked for it; slides that are done stay.
    """
    notes = (reporter.run_dir / NOTES).resolve()
    notes.mkdir(parents=True, exist_ok=True)
    left = [number for number in range(len(slides)) if not _note(notes, number).exists()]

    def look(_task: TissueTask | None = None) -> bool:
        done = sum(1 for _ in notes.glob("*.json"))
        reporter.progress(done, len(slides), "slides", "Finding tissue")
        return reporter.should_stop()

    if left:
        with connect(scheduler) as workers:
            workers.check(notes)
            size = max(1, min(_MOST_SLIDES, len(left) // (_TASKS * workers.count())))
            groups = [left[first : first + size] for first in range(0, len(left), size)]
            tasks = [TissueTask({k: slides[k] for k in group}, patch_px, mpp, notes) for group in groups]
            workers.map(find_tissue_of, tasks, lambda task: None, look)
    look()
    plan = PatchPlan(patch_px, mpp, tuple(_taken(notes, number, folder) for number in range(len(slides))))
    plan.save(folder)
    shutil.rmtree(notes, ignore_errors=True)
    return plan


def _note(folder: Path, number: int) -> Path:
    """Return where a worker notes what it found of a slide."""
    return folder / f"{number:04d}.json"


def _taken(notes: Path, number: int, folder: Path) -> PlannedSlide:
    """Copy the mask of a slide to where the plan will be; returns the plan's entry."""
    told = json.loads(_note(notes, number).read_text(encoding="utf-8"))
    target = tissue_file(folder, number)
    shutil.copyfile(tissue_file(notes, number), target)
    return PlannedSlide(**{**told, "tissue": str(target)})
