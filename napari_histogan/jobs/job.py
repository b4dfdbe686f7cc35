"""A job seen from outside: its state, its events, its log, and asking it to stop.

A job is a run folder.  Only its worker writes there; everybody else reads, and asks
for a stop by putting one file into it.  Nothing here needs the process that started it.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from napari_histogan.config import StageConfig
from napari_histogan.errors import ConfigError, JobError, ProjectDamaged
from napari_histogan.progress import STOP_FILE
from napari_histogan.project.atomic import read_bytes, storage_errors, write_json
from napari_histogan.project.runs import (
    JobStatus,
    load_events,
    process_started,
    read_run_config,
    read_status,
    run_number,
)

__all__ = ["Job", "JobStatus", "Progress"]

PROCESS_FILE = "process.json"
"""Written by whoever starts the worker, so that one that dies at once is noticed."""

LOG_FILE = "log.txt"

LAST_WORDS = 5
"""Lines of the log that are told of a worker that died without a word."""

SILENCE_S = 120.0
"""A job on another machine counts as dead when its heartbeat is older than this many seconds.

Shared disks show a file as it was up to a minute ago."""

START_S = 30.0
"""A queued job without a known process counts as dead after this many seconds."""

QUEUE_S = 15.0
"""Seconds between two questions to the queue of a cluster about one job."""

DIED = (
    "the process ended without a word. Most often the system ran out of memory and ended it, or the "
    "machine was switched off. What to do: resume the job; it goes on from its last checkpoint. If it "
    "happens again, take a smaller batch or close other programs; {log} may say more."
)


@dataclass(frozen=True, slots=True)
class Progress:
    """The newest progress of a job.

    Attributes
    ----------
    done, total, unit
        How much of the present phase is done.
    message
        Name of the phase.
    seconds_left
        Until the end of the phase; None if not known yet.
    """

    done: float
    total: float
    unit: str
    message: str
    seconds_left: float | None

    @property
    def fraction(self) -> float:
        """Share of the phase that is done, 0 to 1."""
        return min(1.0, max(0.0, self.done / self.total)) if self.total > 0 else 0.0

    @classmethod
    def of(cls, event: dict[str, Any]) -> Progress:
        """Read a progress event."""
        left = event.get("seconds_left")
        return cls(
            float(event["done"]),
            float(event["total"]),
            str(event.get("unit", "")),
            str(event.get("message", "")),
            None if left is None else float(left),
        )


class Job:
    """One run of a stage, on disk.

    Parameters
    ----------
    run_dir
        ``runs/0007-train-gan`` of a project.

    Raises
    ------
    JobError
        If the folder is not a run.
    """

    def __init__(self, run_dir: Path | str) -> None:
        self.run_dir = Path(os.path.abspath(run_dir))
        number = run_number(self.project_root, self.run_dir)
        if number is None or not self.run_dir.is_dir():
            raise JobError(f"{run_dir} is not a run", "a folder such as PROJECT/runs/0007-train-gan")
        self.number: int = number
        self.stage: str = self.run_dir.name.split("-", 1)[1].replace("-", "_")

    def __repr__(self) -> str:
        """Return the run's name."""
        return f"Job({self.run_dir.name})"

    @property
    def project_root(self) -> Path:
        """The project folder."""
        return self.run_dir.parent.parent

    def config(self) -> StageConfig:
        """Return the config that the stage was started with."""
        return read_run_config(self.run_dir)

    def unreadable(self) -> str:
        """Return why the run's settings cannot be read, as a sentence; "" if they can."""
        try:
            self.config()
        except (ConfigError, JobError, OSError) as error:
            return str(error)
        return ""

    def status(self) -> JobStatus:
        """Return the present status; a job whose process died is "failed", whatever its file says."""
        status = self._told_status()
        if status.state not in ("queued", "running") or _is_alive(status, self._started_process()):
            return status
        # It may have ended properly between the two looks.
        status = self._told_status()
        if status.state not in ("queued", "running"):
            return status
        message = DIED.format(log=LOG_FILE)
        last_words = self.tail_log(LAST_WORDS).strip()
        if last_words:
            message += f" Its last lines:\n{last_words}"
        error = {"type": "ProcessDied", "message": message}
        return replace(status, state="failed", error=error)

    def is_alive(self) -> bool:
        """Whether a process works on the job, or waits to."""
        return self.status().state in ("queued", "running")

    def events(self, offset: int = 0) -> tuple[list[dict[str, Any]], int]:
        """Read the events from a byte offset on.

        Returns
        -------
        events, offset
            The events in order, each with "t" (seconds since the epoch) and "kind"; and
            the offset for the next call.
        """
        return load_events(self.run_dir / "events.jsonl", offset)

    def progress(self) -> Progress | None:
        """Return the newest progress, or None before the first."""
        path = self.run_dir / "events.jsonl"
        with suppress(OSError, KeyError, TypeError, ValueError):
            tail = max(0, path.stat().st_size - 65536)
            for event in reversed(load_events(path, tail)[0]):
                if event.get("kind") == "progress":
                    return Progress.of(event)
        return None

    def request_stop(self) -> None:
        """Ask the job to finish its step, save its state, and end; it can be resumed.

        Raises
        ------
        StorageError
            If the file that asks cannot be written.
        """
        with storage_errors(self.run_dir):
            (self.run_dir / STOP_FILE).touch()

    def wait(self, timeout_s: float | None = None, poll_s: float = 0.1) -> JobStatus:
        """Wait until the job has ended and return its status.

        Raises
        ------
        JobError
            If it has not ended within ``timeout_s`` seconds.
        """
        end = None if timeout_s is None else time.monotonic() + timeout_s
        while self.is_alive():
            if end is not None and time.monotonic() > end:
                raise JobError(f"{self.run_dir.name} is still at work after {timeout_s} seconds", "its end")
            time.sleep(poll_s)
        return self.status()

    def tail_log(self, lines: int = 40) -> str:
        """Return the last lines of ``log.txt``; "" if there is none."""
        try:
            with (self.run_dir / LOG_FILE).open("rb") as file:
                file.seek(0, os.SEEK_END)
                file.seek(max(0, file.tell() - 500 * lines))
                text = file.read().decode(errors="replace")
        except FileNotFoundError:
            return ""
        return "\n".join(text.splitlines()[-lines:])

    def note_process(self, pid: int) -> None:
        """Record the worker that was just started; called by the runner alone."""
        told = {"pid": pid, "pid_started": process_started(pid), "host": socket.gethostname()}
        write_json(self.run_dir / PROCESS_FILE, {**told, "at": time.time()}, durable=False)

    def _told_status(self) -> JobStatus:
        """Read ``status.json``; one that a power cut damaged counts as failed, so that the job can resume."""
        try:
            return read_status(self.run_dir)
        except ProjectDamaged as error:
            told = {"type": "ProjectDamaged", "message": str(error)}
            return JobStatus(self.number, self.stage, state="failed", error=told)

    def _started_process(self) -> dict[str, Any]:
        """Return what the starter recorded; empty if nothing."""
        try:
            told = json.loads(read_bytes(self.run_dir / PROCESS_FILE))
        except (OSError, ValueError):
            return {}
        return told if isinstance(told, dict) else {}


