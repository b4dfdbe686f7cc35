"""Save what people did in one small zip, and bring it back; results can be made again, this cannot."""

from __future__ import annotations

import io
import json
import os
import zipfile
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_histogan import __version__
from napari_histogan.errors import DAMAGE, LabelError, ProjectDamaged, ProjectError, ProjectTooNew
from napari_histogan.labels.classes import ClassTable
from napari_histogan.project.artifacts import artifact_folders, read_artifact
from napari_histogan.project.atomic import storage_errors, temporary_sibling, write_bytes
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


def back_up(project: Project, target: Path) -> int:
    """Write masks, corrections, labels, classes, and the slide list to a zip.

    Earlier versions of masks stay behind: they are in the project's history.

    Parameters
    ----------
    project
        Where from.
    target
        The zip; replaced in one rename if it exists.

    Returns
    -------
    int
        How many files of labels it holds.

    Raises
    ------
    StorageError
        If the disk is full or read-only.
    """
    files = _label_files(project.root)
    with storage_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = temporary_sibling(target)
        try:
            with zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as bundle:
                bundle.writestr(MANIFEST, json.dumps(_manifest(project), indent=1))
                for name in (FILE, SLIDES):
                    bundle.write(project.root / name, name)
                for path in files:
                    bundle.write(path, path.relative_to(project.root).as_posix())
            os.replace(temporary, target)
        except BaseException:
            with suppress(OSError):
                temporary.unlink()
            raise
    return len(files)


def restore(source: Path, root: Path) -> Project:
    """Bring a backup into a project; what it would replace goes to the history.

    Parameters
    ----------
    source
        A zip that :func:`back_up` wrote.
    root
        A project, or a new or empty folder, which then becomes one.

    Returns
    -------
    Project
        With masks, corrections, labels, and classes of the backup.

    Raises
    ------
    ProjectDamaged
        If the file is no backup, is damaged, or holds names that lead out of the project.
    ProjectTooNew
        If a newer version wrote it.
    LabelError
        If its masks were painted on other samples than those of the project, or its classes
        are fewer than those in use.
    """
    names, read = _open_backup(source)
    manifest = json.loads(read(MANIFEST))
    table = ClassTable.from_dicts(manifest["classes"])
    if (root / FILE).exists():
        project = Project.open(root)
        _refuse_other_samples(project, manifest["samples"])
        if table.num_classes >= project.classes.num_classes:
            project.set_classes(table)
    else:
        project = Project.create(root, manifest["name"], table)
    slides = slides_from(json.loads(read(SLIDES)), project.root)
    known = {entry.name for entry in project.slides()}
    project.add_slide_entries(entry for entry in slides if entry.name not in known)
    for name in names:
        _restore_file(project, PurePosixPath(name), read)
    return project


def _restore_file(project: Project, name: PurePosixPath, read: Any) -> None:
    """Bring one file of labels back."""
    if name.is_relative_to(MASKS) and name.suffix == ".npy":
        if not name.stem.isdecimal():
            raise ProjectDamaged(f"the backup holds a mask called {name}", "labels/masks/0004/00042.npy")
        mask = _mask(read(str(name)), str(name))
        project.save_mask(f"samples/{name.parent.name}", int(name.stem), mask)
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


def _manifest(project: Project) -> dict[str, Any]:
    """Return what a backup says of itself."""
    samples = [read_artifact(folder) for folder in artifact_folders(project.root, "samples")]
    return {
        "format": FORMAT,
        "program_version": __version__,
        "name": project.name,
        "created": now(),
        "classes": project.classes.to_dicts(),
        "samples": {f"{artifact.number:04d}": artifact.hash for artifact in samples},
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
    known = info.filename in (MANIFEST, FILE, SLIDES) or name.parts[:1] == ("labels",)
    odd = "\\" in info.filename or ":" in info.filename or name.is_absolute() or ".." in name.parts
    if not known or odd or info.is_dir() or info.file_size > MAX_FILE_BYTES:
        raise ProjectDamaged(
            f"{source} holds {info.filename!r} of {info.file_size:,} bytes",
            "project.toml, slides.json, and files below labels/",
            "do not use this file; it is not a backup of this program",
        )


def _mask(data: bytes, name: str) -> NDArray[np.uint8]:
    """Read a mask of a backup."""
    try:
        return read_npy(data)
    except ValueError as error:
        raise ProjectDamaged(f"{name} in the backup is no mask: {error}", "uint8 npy") from error


def _refuse_other_samples(project: Project, hashes: dict[str, str]) -> None:
    """Raise if masks of the backup belong to other samples than the project has under their number."""
    for artifact in project.artifacts("samples"):
        painted_on = hashes.get(f"{artifact.number:04d}")
        if painted_on is not None and painted_on != artifact.hash:
            raise LabelError(
                f"the backup's masks were painted on other samples than {artifact.id} of this project",
                "the same samples",
                "restore into a new folder, or into the project that the backup was made from",
            )
