"""The buttons that compare the map with the slide, and go from place to place."""

from __future__ import annotations

from pathlib import Path

from qtpy.QtWidgets import QFileDialog, QGridLayout, QWidget
from superqt import QLabeledSlider

from napari_histogan.widgets.exporting import exporting_of
from napari_histogan.widgets.objects_box import ObjectsBox
from napari_histogan.widgets.session import Session
from napari_histogan.widgets.session_view import SessionView


class ReviewBox(SessionView):
    """Outline, second view, unsure places, and objects; the table of objects finds its place elsewhere.

    Parameters
    ----------
    threshold
        Slider with the percent that objects reach.
    """

    where = "slides"

    def __init__(self, threshold: QLabeledSlider, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.threshold = threshold
        self.beside_button = self._button("Side by side  ({S})", "S", self._toggle_beside, True)
        self.beside_button.setToolTip("Show the slide alone in a second view that moves along ({S})")
        self.outline_button = self._button("Outline  ({O})", "O", self._toggle_outline, True)
        self.outline_button.setToolTip("Outline what is above the threshold ({O})")
        self.outline_button.setChecked(True)
        self.unsure_button = self._button("Next unsure  ({J})", "J", lambda: self._step(1))
        self.unsure_button.setToolTip("Fly to the place where the net is least sure ({J}); {K} goes back")
        self.suspect_button = self._button("Next doubtful  ({D})", "D", lambda: self._suspect(1))
        self.suspect_button.setToolTip(
            "Fly to the object that is least probable, perhaps a false positive ({D}); {Shift+D} goes back"
        )
        self.objects_button = self._button("Find objects  ({B})", "B", self._find_objects)
        self.objects_button.setToolTip("Measure the objects of the class above the threshold ({B})")
        self.export_button = self._button("Export ...  ({E})", "E", self._export)
        self.export_button.setToolTip(
            "Write what is above the threshold, of every class, as GeoJSON outlines for QuPath ({E})"
        )
        self.found = ObjectsBox()
        self.objects = self.found.table
        self.objects.wanted.connect(self._show_object)
        self._shortcut("K", lambda: self._step(-1))
        self._shortcut("Shift+D", lambda: self._suspect(-1))
        layout = QGridLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        buttons = (
            self.beside_button, self.outline_button, self.unsure_button,
            self.suspect_button, self.objects_button, self.export_button,
        )  # fmt: skip
        for number, button in enumerate(buttons):
            layout.addWidget(button, number // 2, number % 2)

    def attach(self, session: Session) -> None:
        """Follow a session."""
        self.watch(session.slide_view.beside.changed, self._tell_beside)
        self.watch(session.reviewing.objects_changed, self._show_objects)
        self.found.follow(session)
        self._tell_beside()
        self.outline_button.setChecked(session.slide_view.outline.wanted)

    def detach(self) -> None:
        """Let go of the session."""
        self.found.detach()
        super().detach()

    def set_keys_enabled(self, enabled: bool) -> None:
        """Let the keys act."""
        super().set_keys_enabled(enabled)
        self.found.set_keys_enabled(enabled)

    def _toggle_outline(self) -> None:
        if self.session is not None:
            self.session.slide_view.outline.toggle()
            self.outline_button.setChecked(self.session.slide_view.outline.wanted)

    def _toggle_beside(self) -> None:
        if self.session is not None:
            self.session.attempt(self.session.slide_view.beside.toggle)
            self._tell_beside()

    def _tell_beside(self) -> None:
        if self.session is not None:
            self.beside_button.setChecked(self.session.slide_view.beside.active)

    def _step(self, by: int) -> None:
        if self.session is not None:
            self.session.reviewing.step(by)

    def _find_objects(self) -> None:
        if self.session is not None:
            self.session.told.emit("Looking for objects ...", "info")
            self.session.reviewing.find_objects(self.threshold.value() or 50)

    def _export(self) -> None:
        session = self.session
        if session is None or session.slide_view.entry is None:
            return
        name = f"{session.slide_view.entry.name}.geojson"
        chosen, _ = QFileDialog.getSaveFileName(self, "Export outlines", name, "GeoJSON (*.geojson)")
        if chosen:
            path = Path(chosen)
            path = path if path.suffix else path.with_suffix(".geojson")
            percent = self.threshold.value() or 50
            session.attempt(lambda: exporting_of(session).export(path, percent))

    def _suspect(self, by: int) -> None:
        if self.session is not None:
            row = self.session.reviewing.step_suspect(by)
            if row >= 0:
                self.objects.choose(row)

    def _show_objects(self) -> None:
        session = self.session
        if session is None:
            return
        rows = session.reviewing.objects
        if session.reviewing.object_class > 0 or session.reviewing.source is not None:
            session.told.emit(f"{len(rows)} object{'s' if len(rows) != 1 else ''} found.", "info")

    def _show_object(self, number: int) -> None:
        if self.session is not None:
            self.session.reviewing.show_object(number)
