"""Write files whole or not at all, and say in plain words when the disk refuses."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from napari_histogan.errors import HistoganError, ProjectDamaged, StorageError

TEMPORARY = ".tmp-"
"""Part of the name of everything half written; ``histogan clean`` removes what killed processes left."""

_HALF_WRITTEN = re.compile(
    r".+\.tmp|.+\.part|.+\.[0-9a-f]{32}\.partial|\..+\.\d+\.json|\..*" + re.escape(TEMPORARY) + ".*"
)
"""Names of what is renamed when it is whole: our own, and chunks of zarr."""

RESERVE_BYTES = 8 << 20
"""Space that a check leaves free, so that status files and masks can still be written."""

READ_TRIES, READ_PAUSE_S = 20, 0.01
"""How often, and after how many seconds, a file that could not be opened is asked for again."""

_FULL = {errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)}
_FORBIDDEN = {errno.EROFS, errno.EACCES, errno.EPERM}


def temporary_sibling(path: Path) -> Path:
    """Return a fresh name beside ``path`` that tells which process made it."""
    return path.with_name(f".{path.name}{TEMPORARY}{os.getpid()}-{uuid.uuid4().hex[:8]}")


def write_bytes(path: Path, data: bytes, *more: memoryview, durable: bool = True) -> None:
    """Replace ``path`` by a file that holds ``data``, in one rename.

    Parameters
    ----------
    path
        Its folder must exist.
    data, more
        The whole content, in parts if that saves copying them together.
    durable
        Wait until the disk has it; otherwise only a power cut can lose it.

    Raises
    ------
    StorageError
        If the disk is full or read-only; the earlier file is untouched.
    """
    temporary = temporary_sibling(path)
    with storage_errors(path, len(data) + sum(part.nbytes for part in more)):
        try:
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
            try:
                for part in (memoryview(data), *more):
                    left = part
                    while left:
                        left = left[os.write(descriptor, left) :]
                if durable:
                    os.fsync(descriptor)
            finally:
                os.close(descriptor)
            _replace(temporary, path)
        except BaseException:
            with suppress(OSError):
                temporary.unlink()
            raise
        if durable:
            sync_folder(path.parent)


def _replace(source: Path, target: Path) -> None:
    """Rename over a file; Windows refuses for the moment in which somebody reads it."""
    for _ in range(50 if os.name == "nt" else 0):
        try:
            os.replace(source, target)
            return
        except PermissionError:
            time.sleep(0.01)
    os.replace(source, target)


def write_json(path: Path, value: Any, durable: bool = True) -> None:
    """Replace ``path`` by ``value`` as JSON, in one rename."""
    write_bytes(path, (json.dumps(value, indent=1) + "\n").encode(), durable=durable)


def read_bytes(path: Path) -> bytes:
    """Read a file that another process may be replacing; Windows refuses for that moment.

    Raises
    ------
    OSError
        As ``Path.read_bytes``; a ``PermissionError`` only when it lasts.
    """
    for _ in range(READ_TRIES - 1):
        try:
            return path.read_bytes()
        except PermissionError:
            time.sleep(READ_PAUSE_S)
    return path.read_bytes()


def read_json(path: Path) -> Any:
    """Read a JSON file of the project.

    Raises
    ------
    ProjectDamaged
        If it is missing or is not JSON.
    """
    try:
        return json.loads(read_bytes(path))
    except (OSError, ValueError, RecursionError) as error:
        raise ProjectDamaged(
            f"{path} cannot be read: {error}", "a JSON file", "restore it from a backup"
        ) from error


def sync_folder(folder: Path) -> None:
    """Make renames in a folder survive a power cut; Windows does so by itself."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def sync_tree(folder: Path) -> None:
    """Make every file below a folder survive a power cut."""
    for path in folder.rglob("*"):
        if path.is_dir():
            sync_folder(path)
        elif path.is_file() and not path.is_symlink():
            descriptor = os.open(path, os.O_RDWR)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
    sync_folder(folder)


def is_half_written(name: str) -> bool:
    """Whether a file's name says that it is still being written, or was when its process ended."""
    return _HALF_WRITTEN.fullmatch(name) is not None


def remove_half_written(folder: Path) -> None:
    """Remove what a killed process left half written below a folder in which nobody writes now."""
    for path in folder.rglob("*"):
        if is_half_written(path.name) and path.is_file():
            path.unlink(missing_ok=True)


def free_bytes(path: Path) -> int:
    """Return the free space at ``path`` or at its nearest folder that exists."""
    while not path.exists():
        path = path.parent
    return shutil.disk_usage(path).free


def require_space(path: Path, needed: int) -> None:
    """Refuse to begin what the disk cannot hold.

    Raises
    ------
    StorageError
        Naming the free and the needed bytes.
    """
    free = free_bytes(path)
    if free < needed + RESERVE_BYTES:
        raise StorageError(
            f"the disk of {path} has {free:,} bytes free",
            f"{needed:,} bytes, and {RESERVE_BYTES:,} to spare",
            "free some space (histogan clean helps), or move the project to a larger disk",
        )


@contextmanager
def storage_errors(path: Path, needed: int = 0, only_full: bool = False) -> Iterator[None]:
    """Turn the system's words for a full or read-only disk into a ``StorageError``.

    Parameters
    ----------
    path
        What is written, for the message.
    needed
        Bytes that it takes, as far as known.
    only_full
        Leave refused permissions as they are, as around work that reads files as well.
    """
    try:
        yield
    except HistoganError:
        raise
    except OSError as error:
        if error.errno in _FULL:
            raise StorageError(
                f"the disk is full: {free_bytes(path):,} bytes are free for {path}",
                f"at least {needed:,} bytes",
                "free some space (histogan clean helps) and start again; nothing made earlier was touched",
            ) from error
        if error.errno in _FORBIDDEN and not only_full:
            raise StorageError(
                f"{path} cannot be written: {error.strerror}",
                "a folder that you may write to",
                "check the permissions, or whether the disk is mounted read-only",
            ) from error
        raise
