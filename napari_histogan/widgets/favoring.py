"""The favorites of the shown set of samples, kept in the project."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import QObject, Signal

from napari_histogan.errors import HistoganError
from napari_histogan.project.favorites import favorites, set_favorite

if TYPE_CHECKING:
    from napari_histogan.widgets.session import Session


class Favoring(QObject):
    """Which samples are liked.

    Signals
    -------
    changed
        A sample became a favorite or is none any more, or other samples are shown.
    """

    changed = Signal()

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self._session = session
        self.marked: set[int] = set()
        session.samples_changed.connect(self._reload)

    def toggle(self, index: int) -> None:
        """Like a sample, or take it back."""
        project, samples = self._session.project, self._session.samples_artifact
        if project is None or samples is None or index < 0:
            return
        try:
            if self._session.read_only:
                raise HistoganError("the project is open for looking only", "", "close the other window")
            self.marked = set_favorite(project, samples, index, index not in self.marked)
        except HistoganError as error:
            self._session.told.emit(str(error), "warning")
            return
        self.changed.emit()

    def _reload(self) -> None:
        project, samples = self._session.project, self._session.samples_artifact
        self.marked = set()
        if project is not None and samples is not None:
            try:
                self.marked = favorites(project, samples)
            except HistoganError as error:
                self._session.told.emit(str(error), "warning")
        self.changed.emit()
