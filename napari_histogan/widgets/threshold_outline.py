"""The outline of what is more probable than the threshold, over the slide; it follows the slider."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import QObject, QTimer

from napari_histogan.widgets.class_colors import outline_colormap
from napari_histogan.widgets.kept_layers import KeptLayer, change, show_of

if TYPE_CHECKING:
    from napari_histogan.widgets.session import Session
    from napari_histogan.widgets.slide_view import SlideView

_DELAY_MS = 40
_WIDTH_PX = 2


class OutlineLevel:
    """A level of a map as 1 along the edge of what reaches the threshold, else 0; computed when looked at.

    napari's own outlines of labels take several times as long, and again for each change of the layer.

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
        keys = (*key, slice(None)) if isinstance(key, tuple) else (key, slice(None))
        (rows, y), (columns, x) = (_widened(k, n) for k, n in zip(keys, self.shape, strict=False))
        reached = np.asarray(self._level[rows, columns]) >= self._percent
        return edge_of(reached)[y, x].astype(np.uint8)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        """Compute everything."""
        return np.asarray(self[:], dtype=dtype)


def edge_of(area: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the outermost two pixels of an area ``(y, x)``; the border of the picture is no edge."""
    core = area
    for _ in range(_WIDTH_PX):
        wide = np.pad(core, 1, mode="edge")
        core = core & wide[:-2, 1:-1] & wide[2:, 1:-1] & wide[1:-1, :-2] & wide[1:-1, 2:]
    return np.asarray(area & ~core)


def _widened(key: Any, length: int) -> tuple[slice, Any]:
    """Return the range that is needed to find the edges in a part, and the part within that range."""
    if isinstance(key, slice):
        start, stop, step = key.indices(length)
        if step < 1 or stop <= start:
            return slice(0, length), key
        low = max(0, start - _WIDTH_PX)
        return slice(low, min(length, stop + _WIDTH_PX)), slice(start - low, stop - low, step)
    index = int(key) % length
    low = max(0, index - _WIDTH_PX)
    return slice(low, min(length, index + _WIDTH_PX + 1)), index - low


class ThresholdOutline(QObject):
    """One layer with the outline of the shown class; absent while the map is smooth (threshold 0)."""

    def __init__(self, view: SlideView, session: Session) -> None:
        super().__init__(view)
        self._view, self._session = view, session
        self.layer: Any = None
        self.kept = KeptLayer(
            lambda: session.viewer,
            "map",
            multiscale=True,
            name="Outline",
            contrast_limits=(0, 1),
            blending="translucent",
            interpolation2d="nearest",
        )
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
        levels = [OutlineLevel(level, view.threshold) for level in view.levels]
        new, color = not self._alive(), view.color()
        place: dict[str, Any] = {"scale": view.heat.scale, "translate": view.heat.translate}
        if new or color != self._color:
            place["colormap"] = outline_colormap(color)
        self.layer = self.kept.show(levels, visible=bool(view.heat.visible), **place)
        self._color = color
        if new:
            change(self.layer, opacity=1.0, locked=True)
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
