"""Heatmaps of one slide or of many by one run: a result for each, and a list of the slides that failed."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from napari_histogan.block_inputs import HEATMAP, agreeing_blocks, match_blocks
from napari_histogan.config import PredictHeatmapConfig
from napari_histogan.errors import (
    ArtifactMissing,
    ConfigError,
    HistoganError,
    LabelError,
    SlideError,
)
from napari_histogan.inference.heatmap import (
    WantedHeatmap,
    check_resolution,
    predict_heatmap,
    share_heatmaps,
)
from napari_histogan.models.segmenter import load_segmenter
from napari_histogan.progress import PartReporter, Reporter
from napari_histogan.project.artifacts import Artifact
from napari_histogan.project.atomic import read_json, write_json
from napari_histogan.project.slide_list import SlideEntry
from napari_histogan.project.store import Project
from napari_histogan.stage_inputs import check_stop, is_usual_slide, open_entry, require_unchanged

SLIDES = "slides"
"""Folder in the run folder with a folder for each slide that is at work."""

_MADE = "slides.json"
_MOST_LISTED = 20
_OF_ONE_SLIDE = (SlideError, ConfigError, LabelError, ArtifactMissing)
"""Errors that end the work on a slide, and leave the others alone; a full disk ends all."""


class SlideHeatmap:
    """The heatmap of one slide, from its inputs to its artifact.

    Parameters
    ----------
    project, net, entry
        The project, its segmenter, and the slide.
    config
        Of the stage.
    reporter
        Its run folder holds the map while it grows.
    """

    def __init__(
        self,
        project: Project,
        net: Artifact,
        entry: SlideEntry,
        config: PredictHeatmapConfig,
        reporter: Reporter,
    ) -> None:
        self._project, self._net, self.entry, self.reporter = project, net, entry, reporter
        words = project, reporter, net, entry.name, config.blocks
        self._blocks = agreeing_blocks(*words) if config.blocks else None
        accepted = config.accept_far_mpp or is_usual_slide(project, net, entry)
        self.config = config.model_copy(update={"accept_far_mpp": accepted})
        self.out = reporter.run_dir / HEATMAP

    def check(self, mpp: float) -> None:
        """Refuse a slide that is gone, was replaced, or does not suit a net of ``mpp`` um per pixel."""
        with open_entry(self.entry) as slide:
            check_resolution(slide, mpp, self.config.accept_far_mpp)

    def predict(self) -> dict[str, Any]:
        """Run the net here; returns what people see of the map."""
        with open_entry(self.entry) as slide:
            return predict_heatmap(slide, self._net.path, self.config, self.reporter, self.out)

    def finish(self, told: dict[str, Any], config: PredictHeatmapConfig, numbered: Reporter) -> Artifact:
        """Make the map a result.

        Parameters
        ----------
        told
            What people see of it.
        config
            What the result records.
        numbered
            The result takes the number of its run.
        """
        require_unchanged(self.entry)
        out, parents = self.out, [self._net]
        if self._blocks is not None:
            blocks, labels, shares = self._blocks
            out, matched = match_blocks(out, labels, shares, self.reporter)
            told, parents = {**told, "matched_blocks": matched}, [self._net, blocks]
        with self._project.new_artifact("heatmap", config, numbered, parents) as draft:
            draft.take_whole(out)
            draft.summary.update(slide=self.entry.name, **told)
        return draft.result


class SlideHeatmaps:
    """The heatmaps of several slides by one run.

    Each becomes a result as soon as it is whole; the last one takes the run's number.  A slide that fails
    leaves the others alone.  A run that was stopped, or in which slides failed, goes on with what is missing.

    Parameters
    ----------
    project, net, entries, config, reporter
        See :class:`SlideHeatmap`; the reporter is the run's.
    """

    def __init__(
        self,
        project: Project,
        net: Artifact,
        entries: Sequence[SlideEntry],
        config: PredictHeatmapConfig,
        reporter: Reporter,
    ) -> None:
        self._project, self._net, self._entries = project, net, entries
        self._config, self._reporter = config, reporter
        self._note = reporter.run_dir / _MADE
        self._made: dict[str, str] = read_json(self._note) if self._note.exists() else {}
        self._failed: dict[str, HistoganError] = {}

    def run(self) -> Artifact:
        """Make all heatmaps that are missing; returns the last one.

        Raises
        ------
        SlideError
            After all others are done, if some slides failed; names them.
        Stopped
            If the reporter asked for it; what is done stays.
        """
        ready = self._ready()
        if self._config.scheduler:
            self._share(ready)
        else:
            for heatmap in ready:
                self._predict(heatmap)
        if self._failed:
            raise _failed_slides(self._failed, len(self._entries))
        return self._project.find(list(self._made.values())[-1])

    def _ready(self) -> list[SlideHeatmap]:
        """Return the slides that are to be done, after a look at each; tell of those that cannot be."""
        mpp, ready = load_segmenter(self._net.path)[1].mpp, []
        for number, entry in enumerate(self._entries):
            check_stop(self._reporter)
            self._reporter.progress(number, len(self._entries), "slides", "Looking at the slides")
            if entry.name in self._made:
                continue
            folder = self._reporter.run_dir / SLIDES / entry.name
            part = _SlideReporter(self._reporter, folder, number, len(self._entries), entry.name)
            try:
                heatmap = SlideHeatmap(self._project, self._net, entry, self._config, part)
                heatmap.check(mpp)
                ready.append(heatmap)
            except _OF_ONE_SLIDE as error:
                self._fail(entry.name, error)
        return ready

    def _predict(self, heatmap: SlideHeatmap) -> None:
        """Do one slide in this process."""
        try:
            told = heatmap.predict()
        except _OF_ONE_SLIDE as error:
            self._fail(heatmap.entry.name, error)
        else:
            self._finish(heatmap, told)

    def _share(self, ready: Sequence[SlideHeatmap]) -> None:
        """Let workers do the slides."""

        def end(number: int, told: dict[str, Any] | HistoganError) -> None:
            if isinstance(told, HistoganError):
                self._fail(ready[number].entry.name, told)
            else:
                self._finish(ready[number], told)

        maps = [
            WantedHeatmap(partial(open_entry, each.entry), each.config, each.reporter, each.out)
            for each in ready
        ]
        share_heatmaps(maps, self._net.path, self._config, self._reporter, end)

    def _finish(self, heatmap: SlideHeatmap, told: dict[str, Any]) -> None:
        """Make a whole map a result, and note it."""
        name = heatmap.entry.name
        is_last = all(entry.name in (name, *self._made) for entry in self._entries)
        try:
            config = self._config.model_copy(update={"slide": name})
            made = heatmap.finish(told, config, self._reporter if is_last else heatmap.reporter)
        except _OF_ONE_SLIDE as error:
            self._fail(name, error)
            return
        self._made[name] = made.id
        write_json(self._note, self._made)
        shutil.rmtree(heatmap.reporter.run_dir, ignore_errors=True)
        self._reporter.event("heatmap", slide=name, artifact=made.id)

    def _fail(self, name: str, error: HistoganError) -> None:
        """Tell that a slide cannot be done now."""
        self._failed[name] = error
        self._reporter.warn(f"{name}: {error}")


class _SlideReporter(PartReporter):
    """Tells of one slide of several; each block comes with the place of its map in the run folder."""

    def event(self, kind: str, **data: Any) -> None:
        """Record an event of this slide."""
        super().event(kind, map=Path(SLIDES, self.run_dir.name, HEATMAP).as_posix(), **data)


def _failed_slides(failed: dict[str, HistoganError], count: int) -> SlideError:
    """Return the error that names the slides that failed, and why."""
    listed = [f"{name} ({error.found.rstrip('.')})" for name, error in failed.items()]
    more = [f"and {len(listed) - _MOST_LISTED} more"] if len(listed) > _MOST_LISTED else []
    remedies = dict.fromkeys(error.remedy.rstrip(".") for error in failed.values() if error.remedy)
    return SlideError(
        f"{len(failed)} of {count} slides failed: {'; '.join([*listed[:_MOST_LISTED], *more])}",
        "slides that can be read, and suit the net",
        "; ".join([*remedies, "the other heatmaps are made: resume, or run over these slides alone"]),
    )
