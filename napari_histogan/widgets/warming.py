"""What napari does slowly the first time, done before anybody waits for it."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Image, Labels
from napari.utils.colormaps import DirectLabelColormap
from qtpy.QtCore import QObject, Qt, QTimer
from qtpy.QtOpenGLWidgets import QOpenGLWidget
from qtpy.QtWidgets import QApplication

from napari_histogan.errors import DisplayError
from napari_histogan.widgets.class_colors import uncertainty_colormap
from napari_histogan.widgets.display import require_opengl

if TYPE_CHECKING:
    from napari_histogan.widgets.session import Session

_STEP_MS = 120
"""Between two layers, so that clicks and keys are answered in between."""


class Warming(QObject):
    """Adds the layers that a project will need one at a time, hidden, while people look around.

    The first layer of a kind imports and compiles what takes seconds; that happens with layers that belong to
    no window, in another thread, begun with the window.

    Parameters
    ----------
    session
        The session of the window.
    """

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self._session = session
        self._drawn: set[Any] = set()
        # Python waits for this thread at its end: a compiler must not be cut off.
        self._thread = threading.Thread(target=use_once, name="histogan-warming")
        self._thread.start()
        self._timer = QTimer(self)
        self._timer.setInterval(_STEP_MS)
        self._timer.timeout.connect(self._step)
        session.project_opened.connect(self._begin)
        session.project_closed.connect(lambda _why: self._timer.stop())

    @property
    def done(self) -> bool:
        """Whether nothing is left to do for the open project."""
        return not self._timer.isActive() and not self._thread.is_alive()

    def _begin(self) -> None:
        try:
            require_opengl()
        except DisplayError as error:
            self._session.told.emit(str(error), "error")
        else:
            self._timer.start()

    def _step(self) -> None:
        if self._thread.is_alive() or QApplication.mouseButtons() != Qt.MouseButton.NoButton:
            return
        layers = self._session.viewer.layers
        active = layers.selection.active
        more = self._add_layer() or self._draw_layer() or self._draw_scale_bar()
        if layers.selection.active != active:
            layers.selection.active = active  # napari chooses every new layer, also under somebody's brush
        if not more:
            self._timer.stop()
        self._session.memory.set_aside()

    def _add_layer(self) -> bool:
        """Add one more layer; False when all are there."""
        session = self._session
        return (
            session.slide_view.prepare()
            or session.correcting.prepare()
            or (session.samples is not None and session.painting.prepare())
        )

    def _draw_layer(self) -> bool:
        """Let the graphics card see one more of the layers, so transparent that nobody sees it."""
        for layer in self._session.viewer.layers:
            if layer.locked and not layer.visible and layer.unique_id not in self._drawn:
                self._drawn.add(layer.unique_id)
                opacity = layer.opacity
                layer.opacity, layer.visible = 0.0, True
                self._draw()
                layer.visible, layer.opacity = False, opacity
                return True
        return False

    def _draw_scale_bar(self) -> bool:
        """Draw the bar once; the first time its letters are drawn one by one."""
        bar = self._session.viewer.canvas.overlays.scale_bar
        if "scale bar" in self._drawn or bar.visible:
            return False
        self._drawn.add("scale bar")
        opacity = bar.opacity
        bar.opacity, bar.visible = 0.0, True
        self._draw()
        bar.visible, bar.opacity = False, opacity
        return True

    def _draw(self) -> None:
        """Draw the canvas now, not when Qt comes to it."""
        window = self._session.parent()
        canvases = window.findChildren(QOpenGLWidget) if window is not None else []
        for canvas in canvases:
            canvas.grabFramebuffer()


def use_once() -> None:
    """Make one layer of each kind that belongs to no window, so that all is imported and compiled."""
    picture, numbers = np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4), np.uint8)
    place: dict[str, Any] = {"scale": (1.0, 1.0), "units": ("um", "um")}
    Image(picture, rgb=True, **place)
    Image([picture, picture[:2, :2]], rgb=True, multiscale=True, **place)
    Image(numbers, colormap=uncertainty_colormap(), contrast_limits=(0, 1), **place)
    colors: dict[int | None, str] = {None: "transparent", 0: "transparent", 1: "red"}
    Labels(numbers, colormap=DirectLabelColormap(color_dict=colors), **place).contour = 1
