"""What has been in memory for long is not looked through again and again while people work.

Python looks for memory that is not used any more.  Of what is new that takes a millisecond; from time to time
it looks through everything, and with napari that is hundreds of thousands of objects, most of which never go:
a fifth of a second in which nothing moves.  So they are set aside while a project is worked on.
"""

from __future__ import annotations

import gc
from functools import partial

from qtpy.QtCore import QObject, QTimer

_LOOK_MS = 5000
_OLDEST = 2

_users: set[int] = set()


class OldMemory(QObject):
    """Sets aside what is in memory, for as long as any window uses it.

    When a layer goes, which may be gigabytes, everything is looked through once more before it is set aside
    again, so that no memory is kept that nobody uses.

    Parameters
    ----------
    parent
        The object that owns this one.
    """

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.destroyed.connect(partial(_forget, id(self)))
        self._looked = 0
        self._timer = QTimer(self)
        self._timer.setInterval(_LOOK_MS)
        self._timer.timeout.connect(self._set_aside_what_stayed)

    def set_aside(self) -> None:
        """Set aside what is there now, but not while something that went is to be looked for."""
        _users.add(id(self))
        if not self._timer.isActive():
            gc.freeze()

    def look_again(self) -> None:
        """Let Python look through everything when it next wants to: something large may have gone."""
        if id(self) in _users:
            gc.unfreeze()
            self._looked = _rounds()
            self._timer.start()

    def give_back(self) -> None:
        """End this, as when the window closes."""
        self._timer.stop()
        _forget(id(self))

    def _set_aside_what_stayed(self) -> None:
        if _rounds() != self._looked:
            self._timer.stop()
            gc.freeze()


def _forget(user: int, _object: object = None) -> None:
    """Note that a window is gone; the last one leaves Python as it was."""
    _users.discard(user)
    if not _users:
        gc.unfreeze()


def _rounds() -> int:
    """Return how often everything was looked through."""
    return int(gc.get_stats()[_OLDEST]["collections"])
