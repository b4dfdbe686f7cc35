"""Whether a project's folder is there, asked in another thread: a drive may answer late, or never."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

from qtpy.QtCore import QObject, QTimer, Signal

_ASK_S = 0.5
_LOOK_MS = 250
_PATIENCE_S = 5.0
"""An answer that takes longer is taken for none."""


class _Asking:
    """Asks for one folder; shared with a thread that may hang for good, so it knows no Qt object."""

    def __init__(self, root: Path, there: Callable[[Path], bool]) -> None:
        self.root, self._there = root, there
        self.since = 0.0
        self.gone = False
        self.trouble = ""
        self.ended = threading.Event()
        threading.Thread(target=self._run, name="histogan-folder", daemon=True).start()

    def _run(self) -> None:
        while not self.ended.wait(_ASK_S):
            self.since = time.monotonic()
            try:
                self.gone, self.trouble = not self._there(self.root), ""
            except OSError as error:
                self.trouble = error.strerror or str(error)
            self.since = 0.0

    @property
    def silent(self) -> bool:
        """Whether there is no answer, or only an error."""
        since = self.since
        return bool(self.trouble) or (since > 0 and time.monotonic() - since > _PATIENCE_S)


class FolderWatch(QObject):
    """Follows one folder.

    Parameters
    ----------
    parent
        Owner.
    there
        Says whether a project's folder is there; called in another thread, and may hang.

    Signals
    -------
    gone
        The folder was moved or deleted.
    silent
        Words: the drive does not answer, or answers with an error.  What reads or writes there should wait.
    answers
        The drive answers again.
    """

    gone = Signal()
    silent = Signal(str)
    answers = Signal()

    def __init__(self, parent: QObject | None = None, there: Callable[[Path], bool] | None = None) -> None:
        super().__init__(parent)
        self._there = there or is_project
        self._asking: _Asking | None = None
        self.reachable = True
        self._timer = QTimer(self)
        self._timer.setInterval(_LOOK_MS)
        self._timer.timeout.connect(self._look)

    def watch(self, root: Path | None) -> None:
        """Follow another folder; None follows none."""
        if self._asking is not None:
            self._asking.ended.set()
        self._asking, self.reachable = None, True
        self._timer.stop()
        if root is not None:
            self._asking = _Asking(root, self._there)
            ended = self._asking.ended
            self.destroyed.connect(lambda: ended.set())  # a window may go without a word
            self._timer.start()

    def _look(self) -> None:
        asking = self._asking
        if asking is None:
            return
        if asking.silent and self.reachable:
            self.reachable = False
            why = asking.trouble or "it may be unplugged, or the network is down"
            self.silent.emit(
                f"The drive of {asking.root} does not answer: {why}. What you paint is kept in this window "
                "and saved as soon as the drive answers."
            )
        elif not asking.silent and not self.reachable:
            self.reachable = True
            self.answers.emit()
        if asking.gone:
            self.watch(None)
            self.gone.emit()


def is_project(root: Path) -> bool:
    """Whether a folder holds a project.

    Raises
    ------
    OSError
        If the drive cannot say.
    """
    return (root / "project.toml").is_file()
