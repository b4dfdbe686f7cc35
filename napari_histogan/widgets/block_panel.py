"""The tab of block labels: bring them in, estimate blocks, train, and look at the sharpened mask."""

from __future__ import annotations

from pathlib import Path

from qtpy.QtWidgets import (
    QComboBox,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from napari_histogan.config import PredictHeatmapConfig, TrainSuperResolutionConfig
from napari_histogan.errors import ConfigError, HistoganError
from napari_histogan.labels.calibration import ENOUGH, LEAST
from napari_histogan.labels.classes import ClassTable
from napari_histogan.widgets.block_import import BlockImport
from napari_histogan.widgets.block_queue import BlockQueue, ValueRow
from napari_histogan.widgets.block_result import BlockResult
from napari_histogan.widgets.block_table import BlockTable
from napari_histogan.widgets.block_view import BlockView, block_view_of
from napari_histogan.widgets.calibration_panel import CalibrationPanel
from napari_histogan.widgets.config_form import ConfigForm, keep_narrow
from napari_histogan.widgets.file_drop import FileDropView
from napari_histogan.widgets.fold import Fold
from napari_histogan.widgets.job_view import JobView
from napari_histogan.widgets.session import Session
from napari_histogan.widgets.session_view import SessionView
from napari_histogan.widgets.stage_forms import last_values


class BlockPanel(FileDropView):
    """From coarse labels of blocks to a mask with sharp edges."""

    where = "blocks"

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.queue: BlockQueue | None = None
        self.view: BlockView | None = None
        self._front = False
        self.words = QLabel()
        self.words.setWordWrap(True)
        self.import_button = QPushButton("Import ...")
        self.import_button.setToolTip(
            "Bring in labels of blocks: CSV, GeoJSON, a gray PNG, or a map of scores"
        )
        self.importing = BlockImport()
        self.import_button.clicked.connect(self.importing.ask)
        self.sets = QComboBox()
        self.sets.setToolTip("Block labels of this project, newest first")
        keep_narrow(self.sets)
        self.sets.activated.connect(lambda _position: self._choose_set())
        self.class_names = QLineEdit()
        self.class_names.setPlaceholderText("Classes in the blocks, such as: tumor, other")
        self.class_names.setToolTip("Names with commas between them; Enter keeps them")
        self.class_names.returnPressed.connect(self._name_classes)
        self.estimate_button = self._button("Estimate blocks  ({E})", "E", self.toggle_estimating, True)
        self.estimate_button.setToolTip(
            "Say of 10 to 12 blocks of each label how much of each class they hold ({E})"
        )
        self.calibration = CalibrationPanel()
        self.calibration.estimated.connect(self._on_estimated)
        self.calibration.looked_at.connect(self._on_looked_at)
        self.calibration.finished.connect(self._on_finished)
        self.table = BlockTable()
        self.table.value_chosen.connect(self._show_value)
        self.train_button = self._button("Train and sharpen", "Ctrl+Return", self.train)
        self.train_button.setToolTip("Train a net on the blocks and run it over the slide ({Ctrl+Return})")
        self.training = ConfigForm(TrainSuperResolutionConfig, hidden=("blocks", "calibration"))
        self.jobs = JobView()
        self.result = BlockResult()
        self._lay_out()

    def _lay_out(self) -> None:
        self.settings = Fold("Settings of the training")
        self.settings.addWidget(self.training)
        top = QHBoxLayout()
        top.addWidget(self.sets, 1)
        top.addWidget(self.import_button)
        body = QWidget()
        layout = QVBoxLayout(body)
        layout.setContentsMargins(4, 6, 4, 4)
        layout.addWidget(self.words)
        layout.addLayout(top)
        for part in (
            self.importing, self.class_names, self.estimate_button, self.calibration, self.table,
            self.result, self.train_button, self.jobs, self.settings,
        ):  # fmt: skip
            layout.addWidget(part)
        layout.addStretch(1)
        self.area = self.lay_out_scrolled(body)
        self.calibration.hide()

    def attach(self, session: Session) -> None:
        """Follow a session."""
        self.view = block_view_of(session)
        self.watch(session.project_opened, self._on_opened)
        self.watch(session.artifacts_changed, self._reload)
        self.watch(session.slides_changed, self._reload)
        self.watch(session.classes_changed, self._on_classes)
        self.watch(session.jobs.state_changed, lambda _n: self._tell())
        self.watch(session.slide_view.heatmap_opened, lambda _i: self._tell())
        for part in self._parts():
            part.follow(session)
        self._on_opened()

    def detach(self) -> None:
        """Let go of the session."""
        for part in self._parts():
            part.detach()
        super().detach()

    def _parts(self) -> tuple[SessionView, ...]:
        return self.importing, self.calibration, self.result, self.jobs

    def set_keys_enabled(self, enabled: bool) -> None:
        """Let the keys act and show the slide with its blocks, or hide them."""
        super().set_keys_enabled(enabled)
        self.result.set_keys_enabled(enabled and not self.estimating)
        if enabled:
            self._come_to_front()
        elif self.view is not None and self._front:
            self.view.hide()
        self._front = enabled
        self.calibration.set_keys_enabled(enabled and self.estimating)

    def take_files(self, paths: list[Path]) -> None:
        """Offer the first of the dropped files."""
        self.importing.offer(paths[0])

    # Estimating

    @property
    def estimating(self) -> bool:
        """Whether blocks are being estimated."""
        return self.estimate_button.isChecked()

    def toggle_estimating(self) -> None:
        """Begin to estimate blocks, or end it."""
        session, queue = self.session, self.queue
        on = self.estimating and session is not None and queue is not None and self._open_slide()
        reader = session.slide_view.reader if session is not None else None
        if on and reader is not None and session is not None and queue is not None:
            self.calibration.show()
            on = self.calibration.begin(queue, reader, session.require().classes)
        if not on:
            self._end_estimating()
        self.calibration.set_keys_enabled(on and self._front)
        self.result.set_keys_enabled(not on and self._front)
        self._tell()

    def _end_estimating(self) -> None:
        self.estimate_button.setChecked(False)
        self.calibration.hide()
        self.calibration.set_keys_enabled(False)
        self.result.set_keys_enabled(self._front)
        if self.view is not None:
            self.view.hide_block()

    def _show_value(self, row: int) -> None:
        """Show a block of a label value; begins to estimate if need be."""
        if self.queue is None or not self.estimate_button.isEnabled():
            return
        if not self.estimating:
            self.estimate_button.click()
        self.calibration.show_value(self.queue.labels.values[row])

    def _on_looked_at(self, row: int, column: int) -> None:
        if self.view is not None and self._front:
            self.view.show_block(row, column)

    def _on_estimated(self, value: str) -> None:
        row = next((r for r in self._rows() if r.value == value), None)
        if self.session is None or row is None:
            return
        self._fill_table()
        self._tell()
        if row.estimated in (1, LEAST, ENOUGH):
            self.session.artifacts_changed.emit()  # what to do next may be another
        if row.is_enough and row.estimated == min(ENOUGH, row.blocks):
            self.session.told.emit(f"{value} has enough: {row.estimated} blocks.", "info")

    def _on_finished(self) -> None:
        if self.estimating and self.session is not None:
            self.session.told.emit("All label values have enough blocks. Train on them.", "info")
        self._end_estimating()
        self._tell()

    def _name_classes(self) -> None:
        names = [name.strip() for name in self.class_names.text().split(",") if name.strip()]
        session = self.session
        if session is not None:
            session.attempt(lambda: session.set_classes(ClassTable.from_names(names)))

    # Training

    def train(self) -> None:
        """Train on the blocks, then run the net over their slide."""
        session, queue = self.session, self.queue
        if session is None or session.project is None or queue is None or not self.train_button.isEnabled():
            return
        try:
            config = self.training.config()
        except ConfigError as error:
            session.told.emit(str(error), "error")
            return
        values = last_values(session.project, "predict_heatmap")
        self._end_estimating()
        agreeing = {"slide": queue.slide.name, "blocks": "newest"}
        session.run(config, PredictHeatmapConfig(**{**values, **agreeing}))

    # Showing

    def _on_opened(self) -> None:
        session = self.session
        if session is None or session.project is None:
            return
        self.queue = None
        self._end_estimating()
        self.training.set_values(last_values(session.project, "train_super_resolution"))
        self._reload()

    def _on_classes(self) -> None:
        self._end_estimating()
        self.queue = None
        self._reload()

    def _reload(self) -> None:
        """List the sets of block labels; a new one is shown at once."""
        session = self.session
        if session is None or session.project is None:
            return
        found = list(reversed(session.project.artifacts("block_labels")))
        ids = [self.sets.itemData(n) for n in range(self.sets.count())]
        if ids != [artifact.id for artifact in found] or self.queue is None:
            self.sets.clear()
            for artifact in found:
                self.sets.addItem(f"{artifact.number}  {artifact.summary.get('slide', '')}", artifact.id)
            self._choose_set()
        self._tell()

    def _choose_set(self) -> None:
        """Take up the chosen set."""
        session, self.queue = self.session, None
        self._end_estimating()
        if session is not None and session.project is not None and self.sets.count():
            project, chosen = session.project, str(self.sets.currentData())
            try:
                self.queue = BlockQueue(project, project.artifact(chosen, "block_labels"))
            except (HistoganError, KeyError) as error:
                session.told.emit(f"{chosen} cannot be shown: {error}", "error")
        self._fill_table()
        if self._front:
            self._come_to_front()

    def _come_to_front(self) -> None:
        """Show the slide of the chosen set with its blocks."""
        session = self.session
        if session is None or session.project is None:
            return
        session.painting.flush()
        session.correcting.hide()
        if self.queue is not None and self.view is not None and self._open_slide():
            self.view.show(self.queue.labels)
        elif self.queue is None and session.project.slides():
            session.attempt(lambda: session.slide_view.open(""))
        self._tell()

    def _open_slide(self) -> bool:
        """Open the slide of the chosen set; False if it was told why not."""
        session, queue = self.session, self.queue
        if session is None or queue is None:
            return False
        shown = session.slide_view.entry
        if session.correcting.active and shown is not None and shown.name != queue.slide.name:
            session.told.emit(
                "Accept or discard the frame on the other slide first (tab Correct).", "warning"
            )
            return False
        return session.attempt(lambda: session.slide_view.open(queue.slide.name))

    def _rows(self) -> list[ValueRow]:
        try:
            return self.queue.rows() if self.queue is not None else []
        except HistoganError as error:
            if self.session is not None:
                self.session.told.emit(str(error), "error")
            return []

    def _fill_table(self) -> None:
        """Show the label values with what was estimated."""
        self.table.show_rows(self._rows(), self.queue.classes if self.queue else ())

    def _tell(self) -> None:
        """Say what there is, and let only those buttons act that can."""
        session = self.session
        if session is None or session.project is None:
            return
        rows, may = self._rows(), not session.read_only
        named = session.project.classes.num_classes >= 2
        ready = bool(rows) and all(row.estimated >= LEAST for row in rows if row.blocks >= LEAST)
        self.class_names.setVisible(bool(rows) and not named)
        self.table.setVisible(bool(rows))
        self.estimate_button.setEnabled(bool(rows) and named and may)
        self.estimate_button.setVisible(bool(rows))
        self.sets.setVisible(bool(rows) and not self.estimating)
        self.import_button.setVisible(not self.estimating)
        self.train_button.setVisible(bool(rows) and not self.estimating)
        self.settings.setVisible(bool(rows) and not self.estimating)
        self.jobs.setVisible(bool(session.jobs.records) and not self.estimating)
        self.train_button.setEnabled(ready and may and not session.jobs.active())
        self.result.setVisible(bool(rows) and not self.estimating)
        self.words.setText(_words(rows, named, ready, self.estimating))


def _words(rows: list[ValueRow], named: bool, ready: bool, estimating: bool) -> str:
    """Say what to do next."""
    if not rows:
        return "Drop a file of block labels here, or import it."
    if not named:
        return "Name the classes that the blocks hold."
    if estimating:
        left = [row.value for row in rows if not row.is_enough]
        return f"Not enough yet: {', '.join(left)}." if left else "Every label value has enough."
    if not ready:
        return "Estimate blocks of each label: 10 are enough, 2 the least."
    return "Estimated. Training makes masks with sharp edges of the blocks."
