"""The masks that people painted on samples.

This is the one thing that no stage can make again.  Every save is atomic and keeps
the version before it, and nothing here deletes.
"""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from napari_histogan.errors import DAMAGE, LabelError, ProjectDamaged, StorageError
from napari_histogan.labels.classes import ClassTable
from napari_histogan.project.artifacts import Parent
from napari_histogan.project.atomic import read_bytes, storage_errors, write_bytes

MASKS = "labels/masks"
_COMPRESSING = ThreadPoolExecutor(1, "mask-history")


class MaskStore:
    """The painted masks of one samples artifact.

    ``00042.npy`` is the mask of sample 42, ``history/00042/3.npy.z`` its third version
    before that, compressed by zlib.

    Parameters
    ----------
    folder
        ``labels/masks/0004``; made by the first save.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._last: tuple[Path, tuple[int, int], NDArray[np.uint8]] | None = None
        self._versions: dict[int, int] = {}
        self._painted: dict[int, tuple[tuple[int, int], bool]] = {}

    def path(self, index: int) -> Path:
        """Return the file of the mask of sample ``index``, there or not.

        Raises
        ------
        LabelError
            If the index is negative.
        """
        if index < 0:
            raise LabelError(f"there is no sample {index}", "0 or more")
        return self.folder / f"{index:05d}.npy"

    def save(self, index: int, mask: NDArray[np.uint8], classes: ClassTable) -> bool:
        """Keep a mask; the version before it goes to the history.

        Parameters
        ----------
        index
            Number of the sample.
        mask
            ``(R, R)`` uint8: 0 unlabeled, 1 to K classes.
        classes
            The classes of the project.

        Returns
        -------
        bool
            False if the mask is what was stored already.

        Raises
        ------
        LabelError
            If the mask does not fit the classes, or the shape of the version before.
        StorageError
            If the disk is full; the stored mask is untouched.
        """
        path = self.path(index)
        classes.check_mask(mask, f"the mask of sample {index}")
        with storage_errors(self.folder, mask.nbytes):
            self.folder.mkdir(parents=True, exist_ok=True)
        if self._is_stored(index, mask):
            return False
        self._keep(index)
        # Not waiting for the disk keeps autosave within a few milliseconds; a crash of the
        # program loses nothing, and after a power cut the version before is in the history.
        write_npy(path, mask, durable=False)
        self._last = (path, _stamp(path), mask.copy())
        return True

    def load(self, index: int) -> NDArray[np.uint8] | None:
        """Return the mask of a sample, ``(R, R)`` uint8, or None if there is none.

        Raises
        ------
        ProjectDamaged
            If the file is not a mask; the history may hold an earlier version.
        """
        path = self.path(index)
        try:
            return read_npy(read_bytes(path))
        except FileNotFoundError:
            return None
        except StorageError:
            raise
        except DAMAGE as error:
            raise ProjectDamaged(
                f"{path} is not a mask: {error}", "a uint8 npy file", self._rescue(index)
            ) from error

    def history(self, index: int) -> list[Path]:
        """Return the files of the earlier versions of a mask, oldest first."""
        folder = self._history(index)
        if not folder.is_dir():
            return []
        found = {_version(path): path for path in folder.glob("*.npy.z")}
        found.update({_version(path): path for path in folder.glob("*.npy")})
        return [found[version] for version in sorted(found)]

    def load_version(self, path: Path) -> NDArray[np.uint8]:
        """Return one earlier version, ``(R, R)`` uint8; raises ``ProjectDamaged``."""
        try:
            data = path.read_bytes()
            return read_npy(zlib.decompress(data) if path.suffix == ".z" else data)
        except DAMAGE as error:
            raise ProjectDamaged(f"{path} is not a mask: {error}", "a uint8 npy file") from error

    def _rescue(self, index: int) -> str:
        """Say which earlier version of a damaged mask is the newest whole one."""
        for path in reversed(self.history(index)):
            with suppress(ProjectDamaged):
                pixels = np.count_nonzero(self.load_version(path))
                return f"paint the sample again; {path} holds the version before, {pixels:,} pixels painted"
        return "paint the sample again, or restore a backup; the history holds no earlier version"

    def finish_history(self) -> None:
        """Wait until every earlier version is compressed."""
        _COMPRESSING.submit(int).result()

    def indices(self) -> list[int]:
        """Return the samples that have a mask, painted or all erased."""
        if not self.folder.is_dir():
            return []
        return sorted(int(p.stem) for p in self.folder.glob("*.npy") if p.stem.isdecimal())

    def painted(self) -> list[int]:
        """Return the samples with at least one labeled pixel."""
        return [index for index in self.indices() if self._is_painted(index)]

    def content_hash(self) -> str:
        """Return sha256 in hex over all painted masks."""
        digest = hashlib.sha256(b"masks")
        for index in self.painted():
            mask = self.load(index)
            if mask is not None:
                digest.update(f"{index} {mask.shape}".encode())
                digest.update(np.ascontiguousarray(mask).data)
        return digest.hexdigest()

    def as_parent(self) -> Parent:
        """Return what an artifact made from these masks records."""
        return Parent(f"masks/{self.folder.name}", self.content_hash())

    def largest_value(self) -> int:
        """Return the highest class number used in any mask."""
        masks = (self.load(index) for index in self.indices())
        return max((int(mask.max(initial=0)) for mask in masks if mask is not None), default=0)

    def _history(self, index: int) -> Path:
        return self.folder / "history" / f"{index:05d}"

    def _is_stored(self, index: int, mask: NDArray[np.uint8]) -> bool:
        """Whether a mask is what its file holds; the one saved last is known without reading."""
        path = self.path(index)
        if not path.exists():
            return False
        if self._last is None or self._last[:2] != (path, _stamp(path)):
            try:
                stored = self.load(index)
            except ProjectDamaged:
                return False  # goes to the history; a damaged file must not stop a save
        else:
            stored = self._last[2]
        return stored is not None and np.array_equal(stored, mask)

    def _keep(self, index: int) -> None:
        """Put the stored version into the history: a second name now, compressed a moment later."""
        path, folder = self.path(index), self._history(index)
        if not path.exists():
            return
        with storage_errors(folder, path.stat().st_size):
            folder.mkdir(parents=True, exist_ok=True)
            number = self._versions.get(index) or max((_version(p) for p in folder.iterdir()), default=0)
            while True:
                number += 1
                version = folder / f"{number}.npy"
                try:
                    if not version.with_suffix(".npy.z").exists():
                        os.link(path, version)
                        break
                except FileExistsError:
                    continue
                except OSError:  # a disk without second names
                    shutil.copyfile(path, version)
                    break
        self._versions[index] = number
        _COMPRESSING.submit(_compress, version)

    def _is_painted(self, index: int) -> bool:
        """Whether a mask has a labeled pixel; files that did not change are not read again."""
        stamp = _stamp(self.path(index))
        known = self._painted.get(index)
        if known is None or known[0] != stamp:
            mask = self.load(index)
            known = self._painted[index] = (stamp, mask is not None and bool(mask.any()))
        return known[1]


def _stamp(path: Path) -> tuple[int, int]:
    """Return what changes whenever a file is replaced."""
    stat = path.stat()
    return stat.st_mtime_ns, stat.st_ino


def _compress(version: Path) -> None:
    """Compress one version of a mask; what cannot be compressed now stays as it is."""
    with suppress(OSError, StorageError):
        packed = version.with_suffix(".npy.z")
        saved = version.stat()
        write_bytes(packed, zlib.compress(version.read_bytes(), 1), durable=False)
        os.utime(packed, ns=(saved.st_atime_ns, saved.st_mtime_ns))  # when it was painted
        version.unlink()


def _version(path: Path) -> int:
    """Return the number of a version's file."""
    digits = path.name.split(".")[0]
    return int(digits) if digits.isdecimal() else 0


def write_npy(path: Path, mask: NDArray[np.uint8], durable: bool = True) -> None:
    """Replace ``path`` by a mask as an npy file, in one rename."""
    mask = np.ascontiguousarray(mask)
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, np.lib.format.header_data_from_array_1_0(mask))
    write_bytes(path, header.getvalue(), memoryview(mask.reshape(-1)), durable=durable)


def read_npy(data: bytes) -> NDArray[np.uint8]:
    """Read an npy file of a mask; executes nothing.

    Raises
    ------
    ValueError
        If it is not a two-dimensional uint8 array.
    """
    try:
        array = np.lib.format.read_array(io.BytesIO(data), allow_pickle=False)
    except DAMAGE as error:
        raise ValueError(str(error)) from error
    if array.dtype != np.uint8 or array.ndim != 2:
        raise ValueError(f"{array.dtype} of shape {array.shape}")
    return array
