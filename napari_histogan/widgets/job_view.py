"""One job at a glance: progress, time left, curves, the newest preview, and what went wrong."""

from __future__ import annotations

from qtpy.QtCore import Qt
from qtpy.QtGui import QPixmap
from qtpy.QtWidgets import (
    QApplication,
    QComboBox,
    QHBoxLayout,
    QLabel,
    QPlainTextEdit,
    QProgressBar,
    QPushButton,
    QSizePolicy,
    QVBoxLayout,
    QWidget,
)

from napari_histogan.widgets.checkpoint_picker import CheckpointPicker
from napari_histogan.widgets.config_form import keep_narrow
from napari_histogan.widgets.curve import CurveWidget
from napari_histogan.widgets.job_watcher import JobRecord
from napari_histogan.widgets.session import Session
from napari_histogan.widgets.session_view import SessionView
from napari_histogan.widgets.stage_titles import title_of

_PREVIEW_PX = 300
_LOG_LINES = 12
_QUALITY = "sliced_wasserstein"
"""What is shown first of a generator's training; its numbers have too different scales for one chart."""
_STATES = {
    "queued": "waiting",
    "running": "running",
    "stopped": "stopped; it can go on",
    "done": "finished",
    "failed": "failed",
}


class JobView(SessionView):
    """Shows the newest job, or the one chosen from the list of jobs.

    Parameters
    ----------
    preview
        Name of the pictures to show first of a job that draws several; "" shows those that came last.
    elsewhere
        Names of pictures that the panel around shows itself.
    """

    def __init__(
        self, parent: QWidget | None = None, preview: str = "", elsewhere: tuple[str, ...] = ()
    ) -> None:
        super().__init__(parent)
        self._elsewhere = elsewhere
        self._shown = -1
        self._wanted_preview = preview
        self._shown_preview = ""
        self.chooser = QComboBox()
        self.chooser.setToolTip("The jobs of this project, newest first")
        self.chooser.currentIndexChanged.connect(self._choose)
        keep_narrow(self.chooser)
        self.bar = QProgressBar()
        self.bar.setRange(0, 1000)
        self.bar.setTextVisible(True)
        self.phase = QLabel()
        self.phase.setWordWrap(True)
        self.stop_button = QPushButton("Stop")
        self.stop_button.setToolTip("Finish the step, save, and end; what was learned is kept")
        self.stop_button.clicked.connect(self._stop)
        self.resume_button = QPushButton("Resume")
        self.resume_button.setToolTip("Go on from the last checkpoint")
        self.resume_button.clicked.connect(self._resume)
        self.curve = CurveWidget()
        self.lines = QComboBox()
        self.lines.setToolTip("Which numbers the curve shows")
        self.lines.currentTextChanged.connect(self._choose_lines)
        keep_narrow(self.lines)
        self.pictures = QComboBox()
        self.pictures.setToolTip("Which of the job's pictures is shown")
        self.pictures.activated.connect(self._choose_preview)
        keep_narrow(self.pictures)
        self.preview = QLabel()
        self.preview.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self.preview.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Preferred)
        self.checkpoints = CheckpointPicker()
        self.report = QPlainTextEdit()
        self.report.setReadOnly(True)
        self.report.setMaximumHeight(130)
        self.copy_button = QPushButton("Copy report")
        self.copy_button.setToolTip("Copy the message and the last lines of the log")
        self.copy_button.clicked.connect(self._copy)
        self._lay_out()

    def _lay_out(self) -> None:
        buttons = QHBoxLayout()
        buttons.addWidget(self.bar, 1)
        buttons.addWidget(self.stop_button)
        buttons.addWidget(self.resume_button)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        for part in (self.chooser, self.phase):
            layout.addWidget(part)
        layout.addLayout(buttons)
        for part in (self.report, self.copy_button, self.lines, self.curve):
            layout.addWidget(part)
        for part in (self.pictures, self.preview, self.checkpoints):
            layout.addWidget(part)

    def attach(self, session: Session) -> None:
        """Follow a session's jobs."""
        self.watch(session.jobs.changed, self._on_changed)
        self.watch(session.project_opened, self._refill)
        self.watch(session.project_closed, lambda _why: self._refill())
        self._refill()

    @property
    def record(self) -> JobRecord | None:
        """The shown job."""
        return self.session.jobs.records.get(self._shown) if self.session is not None else None

    def show_job(self, number: int) -> None:
        """Show one job."""
        self._shown, self._shown_preview = number, ""
        self.preview.clear()
        record = self.record
        if record is not None:
            position = self.chooser.findData(number)
            self.chooser.blockSignals(True)
            self.chooser.setCurrentIndex(position)
            self.chooser.blockSignals(False)
            self._fill_curve(record)
        self._update()

    def _refill(self) -> None:
        """List the jobs anew and show the one at work, or the newest."""
        if self.session is None:
            return
        records = self.session.jobs.records
        self.chooser.blockSignals(True)
        self.chooser.clear()
        for number, record in sorted(records.items(), reverse=True):
            self.chooser.addItem(_title(record), number)
        self.chooser.blockSignals(False)
        working = [record.number for record in self.session.jobs.active()]
        self.show_job(working[0] if working else max(records, default=-1))

    def _on_changed(self, number: int) -> None:
        record = self.session.jobs.records.get(number) if self.session is not None else None
        if record is None:
            return
        position = self.chooser.findData(number)
        title = _title(record)
        if position < 0:
            self._refill()
        elif self.chooser.itemText(position) != title:
            self.chooser.setItemText(position, title)
            if record.status.state == "running" and (self.record is None or not self.record.active):
                self.show_job(number)
        if number == self._shown:
            self._fill_curve(record)
            self._update()

    def _update(self) -> None:
        record = self.record
        visible = record is not None
        for part in (self.bar, self.phase, self.chooser):
            part.setVisible(visible)
        failed = record is not None and record.status.state == "failed"
        self.report.setVisible(failed)
        self.copy_button.setVisible(failed)
        has_curve = bool(self.curve.names)
        self.curve.setVisible(has_curve)
        self.lines.setVisible(has_curve and self.lines.count() > 1)
        self.stop_button.setVisible(record is not None and record.active)
        can_resume = record is not None and record.status.state in ("stopped", "failed")
        self.resume_button.setVisible(
            can_resume and not getattr(record and record.status, "without_worker", False)
        )
        self.preview.setVisible(False)
        self.pictures.setVisible(False)
        self.checkpoints.show_run(self.session, record)
        if record is None:
            return
        self._update_progress(record)
        self._update_preview(record)
        if failed and self.report.toPlainText() != (text := self.report_text()):
            self.report.setPlainText(text)

    def _update_progress(self, record: JobRecord) -> None:
        progress, state = record.progress, record.status.state
        total = float(progress.get("total") or 0)
        share = float(progress.get("done", 0)) / total if total > 0 else 0.0
        self.bar.setValue(1000 if state == "done" else round(1000 * min(1.0, share)))
        words = [_STATES[state].capitalize()]
        if state == "running" and progress:
            words = [str(progress.get("message") or "Running")]
            done, unit = progress.get("done", 0), progress.get("unit", "")
            words.append(f"{_number(float(done))} of {_number(total)} {unit}".strip())
            if progress.get("seconds_left") is not None:
                words.append(f"{in_words(float(progress['seconds_left']))} left")
        if record.warnings and state != "done":
            words.append(record.warnings[-1])
        if state == "queued":
            words.append("another job of this project is at work" if self._others() else "starting")
        self.phase.setText(", ".join(words))

    def _others(self) -> bool:
        return self.session is not None and len(self.session.jobs.active()) > 1

    def _update_preview(self, record: JobRecord) -> None:
        names = [name for name in record.previews if name not in self._elsewhere]
        if not names:
            return
        if [self.pictures.itemText(n) for n in range(self.pictures.count())] != names:
            self.pictures.clear()
            self.pictures.addItems(names)
        shown = self._wanted_preview if self._wanted_preview in names else names[-1]
        self.pictures.setCurrentText(shown)
        self.pictures.setVisible(len(names) > 1)
        path = str(record.run_dir / record.previews[shown])
        self.preview.setVisible(True)
        stamp = f"{path} {record.offset}"
        if stamp != self._shown_preview:
            self._shown_preview = stamp
            pixmap = QPixmap(path)
            if not pixmap.isNull():
                side = min(_PREVIEW_PX, max(200, self.width() - 10))
                ratio, smooth = Qt.AspectRatioMode.KeepAspectRatio, Qt.TransformationMode.SmoothTransformation
                self.preview.setPixmap(pixmap.scaled(side, side, ratio, smooth))

    def _choose_preview(self, position: int) -> None:
        self._wanted_preview = self.pictures.itemText(position)
        self._update()

    def _fill_curve(self, record: JobRecord) -> None:
        """Draw points that are not drawn yet; another job begins anew."""
        if self.curve.property("job") != record.number:
            self.curve.clear()
            self.curve.setProperty("job", record.number)
            self.lines.clear()
        for name, points in record.metrics.items():
            known = int(self.curve.property(f"n {name}") or 0) if name in self.curve.names else 0
            for step, value in points[known:]:
                self.curve.add(step, name, value)
            self.curve.setProperty(f"n {name}", len(points))
            if self.lines.findText(name) < 0 and points:
                self.lines.addItem(name)
        losses = any("loss" in name for name in self.curve.names)
        quality = self.lines.findText(_QUALITY)
        if self.lines.count() > 1 and losses and self.lines.findText("all losses") < 0:
            self.lines.insertItem(0, "all losses")
            self.lines.setCurrentIndex(0)
        elif not losses and quality >= 0 and self.curve.property("quality of") != record.number:
            self.curve.setProperty("quality of", record.number)
            self.lines.setCurrentIndex(quality)
        self._choose_lines(self.lines.currentText())

    def _choose_lines(self, name: str) -> None:
        losses = [n for n in self.curve.names if "loss" in n]
        self.curve.show_only((losses or None) if name == "all losses" else [name] if name else None)

    def _choose(self, position: int) -> None:
        number = self.chooser.itemData(position)
        if number is not None:
            self.show_job(int(number))

    def _stop(self) -> None:
        if self.session is not None and self.record is not None:
            self.session.jobs.stop(self._shown)
            self.phase.setText("Stopping after this step ...")

    def _resume(self) -> None:
        if self.session is not None and self.record is not None:
            self.session.jobs.resume(self._shown)

    def report_text(self) -> str:
        """Return message and last log lines of the shown job."""
        record = self.record
        if record is None:
            return ""
        error = record.status.error or {}
        message = error.get("message", "no message")
        head = f"{title_of(record.status.stage)} (run {record.number}) failed: {message}"
        return f"{head}\n\nLast lines of {record.run_dir / 'log.txt'}:\n{record.job.tail_log(_LOG_LINES)}"

    def _copy(self) -> None:
        clipboard = QApplication.clipboard()
        if clipboard is not None:
            clipboard.setText(self.report_text())


def in_words(seconds: float) -> str:
    """Return a duration as people say it."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    if seconds < 5400:
        return f"{round(seconds / 60)} min"
    return f"{seconds / 3600:.1f} h"


def _title(record: JobRecord) -> str:
    """Return number, stage, and state of a job in a few words."""
    state = _STATES[record.status.state].split(";")[0]
    return f"{record.number}  {title_of(record.status.stage)}, {state}"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value == int(value) or value >= 100 else f"{value:.3g}"
