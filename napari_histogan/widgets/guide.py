"""The guide of the first run: five steps, each ticked when it is done; hidden and shown by a key."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from qtpy.QtCore import Qt, QTimer, Signal
from qtpy.QtWidgets import QFrame, QHBoxLayout, QLabel, QVBoxLayout, QWidget

from napari_histogan.errors import HistoganError
from napari_histogan.project.document import read_document
from napari_histogan.project.store import Project
from napari_histogan.widgets.keys import Key, KeyButton
from napari_histogan.widgets.session import Session
from napari_histogan.widgets.session_view import SessionView

_KEY = "guide"
_FLASH_MS = 2500
_DEMO = "HistoGAN demo"


@dataclass(frozen=True, slots=True)
class GuideStep:
    """One step.

    Attributes
    ----------
    name
        By which the project remembers that it is done.
    tab
        Tab of the dock that it is done in.
    words
        What to do.
    """

    name: str
    tab: str
    words: str


STEPS = (
    GuideStep("open", "samples", "Double-click a picture in the gallery below, or press Enter on it."),
    GuideStep(
        "paint", "paint", "Press 1 and draw a stroke over the first class; press 2 and draw over the second."
    ),
    GuideStep(
        "predict", "paint", "Look at the prediction that follows your strokes; U shows where it is unsure."
    ),
    GuideStep("map", "slides", "Open the slide; press R to run the net over it, and watch the heatmap grow."),
    GuideStep(
        "correct", "correct", "Press C for a frame where the map is wrong, fix it by the brush, press Enter."
    ),
)


class GuideBox(SessionView):
    """Shows the first step that is not done yet, and what is done.

    Parameters
    ----------
    targets
        For each step's name, a function that returns the control to point at.

    Signals
    -------
    shown_changed
        Whether the guide is shown now.
    """

    shown_changed = Signal(bool)

    def __init__(
        self, targets: dict[str, Callable[[], QWidget | None]], parent: QWidget | None = None
    ) -> None:
        super().__init__(parent)
        self._targets = targets
        self.done: set[str] = set()
        self._wanted = False
        self._corrections = 0
        self.words = QLabel()
        self.words.setWordWrap(True)
        self.ticks = QLabel()
        self.show_button = KeyButton("Show me", self.where)
        Key(self.where, "Alt+9", self.show_button.click, self)
        self.show_button.setToolTip("Go to the tab of this step and point at where to click ({Alt+9})")
        self.hide_button = KeyButton("Hide", self.where)
        self.hide_button.setToolTip("Hide the guide; Guide at the top of the dock shows it again ({Alt+G})")
        for button, slot in ((self.show_button, self.point), (self.hide_button, self.hide_guide)):
            button.clicked.connect(slot)
        frame = QFrame()
        frame.setFrameShape(QFrame.Shape.StyledPanel)
        row = QHBoxLayout()
        row.addWidget(self.ticks, 1)
        row.addWidget(self.show_button)
        row.addWidget(self.hide_button)
        inner = QVBoxLayout(frame)
        inner.setContentsMargins(6, 4, 6, 4)
        inner.setSpacing(2)
        inner.addWidget(self.words)
        inner.addLayout(row)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(4, 0, 4, 0)
        layout.addWidget(frame)
        self.hide()

    def attach(self, session: Session) -> None:
        """Follow a session."""
        self.watch(session.project_opened, self._reload)
        self.watch(session.project_closed, lambda _why: self.hide())
        self.watch(session.sample_opened, lambda _index: self.tick("open"))
        self.watch(session.mask_saved, self._on_saved)
        self.watch(session.painting.predicted, self._on_predicted)
        self.watch(session.slide_view.heatmap_opened, self._on_map)
        self.watch(session.correcting.changed, self._on_corrected)
        self._reload()

    @property
    def step(self) -> GuideStep | None:
        """The first step that is not done; None after the last."""
        return next((step for step in STEPS if step.name not in self.done), None)

    def tick(self, name: str) -> None:
        """Note that a step is done; it is remembered with the project."""
        if name in self.done or not self._wanted:
            return
        self.done.add(name)
        self._remember()
        self._tell()

    def show_guide(self) -> None:
        """Show the guide; from the start again if all was done."""
        if self.step is None:
            self.done.clear()
        self._set(True)

    def hide_guide(self) -> None:
        """Hide the guide until it is wanted again."""
        self._set(False)

    def toggle(self) -> None:
        """Show or hide the guide."""
        if self._wanted:
            self.hide_guide()
        else:
            self.show_guide()

    def point(self) -> None:
        """Bring the step's tab to the front and point at its control for a moment."""
        step, session = self.step, self.session
        if step is None or session is None:
            return
        session.tab_wanted.emit(step.tab)
        target = self._targets[step.name]()
        if target is not None and target.isVisible():
            band = QFrame(target)
            band.setObjectName("here")
            band.setStyleSheet("#here { border: 3px solid #e69f00; background: transparent; }")
            band.setAttribute(Qt.WidgetAttribute.WA_TransparentForMouseEvents)
            band.setGeometry(target.rect())
            band.show()
            band.raise_()
            QTimer.singleShot(_FLASH_MS, band.deleteLater)

    def _set(self, wanted: bool) -> None:
        self._wanted = wanted
        self._remember()
        self._tell()

    def _reload(self) -> None:
        """Take up what the project remembers; the demo begins with the guide."""
        session = self.session
        if session is None or session.project is None:
            self.hide()
            return
        self._corrections = self._count()
        told = _remembered(session.project)
        self.done = {str(name) for name in told.get("done", [])}
        self._wanted = bool(told.get("shown", session.project.name == _DEMO))
        self._tell()

    def _remember(self) -> None:
        session = self.session
        if session is None or session.project is None or session.read_only:
            return
        project, value = session.project, {"shown": self._wanted, "done": sorted(self.done)}
        session.attempt(lambda: project.set_values(**{_KEY: value}))

    def _tell(self) -> None:
        step = self.step
        if step is None:
            self.words.setText(
                "<b>That is the whole way.</b> Retrain with your corrections when you have some."
            )
        else:
            number = STEPS.index(step) + 1
            self.words.setText(f"<b>Step {number} of {len(STEPS)}.</b> {step.words}")
        marks = ("✓" if each.name in self.done else str(k) for k, each in enumerate(STEPS, 1))
        self.ticks.setText("  ".join(marks))
        self.show_button.setEnabled(step is not None)
        self.setVisible(self._wanted)
        self.shown_changed.emit(self._wanted)

    def _on_saved(self, index: int, pixels: int) -> None:
        session = self.session
        mask = session.load_mask(index) if session is not None and self._wanted and pixels else None
        if mask is not None and "paint" not in self.done and len({*mask[mask > 0].tolist()}) > 1:
            self.tick("paint")

    def _on_predicted(self, seconds: float, _words: str) -> None:
        if seconds > 0 and "paint" in self.done:
            self.tick("predict")

    def _on_map(self, heatmap: str) -> None:
        if heatmap:
            self.tick("map")

    def _on_corrected(self) -> None:
        count = self._count()
        if count > self._corrections and self.session is not None and not self.session.correcting.active:
            self.tick("correct")
        self._corrections = count

    def _count(self) -> int:
        project = self.session.project if self.session is not None else None
        try:
            return len(project.corrections()) if project is not None else 0
        except HistoganError:
            return self._corrections


def _remembered(project: Project) -> dict[str, Any]:
    """Return what a project remembers of the guide."""
    try:
        told = read_document(project.root)[0].get(_KEY)
    except HistoganError:
        return {}
    return told if isinstance(told, dict) else {}
