"""Work in steps, with a turn of the event loop between two, in which clicks and strokes are answered."""

from __future__ import annotations

from collections.abc import Iterator

from qtpy.QtCore import QObject, QTimer

Steps = Iterator[None]
"""Work that may pause wherever it yields."""


class Turns(QObject):
    """Does one step at each turn of the event loop; what begins later replaces what is not finished.

    Work that is begun here must bring about its whole result whatever was done before.

    Parameters
    ----------
    parent
        The object that owns this one.
    """

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._steps: Steps | None = None
        self._timer = QTimer(self)
        self._timer.setInterval(1)
        self._timer.timeout.connect(self._step)

    @property
    def busy(self) -> bool:
        """Whether steps are left."""
        return self._steps is not None

    def begin(self, steps: Steps) -> None:
        """Do the first step now, and the others one at a time."""
        self._steps = steps
        self._timer.start()
        self._step()

    def finish(self) -> None:
        """Do now what is left."""
        steps = self._steps
        self.drop()
        if steps is not None:
            at_once(steps)

    def drop(self) -> None:
        """Forget what is left; its project is closed."""
        self._timer.stop()
        self._steps = None

    def _step(self) -> None:
        steps = self._steps
        ended = steps is None or next(steps, self) is self
        if ended and self._steps is steps:  # nothing else was begun by the step
            self.drop()


def at_once(steps: Steps) -> None:
    """Do all steps without a pause."""
    for _ in steps:
        pass
