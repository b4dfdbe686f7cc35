"""Correcting a place of a slide: the prediction is taken as paint, fixed, and kept."""

from __future__ import annotations

import getpass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import QObject, Qt, QTimer, Signal
from qtpy.QtWidgets import QApplication

from napari_histogan.errors import LabelError
from napari_histogan.geometry import Region, Size
from napari_histogan.inference.review import predicted_labels
from napari_histogan.project.corrections import Correction
from napari_histogan.project.frame_draft import drop_draft, load_draft, save_draft
from napari_histogan.widgets.class_colors import label_colormap, label_features
from napari_histogan.widgets.kept_layers import change, show_of
from napari_histogan.widgets.painting import Tool

if TYPE_CHECKING:
    from napari_histogan.widgets.session import Session

FRAME_PX = 1024
"""Largest side of a frame, in pixels of the heatmap."""


class Correcting(QObject):
    """A frame on the slide whose labels can be fixed; outside of it nothing can be painted.

    Signals
    -------
    changed
        A frame was placed, accepted, or discarded.
    """

    changed = Signal()

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self._session = session
        self.layer: Any = None
        self.region: Region | None = None
        self._mpp = 1.0
        self._slide = ""
        self._source = ""
        session.project_opened.connect(self._tell_draft)

    @property
    def active(self) -> bool:
        """Whether a frame is being corrected."""
        return self.region is not None

    def place(self, side_px: int = 256) -> None:
        """Put a frame in the middle of the view and take the prediction as paint.

        Parameters
        ----------
        side_px
            Side of the frame in pixels of the heatmap, at most 1,024.

        Raises
        ------
        LabelError
            If no heatmap is shown, or the view is elsewhere.
        """
        view = self._session.slide_view
        if view.map is None or view.reader is None or view.entry is None:
            raise LabelError(
                "there is no heatmap to correct", "a slide with its heatmap", "run the net on the slide first"
            )
        self._mpp = view.map.mpp
        region = frame_around(view.center_um(), self._mpp, min(side_px, FRAME_PX), view.map.size)
        if not region.height or not region.width:
            raise LabelError(
                "the middle of the view lies outside of the slide", "a place on the slide", "move there first"
            )
        labels = predicted_labels(view.map, region)
        self._show(labels, region)
        self.region = region
        self._slide = view.entry.name
        self._source = view.heatmap.id if view.heatmap is not None else ""
        self.save()
        self.changed.emit()

    @property
    def draft(self) -> Correction | None:
        """The frame that was neither accepted nor discarded when the window went, if there is one."""
        project = self._session.project
        return load_draft(project.root) if project is not None and not self.active else None

    def resume(self) -> None:
        """Go on with the frame that was left when the window went.

        Raises
        ------
        LabelError
            If there is none.
        """
        draft = self.draft
        if draft is None:
            raise LabelError("there is no frame to go on with", "a frame that was not accepted", "place one")
        self._session.slide_view.open(draft.slide)
        self._mpp, self._slide, self._source = draft.mpp, draft.slide, draft.source
        self._show(draft.mask.copy(), draft.region)
        self.region = draft.region
        self.changed.emit()

    def save(self) -> None:
        """Keep the frame as it is, so that a crash loses no stroke."""
        project, region = self._session.project, self.region
        if project is None or region is None or self._session.read_only:
            return
        if not self._session.folder.reachable:
            return  # saved as soon as the drive answers
        self._session.attempt(lambda: save_draft(project.root, self._frame("draft", region)))

    def _frame(self, name: str, region: Region) -> Correction:
        return Correction(
            name=name,
            slide=self._slide,
            region=region,
            mpp=self._mpp,
            mask=np.array(self.layer.data, np.uint8),
            source=self._source,
            author=_user(),
        )

    def _tell_draft(self) -> None:
        draft = self.draft
        if draft is not None and not self._session.read_only:
            words = f"A frame on {draft.slide} was not accepted yet; tab Correct goes on with it (C)."
            self._session.told.emit(words, "info")

    def _on_paint(self, _event: Any = None) -> None:
        QTimer.singleShot(0, self.save)

    def _on_set_data(self, _event: Any = None) -> None:
        # Undo and redo announce themselves by this event only; a stroke under way does too.
        if self.active and QApplication.mouseButtons() == Qt.MouseButton.NoButton:
            QTimer.singleShot(0, self.save)

    def accept(self) -> str:
        """Keep the frame as a correction; returns its name.

        Raises
        ------
        LabelError
            If there is no frame.
        """
        region = self.region
        if region is None:
            raise LabelError("there is no frame to accept", "a placed frame", "place one first")
        project = self._session.require()
        taken = {correction.name for correction in project.corrections()}
        name = next(
            name for k in range(1, len(taken) + 2) if (name := f"{_plain(self._slide)}-{k:04d}") not in taken
        )
        project.save_correction(self._frame(name, region))
        drop_draft(project.root)
        self._end()
        return name

    def discard(self) -> None:
        """Remove the frame; nothing is kept."""
        if self.active:
            drop_draft(self._session.require().root)
            self._end()

    def forget(self) -> None:
        """Let go of the frame because its project is closed; it is there again when that is opened."""
        if self.active:
            self._end()

    def set_tool(self, tool: Tool) -> None:
        """Choose the tool for the frame."""
        if self.active:
            self._session.viewer.layers.selection.active = self.layer
            self.layer.mode = tool

    def choose_class(self, index: int) -> None:
        """Let the brush paint a class."""
        if self.active:
            self.layer.selected_label = index

    def set_brush_size(self, pixels: int) -> None:
        """Set the brush's diameter in pixels of the heatmap."""
        if self.layer is not None:
            self.layer.brush_size = pixels

    def _show(self, labels: NDArray[np.uint8], region: Region) -> None:
        table = self._session.require().classes
        if self.layer is None or self.layer not in self._session.viewer.layers:
            self.layer = self._session.viewer.add_labels(
                labels, name="Correction", opacity=0.45, scale=(1.0, 1.0), units=("um", "um")
            )
            self.layer.locked = True
            self.layer.brush_size = 8
            self.layer.events.paint.connect(self._on_paint)
            self.layer.events.set_data.connect(self._on_set_data)
        self.layer.editable = False  # empties the undo history
        self.layer.data = labels
        self.layer.colormap, self.layer.features = label_colormap(table), label_features(table)
        corner = (region.y + 0.5) * self._mpp, (region.x + 0.5) * self._mpp
        change(self.layer, scale=(self._mpp, self._mpp), translate=corner)
        self.layer.editable = True
        self.layer.bounding_box.visible = True
        show_of(self.layer, True)
        # The paint covers the map, so that what is fixed is what is seen.
        show_of(self._session.slide_view.heat, False)
        self._session.viewer.layers.selection.active = self.layer
        self.layer.mode = "paint"
        self._session.viewer.reset_view(layers=[self.layer])

    def hide(self) -> None:
        """Hide the frame while samples are shown; it is kept."""
        show_of(self.layer, False)

    def show(self) -> None:
        """Show the frame again."""
        if self.active:
            show_of(self.layer, True)

    def _end(self) -> None:
        self.region = None
        if self.layer is not None:
            self.layer.mode = "pan_zoom"
            show_of(self.layer, False)
            self.layer.bounding_box.visible = False
        show_of(self._session.slide_view.heat, True)
        self.changed.emit()


def frame_around(center_um: tuple[float, float], mpp: float, side_px: int, size: Size) -> Region:
    """Return a square frame around a place, moved so far that it lies on the map where possible."""
    side_y, side_x = min(side_px, size.height), min(side_px, size.width)
    y, x = round(center_um[0] / mpp - side_y / 2), round(center_um[1] / mpp - side_x / 2)
    if not (-side_y < y < size.height and -side_x < x < size.width):
        return Region(0, 0, 0, 0)
    y, x = min(max(y, 0), size.height - side_y), min(max(x, 0), size.width - side_x)
    return Region(y, x, side_y, side_x)


def _plain(name: str) -> str:
    """Return a slide's name in the letters that a correction's name may have."""
    plain = "".join(c if c.isascii() and (c.isalnum() or c in "_-") else "-" for c in name).strip("-")
    return plain[:80] or "slide"


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return ""
