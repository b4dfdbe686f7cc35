"""A slide's levels for the canvas: read in another thread, and blurred until they are there."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from functools import partial
from math import ceil
from typing import Any

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import QObject, QTimer, Signal

from napari_histogan.errors import HistoganError
from napari_histogan.slides.lazy_level import CHUNK_PX, LazyLevel
from napari_histogan.slides.reader import SlideReader

logger = logging.getLogger("napari_histogan")

_LOOK_MS = 40
_WAITING = 64
"""As many chunks as a large canvas shows; older wishes were flown past."""
_PAPER = 255
"""What is shown before anything is read: glass without tissue."""

Wish = tuple[int, int, int]
"""Number of a level, and row and column of its chunk; -1 is the whole coarsest level."""
_COARSEST: Wish = (-1, 0, 0)


class _Work:
    """What is wanted of a slide, shared with one thread; knows no Qt object that could go first."""

    def __init__(self, reader: SlideReader, levels: list[LazyLevel], coarsest: NDArray[np.uint8]) -> None:
        self._reader, self._levels, self._coarsest = reader, levels, coarsest
        self._wanted: list[Wish] = []
        self._refused: set[Wish] = set()
        self._lock = threading.Lock()
        self._ended = False
        self.working = False
        self.arrived = 0
        self.problem = ""

    def want(self, wish: Wish) -> None:
        """Put a wish at the head of the list; a thread begins when none is at work."""
        with self._lock:
            if self._ended or wish in self._wanted or wish in self._refused:
                return
            self._wanted.append(wish)
            del self._wanted[:-_WAITING]
            if self.working:
                return
            self.working = True
        threading.Thread(target=self._run, name="histogan-slide", daemon=True).start()

    def end(self) -> None:
        """Read no more; the slide is closed as soon as nothing is being read."""
        with self._lock:
            self._ended = True
            self._wanted.clear()
            working = self.working
        if not working:
            self._reader.close()

    def _run(self) -> None:
        while True:
            with self._lock:
                if not self._wanted:
                    self.working = False
                    ended = self._ended
                    break
                wish = self._wanted.pop()
            try:
                self._read(wish)
            except (HistoganError, OSError, ValueError) as error:
                with self._lock:
                    self._refused.add(wish)
                self.problem = str(error)
            self.arrived += 1
        if ended:
            self._reader.close()

    def _read(self, wish: Wish) -> None:
        number, row, column = wish
        if wish == _COARSEST:
            self._coarsest[:] = self._levels[-1][:]
        else:
            self._levels[number].chunk(row, column)


class AwaitedLevel:
    """A level that never waits: what is not read yet is the coarsest level, enlarged.

    Slices give what there is now; ``numpy.asarray`` reads everything as it is.

    Parameters
    ----------
    level
        The level as it is read.
    coarsest
        ``(y, x, 3) uint8`` of the whole slide, in memory.
    want
        Asks for a chunk by its row and column.
    """

    dtype = np.dtype(np.uint8)
    ndim = 3

    def __init__(
        self, level: LazyLevel, coarsest: NDArray[np.uint8], want: Callable[[int, int], None]
    ) -> None:
        self._level, self._coarsest, self._want = level, coarsest, want
        self.shape: tuple[int, ...] = level.shape
        self.size: int = level.size

    def __getitem__(self, key: Any) -> NDArray[np.uint8]:
        """Return what there is of a box; anything else than plain slices is read."""
        keys = [*key] if isinstance(key, tuple) else [key]
        box = [k.indices(n) for k, n in zip(keys, self.shape, strict=False) if isinstance(k, slice)]
        if len(box) != len(keys) or len(keys) > 3 or any(step != 1 for _, _, step in box):
            return self._level[key]
        box += [(0, n, 1) for n in self.shape[len(box) :]]
        (y0, y1, _), (x0, x1, _), (first, last, _) = box
        return self._box(y0, max(y0, y1), x0, max(x0, x1))[..., first:last]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        """Read everything."""
        return np.asarray(self._level, dtype=dtype)

    def _box(self, y0: int, y1: int, x0: int, x1: int) -> NDArray[np.uint8]:
        out = np.empty((y1 - y0, x1 - x0, 3), np.uint8)
        for row in range(y0 // CHUNK_PX, ceil(y1 / CHUNK_PX)):
            for column in range(x0 // CHUNK_PX, ceil(x1 / CHUNK_PX)):
                top, left = row * CHUNK_PX, column * CHUNK_PX
                a, b = max(y0, top), min(y1, top + CHUNK_PX)
                c, d = max(x0, left), min(x1, left + CHUNK_PX)
                chunk = self._level.kept(row, column)
                if chunk is None:
                    self._want(row, column)
                    part = self._enlarged(a, b, c, d)
                else:
                    part = chunk[a - top : b - top, c - left : d - left]
                out[a - y0 : b - y0, c - x0 : d - x0] = part
        return out

    def _enlarged(self, y0: int, y1: int, x0: int, x1: int) -> NDArray[np.uint8]:
        (height, width), (rows, columns) = self._coarsest.shape[:2], self.shape[:2]
        down = self._coarsest[np.arange(y0, y1) * height // rows]
        return np.take(down, np.arange(x0, x1) * width // columns, axis=1)


class SlidePixels(QObject):
    """Reads what the canvas looks at, what was looked at last first.

    Parameters
    ----------
    reader
        The open slide; closed by :meth:`close`.
    parent
        The object that owns this one.

    Signals
    -------
    arrived
        More of the slide is there to be shown.
    failed
        Why a part could not be read, once.
    """

    arrived = Signal()
    failed = Signal(str)

    def __init__(self, reader: SlideReader, parent: QObject | None = None) -> None:
        super().__init__(parent)
        levels = reader.pyramid()
        coarsest = np.full(levels[-1].shape, _PAPER, np.uint8)
        work = _Work(reader, levels, coarsest)
        self._work, self._shown, self._told = work, 0, False
        self._timer = QTimer(self)
        self._timer.setInterval(_LOOK_MS)
        self._timer.timeout.connect(self._look)
        self.levels: list[Any] = [
            AwaitedLevel(level, coarsest, partial(self._wish_chunk, k)) for k, level in enumerate(levels[:-1])
        ]
        self.levels.append(coarsest)
        self._wish(_COARSEST)

    @property
    def waiting(self) -> bool:
        """Whether something that was looked at is not shown yet."""
        return self._work.working or self._shown != self._work.arrived

    def close(self) -> None:
        """Let go of the slide."""
        self._timer.stop()
        self._work.end()
        self.deleteLater()

    def _wish_chunk(self, level: int, row: int, column: int) -> None:
        self._wish((level, row, column))

    def _wish(self, wish: Wish) -> None:
        self._work.want(wish)
        if not self._timer.isActive():
            self._timer.start()

    def _look(self) -> None:
        work = self._work
        working, arrived = work.working, work.arrived
        if work.problem and not self._told:
            self._told = True
            self.failed.emit(work.problem)
        if arrived != self._shown:
            self._shown = arrived
            self.arrived.emit()
        elif not working:
            self._timer.stop()


def is_shown(pixels: SlidePixels, layer: Any) -> bool:
    """Whether a layer shows these levels; a second view has them too."""
    return bool(getattr(layer, "multiscale", False)) and layer.data[-1] is pixels.levels[-1]
