"""Follows the jobs of a project by their run folders, whoever started them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from qtpy.QtCore import QObject, QTimer, Signal

from napari_histogan.config import StageConfig
from napari_histogan.errors import HistoganError
from napari_histogan.jobs.job import Job, JobStatus
from napari_histogan.jobs.runner import list_jobs, resume_job, start_job
from napari_histogan.project.run_chain import read_chain

POLL_MS = 250
_LOOK_FOR_NEW_S = 2.0
_ACTIVE = ("queued", "running")


@dataclass
class JobRecord:
    """What the dock knows of one job.

    Attributes
    ----------
    job, status
        The job and its last status.
    offset
        Where the next event begins in ``events.jsonl``.
    progress
        The last progress event.
    metrics
        Points by name.
    previews
        Newest picture by name, relative to the run folder.
    warnings
        What the stage warned of.
    """

    job: Job
    status: JobStatus
    offset: int = 0
    progress: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    previews: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    @property
    def number(self) -> int:
        """Number of the run."""
        return self.status.number

    @property
    def run_dir(self) -> Path:
        """The run folder."""
        return Path(self.job.run_dir)

    @property
    def active(self) -> bool:
        """Whether the job waits or works."""
        return self.status.state in _ACTIVE

    def take(self, event: dict[str, Any]) -> None:
        """Note one event."""
        kind = event.get("kind")
        if kind == "progress":
            self.progress = event
        elif kind == "metric":
            step = float(event.get("step", 0))
            for name, value in event.items():
                if name not in ("t", "kind", "step") and isinstance(value, int | float):
                    self.metrics.setdefault(name, []).append((step, float(value)))
        elif kind == "preview":
            self.previews[str(event.get("name"))] = str(event.get("path"))
        elif kind == "warning":
            self.warnings.append(str(event.get("message")))


class JobWatcher(QObject):
    """Polls the run folders; a new dock finds every job again.

    Signals
    -------
    changed
        The number of a job whose status, progress, or numbers changed.
    state_changed
        The number of a job that is new, or began, stopped, or ended.
    told
        Number and every event of an active job, as it is read.
    ended
        Number of a job that was active and is not any more.
    failed
        A message for people.
    """

    changed = Signal(int)
    state_changed = Signal(int)
    told = Signal(int, dict)
    ended = Signal(int)
    failed = Signal(str)

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.records: dict[int, JobRecord] = {}
        self._root: Path | None = None
        self._looked = 0.0
        self._timer = QTimer(self)
        self._timer.setInterval(POLL_MS)
        self._timer.timeout.connect(self.poll)

    def watch(self, root: Path | None) -> None:
        """Follow the jobs of the project at ``root``; None follows none."""
        self.records.clear()
        self._root, self._looked = root, 0.0
        if root is None:
            self._timer.stop()
            return
        self.poll()
        self._timer.start()

    def pause(self, paused: bool) -> None:
        """Read nothing while the drive does not answer."""
        if paused or self._root is None:
            self._timer.stop()
        else:
            self._timer.start()

    def start(self, config: StageConfig, then: Sequence[StageConfig] = ()) -> JobRecord | None:
        """Start a job, and those that follow it when it is done; a failure is told by :attr:`failed`."""
        if self._root is None:
            return None
        try:
            return self._add(start_job(self._root, config, nice=True, then=then))
        except HistoganError as error:
            self.failed.emit(str(error))
            return None

    def resume(self, number: int) -> JobRecord | None:
        """Let a stopped or failed job go on."""
        try:
            return self._add(resume_job(self.records[number].run_dir, nice=True))
        except HistoganError as error:
            self.failed.emit(str(error))
            return None

    def stop(self, number: int) -> None:
        """Ask a job to finish its step, save, and end."""
        try:
            self.records[number].job.request_stop()
        except HistoganError as error:
            self.failed.emit(str(error))

    def active(self) -> list[JobRecord]:
        """Return jobs that wait or work, oldest first."""
        return [record for _, record in sorted(self.records.items()) if record.active]

    def waiting(self) -> list[str]:
        """Return the stages that start when the present jobs are done, in order."""
        return [config.stage for record in self.active() for config in read_chain(record.run_dir)]

    def newest(self, stage: str = "") -> JobRecord | None:
        """Return the newest job, of one stage or of all."""
        fitting = [n for n, r in self.records.items() if stage in ("", r.status.stage)]
        return self.records[max(fitting)] if fitting else None

    def poll(self) -> None:
        """Read what is new; called by the timer."""
        if self._root is None:
            return
        try:
            if time.monotonic() - self._looked > _LOOK_FOR_NEW_S:
                self._look_for_new(self._root)
            for record in list(self.records.values()):
                if record.active:
                    self._read(record)
        except (HistoganError, OSError):
            # The folder may just be going away; the session notices and says so.
            return

    def _look_for_new(self, root: Path) -> None:
        self._looked = time.monotonic()
        for job in list_jobs(root):
            if job.status().number not in self.records:
                self._add(job)

    def _add(self, job: Job) -> JobRecord:
        status = job.status()
        record = JobRecord(job, status)
        known = self.records.get(status.number)
        if known is not None:
            record.offset, record.metrics = known.offset, known.metrics
        self.records[status.number] = record
        self._read_events(record, tell=False)
        self.changed.emit(status.number)
        self.state_changed.emit(status.number)
        return record

    def _read(self, record: JobRecord) -> None:
        before = record.status
        new = self._read_events(record, tell=True)
        record.status = record.job.status()
        if new or record.status != before:
            self.changed.emit(record.number)
        if not record.active:
            self._read_events(record, tell=True)
            if self._root is not None:
                self._look_for_new(self._root)  # the job that follows is there already
            self.ended.emit(record.number)
        if record.status.state != before.state:
            self.state_changed.emit(record.number)

    def _read_events(self, record: JobRecord, tell: bool) -> bool:
        events, record.offset = record.job.events(record.offset)
        for event in events:
            record.take(event)
            if tell:
                self.told.emit(record.number, event)
        return bool(events)
