"""Objects of the shown heatmap: those that were found now, or those that a stage stored, and their table."""

from __future__ import annotations

from pathlib import Path

from qtpy.QtWidgets import QComboBox, QFileDialog, QHBoxLayout, QVBoxLayout, QWidget

from napari_histogan.project.artifacts import Artifact
from napari_histogan.project.atomic import write_bytes
from napari_histogan.widgets.config_form import keep_narrow
from napari_histogan.widgets.objects_table import ObjectsTable
from napari_histogan.widgets.session import Session
from napari_histogan.widgets.session_view import SessionView

_NOW = "found now"


class ObjectsBox(SessionView):
    """Chooses which objects the table shows, and writes the table for other programs."""

    where = "slides"

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.sets = QComboBox()
        self.sets.setToolTip("Objects found now, or kept by the step Find objects (tab Train)")
        self.sets.activated.connect(self._choose)
        keep_narrow(self.sets)
        self.export_button = self._button("Export table ...  ({T})", "T", self.export)
        self.export_button.setToolTip("Write the rows as they are sorted, as a CSV table ({T})")
        self.table = ObjectsTable()
        row = QHBoxLayout()
        row.addWidget(self.sets, 1)
        row.addWidget(self.export_button)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addLayout(row)
        layout.addWidget(self.table, 1)
        self.hide()

    def attach(self, session: Session) -> None:
        """Follow a session."""
        self.watch(session.reviewing.objects_changed, self._show)
        self.watch(session.artifacts_changed, self._fill)
        self.watch(session.slide_view.heatmap_opened, lambda _id: self._fill())
        self._show()

    def export(self) -> None:
        """Ask where, and write the table."""
        session = self.session
        if session is None or session.slide_view.entry is None or not self.table.model_.rowCount():
            return
        name = f"{session.slide_view.entry.name}-objects.csv"
        chosen, _ = QFileDialog.getSaveFileName(self, "Export table", name, "Tables (*.csv)")
        if chosen:
            path = Path(chosen)
            path = path if path.suffix else path.with_suffix(".csv")
            if session.attempt(lambda: write_bytes(path, self.table.csv().encode("utf-8"))):
                session.told.emit(f"Wrote {self.table.model_.rowCount()} objects to {path}.", "info")

    def _choose(self, position: int) -> None:
        session = self.session
        if session is None:
            return
        wanted = str(self.sets.itemData(position) or "")
        stored = next((a for a in session.reviewing.stored() if a.id == wanted), None)
        if stored is not None:
            session.reviewing.load_objects(stored)

    def _show(self) -> None:
        session = self.session
        if session is None:
            return
        found = session.reviewing
        names = session.project.classes.names if session.project is not None else ()
        self.table.show_rows(found.objects, found.object_classes, names)
        self.export_button.setEnabled(len(found.objects) > 0)
        self._fill()

    def _fill(self) -> None:
        """List what there is; shown if there is anything."""
        session = self.session
        if session is None:
            return
        stored, found = session.reviewing.stored(), session.reviewing
        self.sets.clear()
        if found.source is None:
            self.sets.addItem(_NOW if len(found.objects) else "choose kept objects", "")
        for artifact in stored:
            self.sets.addItem(_title(artifact), artifact.id)
        if found.source is not None:
            self.sets.setCurrentIndex(self.sets.findData(found.source.id))
        self.table.setVisible(len(found.objects) > 0)
        self.setVisible(bool(stored) or len(found.objects) > 0)


def _title(stored: Artifact) -> str:
    count, threshold = stored.summary.get("objects", "?"), stored.config.get("threshold", 0.5)
    return f"{stored.id}: {count} above {100 * float(threshold):.0f} %"
