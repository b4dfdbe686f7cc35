"""The versions of the net: what each learned from, how good it is, comparing two, and going back to one."""

from __future__ import annotations

from typing import Any

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import (
    QAbstractItemView,
    QHBoxLayout,
    QHeaderView,
    QTableWidget,
    QTableWidgetItem,
    QVBoxLayout,
    QWidget,
)

from napari_histogan.errors import HistoganError
from napari_histogan.project.artifacts import Artifact
from napari_histogan.project.net_in_use import net_in_use, use_net
from napari_histogan.project.store import Project
from napari_histogan.widgets.keys import keyed
from napari_histogan.widgets.session import Session
from napari_histogan.widgets.session_view import SessionView
from napari_histogan.widgets.stage_titles import results_in_words

_FIGURES = {
    "mcc": "MCC",
    "validation_mcc": "MCC",
    "dice": "Dice",
    "accuracy": "accuracy",
    "validation_loss": "loss",
    "loss": "loss",
}
"""Figures that tell how good a net is, the most telling first, and how they are called."""


class NetVersions(SessionView):
    """A table of nets with two buttons.

    Signals
    -------
    changed
        Another version is used for slides.
    """

    where = "correct"

    changed = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.table = QTableWidget(0, 4)
        self.table.setHorizontalHeaderLabels(["Net", "Learned from", "Validation", "On slides"])
        self.table.setToolTip("Versions of the net, newest first; choose two with Ctrl to compare them")
        self.table.verticalHeader().hide()
        self.table.setTabKeyNavigation(False)
        header = self.table.horizontalHeader()
        header.setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
        header.setSectionResizeMode(1, QHeaderView.ResizeMode.Stretch)
        self.table.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.table.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.compare_button = self._button("Compare  ({V})", "V", self.compare)
        self.compare_button.setToolTip(
            "Show the maps of two chosen versions side by side; again for one view ({V})"
        )
        self.swipe_button = self._button("Swipe  ({W})", "W", self.swipe)
        self.swipe_button.setToolTip(
            "The maps of two chosen versions on both sides of a line that follows the mouse ({W})"
        )
        self.use_button = self._button("Use  ({X})", "X", self.use)
        self.use_button.setToolTip(
            "Run slides with the chosen version from now on, until a newer one is trained ({X})"
        )
        row = QHBoxLayout()
        row.addWidget(self.compare_button)
        row.addWidget(self.swipe_button)
        row.addWidget(self.use_button)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.table, 1)
        layout.addLayout(row)

    def attach(self, session: Session) -> None:
        """Follow a session."""
        self.watch(session.project_opened, self.fill)
        self.watch(session.artifacts_changed, self.fill)
        self.fill()

    def fill(self) -> None:
        """List the versions, newest first."""
        session = self.session
        if session is None or session.project is None:
            return
        nets = list(reversed(session.project.artifacts("segmenter")))
        used = net_in_use(session.project)
        scores = _scores_on_slides(session.project)
        self.table.setRowCount(len(nets))
        for row, net in enumerate(nets):
            mark = " *" if net.id == used and len(nets) > 1 else ""
            for column, text in enumerate((f"{net.number}{mark}", *_words(net), scores.get(net.id, ""))):
                item = QTableWidgetItem(text)
                item.setData(Qt.ItemDataRole.UserRole, net.id)
                if mark:
                    item.setToolTip("This version runs over slides")
                self.table.setItem(row, column, item)
        self.use_button.setEnabled(not session.read_only)

    def chosen(self) -> list[str]:
        """Return the ids of the chosen versions, from top to bottom."""
        rows = sorted({index.row() for index in self.table.selectionModel().selectedRows()})
        items = [self.table.item(row, 0) for row in rows]
        return [str(item.data(Qt.ItemDataRole.UserRole)) for item in items if item is not None]

    def compare(self) -> None:
        """Show the newest maps of the two chosen versions on the open slide side by side."""
        session = self.session
        if session is None or session.project is None:
            return
        view = session.slide_view
        if view.beside.active:
            view.beside.hide()
            return
        maps = self._chosen_maps(session)
        if maps is not None:
            left, right = maps
            session.attempt(lambda: view.open_heatmap(left))
            session.attempt(lambda: view.beside.show(right))

    def swipe(self) -> None:
        """Show the newest maps of the two chosen versions on both sides of a line."""
        session = self.session
        if session is None or session.project is None:
            return
        view = session.slide_view
        if view.swipe.active:
            view.swipe.hide()
            return
        maps = self._chosen_maps(session)
        if maps is not None:
            left, right = maps
            session.attempt(lambda: view.open_heatmap(right))
            session.attempt(lambda: view.swipe.show(left))

    def _chosen_maps(self, session: Session) -> tuple[Artifact, Artifact] | None:
        """Return the newest maps of two chosen versions on the open slide; None if it was told why not."""
        chosen, view = self.chosen(), session.slide_view
        if len(chosen) != 2 or view.slide is None:
            session.told.emit("Choose two versions: click one, then another with Ctrl.", "info")
            return None
        found = [(net, _newest_map(view.heatmaps(), net)) for net in chosen]
        maps = [made for _net, made in found if made is not None]
        if len(maps) != 2:
            missing = next(net for net, made in found if made is None)
            use = keyed("{X}", self.where)
            name = results_in_words([missing]).capitalize()
            session.told.emit(
                f"{name} has no map of this slide yet: use it ({use}), then run it on the slide.", "warning"
            )
            return None
        left, right = (results_in_words([net]) for net in chosen)
        session.told.emit(f"Left: {left}. Right: {right}.", "info")
        return maps[0], maps[1]

    def use(self) -> None:
        """Go back to the chosen version for slides."""
        session, chosen = self.session, self.chosen()
        if session is None or session.project is None or session.read_only:
            return
        if len(chosen) != 1:
            session.told.emit("Choose one version first.", "info")
            return
        self.use_version(chosen[0])

    def use_version(self, net: str) -> bool:
        """Run slides with a version from now on; False if it was told why not."""
        session = self.session
        if session is None or session.project is None or session.read_only:
            return False
        project = session.project
        if not session.attempt(lambda: use_net(project, net)):
            return False
        name = results_in_words([net])
        session.told.emit(f"Slides are run with {name} until a newer net is trained.", "info")
        self.fill()
        self.changed.emit()
        return True


def _newest_map(heatmaps: list[Artifact], net: str) -> Artifact | None:
    made = [a for a in heatmaps if any(parent.id == net for parent in a.parents)]
    return made[-1] if made else None


def _scores_on_slides(project: Project) -> dict[str, str]:
    """Return each net's newest MCC against outlines of a slide, in words."""
    by_map = {a.id: next((p.id for p in a.parents if p.id.startswith("segmenters/")), "")
              for a in project.artifacts("heatmap")}  # fmt: skip
    found = {}
    try:
        evaluations = project.artifacts("evaluation")
    except HistoganError:
        return {}
    for each in evaluations:
        net, mcc = by_map.get(str(each.summary.get("heatmap")), ""), each.summary.get("mcc")
        if net and isinstance(mcc, int | float):
            found[net] = f"MCC {mcc:.3f}"
    return found


def _words(net: Artifact) -> tuple[str, str]:
    """Return sources and the best known validation figure of a net."""
    summary: dict[str, Any] = net.summary
    sources = results_in_words(parent.id for parent in net.parents)
    for key in _FIGURES:
        if isinstance(summary.get(key), int | float):
            return sources, f"{_FIGURES[key]} {summary[key]:.3f}"
    return sources, ""
