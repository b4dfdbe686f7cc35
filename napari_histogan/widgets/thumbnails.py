"""Thumbnails made in the background, what was asked for last first; the window never waits for the disk."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import QObject, QTimer, Signal
from qtpy.QtGui import QImage

from napari_histogan.errors import HistoganError
from napari_histogan.widgets.pictures import to_image

ReadPicture = Callable[[int], NDArray[np.uint8]]
"""Gives the picture of a sample, (R, R, 3) uint8; called in another thread."""

_WAITING = 80
"""As many as a large window shows; older wishes are dropped, for they were scrolled away."""
_LOOK_MS = 15


class _Work:
    """What is wanted and what is made, shared with one thread; knows no Qt object that could go first."""

    def __init__(self, read: ReadPicture, side: int) -> None:
        self._read, self._side = read, side
        self._wanted: list[int] = []
        self._lock = threading.Lock()
        self.working = False
        self.made: deque[tuple[int, QImage]] = deque()

    def want(self, index: int) -> None:
        """Put a wish at the head of the list; a thread begins when none is at work."""
        with self._lock:
            if index in self._wanted:
                return
            self._wanted.append(index)
            del self._wanted[:-_WAITING]
            if self.working:
                return
            self.working = True
        threading.Thread(target=self._run, name="histogan-thumbnails", daemon=True).start()

    def drop(self) -> None:
        """Forget the wishes."""
        with self._lock:
            self._wanted.clear()

    def _run(self) -> None:
        while True:
            with self._lock:
                if not self._wanted:
                    self.working = False
                    return
                index = self._wanted.pop()
            try:
                self.made.append((index, to_image(self._read(index), self._side)))
            except (HistoganError, OSError, ValueError, IndexError, KeyError):
                continue  # the folder is going away; the session says so


class ThumbnailLoader(QObject):
    """Reads and shrinks pictures in one thread.

    Signals
    -------
    ready
        Number of a sample and its ``QImage``.
    """

    ready = Signal(int, object)

    def __init__(self, side: int, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._side = side
        self._work: _Work | None = None
        # Looking is safe where a signal of the thread is not: it could come while this object is destroyed.
        self._timer = QTimer(self)
        self._timer.setInterval(_LOOK_MS)
        self._timer.timeout.connect(self._look)

    def set_source(self, read: ReadPicture | None) -> None:
        """Read other pictures; what was asked of the ones before is dropped."""
        if self._work is not None:
            self._work.drop()
        self._work = _Work(read, self._side) if read is not None else None

    def want(self, index: int) -> None:
        """Ask for a thumbnail; comes by :attr:`ready`."""
        if self._work is not None:
            self._work.want(index)
            if not self._timer.isActive():  # starting it anew would put off what is ready
                self._timer.start()

    def _look(self) -> None:
        work = self._work
        if work is None:
            self._timer.stop()
            return
        ended = not work.working  # asked first, so that the last ones are not missed
        while work.made:
            self.ready.emit(*work.made.popleft())
        if ended:
            self._timer.stop()
