"""The outline of what is more probable than the threshold, over the slide; it follows the slider."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from napari.utils.colormaps import DirectLabelColormap
from numpy.typing import NDArray
from qtpy.QtCore import QObject, QTimer

from napari_histogan.widgets.kept_layers import KeptLayer, change, show_of

if TYPE_CHECKING:
    from napari_histogan.widgets.session import Session
    from napari_histogan.widgets.slide_view import SlideView

_DELAY_MS = 40
_WIDTH_PX = 2


class AtLeast:
    """A level of a map as 1 where it reaches the threshold, else 0; computed where it is looked at.

    Parameters
    ----------
    level
        ``(y, x)`` percent.
    percent
        The threshold.
    """

    ndim = 2
    dtype = np.dtype(np.uint8)

    def __init__(self, level: Any, percent: int) -> None:
        self._level, self._percent = level, percent
        self.shape: tuple[int, int] = tuple(level.shape)
        self.size: int = self.shape[0] * self.shape[1]

    def __getitem__(self, key: Any) -> NDArray[np.uint8]:
        """Compute a part."""
        return (np.asarray(self._level[key]) >= self._percent).astype(np.uint8)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        """Compute everything."""
        return np.asarray(self[:], dtype=dtype)


class ThresholdOutline(QObject):
    """One layer with the outline of the shown class; absent while the map is smooth (threshold 0)."""

    def __init__(self, view: SlideView, session: Session) -> None:
        super().__init__(view)
        self._view, self._session = view, session
        self.layer: Any = None
        self.kept = KeptLayer(lambda: session.viewer, "labels", multiscale=True, name="Outline")
        self._color = ""
        self.wanted = True
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(_DELAY_MS)
        self._timer.timeout.connect(self.update)

    def update_soon(self) -> None:
        """Draw anew after the slider's next rest of 40 ms."""
        self._timer.start()

    def toggle(self) -> None:
        """Show or hide the outline."""
        self.wanted = not self.wanted
        self.update()

    def update(self) -> None:
        """Draw the outline of the present class and threshold."""
        view = self._view
        if view.heat is None or not self.wanted or view.threshold == 0:
            self.hide()
            return
        levels = [AtLeast(level, view.threshold) for level in view.levels]
        new, color = not self._alive(), view.color()
        place: dict[str, Any] = {"scale": view.heat.scale, "translate": view.heat.translate}
        if new or color != self._color:
            transparent: dict[int | None, str] = {None: "transparent", 0: "transparent", 1: color}
            place["colormap"] = DirectLabelColormap(color_dict=transparent)
        self.layer = self.kept.show(levels, visible=bool(view.heat.visible), **place)
        self._color = color
        if new:
            change(self.layer, contour=_WIDTH_PX, opacity=1.0, editable=False, locked=True)
        layers = self._session.viewer.layers
        if new and view.heat in layers:
            layers.selection.active = view.heat

    def refresh(self) -> None:
        """Look at a growing map again."""
        if self._alive() and self.layer.visible:
            self.layer.refresh(extent=False, highlight=False)

    def hide(self) -> None:
        """Hide the outline."""
        if self._alive():
            show_of(self.layer, False)

    def clear(self) -> None:
        """Show nothing; another map comes."""
        self._timer.stop()
        self.kept.rest()
        self.layer = None

    def _alive(self) -> bool:
        return self.layer is not None and self.layer in self._session.viewer.layers
