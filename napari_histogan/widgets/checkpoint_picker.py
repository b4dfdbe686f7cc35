"""Choosing which moment of a generator's training to use: last, best, or any that was kept."""

from __future__ import annotations

from qtpy.QtWidgets import QComboBox, QPushButton, QVBoxLayout, QWidget

from napari_histogan.project.gan_checkpoints import GanCheckpoint, list_checkpoints
from napari_histogan.widgets.config_form import keep_narrow
from napari_histogan.widgets.job_watcher import JobRecord
from napari_histogan.widgets.session import Session
from napari_histogan.widgets.stage_forms import config_of


class CheckpointPicker(QWidget):
    """The checkpoints of one training with their quality, and a button that takes one as a generator."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._session: Session | None = None
        self._record: JobRecord | None = None
        self._listed: list[GanCheckpoint] = []
        self.choices = QComboBox()
        self.choices.setToolTip(
            "Moments of this training that can be used; the distance to real patches is the sliced "
            "Wasserstein distance, smaller is better"
        )
        keep_narrow(self.choices)
        self.use_button = QPushButton("&Use this generator")
        self.use_button.setToolTip("Bring the chosen moment into the project as its newest generator (Alt+U)")
        self.use_button.clicked.connect(self.use)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.choices)
        layout.addWidget(self.use_button)
        self.hide()

    def show_run(self, session: Session | None, record: JobRecord | None) -> None:
        """Offer the checkpoints of a job; hides where there are none."""
        self._session, self._record = session, record
        is_training = record is not None and record.status.stage == "train_gan"
        found = list_checkpoints(record.run_dir) if record is not None and is_training else []
        if found != self._listed:
            chosen = self.choices.currentText()
            self._listed = found
            self.choices.clear()
            for checkpoint in reversed(found):
                self.choices.addItem(words_of(checkpoint), _name(checkpoint))
            self.choices.setCurrentIndex(max(0, self.choices.findText(chosen)))
        self.use_button.setEnabled(session is not None and not session.read_only)
        self.setVisible(bool(found))

    def use(self) -> None:
        """Start the job that brings the chosen checkpoint in."""
        session, record, name = self._session, self._record, self.choices.currentData()
        if session is None or record is None or session.project is None or name is None:
            return
        project = session.project
        values = {"path": record.run_dir, "checkpoint": str(name)}
        session.attempt(lambda: session.run(config_of(project, "import_gan", **values)))


def words_of(checkpoint: GanCheckpoint) -> str:
    """Return a checkpoint in words: when it was, and how near it was to real patches."""
    which = {"last": "last, ", "best": "best, ", "checkpoint": ""}[checkpoint.which]
    far = "not measured" if checkpoint.quality is None else f"distance {checkpoint.quality:.3g}"
    return f"{which}{checkpoint.kimg:g} kimg, {far}"


def _name(checkpoint: GanCheckpoint) -> str:
    return f"{checkpoint.kimg:g}" if checkpoint.which == "checkpoint" else checkpoint.which
