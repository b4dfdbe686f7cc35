"""What docks and panels share: each finds the session of its window and follows it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, ClassVar

from qtpy.QtCore import Qt, QTimer
from qtpy.QtGui import QKeySequence, QShortcut
from qtpy.QtWidgets import QFrame, QMainWindow, QScrollArea, QSizePolicy, QVBoxLayout, QWidget

from napari_histogan.widgets.keys import Key, KeyButton
from napari_histogan.widgets.peek import HoldKey
from napari_histogan.widgets.session import Session

logger = logging.getLogger("napari_histogan")


class SessionView(QWidget):
    """Base of the docks and panels: finds the session of its window and follows it."""

    where: ClassVar[str] = "anywhere"
    """Place of the view's keys; one of :data:`~napari_histogan.widgets.shortcuts.PLACES`."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.session: Session | None = None
        self._watched: list[tuple[Any, Callable[..., Any]]] = []
        self._viewer: Any = None
        self._keys: list[QShortcut] = []

    def bind_session(self, viewer: Any) -> None:
        """Attach to the session of the viewer's window as soon as the dock is in it."""
        self._viewer = viewer
        QTimer.singleShot(0, self._find_session)

    def showEvent(self, event: Any) -> None:  # noqa: N802 - Qt's name
        """Attach at the first showing."""
        super().showEvent(event)
        if self._viewer is not None:
            self._find_session()

    def attach(self, session: Session) -> None:
        """Follow a session; views override this."""
        raise NotImplementedError

    def watch(self, signal: Any, slot: Callable[..., Any]) -> None:
        """Connect a signal of the session; undone by :meth:`detach`."""
        signal.connect(slot)
        self._watched.append((signal, slot))

    def detach(self) -> None:
        """Let go of the session; the view is about to be thrown away."""
        for signal, slot in self._watched:
            try:
                signal.disconnect(slot)
            except (TypeError, RuntimeError):
                logger.debug("a signal was disconnected already")
        self._watched.clear()
        self.session = None

    def follow(self, session: Session) -> None:
        """Attach once."""
        if self.session is None:
            self.session = session
            self.attach(session)

    def set_keys_enabled(self, enabled: bool) -> None:
        """Let the view's keys act; called when its tab comes to the front or goes."""
        for shortcut in self._keys:
            shortcut.setEnabled(enabled)

    def lay_out_scrolled(self, body: QWidget) -> QScrollArea:
        """Lay out what the view shows, so that it scrolls where the window is low."""
        area = QScrollArea()
        area.setWidgetResizable(True)
        area.setFrameShape(QFrame.Shape.NoFrame)
        area.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        area.setWidget(body)
        outer = QVBoxLayout(self)
        outer.setContentsMargins(0, 0, 0, 0)
        outer.addWidget(area)
        return area

    def _button(self, text: str, key: str, slot: Callable[..., Any], checkable: bool = False) -> KeyButton:
        """Make a button that a click gives no focus, and its key, which is off at first."""
        button = KeyButton(text, self.where)
        button.setCheckable(checkable)
        button.clicked.connect(slot)
        self._shortcut(key, button.click)
        return button

    def _hold_button(self, text: str, key: str, slot: Callable[..., Any]) -> KeyButton:
        """Make a button whose key switches it while it is held, and for good when it is tapped."""
        button = KeyButton(text, self.where)
        button.setCheckable(True)
        button.clicked.connect(slot)
        self._keys.append(HoldKey(self.where, key, button).key)
        return button

    def _shortcut(self, key: str, slot: Callable[..., Any]) -> None:
        """Make a key that is off at first; people can change it."""
        shortcut = Key(self.where, key, slot, self)
        shortcut.setEnabled(False)
        self._keys.append(shortcut)

    def _digit(self, digit: int, slot: Callable[..., Any]) -> None:
        """Make a number key that is off at first; classes and shares have fixed numbers."""
        shortcut = QShortcut(QKeySequence(str(digit)), self)
        shortcut.setEnabled(False)
        shortcut.activated.connect(slot)
        self._keys.append(shortcut)

    def _find_session(self) -> None:
        if self.session is not None:
            return
        window = main_window_of(self)
        if window is not None:
            session = session_of(window, self._viewer)
            # A dock that was closed by its X and opened again is a new object; the old one must let go.
            session.replace_view(type(self).__name__, self)
            self.follow(session)


def keep_low(part: QWidget, height_px: int) -> None:
    """Let a list or table be low where the window is low, and take what room there is where it is high."""
    part.setMinimumHeight(height_px)
    part.setSizePolicy(part.sizePolicy().horizontalPolicy(), QSizePolicy.Policy.Ignored)


def main_window_of(widget: QWidget) -> QMainWindow | None:
    """Return the main window that a dock's widget lies in, floating or not."""
    parent: QWidget | None = widget
    while parent is not None:
        if isinstance(parent, QMainWindow):
            return parent
        parent = parent.parentWidget()
    return None


def session_of(window: QMainWindow, viewer: Any) -> Session:
    """Return the session of a main window; made when there is none."""
    session = window.findChild(Session)
    if session is None:
        session = Session(viewer, window)
    return session
