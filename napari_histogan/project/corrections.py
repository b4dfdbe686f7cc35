"""Regions of slides that people corrected.

Like the masks they are human work: saves are atomic, keep the version before, and
nothing here deletes.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import time
from contextlib import suppress
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
    TEMPORARY,
    read_json,
    storage_errors,
    temporary_sibling,
    write_json,
)
from napari_histogan.project.locks import now
from napari_histogan.project.masks import read_npy, write_npy
from napari_histogan.project.runs import process_started

CORRECTIONS = "labels/corrections"
HISTORY = "history"
ABANDONED_S = 5.0
"""A replacement that nobody ended within this many seconds is brought to its end by the next reader."""
_CORRECTION_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 _.-]{0,99}")


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
        ``(region.height, region.width)`` uint8: 0 unlabeled, 1 to K classes.
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
    if not _CORRECTION_NAME.fullmatch(correction.name) or correction.name == HISTORY:
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
        try:
            temporary.mkdir(parents=True)
            write_npy(temporary / "mask.npy", correction.mask)
            write_json(temporary / "region.json", correction.region_dict())
            _replace(temporary, folder)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise


def _replace(temporary: Path, folder: Path) -> None:
    """Put a whole correction in place, the one before into the history; after an error all is as before."""
    kept = None
    if folder.exists():
        kept = _next_version(folder)
        kept.parent.mkdir(exist_ok=True)
        os.rename(folder, kept)
    try:
        os.rename(temporary, folder)
    except BaseException:
        if kept is not None:
            os.rename(kept, folder)
        raise


def _next_version(folder: Path) -> Path:
    """Return where the present version of a correction goes; no two versions share a number."""
    history = folder.parent / HISTORY
    number = 1
    while (history / f"{folder.name}-{number}").exists():
        number += 1
    return history / f"{folder.name}-{number}"


def _finish_replacements(root: Path) -> None:
    """Put corrections in place whose process was killed after the version before had gone to the history."""
    folder = root / CORRECTIONS
    for path in folder.glob(f".*{TEMPORARY}*") if folder.is_dir() else ():
        name, _, maker = path.name[1:].partition(TEMPORARY)
        pid = maker.partition("-")[0]
        with suppress(OSError):
            settled = time.time() - path.stat().st_mtime > ABANDONED_S
            gone = not (pid.isdecimal() and process_started(int(pid)) is not None)
            whole = (path / "region.json").is_file()
            replaced = not (folder / name).exists() and (folder / HISTORY / f"{name}-1").exists()
            if settled and gone and whole and replaced:
                os.rename(path, folder / name)


def load_corrections(root: Path) -> list[Correction]:
    """Return the corrected regions by name.

    Raises
    ------
    ProjectDamaged
        If a region's files are missing or do not fit.
    """
    _finish_replacements(root)
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


def _correction_folders(root: Path) -> list[Path]:
    folder = root / CORRECTIONS
    if not folder.is_dir():
        return []
    return sorted(p for p in folder.iterdir() if (p / "region.json").is_file() and not p.name.startswith("."))


def _read_correction(folder: Path) -> Correction:
    """Read one corrected region."""
    place = read_json(folder / "region.json")
    try:
        mask = read_npy((folder / "mask.npy").read_bytes())
    except (OSError, ValueError) as error:
        raise ProjectDamaged(f"the mask of {folder} cannot be read: {error}", "a uint8 npy file") from error
    return correction_from(folder.name, place, mask)


def correction_from(name: str, place: dict[str, Any], mask: NDArray[np.uint8]) -> Correction:
    """Build a correction from the content of its files.

    Raises
    ------
    ProjectDamaged
        If they do not fit each other.
    """
    try:
        region = Region(int(place["y"]), int(place["x"]), int(place["height"]), int(place["width"]))
        if mask.shape != region.size.shape:
            raise ValueError(f"the mask is {mask.shape}, its region {region.size.shape}")
        return Correction(
            name=name,
            slide=str(place["slide"]),
            region=region,
            mpp=float(place["mpp"]),
            mask=mask,
            source=str(place.get("source", "")),
            author=str(place.get("author", "")),
            created=str(place.get("created", "")),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ProjectDamaged(f"the correction {name} is damaged: {error}", "region and mask") from error
