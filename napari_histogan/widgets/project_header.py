"""The head of the dock: name, last save, the state of each step, and the one next button."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from qtpy.QtCore import QTimer, Signal
from qtpy.QtGui import QKeySequence, QShortcut
from qtpy.QtWidgets import QHBoxLayout, QLabel, QSizePolicy, QVBoxLayout, QWidget

from napari_histogan.errors import HistoganError
from napari_histogan.widgets.job_view import in_words
from napari_histogan.widgets.key_help import show_keys
from napari_histogan.widgets.keys import KeyButton
from napari_histogan.widgets.overview import NextStep, Step, next_step, overview
from napari_histogan.widgets.session import Session
from napari_histogan.widgets.session_view import SessionView
from napari_histogan.widgets.stage_titles import title_of

_MARKS = {"there": "#009e73", "stale": "#e69f00", "running": "#56b4e9", "missing": "#808080"}
_NAME_PX = 60
_REFRESH_MS = 400
_SIGNS = {"there": "●", "stale": "◐", "running": "▶", "missing": "○"}


class ProjectHeader(SessionView):
    """Where the project stands.

    Signals
    -------
    action_wanted
        Name of the next step's action; see :class:`napari_histogan.widgets.overview.NextStep`.
    close_wanted
        Back to the start page.
    guide_wanted
        Show or hide the guide.
    """

    action_wanted = Signal(str)
    close_wanted = Signal()
    guide_wanted = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._next: NextStep | None = None
        self.name = QLabel()
        # A long name is cut, so that time and buttons stay whole; the tooltip has the folder.
        self.name.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Preferred)
        self.name.setMinimumWidth(_NAME_PX)
        self.saved = QLabel()
        self.close_button = self._button("Projects", "Alt+P", self.close_wanted.emit)
        self.close_button.setToolTip("Back to the list of projects; jobs go on ({Alt+P})")
        self.guide_button = self._button("Guide", "Alt+G", lambda _on: self.guide_wanted.emit(), True)
        self.guide_button.setToolTip("Show or hide the guide through the five first steps ({Alt+G})")
        self.keys_button = KeyButton("Keys  ?", self.where)
        self.keys_button.setToolTip("All keys of the dock in a table (?)")
        self.keys_button.clicked.connect(lambda _on: show_keys(self))
        question = QShortcut(self)
        question.setKeys([QKeySequence("?"), QKeySequence("Shift+?")])
        question.activated.connect(self.keys_button.click)
        self.steps = QLabel()
        self.steps.setWordWrap(True)
        self.next_button = self._button("", "Alt+N", self._go)
        self.next_button.setToolTip("Do what comes next ({Alt+N})")
        self.next_button.setMinimumHeight(32)
        self.next_button.setStyleSheet("QPushButton { font-weight: bold; }")
        self.set_keys_enabled(True)
        self.reason = QLabel()
        self.reason.setWordWrap(True)
        # Many signals come in a row; one look at the disk serves them all.
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(_REFRESH_MS)
        self._timer.timeout.connect(self.refresh)
        top = QHBoxLayout()
        top.addWidget(self.name, 1)
        top.addWidget(self.saved)
        top.addWidget(self.keys_button)
        top.addWidget(self.guide_button)
        top.addWidget(self.close_button)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(4, 4, 4, 0)
        layout.addLayout(top)
        for part in (self.steps, self.next_button, self.reason):
            layout.addWidget(part)

    def attach(self, session: Session) -> None:
        """Follow a session."""
        later = self._timer.start
        for signal in (
            session.project_opened, session.classes_changed, session.slides_changed,
            session.artifacts_changed, session.samples_changed, session.painted_changed,
            session.correcting.changed,
        ):  # fmt: skip
            self.watch(signal, lambda *_a: later())
        self.watch(session.jobs.state_changed, lambda _n: later())
        self.watch(session.jobs.changed, lambda _n: self._tell_progress())
        self.watch(session.mask_saved, self._on_saved)
        self.refresh()

    def refresh(self) -> None:
        """Look at the project and show where it stands."""
        session = self.session
        if session is None or session.project is None:
            return
        running = [record.status.stage for record in session.jobs.active()]
        try:
            steps = overview(session.project, running)
            self._next = next_step(session.project, steps, running)
        except (HistoganError, OSError) as error:
            self.steps.setText(str(error))
            return
        lock = "  (looking only)" if session.read_only else ""
        self.name.setText(f"<b>{session.project.name}</b>{lock}")
        self.name.setToolTip(str(session.project.root))
        self.steps.setText(" ".join(_mark(step) for step in steps))
        self._show_whole()
        self.steps.setToolTip("<br>".join(f"{step.title}: {step.state}, {step.detail}" for step in steps))
        self.next_button.setText(self._next.title)
        self.next_button.setToolTip(f"{self._next.reason} ({{Alt+N}})")
        self.next_button.setEnabled(not session.read_only or self._next.action in ("look", "show_job"))
        self._tell_progress()

    def _tell_progress(self) -> None:
        if self._next is not None:
            self.reason.setText(self._progress_words() or self._next.reason)
            self._show_whole()

    def resizeEvent(self, event: Any) -> None:  # noqa: N802 - Qt's name
        """Let the words wrap into as many lines as they need now."""
        super().resizeEvent(event)
        self._show_whole()

    def _show_whole(self) -> None:
        """Ask for the height that the wrapped words need at this width; else the dock may cut them."""
        layout = self.layout()
        if layout is not None:
            self.setMinimumHeight(layout.totalHeightForWidth(self.width()))

    def _progress_words(self) -> str:
        session = self.session
        active = session.jobs.active() if session is not None else []
        if not active:
            return ""
        record = active[0]
        words = [title_of(record.status.stage)]
        total = float(record.progress.get("total") or 0)
        if total > 0:
            words.append(f"{100 * float(record.progress.get('done', 0)) / total:.0f} %")
        if record.progress.get("seconds_left") is not None:
            words.append(f"{in_words(float(record.progress['seconds_left']))} left")
        return ", ".join(words)

    def _on_saved(self, _index: int, _pixels: int) -> None:
        self.saved.setText(f"saved {datetime.now():%H:%M}")
        self._timer.start()

    def _go(self) -> None:
        if self._next is not None:
            self.action_wanted.emit(self._next.action)


def _mark(step: Step) -> str:
    """Return a step as a colored mark and its name."""
    name = step.title.replace(" ", "&nbsp;")
    return f'<span style="color:{_MARKS[step.state]}">{_SIGNS[step.state]}</span>&nbsp;{name}'
