"""Zarr groups of results, as they are read: whatever is damaged becomes one error in plain words.

A project may come from somebody else, and a disk may lose a sector; the libraries below zarr then raise
errors of a dozen kinds, at the first read of a chunk, long after the group was opened.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.errors import BaseZarrError

from napari_histogan.errors import DAMAGE, StorageError

_LARGEST_CHUNK_BYTES = 1 << 30
_ALL = slice(None)


class StoredArray:
    """A zarr array that can only be read.

    Parameters
    ----------
    array
        The zarr array.
    path
        Of the group, for messages.

    Attributes
    ----------
    shape, chunks, shards, dtype
        As zarr gives them; ``shards`` is None for an array without.
    """

    def __init__(self, array: Any, path: Path) -> None:
        self._array, self._path = array, path
        self.shape: tuple[int, ...] = tuple(array.shape)
        self.chunks: tuple[int, ...] = tuple(array.chunks)
        self.shards: tuple[int, ...] | None = tuple(array.shards) if array.shards else None
        self.dtype: np.dtype[Any] = array.dtype

    def __len__(self) -> int:
        """Return the number of rows."""
        return self.shape[0]

    def __getitem__(self, key: Any) -> NDArray[Any]:
        """Read what slices and integers select.

        Raises
        ------
        StorageError
            If it cannot be decoded.
        """
        with _in_plain_words(self._path):
            return np.asarray(self._array[key])

    def rows(self, numbers: Sequence[int] | NDArray[np.integer[Any]]) -> NDArray[Any]:
        """Read rows by their numbers, in that order; raises ``StorageError`` as well."""
        with _in_plain_words(self._path):
            return np.asarray(self._array.oindex[np.asarray(numbers, np.int64)])


class StoredGroup:
    """A zarr group that can only be read.

    Parameters
    ----------
    path
        Of the group.
    needs
        Arrays that must be there.

    Attributes
    ----------
    path
        Of the group.
    attrs
        Attributes of the group, as they are stored.

    Raises
    ------
    StorageError
        If there is no group, or one of the arrays is missing, damaged, or has absurdly large chunks.
    """

    def __init__(self, path: Path, needs: Sequence[str]) -> None:
        self.path = path
        with _in_plain_words(path):
            self._group: Any = zarr.open_group(str(path), mode="r")
            self.attrs: dict[str, Any] = dict(self._group.attrs)
            self._arrays = {name: self._open(name) for name in needs}

    def __getitem__(self, name: str) -> StoredArray:
        """Return an array of the group; raises ``StorageError`` if there is none."""
        if name not in self._arrays:
            with _in_plain_words(self.path):
                self._arrays[name] = self._open(name)
        return self._arrays[name]

    def __contains__(self, name: str) -> bool:
        """Whether the group has an array of this name."""
        with _in_plain_words(self.path):
            return name in self._arrays or name in self._group

    def get(self, name: str) -> StoredArray | None:
        """Return an array of the group, or None."""
        if name not in self:
            return None
        return self[name]

    def whole(self, name: str) -> NDArray[Any] | None:
        """Read all of an array; None if there is none."""
        array = self.get(name)
        return None if array is None else array[_ALL]

    def _open(self, name: str) -> StoredArray:
        array: Any = self._group[name]
        if not isinstance(array, zarr.Array) or not array.ndim:
            raise ValueError(f"{name} is no array")
        if (size := prod(array.chunks) * array.dtype.itemsize) > _LARGEST_CHUNK_BYTES:
            raise ValueError(f"a chunk of {name} has {size:,} bytes")
        return StoredArray(array, self.path)


@contextmanager
def _in_plain_words(path: Path) -> Iterator[None]:
    try:
        yield
    except IndexError:
        raise  # the caller's fault
    except StorageError:
        raise
    except (BaseZarrError, *DAMAGE) as error:
        raise StorageError(
            f"{path} cannot be read ({type(error).__name__}: {error})",
            "a whole group of arrays, as this program writes it",
            "make it again, or restore the folder from a backup",
        ) from error
