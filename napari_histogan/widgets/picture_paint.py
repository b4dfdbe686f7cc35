"""Painting on any open picture: which picture, which labels, with which class and tool."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import QTimer, Signal
from qtpy.QtWidgets import QComboBox, QFormLayout, QHBoxLayout, QVBoxLayout, QWidget

from napari_histogan.widgets.class_colors import label_colormap, label_features
from napari_histogan.widgets.class_table import ClassTableWidget
from napari_histogan.widgets.config_form import keep_narrow
from napari_histogan.widgets.layer_pictures import is_paint, is_picture, size_of
from napari_histogan.widgets.picture_maps import picture_maps_of
from napari_histogan.widgets.session import Session
from napari_histogan.widgets.session_view import SessionView
from napari_histogan.widgets.tool_bar import ToolBar

_COUNT_MS = 250


class PicturePaint(SessionView):
    """Chooses a picture's layer and a layer of labels among all that napari shows, and paints on the latter.

    Signals
    -------
    changed
        Another picture, other labels, or more paint.
    """

    where = "patches"

    changed = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.counts: NDArray[np.int64] = np.zeros(256, np.int64)
        self._pictures: list[Any] = []
        self._paints: list[Any] = []
        self._watched_paint: Any = None
        self._count_soon = QTimer(self)
        self._count_soon.setSingleShot(True)
        self._count_soon.setInterval(_COUNT_MS)
        self._count_soon.timeout.connect(self._count)
        self._list_soon = QTimer(self)
        self._list_soon.setSingleShot(True)
        self._list_soon.timeout.connect(self.list_layers)
        self.pictures = combo("The picture to learn from, and to map: any open image of napari")
        self.pictures.activated.connect(lambda _position: self.changed.emit())
        self.paints = combo("The labels to learn from: a layer of this tab's, or any other")
        self.paints.activated.connect(lambda _position: self._choose_paint())
        self.new_button = self._button("New labels  ({N})", "N", self.new_labels)
        self.new_button.setToolTip("Add a layer to paint on, of the picture's size ({N})")
        self.classes = ClassTableWidget()
        self.classes.chosen.connect(self._choose_class)
        self.classes.edited.connect(self._edit_classes)
        self.classes.refused.connect(self._refuse)
        self.tools = ToolBar("patches")
        self.tools.tool_chosen.connect(self._choose_tool)
        self.tools.size_chosen.connect(self._choose_size)
        row = QHBoxLayout()
        row.addWidget(self.paints, 1)
        row.addWidget(self.new_button)
        layers = QFormLayout()
        layers.addRow("Picture", self.pictures)
        layers.addRow("Labels", row)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addLayout(layers)
        layout.addWidget(self.classes)
        layout.addWidget(self.tools)

    def attach(self, session: Session) -> None:
        """Follow a session, and the layers of its window."""
        for event in ("inserted", "removed"):
            self.watch(getattr(session.viewer.layers.events, event), self._on_layers)
        self.watch(session.project_opened, self._show_classes)
        self.watch(session.classes_changed, self._show_classes)
        self.list_layers()
        self._show_classes()

    def detach(self) -> None:
        """Let go of the session."""
        self._watch_paint(None)
        super().detach()

    def set_keys_enabled(self, enabled: bool) -> None:
        """Let the keys act."""
        super().set_keys_enabled(enabled)
        self.classes.set_keys_enabled(enabled)
        self.tools.set_keys_enabled(enabled)

    # Layers

    @property
    def picture(self) -> Any:
        """The chosen picture's layer; None if there is none."""
        position = self.pictures.currentIndex()
        return self._pictures[position] if 0 <= position < len(self._pictures) else None

    @property
    def paint(self) -> Any:
        """The chosen layer of labels; None if there is none."""
        position = self.paints.currentIndex()
        return self._paints[position] if 0 <= position < len(self._paints) else None

    def new_labels(self) -> None:
        """Add a layer to paint on, of the picture's size and at its place, and take the brush."""
        session, picture = self.session, self.picture
        if session is None or session.project is None or not self.new_button.isEnabled():
            return
        made = session.viewer.add_labels(
            np.zeros(size_of(picture), np.uint8),
            name=f"Paint on {picture.name}",
            scale=picture.scale,
            translate=picture.translate,
            affine=picture.affine,
            units=picture.units,
        )
        self.list_layers()
        made.brush_size = self.tools.size.value()
        self.paints.setCurrentIndex(next(n for n, one in enumerate(self._paints) if one == made))
        self._choose_paint()
        self._choose_tool("paint")
        self._choose_class(1)

    def _on_layers(self, _event: Any = None) -> None:
        self._list_soon.start(0)  # whoever added a layer of our own has noted it by then

    def list_layers(self) -> None:
        """List the layers that can be used; a new one is chosen."""
        session = self.session
        if session is None:
            return
        view, painting = session.slide_view, session.painting
        own = [view.heat, session.correcting.layer, picture_maps_of(session).layer]
        own += [painting.picture, painting.mask, painting.prediction, painting.uncertainty]
        layers = [one for one in session.viewer.layers if all(one != other for other in own)]
        _list(self.pictures, self._pictures, [one for one in layers if is_picture(one)])
        _list(self.paints, self._paints, [one for one in layers if is_paint(one)])
        self._choose_paint()

    def _choose_paint(self) -> None:
        paint = self.paint
        self._watch_paint(paint)
        if paint is not None:
            self._color(paint)
            self.classes.choose(int(paint.selected_label))
            self.tools.show_size(round(paint.brush_size))
        self._count()

    def _watch_paint(self, paint: Any) -> None:
        """Count anew whenever a layer is painted on."""
        for layer, connect in ((self._watched_paint, False), (paint, True)):
            for name in ("paint", "set_data") if layer is not None else ():
                event = getattr(layer.events, name)
                (event.connect if connect else event.disconnect)(self._on_paint)
        self._watched_paint = paint

    def _on_paint(self, _event: Any = None) -> None:
        self._count_soon.start()

    def _count(self) -> None:
        """Count what is painted of each class."""
        self.counts = np.zeros(256, np.int64)
        if self.paint is not None:
            values = np.asarray(self.paint.data)
            known = values[(values > 0) & (values < 256)]
            self.counts = np.bincount(known.ravel().astype(np.int64), minlength=256)
        painted = {int(k): int(self.counts[k]) for k in np.flatnonzero(self.counts)}
        self.classes.show_painted(painted, dict.fromkeys(painted, 1))
        project = self.session.project if self.session is not None else None
        may = self.picture is not None and project is not None and len(project.classes) > 0
        self.new_button.setEnabled(may)
        self.changed.emit()

    # Classes and tools

    def _show_classes(self) -> None:
        session = self.session
        if session is None or session.project is None:
            return
        self.classes.show_classes(session.project.classes)
        self._choose_paint()

    def _color(self, paint: Any) -> None:
        """Give the paint the colors of the classes."""
        project = self.session.project if self.session is not None else None
        if project is not None and len(project.classes):
            paint.colormap = label_colormap(project.classes)
            paint.features = label_features(project.classes)

    def _choose_class(self, index: int) -> None:
        self.classes.choose(index)
        if self.paint is not None:
            self.paint.selected_label = index
            if str(self.paint.mode) == "erase":
                self._choose_tool("paint")

    def _choose_tool(self, tool: str) -> None:
        if self.paint is not None and self.session is not None:
            self.session.viewer.layers.selection.active = self.paint
            self.paint.mode = tool
            self.tools.show_tool(tool)

    def _choose_size(self, pixels: int) -> None:
        if self.paint is not None:
            self.paint.brush_size = pixels

    def _edit_classes(self, table: object) -> None:
        if self.session is not None and not self.session.set_classes(table):  # type: ignore[arg-type]
            self._show_classes()

    def _refuse(self, words: str) -> None:
        if self.session is not None:
            self.session.told.emit(words, "warning")


def combo(tip: str) -> QComboBox:
    """Return a narrow combo box with a tooltip."""
    box = QComboBox()
    box.setToolTip(tip)
    keep_narrow(box)
    return box


def _list(box: QComboBox, known: list[Any], found: list[Any]) -> None:
    """List layers by name; what was chosen stays so, unless a layer is new."""
    # Layers come wrapped, each time anew: they are compared by ==, never by identity.
    position = box.currentIndex()
    chosen = known[position] if 0 <= position < len(known) else None
    new = [one for one in found if all(one != other for other in known)]
    chosen = new[-1] if new else chosen
    known[:] = found
    box.clear()
    box.addItems([one.name for one in found])
    box.setCurrentIndex(next((n for n, one in enumerate(found) if one == chosen), len(found) - 1))
