"""Hands for a real napari window: clicks, keys, typed words, file dialogs, strokes, and pictures."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

from qtpy.QtCore import QPoint, Qt, QTimer
from qtpy.QtTest import QTest
from qtpy.QtWidgets import (
    QAbstractSpinBox,
    QApplication,
    QComboBox,
    QDialogButtonBox,
    QFileDialog,
    QLineEdit,
    QWidget,
)

sys.path.insert(0, str(Path(__file__).parents[1]))

from window_hands import LEFT, NONE, WindowHands


def say(words: str) -> None:
    """Tell the other process."""
    sys.stdout.write(f"{words}\n")
    sys.stdout.flush()


class Hands(WindowHands):
    """Uses the window as a person does; nothing is called that has no mouse or key way."""

    def __init__(self, viewer, pictures: Path) -> None:
        super().__init__(viewer)
        self.pictures = pictures
        pictures.mkdir(parents=True, exist_ok=True)
        self.doing, self.began = "start", time.monotonic()

    # Waiting

    def until(self, condition: Callable[[], object], seconds: float = 400.0) -> None:
        """Let Qt work until something is so."""
        end = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > end:
                self.picture(f"stuck-at-{self.doing}")
                raise AssertionError(f"stuck at {self.doing}")
            QApplication.processEvents()
            time.sleep(0.005)

    def picture(self, name: str) -> None:
        """Save the whole window."""
        self.doing = name
        sys.stderr.write(
            f"{time.process_time():.1f} s of work, {time.monotonic() - self.began:.1f} s: {name}\n"
        )
        self.let_qt_work(0.4)
        self.viewer.screenshot(str(self.pictures / f"{name}.png"), canvas_only=False, flash=False)

    # Widgets

    def click(self, widget: QWidget, place: QPoint | None = None, twice: bool = False) -> None:
        """Click a widget that is on the screen and enabled; by default in its middle."""
        self.until(lambda: widget.isVisible() and widget.isEnabled(), 30)
        place = place or widget.rect().center()
        QTest.mouseClick(widget, LEFT, NONE, place)
        if twice:
            QTest.mouseDClick(widget, LEFT, NONE, place)
        self.let_qt_work()

    def key(self, key: str) -> None:
        """Press a key with the focus on the canvas."""
        self.activate()
        super().key(key)

    def put(self, control: QWidget, text: str) -> None:
        """Type a value over what a field holds, or choose an entry of a list by keys."""
        control.setFocus()
        if isinstance(control, QComboBox):
            QTest.keyClick(control, Qt.Key.Key_Home)
            while control.currentText() != text and control.currentIndex() < control.count() - 1:
                QTest.keyClick(control, Qt.Key.Key_Down)
            assert control.currentText() == text
            return
        field = control.findChild(QLineEdit) if isinstance(control, QAbstractSpinBox) else control
        QTest.keySequence(field, "Ctrl+A")
        QTest.keyClicks(field, text)
        QTest.keyClick(field, Qt.Key.Key_Tab)
        self.let_qt_work()

    def click_and_choose(self, button: QWidget, path: Path) -> None:
        """Click a button that opens a file dialog, and paste a path into it."""
        self.until(lambda: button.isVisible() and button.isEnabled(), 30)
        self._when_asked(path)
        QTest.mouseClick(button, LEFT)
        self.let_qt_work()

    def key_and_choose(self, key: str, path: Path) -> None:
        """Press a key that opens a file dialog, and paste a path into it."""
        self.activate()
        self._when_asked(path)
        QTest.keySequence(self.canvas, key)
        self.let_qt_work()

    def _when_asked(self, path: Path) -> None:
        """Answer the next file dialog; it has an event loop of its own, so a timer does it."""

        def answer() -> None:
            dialog = QApplication.activeModalWidget()
            if not isinstance(dialog, QFileDialog):
                QTimer.singleShot(50, answer)
                return
            field = dialog.findChild(QLineEdit, "fileNameEdit")
            field.selectAll()
            field.insert(str(path))  # as when it is pasted; Qt's dialog completes what is typed
            if field.completer() is not None:
                field.completer().popup().hide()
            kinds = QDialogButtonBox.StandardButton
            box = dialog.findChild(QDialogButtonBox)
            accept = next(b for b in map(box.button, (kinds.Open, kinds.Save)) if b is not None)
            QTest.mouseClick(accept, LEFT)

        QTimer.singleShot(100, answer)
