"""Save what people did in one small zip, and bring it back; results can be made again, this cannot."""

from __future__ import annotations

import io
import json
import os
import zipfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_histogan import __version__
from napari_histogan.errors import DAMAGE, LabelError, ProjectDamaged, ProjectError, ProjectTooNew
from napari_histogan.labels.classes import ClassTable
from napari_histogan.project.artifacts import artifact_folders, read_artifact
from napari_histogan.project.atomic import storage_errors, temporary_sibling, write_bytes
from napari_histogan.project.backup_samples import (
    PAINTED,
    made_from,
    missing_samples,
    painted_latents,
    places_of_masks,
    refuse_other_samples,
)
from napari_histogan.project.cleaning import remove_abandoned
from napari_histogan.project.corrections import CORRECTIONS, Correction, correction_from
from napari_histogan.project.document import FILE
from napari_histogan.project.locks import now
from napari_histogan.project.masks import MASKS, read_npy
from napari_histogan.project.slide_list import slides_from
from napari_histogan.project.store import Project

FORMAT = 1
MANIFEST = "backup.json"
SLIDES = "slides.json"
MAX_FILE_BYTES = 1 << 30
"""A zip that claims to unpack to more in one file is refused."""


@dataclass(frozen=True, slots=True)
class Restored:
    """What :func:`restore` brought back.

    Attributes
    ----------
    project
        With masks, corrections, labels, and classes of the backup.
    notes
        What to know: which samples that masks of the backup were painted on the project does not
        have, and how to make them again; and classes that the backup does not know.
    """

    project: Project
    notes: tuple[str, ...]


def back_up(project: Project, target: Path, force: bool = False) -> int:
    """Write masks, corrections, labels, classes, and the slide list to a zip.

    Earlier versions of masks stay behind: they are in the project's history.  Of every
    painted sample its style and the seed of its noise are kept (``painted/0004.npz``:
    ``index`` (n,) int64, ``w`` (n, num_ws, w_dim) float32, ``noise_seed`` (n,) int64), and
    from which generator it came, so that the very picture can be made again.

    Parameters
    ----------
    project
        Where from.
    target
        The zip.
    force
        Replace the zip, in one rename, if it exists.

    Returns
    -------
    int
        How many files of labels it holds.

    Raises
    ------
    ProjectError
        If the zip exists.
    StorageError
        If the disk is full or read-only.
    """
    if target.exists() and not force:
        raise ProjectError(
            f"{target} exists already", "a new file", "take another name, or --force to replace it"
        )
    files = _label_files(project.root)
    with storage_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        remove_abandoned(target)
        temporary = temporary_sibling(target)
        try:
            with zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as bundle:
                # The moment by the clock that dates the masks: a disk's may lag behind this machine's.
                moment = temporary.stat().st_mtime
                bundle.writestr(MANIFEST, json.dumps(_manifest(project, moment), indent=1))
                for name in (FILE, SLIDES):
                    bundle.write(project.root / name, name)
                for path in files:
                    bundle.write(path, path.relative_to(project.root).as_posix())
                for name, data in painted_latents(project):
                    bundle.writestr(name, data)
            os.replace(temporary, target)
        except BaseException:
            with suppress(OSError):
                temporary.unlink()
            raise
    return len(files)


def restore(source: Path, root: Path, force: bool = False) -> Restored:
    """Bring a backup into a project; what it would replace goes to the history.

    Parameters
    ----------
    source
        A zip that :func:`back_up` wrote.
    root
        A project, or a new or empty folder, which then becomes one.
    force
        Also replace masks that are newer than the backup.

    Returns
    -------
    Restored
        The project, and which samples it lacks.

    Raises
    ------
    ProjectDamaged
        If the file is no backup, is damaged, or holds names that lead out of the project.
    ProjectTooNew
        If a newer version wrote it.
    LabelError
        If its masks were painted on other samples than those of the project, it has other
        classes than the project (more at the end are fine), or a mask of the project differs
        and was painted after the backup was made.
    """
    names, read = _open_backup(source)
    manifest = json.loads(read(MANIFEST))
    table = ClassTable.from_dicts(manifest["classes"])
    if (root / FILE).exists():
        project = Project.open(root)
        places = places_of_masks(project, manifest, read)
        refuse_other_samples(project, manifest, places)
        _refuse_other_classes(project.classes, table)
        if not force:
            _refuse_newer_masks(project, source, names, read, places)
        if table.num_classes > project.classes.num_classes:
            project.set_classes(table)
    else:
        project, places = Project.create(root, manifest["name"], table), {}
    slides = slides_from(json.loads(read(SLIDES)), project.root)
    known = {entry.name for entry in project.slides()}
    project.add_slide_entries(entry for entry in slides if entry.name not in known)
    for name in names:
        _restore_file(project, PurePosixPath(name), read, places)
    notes = list(missing_samples(project, manifest, names, places))
    if table.num_classes < project.classes.num_classes:
        added = ", ".join(project.classes.names[table.num_classes :])
        notes.append(f"the backup does not know the classes {added}; the project keeps them")
    return Restored(project, tuple(notes))


