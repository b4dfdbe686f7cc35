"""Swipe: a line over the canvas; the heatmap on its right, the slide or another version's map on its left."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import QEvent, QObject, Qt, QTimer, Signal
from qtpy.QtWidgets import QFrame, QWidget

from napari_histogan.project.artifacts import Artifact
from napari_histogan.slides.zarr_pyramid import PyramidReader, open_pyramid
from napari_histogan.widgets.layer_data import HEATMAP_STORE, heatmap_levels

if TYPE_CHECKING:
    from napari_histogan.widgets.session import Session
    from napari_histogan.widgets.slide_view import SlideView

Side = Literal["left", "right"]
_REDRAW_MS = 30
_LINE_PX = 2
_CANVAS = "QOpenGLWidget"


class CutLevel:
    """A level of a map that is 0 on one side of a line; computed where it is looked at.

    Parameters
    ----------
    level
        ``(y, x)`` percent.
    side
        What is kept.
    """

    ndim = 2
    dtype = np.dtype(np.uint8)

    def __init__(self, level: Any, side: Side) -> None:
        self.whole, self._side = level, side
        self.column = 0
        self.shape: tuple[int, int] = tuple(level.shape)
        self.size: int = self.shape[0] * self.shape[1]

    def __getitem__(self, key: Any) -> NDArray[np.uint8]:
        """Read a part of the kept side, and zeros beyond it."""
        keys = key if isinstance(key, tuple) else (key, slice(None))
        part = np.array(self.whole[keys], np.uint8)
        columns = np.arange(self.shape[1])[keys[1] if len(keys) > 1 else slice(None)]
        part[..., columns < self.column if self._side == "right" else columns >= self.column] = 0
        return part

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        """Read everything."""
        return np.asarray(self[:, :], dtype=dtype)


class CutMap:
    """A map's levels, cut by a line; the coarsest is in memory, as napari keeps it.

    Parameters
    ----------
    levels
        Finest first, as :func:`~napari_histogan.widgets.layer_data.heatmap_levels` gives them.
    mpp
        Resolution of the finest in um/px.
    side
        What is kept.
    """

    def __init__(self, levels: list[Any], mpp: float, side: Side) -> None:
        self._cut = [CutLevel(level, side) for level in levels]
        self._mpp = mpp
        self.levels: list[Any] = [*self._cut[:-1], np.asarray(self._cut[-1])]

    def move(self, x_um: float) -> None:
        """Cut elsewhere, and take up what a growing map has got since."""
        width_um = self._mpp * self._cut[0].shape[1]
        for level in self._cut:
            column = round(x_um / width_um * level.shape[1])
            level.column = min(max(column, 0), level.shape[1])
        self.levels[-1][:] = self._cut[-1][:, :]


class Swipe(QObject):
    """Cuts the shown heatmap at a line that follows the mouse.

    Signals
    -------
    changed
        It began or ended.
    moved
        Where the line stands, in percent of the canvas' width.
    """

    changed = Signal()
    moved = Signal(int)

    def __init__(self, view: SlideView, session: Session) -> None:
        super().__init__(view)
        self._view, self._session = view, session
        self._cut: CutMap | None = None
        self._other_cut: CutMap | None = None
        self._line: QFrame | None = None
        self._canvas: QWidget | None = None
        self.other: Any = None
        self.heatmap: Artifact | None = None
        self.percent = 50
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(_REDRAW_MS)
        self._timer.timeout.connect(self._redraw)

    @property
    def active(self) -> bool:
        """Whether the map is cut."""
        return self._cut is not None

    def toggle(self) -> None:
        """Cut the map so that the slide shows on the left, or show it whole again."""
        if self.active:
            self.hide()
        else:
            self.show()

    def show(self, heatmap: Artifact | None = None) -> None:
        """Begin; another heatmap of the same slide lies on the left if one is given."""
        self.hide()
        view = self._view
        if view.heat is None or view.map is None:
            return
        view.beside.hide()
        if heatmap is not None:
            self._add_other(heatmap)
        self._cut_shown()
        self.heatmap = heatmap
        self._draw_line()
        camera = self._session.viewer.scene.camera
        self._session.viewer.mouse_move_callbacks.append(self._on_mouse)
        camera.events.connect(self._later)
        self.place(50)
        self.changed.emit()

    def hide(self) -> None:
        """End; the map is whole again."""
        if not self.active:
            return
        viewer, view = self._session.viewer, self._view
        self._timer.stop()
        with suppress(ValueError):
            viewer.mouse_move_callbacks.remove(self._on_mouse)
        viewer.scene.camera.events.disconnect(self._later)
        if self._canvas is not None:
            self._canvas.removeEventFilter(self)
        if self._line is not None:
            self._line.hide()
            self._line.deleteLater()
        self._line, self._canvas, self._cut, self._other_cut = None, None, None, None
        if self.other is not None and self.other in viewer.layers:
            viewer.layers.remove(self.other)
        self.other, self.heatmap = None, None
        if view.heat is not None and view.heat in viewer.layers:
            view.heat.data = view.levels
        self.changed.emit()

    def place(self, percent: int) -> None:
        """Move the line to a percentage of the canvas' width."""
        self.percent = min(max(percent, 0), 100)
        self.moved.emit(self.percent)
        self._put_line()
        self._later()

    def take_levels(self) -> None:
        """Cut the levels of another class, after the view has taken them up."""
        if self.active:
            self._cut_shown()
            if self.heatmap is not None and self.other is not None:
                pyramid = open_pyramid(self.heatmap.path / HEATMAP_STORE)
                self.other.data = self._cut_of_other(pyramid)
            self.follow()
            self._redraw()

    def follow(self) -> None:
        """Let the other version's map look like the first."""
        if self.other is not None and self._view.heat is not None:
            self.other.colormap = self._view.heat.colormap
            self.other.contrast_limits = self._view.heat.contrast_limits
            self.other.opacity = self._view.opacity

    def grown(self) -> None:
        """Take up what a growing map has got."""
        if self.active:
            self._later()

    def _cut_shown(self) -> None:
        view = self._view
        if view.map is not None and view.heat is not None:
            self._cut = CutMap(view.levels, view.map.mpp, "right")
            view.heat.data = self._cut.levels

    def _cut_of_other(self, pyramid: PyramidReader) -> list[Any]:
        class_index = min(self._view.class_index, len(pyramid.channels))
        self._other_cut = CutMap(heatmap_levels(pyramid, class_index), pyramid.mpp, "left")
        return self._other_cut.levels

    def _add_other(self, heatmap: Artifact) -> None:
        pyramid = open_pyramid(heatmap.path / HEATMAP_STORE)
        self.other = self._session.viewer.add_image(
            self._cut_of_other(pyramid),
            multiscale=True,
            name=f"Heatmap (left): {heatmap.id}",
            scale=(pyramid.mpp, pyramid.mpp),
            translate=(pyramid.mpp / 2, pyramid.mpp / 2),
            units=("um", "um"),
            contrast_limits=(0, 100),
            blending="translucent",
            interpolation2d="linear",
        )
        self.follow()

    # The line

    def _draw_line(self) -> None:
        window = self.parent_window()
        found = [w for w in window.findChildren(QWidget) if w.inherits(_CANVAS)] if window else []
        canvas = found[0] if found else None
        if canvas is None:
            return
        self._canvas = canvas
        self._line = QFrame(canvas)
        self._line.setAttribute(Qt.WidgetAttribute.WA_TransparentForMouseEvents)
        self._line.setStyleSheet("background: #e69f00;")
        canvas.installEventFilter(self)
        self._line.show()

    def parent_window(self) -> QWidget | None:
        """Return the window that the session belongs to."""
        window = self._session.parent()
        return window if isinstance(window, QWidget) else None

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:  # noqa: N802 - Qt's name
        """Keep the line over the whole height of the canvas."""
        if event.type() == QEvent.Type.Resize:
            self._put_line()
            self._later()
        return False

    def _put_line(self) -> None:
        if self._line is not None and self._canvas is not None:
            x = round(self.percent / 100 * self._canvas.width())
            self._line.setGeometry(x - _LINE_PX // 2, 0, _LINE_PX, self._canvas.height())

    def _on_mouse(self, _viewer: Any, event: Any) -> None:
        width = self._canvas.width() if self._canvas is not None else 0
        if width:
            self.place(round(100 * float(event.pos[0]) / width))

    # Drawing

    def _later(self, _event: Any = None) -> None:
        if self.active and not self._timer.isActive():
            self._timer.start()

    def _x_um(self) -> float:
        """Return where the line lies on the slide, in um."""
        viewer = self._session.viewer
        width = self._canvas.width() if self._canvas is not None else viewer.canvas.size[1]
        center = float(viewer.scene.camera.center[-1])
        return center + (self.percent / 100 - 0.5) * float(width) / float(viewer.scene.camera.zoom)

    def _redraw(self) -> None:
        for cut, layer in ((self._cut, self._view.heat), (self._other_cut, self.other)):
            if cut is not None and layer is not None:
                cut.move(self._x_um())
                layer.refresh(extent=False, highlight=False)
