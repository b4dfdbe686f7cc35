"""The earlier versions of a sample's mask: listed with their time and paint, and brought back by a click."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import numpy as np
from qtpy.QtWidgets import QMenu, QWidget

from napari_histogan.errors import ProjectDamaged
from napari_histogan.project.masks import MaskStore
from napari_histogan.widgets.keys import KeyButton
from napari_histogan.widgets.session import Session

SHOWN = 20
"""Newest versions that the list shows."""


class MaskHistoryButton(KeyButton):
    """Lists the versions of the open sample's mask; one that is chosen comes back, and Ctrl+Z undoes that."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__("Earlier versions  ({B})", "paint", parent)
        self._session: Session | None = None
        self.setToolTip("Bring back an earlier version of this mask ({B}); the present one stays in the list")
        self.versions = QMenu(self)
        self.versions.setToolTipsVisible(True)
        self.versions.aboutToShow.connect(self.fill)
        self.setMenu(self.versions)

    def follow(self, session: Session | None) -> None:
        """Show the versions of this session's sample; None of none."""
        self._session = session

    def fill(self) -> None:
        """List what there is, newest first."""
        self.versions.clear()
        session = self._session
        index = session.painting.index if session is not None else -1
        if session is None or session.project is None or session.samples_artifact is None or index < 0:
            self.versions.addAction("No sample is open").setEnabled(False)
            return
        store = session.project.masks(session.samples_artifact)
        found = list(reversed(store.history(index)))[:SHOWN]
        if not found:
            self.versions.addAction("No earlier version yet").setEnabled(False)
        for path in found:
            action = self.versions.addAction(_words(store, path))
            action.setEnabled(not session.read_only)
            action.triggered.connect(lambda _checked=False, path=path: self.bring_back(store, path))

    def bring_back(self, store: MaskStore, path: Path) -> None:
        """Paint what a version holds; it is saved as the newest, and can be undone."""
        session = self._session
        if session is None:
            return
        try:
            session.painting.put(store.load_version(path))
        except ProjectDamaged as error:
            session.told.emit(f"This version cannot be read: {error}", "error")


def _words(store: MaskStore, path: Path) -> str:
    """Say when a version was saved and how much it holds."""
    try:
        when = datetime.fromtimestamp(path.stat().st_mtime)
        pixels = np.count_nonzero(store.load_version(path))
    except (OSError, ProjectDamaged):
        return "damaged"
    day = "" if when.date() == datetime.now().date() else f"{when:%d %b} "
    return f"{day}{when:%H:%M:%S}, {pixels:,} px painted"
