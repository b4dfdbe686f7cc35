"""A bounded store of decoded tiles, shared by the threads that read a slide."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable

import numpy as np
import numpy.typing as npt

UInt8Array = npt.NDArray[np.uint8]


class TileCache:
    """Keeps the arrays that were used last, up to a number of bytes.

    Parameters
    ----------
    max_bytes
        Upper bound of the memory held; 0 keeps nothing.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.held_bytes = 0
        self._tiles: OrderedDict[Hashable, UInt8Array] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable) -> UInt8Array | None:
        """Return the array kept under ``key``, or None; the caller must not write to it."""
        with self._lock:
            tile = self._tiles.get(key)
            if tile is not None:
                self._tiles.move_to_end(key)
            return tile

    def put(self, key: Hashable, tile: UInt8Array) -> None:
        """Keep an array and drop the ones unused for longest; too large ones are not kept."""
        if tile.nbytes > self.max_bytes:
            return
        with self._lock:
            old = self._tiles.pop(key, None)
            if old is not None:
                self.held_bytes -= old.nbytes
            self._tiles[key] = tile
            self.held_bytes += tile.nbytes
            while self.held_bytes > self.max_bytes:
                self.held_bytes -= self._tiles.popitem(last=False)[1].nbytes

    def __reduce__(self) -> tuple[type[TileCache], tuple[int]]:
        """Pickle without the tiles."""
        return type(self), (self.max_bytes,)

    def drop(self, owner: Hashable) -> None:
        """Forget what is kept under keys that are tuples beginning with ``owner``."""
        with self._lock:
            for key in [key for key in self._tiles if isinstance(key, tuple) and key[0] == owner]:
                self.held_bytes -= self._tiles.pop(key).nbytes

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._tiles.clear()
            self.held_bytes = 0
