"""What a round of corrections brought: how good the net was before and after, and on what that was judged."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QObject, Signal

from napari_histogan.config import StageConfig
from napari_histogan.jobs.engine_client import Reply
from napari_histogan.project.artifacts import Artifact
from napari_histogan.project.net_in_use import net_in_use
from napari_histogan.project.store import Project
from napari_histogan.widgets.stage_forms import config_of
from napari_histogan.widgets.stage_titles import results_in_words

if TYPE_CHECKING:
    from napari_histogan.widgets.session import Session

_WORSE = 0.02
"""So much less MCC after a round than before it counts as worse."""


class Rounds(QObject):
    """Judges the newest map of a net that learned from corrections, whoever ran it.

    Attributes
    ----------
    better
        Id of the net before the newest round, if that round made the net worse; else "".
    worse
        Id of the net that the round made, in that case.

    Signals
    -------
    judged
        What the round brought, in words; "" if there was none.
    """

    judged = Signal(str)

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self._session = session
        self._asked: tuple[str, ...] | None = None
        self._pair: tuple[str, str] = "", ""
        self.better = self.worse = ""
        session.project_opened.connect(self._forget)
        session.artifacts_changed.connect(self.judge)

    def judge(self) -> None:
        """Compare the newest such map with the one before."""
        project = self._session.project
        pair = compared_maps(project) if project is not None else None
        if project is None or pair is None:
            return
        before, after = pair
        known = before.id, after.id, *(each.id for each in project.artifacts("evaluation"))
        if known == self._asked:
            return
        self._asked = known
        self._pair = _net_of(before), _net_of(after)
        self._session.engine.ask(
            "round", self._show, project=str(project.root), before=before.id, after=after.id
        )

    def _forget(self) -> None:
        self._asked = None
        self.better = self.worse = ""
        self.judged.emit("")
        self.judge()

    def _show(self, reply: Reply) -> None:
        said = reply.data
        if self._session.project is None or not said.get("places"):
            return
        area = f"{_places(int(said['places']))}, {said['area_mm2']:.3g} mm2"
        mcc = f"MCC {said['before']:.2f} before, {said['after']:.2f} after"
        words = f"The last round: {area}. {mcc}, {_judged_on(said)}."
        self.better = self.worse = ""
        if said["after"] < said["before"] - _WORSE:
            self.better, self.worse = self._pair
        if self.worse and net_in_use(self._session.project) == self.worse:
            worse, better = results_in_words([self.worse]), results_in_words([self.better])
            self._session.told.emit(
                f"The last round made the net worse: MCC {said['before']:.2f} before, {said['after']:.2f} "
                f"after. Slides are better run with {better} than with {worse}; tab Correct goes back to it.",
                "warning",
            )
        self.judged.emit(words)


def _places(count: int) -> str:
    return f"{count} corrected place{'s' if count != 1 else ''}"


def _judged_on(said: Mapping[str, Any]) -> str:
    """Say what the figures are of, and which of them is favored."""
    if said["on"] == "slides":
        return f"on {said['slides']}, compared with its outlines"
    if said["on"] == "kept back":
        return f"on {_places(int(said['judged']))} that neither version learned from"
    return (
        "on the very places that the new version learned from, which favors it; every fifth correction is "
        "kept back, and slides with outlines judge better still (Compare with outlines, tab Train)"
    )


def compared_maps(project: Project) -> tuple[Artifact, Artifact] | None:
    """Return the maps of one slide before and after the newest round; None without a round.

    Before is the net that the round's net began with, or the one whose map was made last.
    """
    nets = {a.id: a for a in project.artifacts("segmenter")}
    maps = [(a, _net_of(a)) for a in project.artifacts("heatmap")]
    for after, net in reversed(maps):
        known = nets.get(net)
        if known is None or not any(p.id.startswith("corrections/") for p in known.parents):
            continue
        slide = after.summary.get("slide")
        older = [
            (a, n)
            for a, n in maps
            if a.number < after.number and n != net and a.summary.get("slide") == slide
        ]
        begun_with = {p.id for p in known.parents if p.id.startswith("segmenters/")}
        before = [a for a, n in older if n in begun_with] or [a for a, _ in older]
        return (before[-1], after) if before else None
    return None


def _net_of(heatmap: Artifact) -> str:
    return next((p.id for p in heatmap.parents if p.id.startswith("segmenters/")), "")


def judging_stages(project: Project, shown: str) -> list[StageConfig]:
    """Return what runs after a training so that its round can be judged.

    The map of the shown slide, and, if nets were compared with outlines before, maps of those slides and
    the same comparison again.

    Parameters
    ----------
    project
        Where the round is.
    shown
        Name of the shown slide; "" for none.
    """
    stages = [config_of(project, "predict_heatmap", slide=shown)] if shown else []
    evaluations = project.artifacts("evaluation")
    if not evaluations:
        return stages
    last = evaluations[-1]
    slides = [name for name in str(last.summary.get("slide", "")).split(", ") if name]
    reference = Path(str(last.config.get("reference", "")))
    if not slides or not reference.exists() or not {*slides} <= {entry.name for entry in project.slides()}:
        return stages
    if slides != [shown]:
        stages.append(config_of(project, "predict_heatmap", slide=",".join(slides)))
    return [*stages, config_of(project, "evaluate", reference=reference)]
