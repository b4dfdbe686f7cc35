"""To see what lies below: overlays go while a key is held, or until it is tapped again."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QEvent, QObject, Qt, Signal
from qtpy.QtWidgets import QApplication

from napari_histogan.widgets.keys import Key, KeyButton

if TYPE_CHECKING:
    from napari_histogan.widgets.session import Session

HOLD_S = 0.35
"""A key that is down for longer was held."""
_MODIFIERS = (Qt.Key.Key_Shift, Qt.Key.Key_Control, Qt.Key.Key_Alt, Qt.Key.Key_Meta)


class HoldKey(QObject):
    """Lets a key switch a button over for as long as it is held; a tap switches it for good.

    Parameters
    ----------
    where, key
        Place and first key of a shortcut.
    button
        A checkable button.
    """

    def __init__(self, where: str, key: str, button: KeyButton) -> None:
        super().__init__(button)
        self._button, self._since = button, 0.0
        self.key = Key(where, key, self._press, button)
        self.key.setAutoRepeat(False)
        self.key.setEnabled(False)

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:  # noqa: N802 - Qt's name
        """Wait for the key to come up, or for the window to lose the keyboard."""
        gone = event.type() == QEvent.Type.ApplicationDeactivate
        up = event.type() == QEvent.Type.KeyRelease and not event.isAutoRepeat()
        if gone or (up and event.key() not in _MODIFIERS):
            self._release()
        return False

    def _press(self) -> None:
        if not self._since:
            QApplication.instance().installEventFilter(self)
            self._button.click()
            self._since = time.monotonic()  # hiding and drawing take a while of their own

    def _release(self) -> None:
        """Switch back after a hold; a second release comes for the same key, to the window below."""
        QApplication.instance().removeEventFilter(self)
        held, self._since = time.monotonic() - self._since if self._since else 0.0, 0.0
        if held > HOLD_S:
            self._button.click()


class Peek(QObject):
    """Shows the slide without what lies over it.

    Signals
    -------
    changed
        Whether the slide is alone now.
    """

    changed = Signal(bool)

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self._session = session
        self._hidden: list[tuple[Any, str]] = []
        self.active = False

    def toggle(self) -> None:
        """Hide the overlays, or show again what was hidden."""
        if self.active:
            self.end()
        else:
            self.begin()

    def begin(self) -> None:
        """Hide every visible layer but the slide."""
        view = self._session.slide_view
        if self.active or view.slide is None:
            return
        slides = (view.slide, view.beside.slide)
        over = [layer for layer in self._session.viewer.layers if layer.visible and layer not in slides]
        self._hidden = [(layer, str(getattr(layer, "mode", ""))) for layer in over]
        for layer in over:
            layer.visible = False
        self.active = True
        self.changed.emit(True)

    def end(self) -> None:
        """Show again what was hidden."""
        if not self.active:
            return
        self.active = False
        for layer, mode in self._hidden:
            if layer in self._session.viewer.layers:
                layer.visible = True
                if mode and getattr(layer, "editable", False):
                    layer.mode = mode  # napari lays the brush down when a layer is hidden
        self._hidden = []
        self.changed.emit(False)
