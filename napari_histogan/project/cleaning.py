"""Find and remove what nobody needs any more; results and human work are never among it."""

from __future__ import annotations

import glob
import os
import re
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from napari_histogan.errors import ProjectDamaged
from napari_histogan.project.artifacts import KINDS
from napari_histogan.project.atomic import TEMPORARY, is_half_written, storage_errors
from napari_histogan.project.calibrations import CALIBRATIONS
from napari_histogan.project.corrections import CORRECTIONS
from napari_histogan.project.locks import FOLDER as LOCKS
from napari_histogan.project.locks import ProjectLock
from napari_histogan.project.masks import MASKS
from napari_histogan.project.runs import RUNS, process_started, read_status, run_folders

SETTLED_S = 60.0
"""Half-written things younger than this many seconds are left alone, whoever made them."""

ELSEWHERE_S = 3600.0
"""A job of another machine counts as at work for this many seconds after its heartbeat; clocks differ."""


@dataclass(frozen=True, slots=True)
class Leftover:
    """Something that can go.

    Attributes
    ----------
    path
        A file or folder.
    why
        A clause for people.
    size
        Bytes that removing it frees.
    """

    path: Path
    why: str
    size: int


def leftovers(root: Path, settled_s: float = SETTLED_S) -> list[Leftover]:
    """Return what can be removed from a project.

    Half-written files of processes that ended; checkpoints of runs whose result is there;
    numbers that were claimed, and names of lock holders, of a process that ended.  While
    another machine works in the project, half-written things stay: whether its processes
    live cannot be seen from here.

    Parameters
    ----------
    root
        The project folder.
    settled_s
        Smallest age of half-written things in seconds.
    """
    found = [
        Leftover(path, "half written by a process that ended", _size(path))
        for path in ([] if working_elsewhere(root) else _half_written(root))
        if not _in_use(path, settled_s)
    ]
    for run in run_folders(root):
        with suppress(ProjectDamaged):
            status = read_status(run)
            if status.ended_well and (not status.artifact or (root / status.artifact).is_dir()):
                found += [
                    Leftover(path, "a checkpoint of a finished run", _size(path))
                    for folder in _folders_of(run)
                    if folder.name == "checkpoints"
                    for path in sorted(folder.iterdir())
                ]
    claims = root / LOCKS / "numbers"
    if claims.is_dir():
        found += [
            Leftover(path, "a number claimed by a process that ended", 0)
            for path in sorted(claims.iterdir())
            if _age(path) >= settled_s
        ]
    for told in sorted((root / LOCKS).glob("*.json")):
        if _age(told) >= settled_s and not ProjectLock(root, told.stem, "").is_held():
            found.append(Leftover(told, "names the holder of a lock that nobody holds", _size(told)))
    return found


def working_elsewhere(root: Path) -> list[str]:
    """Return what another machine does here, as far as the job lock and the last signs of life tell."""
    here = socket.gethostname()
    lock = ProjectLock(root, "jobs", "runs a job in")
    holder = lock.holder()
    found = [str(holder)] if holder is not None and holder.host != here and lock.is_held() else []
    for run in run_folders(root):
        with suppress(ProjectDamaged, OSError):
            status = read_status(run)
            open_end = status.state in ("queued", "running")
            seen = status.heartbeat or (run / "status.json").stat().st_mtime
            if open_end and status.host not in ("", here) and time.time() - seen < ELSEWHERE_S:
                found.append(f"{run.name} on {status.host}")
    return found


def remove(found: list[Leftover]) -> int:
    """Remove what :func:`leftovers` returned; returns the freed bytes.

    Raises
    ------
    StorageError
        If the disk is read-only.
    """
    freed = 0
    for item in found:
        with storage_errors(item.path), suppress(FileNotFoundError):
            if item.path.is_dir() and not item.path.is_symlink():
                shutil.rmtree(item.path)
            else:
                item.path.unlink()
            freed += item.size
    return freed


def _half_written(root: Path) -> Iterator[Path]:
    """Yield temporary files and folders in every place where the program makes them."""
    places = [root, root / RUNS, root / LOCKS, root / CORRECTIONS, root / CALIBRATIONS]
    places += [root / folder for folder in KINDS.values()]
    places += sorted((root / MASKS).glob("*")) + sorted((root / MASKS).glob("*/history/*"))
    places += [folder for run in run_folders(root) for folder in _folders_of(run)]
    for place in places:
        if place.is_dir():
            yield from sorted(path for path in place.iterdir() if is_half_written(path.name))


def _folders_of(run: Path) -> list[Path]:
    """Return a run folder and those within, such as the arrays of a study's parts."""
    found = []
    for folder, inner, _ in os.walk(run):
        inner[:] = sorted(name for name in inner if TEMPORARY not in name)
        found.append(Path(folder))
    return found


def remove_abandoned(target: Path) -> None:
    """Remove what processes that have ended left half written of one file, wherever it lies."""
    for path in target.parent.glob(f".{glob.escape(target.name)}{TEMPORARY}*"):
        if not _in_use(path, settled_s=0.0):
            path.unlink(missing_ok=True)


def _in_use(path: Path, settled_s: float) -> bool:
    """Whether the process that makes something may still be at it."""
    pid = re.search(rf"{re.escape(TEMPORARY)}(\d+)-", path.name)
    return (pid is not None and process_started(int(pid.group(1))) is not None) or _age(path) < settled_s


def _age(path: Path) -> float:
    """Return seconds since the newest change in a file or folder."""
    newest = 0.0
    for each in (path, *path.rglob("*")):
        with suppress(OSError):
            newest = max(newest, each.lstat().st_mtime)
    return time.time() - newest


def _size(path: Path) -> int:
    """Return the bytes of a file or of all that a folder holds."""
    if not path.is_dir():
        return path.lstat().st_size if os.path.lexists(path) else 0
    return sum(each.lstat().st_size for each in path.rglob("*") if each.is_file())
