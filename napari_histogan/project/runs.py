"""Run folders: their numbers, and what ``status.json`` says."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

import psutil

from napari_histogan.config import STAGES, StageConfig, dump_config, load_config
from napari_histogan.errors import JobError, ProjectDamaged, Stopped, StorageError
from napari_histogan.project.artifacts import KINDS
from napari_histogan.project.atomic import (
    read_json,
    storage_errors,
    temporary_sibling,
    write_bytes,
    write_json,
)
from napari_histogan.project.locks import FOLDER as LOCKS
from napari_histogan.project.locks import now

State = Literal["queued", "running", "stopped", "done", "failed"]

RUNS = "runs"
_NAME = re.compile(r"(\d{4,})-([a-z0-9-]+)")


@dataclass(frozen=True, slots=True)
class JobStatus:
    """What ``status.json`` of a run says.

    Attributes
    ----------
    number, stage
        The run.
    state
        "queued" (not begun, or waiting for another job), "running", "stopped" (can go on),
        "done", or "failed" (can go on too).
    pid, pid_started, host
        The process that works, when it began (see :func:`process_started`), and on which machine.
    created, started, heartbeat, ended
        UTC, ISO 8601; ``heartbeat`` in seconds since the epoch.
    error
        Type and message of what went wrong.
    artifact
        Id of the result.
    without_worker
        True if a program called the stage itself, outside of a job.
    """

    number: int
    stage: str
    state: State = "queued"
    pid: int | None = None
    pid_started: float | None = None
    host: str = ""
    created: str = ""
    started: str = ""
    heartbeat: float | None = None
    ended: str = ""
    error: dict[str, str] | None = None
    artifact: str = ""
    without_worker: bool = False

    @property
    def ended_well(self) -> bool:
        """Whether there is a result."""
        return self.state == "done"


def process_started(pid: int) -> float | None:
    """Return when a living process began, or None if there is none.

    In seconds since the system started on Linux, where the time of day would move with the clock; since
    the epoch elsewhere.
    """
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        return process.create_time() - (psutil.boot_time() if sys.platform == "linux" else 0.0)
    except psutil.Error:
        return None


def this_process() -> dict[str, Any]:
    """Return the fields of a status that name this process."""
    pid = os.getpid()
    return {"pid": pid, "pid_started": process_started(pid), "host": socket.gethostname()}


def read_status(run_dir: Path) -> JobStatus:
    """Read ``status.json``; keys of newer versions are ignored.

    Raises
    ------
    ProjectDamaged
        If it is missing or incomplete.
    """
    known = {field.name for field in fields(JobStatus)}
    values = read_json(run_dir / "status.json")
    try:
        values.setdefault("without_worker", values.get("library", False))  # as earlier versions named it
        return JobStatus(**{key: value for key, value in values.items() if key in known})
    except (TypeError, AttributeError) as error:
        raise ProjectDamaged(f"{run_dir / 'status.json'} is incomplete: {error}", "a run's status") from error


def write_status(run_dir: Path, status: JobStatus, durable: bool = True) -> None:
    """Replace ``status.json`` in one rename."""
    write_json(run_dir / "status.json", asdict(status), durable)


def overwrite_status(run_dir: Path, status: JobStatus) -> None:
    """Write ``status.json`` over itself, which takes no space; for the last words on a full disk."""
    content = (json.dumps(asdict(status)) + "\n").encode()
    with suppress(OSError), (run_dir / "status.json").open("r+b") as file:
        file.write(content)
        file.truncate()


def read_run_config(run_dir: Path) -> StageConfig:
    """Read ``config.toml`` of a run as its stage's model.

    Raises
    ------
    JobError
        If the folder is not a run.
    ConfigError
        If the config does not fit this version.
    """
    parts = _NAME.fullmatch(run_dir.name)
    stage = parts.group(2).replace("-", "_") if parts else ""
    if stage not in STAGES:
        raise JobError(f"{run_dir} is not a run of a stage", "a folder such as runs/0007-train-gan")
    return load_config(STAGES[stage], run_dir / "config.toml")


def run_number(root: Path, folder: Path) -> int | None:
    """Return the number of a run folder of this project, or None if it is another folder."""
    parts = _NAME.fullmatch(folder.name)
    if parts is None or folder.resolve().parent != (root / RUNS).resolve():
        return None
    return int(parts.group(1))


def run_folders(root: Path) -> list[Path]:
    """Return the run folders of a project, oldest first."""
    folder = root / RUNS
    if not folder.is_dir():
        return []
    found = {path: run_number(root, path) for path in folder.iterdir() if path.is_dir()}
    return sorted((path for path, n in found.items() if n is not None), key=lambda path: found[path] or 0)


def create_run(root: Path, config: StageConfig, **status: Any) -> Path:
    """Allocate the next number and write the run's config and status.

    Returns
    -------
    Path
        ``runs/0007-train-gan``; it appears whole, by one rename.

    Raises
    ------
    StorageError
        If the disk is full or read-only.
    """
    with storage_errors(root, 4096):
        (root / RUNS).mkdir(exist_ok=True)
        number, claim = _claim_number(root)
        try:
            run = root / RUNS / f"{number:04d}-{config.stage.replace('_', '-')}"
            temporary = temporary_sibling(run)
            try:
                for name in ("checkpoints", "previews"):
                    (temporary / name).mkdir(parents=True)
                write_bytes(temporary / "config.toml", dump_config(config).encode())
                write_status(temporary, JobStatus(number, config.stage, created=now(), **status))
                os.rename(temporary, run)
            except BaseException:
                shutil.rmtree(temporary, ignore_errors=True)
                raise
        finally:
            with suppress(OSError):
                claim.rmdir()
    return run


@contextmanager
def run_without_worker(root: Path, kind: str, config: StageConfig) -> Iterator[int]:
    """Give a stage that a program calls itself a number and a run folder of its own.

    Raises
    ------
    StorageError
        If the disk is full or read-only.
    """
    run = create_run(root, config, state="running", started=now(), without_worker=True, **this_process())
    status = read_status(run)
    try:
        yield status.number
    except BaseException as error:
        state: State = "stopped" if isinstance(error, (Stopped, KeyboardInterrupt)) else "failed"
        told = {"type": type(error).__name__, "message": str(error)}
        with suppress(StorageError):
            write_status(run, replace(status, state=state, ended=now(), error=told))
        raise
    artifact = f"{KINDS[kind]}/{status.number:04d}"
    write_status(run, replace(status, state="done", ended=now(), artifact=artifact))


def _claim_number(root: Path) -> tuple[int, Path]:
    """Take the next free number; making a folder that must not exist decides between processes."""
    claims = root / LOCKS / "numbers"
    claims.mkdir(parents=True, exist_ok=True)
    number = highest_number(root) + 1
    while number < 10**9:
        claim = claims / f"{number:04d}"
        try:
            claim.mkdir()
        except FileExistsError:
            number += 1
            continue
        # Another process may have used and released this very number since we counted.
        highest = highest_number(root)
        if highest < number:
            return number, claim
        claim.rmdir()
        number = highest + 1
    raise StorageError(f"no free run number in {root}", "fewer than a billion runs")


def highest_number(root: Path) -> int:
    """Return the highest number of any run or artifact, finished or not; 0 if there is none."""
    numbers = [0]
    for folder in (RUNS, *KINDS.values(), "labels/masks"):
        try:
            names = os.listdir(root / folder)
        except FileNotFoundError:
            continue
        for name in names:
            digits = re.match(r"\.?(\d{4,})(?=\D|$)", name)
            if digits:
                numbers.append(int(digits.group(1)))
    return max(numbers)


def load_events(path: Path, offset: int = 0) -> tuple[list[dict[str, Any]], int]:
    """Read the whole lines of ``events.jsonl`` from a byte offset on.

    Returns
    -------
    events, offset
        The events, and where the next call should begin; a line that is still being
        written is left for then, one that is not JSON is skipped.
    """
    try:
        with path.open("rb") as file:
            file.seek(offset)
            data = file.read()
    except FileNotFoundError:
        return [], offset
    end = data.rfind(b"\n") + 1
    events = []
    for line in data[:end].splitlines():
        with suppress(ValueError):
            event = json.loads(line)
            if isinstance(event, dict):
                events.append(event)
    return events, offset + end
