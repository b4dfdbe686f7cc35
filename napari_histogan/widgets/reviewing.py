"""What to look at next in a heatmap: its least sure places, and objects that may not be any."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import QObject, Signal

from napari_histogan.jobs.engine_client import Reply
from napari_histogan.project.artifacts import Artifact
from napari_histogan.widgets.keys import keyed

if TYPE_CHECKING:
    from napari_histogan.widgets.session import Session

_SHOWN_UM = 200.0
"""Side of what is shown around a place."""
TABLE = "objects.csv"
_EMPTY = np.empty((0, 6))


class Reviewing(QObject):
    """Goes from place to place; what there is to see is found by the compute process.

    Signals
    -------
    objects_changed
        The objects of the shown class were found, or are not known any more.
    """

    objects_changed = Signal()

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self._session = session
        self.places: NDArray[np.float64] | None = None
        self.objects: NDArray[np.float64] = _EMPTY
        self.object_class = 0
        self.object_classes: NDArray[np.int64] = np.empty(0, np.int64)
        self.source: Artifact | None = None
        self._place, self._suspect, self._waiting_step = -1, -1, 0
        session.slide_view.heatmap_opened.connect(lambda _id: self.forget())
        session.slide_view.slide_opened.connect(lambda _name: self.forget())

    def forget(self) -> None:
        """Another map is shown."""
        self.places, self.objects, self.object_class = None, _EMPTY, 0
        self.object_classes, self.source = np.empty(0, np.int64), None
        self._place, self._suspect = -1, -1
        self.objects_changed.emit()

    def step(self, by: int) -> None:
        """Fly to the next (1) or previous (-1) least sure place."""
        path = self._path()
        if path is None:
            return
        if self.places is None:
            self._waiting_step = by
            self._session.engine.ask("unsure", lambda reply: self._on_places(reply, path), path=path)
            return
        if not len(self.places):
            self._session.told.emit("The net is sure everywhere on this slide.", "info")
            return
        self._place = (self._place + by) % len(self.places) if self._place >= 0 else 0
        y, x, unsure = self.places[self._place]
        self._session.slide_view.fly_to((y, x), _SHOWN_UM)
        words = f"Place {self._place + 1} of {len(self.places)}: unsure {unsure:.2f} of 1."
        self._session.told.emit(words, "info")

    def find_objects(self, threshold: int) -> None:
        """Ask for the objects of the shown class that reach ``threshold`` percent."""
        path, view = self._path(), self._session.slide_view
        if path is None:
            return
        wanted = view.class_index
        self._session.engine.ask(
            "objects",
            lambda reply: self._on_objects(reply, path, wanted),
            path=path,
            class_index=wanted,
            threshold=max(1, threshold) / 100,
        )

    def stored(self) -> list[Artifact]:
        """Return the stored objects of the shown heatmap, newest first."""
        project, shown = self._session.project, self._session.slide_view.heatmap
        if project is None or shown is None:
            return []
        return [a for a in reversed(project.artifacts("objects")) if a.summary.get("heatmap") == shown.id]

    def load_objects(self, stored: Artifact) -> None:
        """Ask for the objects that a stage found; those of all its classes are shown."""
        path = self._path()
        if path is None:
            return
        self._session.engine.ask(
            "objects",
            lambda reply: self._on_objects(reply, path, 0, stored),
            table=str(stored.path / TABLE),
            names=list(self._session.require().classes.names),
        )

    def show_object(self, row: int) -> None:
        """Fly to an object."""
        if 0 <= row < len(self.objects):
            y, x, _area, _perimeter, _mean, side = self.objects[row]
            self._session.slide_view.fly_to((y, x), 3 * side)

    def step_suspect(self, by: int) -> int:
        """Fly to the next object that may not be one, the least probable first; returns its row or -1."""
        if not len(self.objects):
            self._session.told.emit(
                f"Find the objects first: button Find objects ({keyed('{B}', 'slides')}).", "info"
            )
            return -1
        order = np.argsort(self.objects[:, 4], kind="stable")
        self._suspect = (self._suspect + by) % len(order) if self._suspect >= 0 else 0
        row = int(order[self._suspect])
        self.show_object(row)
        mean = 100 * self.objects[row, 4]
        self._session.told.emit(
            f"Object {row + 1}, {self._suspect + 1} of {len(order)} by doubt: {mean:.0f} % probable.", "info"
        )
        return row

    def _path(self) -> str | None:
        view = self._session.slide_view
        if view.map is None or view.heatmap is None:
            self._session.told.emit("Open a slide with a finished heatmap first.", "info")
            return None
        return str(view.map.path)

    def _on_places(self, reply: Reply, path: str) -> None:
        view = self._session.slide_view
        if view.map is not None and str(view.map.path) == path and "places" in reply.arrays:
            self.places = reply.arrays["places"]
            self.step(self._waiting_step)

    def _on_objects(self, reply: Reply, path: str, class_index: int, source: Artifact | None = None) -> None:
        view = self._session.slide_view
        if view.map is not None and str(view.map.path) == path and "rows" in reply.arrays:
            self.objects, self.object_class, self._suspect = reply.arrays["rows"], class_index, -1
            same = np.full(len(self.objects), class_index, np.int64)
            self.object_classes, self.source = reply.arrays.get("classes", same), source
            self.objects_changed.emit()
