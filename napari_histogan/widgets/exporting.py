"""Outlines of a heatmap as a GeoJSON file, for QuPath and others; made by the stage that finds objects."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtCore import QObject, Signal

from napari_histogan.config import DetectObjectsConfig
from napari_histogan.errors import LabelError
from napari_histogan.project.artifacts import Artifact
from napari_histogan.project.atomic import write_bytes
from napari_histogan.widgets.stage_forms import last_values

if TYPE_CHECKING:
    from napari_histogan.widgets.session import Session

OUTLINES = "objects.geojson"


class Exporting(QObject):
    """Writes the outlines of the shown heatmap where people want them.

    Signals
    -------
    exported
        Path of a file that was written.
    """

    exported = Signal(str)

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self._session = session
        self._wanted: tuple[Path, DetectObjectsConfig] | None = None
        session.artifacts_changed.connect(self._look)
        session.project_closed.connect(lambda _why: self._forget())

    def export(self, path: Path, percent: int) -> None:
        """Write what reaches ``percent`` in the shown heatmap; at once if that was made earlier.

        Raises
        ------
        LabelError
            If no finished heatmap is shown.
        """
        heatmap = self._session.slide_view.heatmap
        if heatmap is None:
            raise LabelError(
                "there is no finished heatmap to export", "a slide with one", "run the net on it"
            )
        threshold = min(100, max(1, percent)) / 100
        values = last_values(self._session.require(), DetectObjectsConfig.stage)
        chosen = {"heatmap": heatmap.id, "threshold": threshold, "classes": ()}
        config = DetectObjectsConfig(**{**values, **chosen})
        self._wanted = path, config
        if self._made() is not None:
            self._look()
        elif not self._session.run(config):
            self._wanted = None

    def _made(self) -> Artifact | None:
        """Return the objects that were made with the wanted settings."""
        if self._wanted is None:
            return None
        wanted = self._wanted[1]
        for artifact in reversed(self._session.require().artifacts("objects")):
            if artifact.stage == wanted.stage and artifact.config == wanted.model_dump(mode="json"):
                return artifact
        return None

    def _look(self) -> None:
        """Copy the outlines once they are there."""
        made = self._made()
        if made is None or self._wanted is None:
            return
        path = self._wanted[0]
        self._wanted = None

        def copy() -> None:
            write_bytes(path, (made.path / OUTLINES).read_bytes())
            count = made.summary.get("objects", "the")
            self._session.told.emit(f"Wrote {count} outlines to {path}; QuPath opens them.", "info")
            self.exported.emit(str(path))

        self._session.attempt(copy)

    def _forget(self) -> None:
        self._wanted = None


def exporting_of(session: Session) -> Exporting:
    """Return the session's; made when there is none."""
    found = session.findChild(Exporting)
    return found if found is not None else Exporting(session)
