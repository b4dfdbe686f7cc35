"""What napari does slowly the first time, done before anybody waits for it."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import numpy as np
from napari.utils.colormaps import DirectLabelColormap
from qtpy.QtCore import QObject, Qt, QTimer
from qtpy.QtWidgets import QApplication

from napari_histogan.errors import DisplayError
from napari_histogan.widgets.display import require_opengl

if TYPE_CHECKING:
    from napari_histogan.widgets.session import Session

_STEP_MS = 120
"""Between two layers, so that clicks and keys are answered in between."""


class Warming(QObject):
    """Adds the layers that a project will need one at a time, hidden, while people look around.

    Colors of label values are compiled the first time that they are used, which takes seconds; that happens
    in another thread, begun with the window.

    Parameters
    ----------
    session
        The session of the window.
    """

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self._session = session
        # Python waits for this thread at its end: a compiler must not be cut off.
        self._compiling = threading.Thread(target=compile_colors, name="histogan-colors")
        self._compiling.start()
        self._timer = QTimer(self)
        self._timer.setInterval(_STEP_MS)
        self._timer.timeout.connect(self._step)
        session.project_opened.connect(self._begin)
        session.project_closed.connect(lambda _why: self._timer.stop())

    @property
    def done(self) -> bool:
        """Whether nothing is left to do for the open project."""
        return not self._timer.isActive() and not self._compiling.is_alive()

    def _begin(self) -> None:
        try:
            require_opengl()
        except DisplayError as error:
            self._session.told.emit(str(error), "error")
        else:
            self._timer.start()

    def _step(self) -> None:
        session = self._session
        if self._compiling.is_alive() or QApplication.mouseButtons() != Qt.MouseButton.NoButton:
            return
        layers = session.viewer.layers
        active = layers.selection.active
        more = session.slide_view.prepare() or (session.samples is not None and session.painting.prepare())
        if layers.selection.active != active:
            layers.selection.active = active  # napari chooses every new layer, also under somebody's brush
        if not more:
            self._timer.stop()


def compile_colors() -> None:
    """Let napari compile how label values of 8 bits become colors."""
    colors: dict[int | None, str] = {None: "transparent", 0: "transparent", 1: "red"}
    DirectLabelColormap(color_dict=colors).map(np.zeros((1, 1), np.uint8))
