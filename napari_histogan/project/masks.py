"""What people painted: masks of samples and corrected regions of slides.

This is the one thing that no stage can make again.  Every save is atomic and keeps
the version before it, and nothing here deletes.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_histogan.errors import LabelError, ProjectDamaged
from napari_histogan.geometry import Region
from napari_histogan.labels.classes import ClassTable
from napari_histogan.project.artifacts import Parent
from napari_histogan.project.atomic import (
    read_json,
    storage_errors,
    temporary_sibling,
    write_bytes,
    write_json,
)
from napari_histogan.project.locks import now

MASKS = "labels/masks"
CORRECTIONS = "labels/corrections"
_CORRECTION_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 _.-]{0,99}")


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
        self._next_version: dict[int, int] = {}
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
            ``(R, R)`` uint8: 0 unlabelled, 1 to K classes.
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
        data = _npy_bytes(mask)
        try:
            before = path.read_bytes()
        except FileNotFoundError:
            before = b""
        if before == data:
            return False
        if before:
            self._keep(index, before)
        # Not waiting for the disk keeps autosave within a few milliseconds; a crash of the
        # program loses nothing, and after a power cut the version before is in the history.
        write_bytes(path, data, durable=False)
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
            return _read_npy(path.read_bytes())
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise ProjectDamaged(
                f"{path} is not a mask: {error}", "a uint8 npy file", f"see {self._history(index)}"
            ) from error

    def history(self, index: int) -> list[Path]:
        """Return the files of the earlier versions of a mask, oldest first."""
        folder = self._history(index)
        if not folder.is_dir():
            return []
        return sorted(folder.glob("*.npy.z"), key=_version)

    def load_version(self, path: Path) -> NDArray[np.uint8]:
        """Return one earlier version, ``(R, R)`` uint8."""
        return _read_npy(zlib.decompress(path.read_bytes()))

    def indices(self) -> list[int]:
        """Return the samples that have a mask, painted or all erased."""
        if not self.folder.is_dir():
            return []
        return sorted(int(p.stem) for p in self.folder.glob("*.npy") if p.stem.isdecimal())

    def painted(self) -> list[int]:
        """Return the samples with at least one labelled pixel."""
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

    def _keep(self, index: int, before: bytes) -> None:
        """Put a version into the history."""
        folder = self._history(index)
        if index not in self._next_version:
            folder.mkdir(parents=True, exist_ok=True)
            self._next_version[index] = max((_version(p) for p in self.history(index)), default=0) + 1
        write_bytes(folder / f"{self._next_version[index]}.npy.z", zlib.compress(before, 1), durable=False)
        self._next_version[index] += 1

    def _is_painted(self, index: int) -> bool:
        """Whether a mask has a labelled pixel; files that did not change are not read again."""
        stat = self.path(index).stat()
        stamp = (stat.st_mtime_ns, stat.st_ino)
        known = self._painted.get(index)
        if known is None or known[0] != stamp:
            mask = self.load(index)
            known = self._painted[index] = (stamp, mask is not None and bool(mask.any()))
        return known[1]


@dataclass(frozen=True, slots=True, eq=False)
class Correction:
    """A rectangle of a slide in which a person set every class right.

    Parameters
    ----------
    name
        Unique in the project; letters, digits, blank, ``_ . -``.
    slide
        Name of the slide.
    region
        Where, in pixels at ``mpp``.
    mpp
        Microns per pixel of region and mask.
    mask
        ``(region.height, region.width)`` uint8: 0 unlabelled, 1 to K classes.
    source
        Id of the heatmap that was corrected, or "".
    author
        Who did it, or "".
    created
        When, UTC, ISO 8601; filled in by the save if empty.
    """

    name: str
    slide: str
    region: Region
    mpp: float
    mask: NDArray[np.uint8]
    source: str = ""
    author: str = ""
    created: str = ""

    def region_dict(self) -> dict[str, Any]:
        """Return ``region.json``."""
        return {
            "slide": self.slide,
            "y": self.region.y,
            "x": self.region.x,
            "height": self.region.height,
            "width": self.region.width,
            "mpp": self.mpp,
            "source": self.source,
            "author": self.author,
            "created": self.created or now(),
        }


def save_correction(root: Path, correction: Correction, classes: ClassTable) -> None:
    """Keep a corrected region; one of the same name goes to the history.

    Raises
    ------
    LabelError
        If name, mask, and region do not fit.
    StorageError
        If the disk is full; the stored correction is untouched.
    """
    if not _CORRECTION_NAME.fullmatch(correction.name) or correction.name == "history":
        raise LabelError(f"a correction cannot be called {correction.name!r}", "letters, digits, _ . -")
    if correction.mask.shape != correction.region.size.shape or correction.mpp <= 0:
        raise LabelError(
            f"the mask is {correction.mask.shape} at {correction.mpp} um/px",
            f"{correction.region.size.shape}, the size of its region, and a positive resolution",
        )
    classes.check_mask(correction.mask, f"the correction {correction.name}")
    folder = root / CORRECTIONS / correction.name
    temporary = temporary_sibling(folder)
    with storage_errors(folder, correction.mask.nbytes):
        temporary.mkdir(parents=True)
        write_bytes(temporary / "mask.npy", _npy_bytes(correction.mask))
        write_json(temporary / "region.json", correction.region_dict())
        if folder.exists():
            history = root / CORRECTIONS / "history"
            history.mkdir(exist_ok=True)
            number = sum(1 for p in history.iterdir() if p.name.startswith(correction.name + "-")) + 1
            os.rename(folder, history / f"{correction.name}-{number}")
        os.rename(temporary, folder)


def load_corrections(root: Path) -> list[Correction]:
    """Return the corrected regions by name.

    Raises
    ------
    ProjectDamaged
        If a region's files are missing or do not fit.
    """
    return [_read_correction(folder) for folder in _correction_folders(root)]


def corrections_parent(root: Path) -> Parent:
    """Return what an artifact made from the corrections records."""
    digest = hashlib.sha256(b"corrections")
    for correction in load_corrections(root):
        place = correction.region_dict()
        place.pop("created")
        digest.update(f"{correction.name} {sorted(place.items())}".encode())
        digest.update(np.ascontiguousarray(correction.mask).data)
    return Parent(CORRECTIONS, digest.hexdigest())


def human_files(root: Path) -> Iterator[Path]:
    """Yield every file below ``labels/`` that people made, in order."""
    for path in sorted((root / "labels").rglob("*")):
        if path.is_file() and not path.is_symlink() and not path.name.startswith("."):
            yield path


def _correction_folders(root: Path) -> Iterable[Path]:
    folder = root / CORRECTIONS
    if not folder.is_dir():
        return []
    return sorted(p for p in folder.iterdir() if (p / "region.json").is_file() and not p.name.startswith("."))


def _read_correction(folder: Path) -> Correction:
    """Read one corrected region."""
    place = read_json(folder / "region.json")
    try:
        region = Region(int(place["y"]), int(place["x"]), int(place["height"]), int(place["width"]))
        mask = _read_npy((folder / "mask.npy").read_bytes())
        if mask.shape != region.size.shape:
            raise ValueError(f"the mask is {mask.shape}, its region {region.size.shape}")
        return Correction(
            name=folder.name,
            slide=str(place["slide"]),
            region=region,
            mpp=float(place["mpp"]),
            mask=mask,
            source=str(place.get("source", "")),
            author=str(place.get("author", "")),
            created=str(place.get("created", "")),
        )
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise ProjectDamaged(f"the correction {folder} cannot be read: {error}", "region and mask") from error


def _version(path: Path) -> int:
    """Return the number of a version's file."""
    digits = path.name.split(".")[0]
    return int(digits) if digits.isdecimal() else 0


def _npy_bytes(mask: NDArray[np.uint8]) -> bytes:
    """Return a mask as an npy file."""
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.ascontiguousarray(mask), allow_pickle=False)
    return buffer.getvalue()


def _read_npy(data: bytes) -> NDArray[np.uint8]:
    """Read an npy file of a mask; executes nothing.

    Raises
    ------
    ValueError
        If it is not a two-dimensional uint8 array.
    """
    array = np.lib.format.read_array(io.BytesIO(data), allow_pickle=False)
    if array.dtype != np.uint8 or array.ndim != 2:
        raise ValueError(f"{array.dtype} of shape {array.shape}")
    return array
