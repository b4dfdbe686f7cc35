"""Painters that are ended before the window shows what they drew, whatever happens in between."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from qtpy.QtGui import QPaintDevice, QPainter


@contextmanager
def painter_on(target: QPaintDevice) -> Iterator[QPainter]:
    """Paint on a picture, or on a widget within its ``paintEvent``.

    A painter that merely goes out of scope lives on as long as anything holds the frame of the call: the
    traceback of an error, or a thread that looks at stacks.  Qt then composes the window while it is painted,
    and the process may end.

    Parameters
    ----------
    target
        What to paint on.
    """
    painter = QPainter(target)
    try:
        yield painter
    finally:
        painter.end()