def _restore_file(project: Project, name: PurePosixPath, read: Any, places: dict[str, str]) -> None:
    """Bring one file of labels back."""
    if name.is_relative_to(MASKS) and name.suffix == ".npy":
        if not name.stem.isdecimal():
            raise ProjectDamaged(f"the backup holds a mask called {name}", "labels/masks/0004/00042.npy")
        mask = _mask(read(str(name)), str(name))
        project.save_mask(f"samples/{_place(name, places)}", int(name.stem), mask)
    elif name.is_relative_to(CORRECTIONS):
        if name.name == "region.json":
            place = json.loads(read(str(name)))
            mask = _mask(read(str(name.parent / "mask.npy")), str(name))
            correction = correction_from(name.parent.name, place, mask)
            if not _has(project, correction):
                project.save_correction(correction)
    elif name.is_relative_to("labels"):
        target, data = project.root / name, read(str(name))
        with storage_errors(target, len(data)):
            target.parent.mkdir(parents=True, exist_ok=True)
            if target.exists() and target.read_bytes() != data:
                os.replace(target, target.with_name(f"{target.name}.before-{now().replace(':', '')}"))
        write_bytes(target, data)


def _has(project: Project, new: Correction) -> bool:
    """Whether a correction is stored already, equal in every pixel."""
    return any(
        c.name == new.name and c.region == new.region and np.array_equal(c.mask, new.mask)
        for c in project.corrections()
    )


def _manifest(project: Project, moment: float) -> dict[str, Any]:
    """Return what a backup that was begun at a moment says of itself."""
    samples = [read_artifact(folder) for folder in artifact_folders(project.root, "samples")]
    return {
        "format": FORMAT,
        "program_version": __version__,
        "name": project.name,
        "created": now(),
        "moment": moment,
        "classes": project.classes.to_dicts(),
        "samples": {f"{artifact.number:04d}": artifact.hash for artifact in samples},
        "made_from": made_from(project),
    }


def _label_files(root: Path) -> list[Path]:
    """Return the present files of human work, without history and half-written ones."""
    found = []
    for path in sorted((root / "labels").rglob("*")):
        parts = path.relative_to(root).parts
        if path.is_file() and not any(part == "history" or part.startswith(".") for part in parts):
            found.append(path)
    return found


def _open_backup(source: Path) -> tuple[list[str], Any]:
    """Check a zip and return the names of its labels and a function that reads one."""
    try:
        content = source.read_bytes()
        bundle = zipfile.ZipFile(io.BytesIO(content))
        infos = bundle.infolist()
        manifest = json.loads(bundle.read(MANIFEST))
        newer = int(manifest["format"]) > FORMAT
        _ = manifest["name"], manifest["classes"], manifest["samples"]
    except FileNotFoundError as error:
        raise ProjectError(f"there is no backup {source}", "a zip", "check the path") from error
    except (zipfile.BadZipFile, *DAMAGE) as error:
        raise ProjectDamaged(
            f"{source} is no backup: {error}", "a zip that `histogan backup` wrote", "take another copy"
        ) from error
    if newer:
        raise ProjectTooNew(
            f"{source} has format {manifest['format']}", f"format {FORMAT} or older", "update this program"
        )
    for info in infos:
        _check_name(source, info)

    def read(name: str) -> bytes:
        try:
            return bundle.read(name)
        except (zipfile.BadZipFile, *DAMAGE) as error:
            raise ProjectDamaged(f"{name} in {source} cannot be read: {error}", "a whole backup") from error

    return [info.filename for info in infos if info.filename.startswith("labels/")], read


def _check_name(source: Path, info: zipfile.ZipInfo) -> None:
    """Refuse names that lead out of the project, and files of absurd size."""
    name = PurePosixPath(info.filename)
    known = info.filename in (MANIFEST, FILE, SLIDES) or name.parts[:1] in (("labels",), (PAINTED,))
    odd = "\\" in info.filename or ":" in info.filename or name.is_absolute() or ".." in name.parts
    if not known or odd or info.is_dir() or info.file_size > MAX_FILE_BYTES:
        raise ProjectDamaged(
            f"{source} holds {info.filename!r} of {info.file_size:,} bytes",
            "project.toml, slides.json, and files below labels/ and painted/",
            "do not use this file; it is not a backup of this program",
        )


def _mask(data: bytes, name: str) -> NDArray[np.uint8]:
    """Read a mask of a backup."""
    try:
        return read_npy(data)
    except ValueError as error:
        raise ProjectDamaged(f"{name} in the backup is no mask: {error}", "uint8 npy") from error


def _refuse_other_classes(present: ClassTable, stored: ClassTable) -> None:
    """Raise unless the classes of the backup and of the project begin alike: numbers in masks mean names."""
    if stored.num_classes < present.num_classes and stored.names == present.names[: stored.num_classes]:
        return  # added since; the project keeps all of its own
    if present.names != stored.names[: present.num_classes]:
        raise LabelError(
            f"the backup has the classes {', '.join(stored.names)}, the project {', '.join(present.names)}",
            "the same classes in the same order; some may be added at the end",
            "restore into a new folder, or rename the project's classes first",
        )


def _place(name: PurePosixPath, places: dict[str, str]) -> str:
    """Return the number of the samples that a mask of the backup goes to."""
    return places.get(name.parent.name, name.parent.name)


def _refuse_newer_masks(
    project: Project, source: Path, names: list[str], read: Any, places: dict[str, str]
) -> None:
    """Raise if masks of the project differ from those of the backup and were painted after it was made."""
    made = float(json.loads(read(MANIFEST)).get("moment", 0.0))
    newer = []
    for name in map(PurePosixPath, names):
        path = project.root / MASKS / _place(name, places) / name.name
        if not name.is_relative_to(MASKS) or not path.is_file() or path.stat().st_mtime < made:
            continue
        if path.read_bytes() != read(str(name)):
            newer.append(str(name.relative_to(MASKS)))
    if newer:
        raise LabelError(
            f"{len(newer)} masks were painted after {source} was made, such as {newer[0]}",
            "masks that are not newer",
            "restore into a new folder, or replace them with --force; the history keeps the newer ones",
        )
