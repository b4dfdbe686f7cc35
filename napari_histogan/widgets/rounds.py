"""What a round of corrections brought: agreement with the corrected places before and after."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import QObject, Signal

from napari_histogan.jobs.engine_client import Reply
from napari_histogan.project.artifacts import Artifact
from napari_histogan.project.store import Project

if TYPE_CHECKING:
    from napari_histogan.widgets.session import Session


class Rounds(QObject):
    """Judges the newest map of a net that learned from corrections, whoever ran it.

    Signals
    -------
    judged
        What the round brought, in words; "" if there was none.
    """

    judged = Signal(str)

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self._session = session
        self._asked: tuple[str, str] | None = None
        session.project_opened.connect(self._forget)
        session.artifacts_changed.connect(self.judge)

    def judge(self) -> None:
        """Compare the newest such map with the one before, on the corrected places of its slide."""
        project = self._session.project
        pair = compared_maps(project) if project is not None else None
        if project is None or pair is None or (pair[0].id, pair[1].id) == self._asked:
            return
        before, after = pair
        self._asked = before.id, after.id
        self._session.engine.ask(
            "round", self._show, project=str(project.root), before=before.id, after=after.id
        )

    def _forget(self) -> None:
        self._asked = None
        self.judged.emit("")
        self.judge()

    def _show(self, reply: Reply) -> None:
        said = reply.data
        if self._session.project is None or not said.get("places"):
            return
        places = int(said["places"])
        noun = "place" if places == 1 else "places"
        words = (
            f"The last round: {places} corrected {noun}, {said['area_mm2']:.3g} mm2. "
            f"MCC there {said['before']:.2f} before, {said['after']:.2f} after; the net learned from them."
        )
        self.judged.emit(words)


def compared_maps(project: Project) -> tuple[Artifact, Artifact] | None:
    """Return the maps of one slide before and after the newest round; None without a round."""
    nets = {a.id: a for a in project.artifacts("segmenter")}
    maps = [(a, _net_of(a)) for a in project.artifacts("heatmap")]
    for after, net in reversed(maps):
        known = nets.get(net)
        if known is None or not any(p.id.startswith("corrections/") for p in known.parents):
            continue
        slide = after.summary.get("slide")
        older = [
            a for a, n in maps if a.number < after.number and n != net and a.summary.get("slide") == slide
        ]
        return (older[-1], after) if older else None
    return None


def _net_of(heatmap: Artifact) -> str:
    return next((p.id for p in heatmap.parents if p.id.startswith("segmenters/")), "")
