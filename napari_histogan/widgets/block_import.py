"""Bringing block labels in: a file, its slide, and the size of a block are checked before the job starts."""

from __future__ import annotations

from pathlib import Path

from qtpy.QtWidgets import QFileDialog, QPushButton, QVBoxLayout, QWidget

from napari_histogan.config import ImportBlockLabelsConfig
from napari_histogan.errors import ConfigError
from napari_histogan.widgets.config_form import ConfigForm
from napari_histogan.widgets.fold import Fold
from napari_histogan.widgets.session import Session
from napari_histogan.widgets.session_view import SessionView
from napari_histogan.widgets.stage_forms import last_values

_FILES = "Block labels (*.csv *.geojson *.json *.png);;All files (*)"


class BlockImport(SessionView):
    """The form of the import, hidden until a file is offered or asked for."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.form = ConfigForm(ImportBlockLabelsConfig)
        self.start_button = QPushButton("Import these block labels")
        self.start_button.setToolTip("Read the file and lay its grid over the slide")
        self.start_button.clicked.connect(self.start)
        self.folded = Fold("Import")
        self.folded.addWidget(self.form)
        self.folded.addWidget(self.start_button)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.folded)
        self.hide()

    def attach(self, session: Session) -> None:
        """Follow a session."""
        self.watch(session.project_opened, self._reload)
        self._reload()

    def ask(self) -> None:
        """Let people choose a file of block labels; the form also takes a heatmap or a segmenter."""
        self.show()
        self.folded.expand(animate=False)
        path, _ = QFileDialog.getOpenFileName(self, "Import block labels", "", _FILES)
        if path:
            self.offer(Path(path))

    def offer(self, path: Path) -> None:
        """Put a file into the form, to be checked before it is brought in."""
        session = self.session
        if session is None or session.project is None:
            return
        shown = session.slide_view.entry
        values = last_values(session.project, "import_block_labels")
        self.form.set_values({**values, "path": path, "slide": shown.name if shown else ""})
        self.show()
        self.folded.expand(animate=False)
        session.told.emit(f"Check slide and size of the blocks of {path.name}, then import.", "info")

    def start(self) -> None:
        """Start the job that brings the labels in."""
        if self.session is None:
            return
        try:
            config = self.form.config()
        except ConfigError as error:
            self.session.told.emit(str(error), "error")
            return
        if self.session.run(config):
            self.hide()

    def _reload(self) -> None:
        session = self.session
        if session is not None and session.project is not None:
            self.form.set_values(last_values(session.project, "import_block_labels"))
            self.start_button.setEnabled(not session.read_only)
