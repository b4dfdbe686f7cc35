"""Locks between processes, and who holds them.

The lock itself is the operating system's, so it vanishes with its process, even
one that was killed.  A JSON beside it only tells people who holds it.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout

from napari_histogan.errors import ProjectLocked
from napari_histogan.project.atomic import read_bytes, storage_errors, write_json

FOLDER = ".locks"


def now() -> str:
    """Return the present time in UTC, ISO 8601, whole seconds."""
    return datetime.now(UTC).isoformat(timespec="seconds")


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds a lock."""

    pid: int
    host: str
    stage: str
    since: str

    def __str__(self) -> str:
        """Return a clause for a message."""
        return f"process {self.pid} on {self.host} ({self.stage or 'no stage'}, since {self.since})"


class ProjectLock:
    """A lock of a project; entering it twice in one thread is allowed.

    Parameters
    ----------
    root
        The project folder.
    name
        "write", "jobs", or "studio".
    purpose
        What the lock guards, for messages: "is writing to", "runs a job in", ...
    """

    def __init__(self, root: Path, name: str, purpose: str) -> None:
        self._root = root
        self._purpose = purpose
        self._lock = FileLock(root / FOLDER / f"{name}.lock")
        self._told = root / FOLDER / f"{name}.json"

    def holder(self) -> Holder | None:
        """Return who says to hold the lock; None if nobody does or it is not known."""
        try:
            return Holder(**json.loads(read_bytes(self._told)))
        except (OSError, ValueError, TypeError):
            return None

    def is_held(self) -> bool:
        """Whether any process, this one included, holds the lock now."""
        if self._lock.is_locked:
            return True
        if not Path(self._lock.lock_file).exists():
            return False
        try:
            with self._lock.acquire(timeout=0):
                return False
        except Timeout:
            return True

    @contextmanager
    def hold(self, stage: str = "", timeout: float = 0.0) -> Iterator[None]:
        """Hold the lock for a block.

        Parameters
        ----------
        stage
            What the holder does, for the messages of others.
        timeout
            Seconds to wait for it; 0 asks once.

        Raises
        ------
        ProjectLocked
            Naming the holder.
        StorageError
            If the lock file cannot be made.
        """
        with storage_errors(self._root):
            (self._root / FOLDER).mkdir(exist_ok=True)
            try:
                self._lock.acquire(timeout=timeout, poll_interval=0.02)
            except Timeout as error:
                raise ProjectLocked(
                    f"{self.holder() or 'another process'} {self._purpose} {self._root}",
                    "one at a time",
                    "wait until it is done, or end that process",
                ) from error
        outermost = self._lock.lock_counter == 1
        try:
            if outermost:
                who = Holder(os.getpid(), socket.gethostname(), stage, now())
                write_json(self._told, asdict(who), durable=False)
            yield
        finally:
            if outermost:
                with suppress(OSError):
                    self._told.unlink()
            self._lock.release()
