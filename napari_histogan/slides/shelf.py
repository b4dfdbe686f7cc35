"""Many slides at once, of which few are open: systems allow a process some hundred open files."""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from napari_histogan.errors import SlideError
from napari_histogan.geometry import Region
from napari_histogan.slides.reader import SlideReader, open_slide
from napari_histogan.slides.tile_cache import UInt8Array

MOST_OPEN = 100
"""So many slides of a shelf are open at a time; a TIFF takes two files, and macOS allows 256 in all."""


class SlideShelf:
    """Slides that are opened again when they are read; the ones unused for longest are closed.

    Parameters
    ----------
    most_open
        So many slides stay open, besides those that are being read at the moment.
    """

    def __init__(self, most_open: int = MOST_OPEN) -> None:
        self._most_open = most_open
        self._open: OrderedDict[ShelvedSlide, SlideReader] = OrderedDict()
        self._reading: Counter[ShelvedSlide] = Counter()
        self._lock = threading.Lock()

    def keep(self, reader: SlideReader) -> ShelvedSlide:
        """Take over an open slide, and return a reader of it that stays valid until the shelf is closed."""
        slide = ShelvedSlide(self, reader)
        with self._lock:
            self._open[slide] = reader
        self._close_spare()
        return slide

    @property
    def num_open(self) -> int:
        """How many files are open now."""
        return len(self._open)

    def close(self, slide: ShelvedSlide | None = None) -> None:
        """Close one slide, or all."""
        with self._lock:
            wanted = [slide] if slide else list(self._open)
            gone = [self._open.pop(each) for each in wanted if each in self._open]
        for reader in gone:
            reader.close()

    @contextmanager
    def lent(self, slide: ShelvedSlide) -> Iterator[SlideReader]:
        """Give the open reader of a slide, which is not closed meanwhile."""
        with self._lock:
            self._reading[slide] += 1
            reader = self._open.get(slide)
            if reader is not None:
                self._open.move_to_end(slide)
        try:
            yield reader or self._put_back(slide, slide.reopened())
        finally:
            with self._lock:
                self._reading[slide] -= 1
            self._close_spare()

    def _put_back(self, slide: ShelvedSlide, opened: SlideReader) -> SlideReader:
        """Keep a slide that was opened again, or return the reader of a thread that was faster."""
        with self._lock:
            reader = self._open.setdefault(slide, opened)
        if reader is not opened:
            opened.close()
        return reader

    def _close_spare(self) -> None:
        with self._lock:
            idle = [slide for slide in self._open if not self._reading[slide]]
            spare = [self._open.pop(slide) for slide in idle[: max(0, len(self._open) - self._most_open)]]
        for reader in spare:
            reader.close()


class ShelvedSlide(SlideReader):
    """A slide on a shelf: knows its sizes, and opens its file when it is read.

    Raises
    ------
    SlideError
        While reading, if the file was replaced since it was put on the shelf.
    """

    def __init__(self, shelf: SlideShelf, reader: SlideReader) -> None:
        mpp = reader.mpp if reader.has_mpp else None
        super().__init__(reader.path, reader.levels, mpp, reader.given_mpp)
        self._shelf, self._state = shelf, _state_of(reader.path)

    def reopened(self) -> SlideReader:
        """Open the file again; the caller closes it."""
        reader = open_slide(self.path, self.given_mpp)
        if _state_of(self.path) != self._state:
            reader.close()
            raise SlideError(
                f"{self.path.name} was replaced while it was in use",
                "slides that stay as they are while a job runs",
                "put the old file back, or start again",
            )
        return reader

    def fingerprint(self) -> str:
        """Return the hash that the format's own reader makes."""
        with self._shelf.lent(self) as reader:
            return reader.fingerprint()

    def _read_inside(self, region: Region, level: int) -> UInt8Array:
        with self._shelf.lent(self) as reader:
            return reader.read(region, level)

    def close(self) -> None:
        """Close the file; reading opens it again."""
        super().close()
        self._shelf.close(self)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        """Pickle as path and resolution; the copy is a reader without a shelf."""
        return open_slide, (self.path, self.given_mpp)


def _state_of(path: Path) -> tuple[int, int, int]:
    """Return what changes if a file is replaced: its place on the disk, length, and time."""
    told = path.stat()
    return told.st_ino, told.st_size, told.st_mtime_ns