def _is_alive(status: JobStatus, starter: dict[str, Any]) -> bool:
    """Whether the process of a queued or running job still lives.

    A pid alone could be another process by now, so its start time must match.  Of
    another machine only the heartbeat is known.
    """
    pid, begun, host = status.pid, status.pid_started, status.host
    if pid is None:
        pid, begun, host = starter.get("pid"), starter.get("pid_started"), starter.get("host", "")
    if pid is None and starter.get("slurm"):
        return _in_queue(str(starter["slurm"]), int(time.monotonic() // QUEUE_S))
    if pid is None and starter.get("host"):
        return time.time() - float(starter.get("at") or 0.0) < SILENCE_S
    if pid is None:
        made = starter.get("at") or status.heartbeat or _seconds(status.created)
        return time.time() - made < START_S
    if host != socket.gethostname():
        return time.time() - (status.heartbeat or starter.get("at") or 0.0) < SILENCE_S
    now_begun = process_started(pid)
    return now_begun is not None and (begun is None or abs(now_begun - begun) < 2.0)


@lru_cache(maxsize=256)
def _in_queue(number: str, moment: int) -> bool:
    """Whether SLURM still knows a job that has not begun; asked once in each ``moment`` of QUEUE_S."""
    command = ["squeue", "--noheader", "--jobs", number, "--format=%T"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=QUEUE_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return True  # not known; the job speaks for itself once it has begun
    if done.returncode != 0:
        return "Invalid job id" not in done.stderr
    return bool(done.stdout.strip())


def _seconds(moment: str) -> float:
    """Return an ISO 8601 time as seconds since the epoch; 0 if there is none."""
    from datetime import datetime

    with suppress(ValueError):
        return datetime.fromisoformat(moment).timestamp()
    return 0.0
