"""Start, resume, find, and follow jobs; needs neither torch nor Qt."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from filelock import FileLock

from napari_histogan.config import StageConfig, TrainSegmenterConfig
from napari_histogan.config.training_sources import absolute_source
from napari_histogan.errors import ConfigError, JobError
from napari_histogan.jobs.environment import child_environment
from napari_histogan.jobs.job import LOG_FILE, PROCESS_FILE, Job, JobStatus
from napari_histogan.jobs.launchers import LOCAL, parse_launcher, worker_command
from napari_histogan.progress import STOP_FILE
from napari_histogan.project.atomic import storage_errors
from napari_histogan.project.reads import settled
from napari_histogan.project.run_chain import give_chain_back, take_chain, write_chain
from napari_histogan.project.runs import run_folders, write_status
from napari_histogan.project.store import Project

POLL_S = 0.25

RESUME_LOCK = ".resume.lock"

_children: list[subprocess.Popen[bytes]] = []
"""Workers that this process started; asked now and then, so that none stays a zombie."""


def start_job(
    project_root: Path | str,
    config: StageConfig,
    *,
    nice: bool = False,
    pipeline: str = "",
    launcher: str = "",
    then: Sequence[StageConfig] = (),
) -> Job:
    """Start a stage in a child process that outlives this one, here or on another machine.

    Parameters
    ----------
    project_root
        The project folder.
    config
        The stage's config; relative paths in it are taken from the present folder.
    nice
        Give way to other programs, as when a viewer runs beside it.
    pipeline
        "file.py:NAME" of other stage functions; empty takes :mod:`napari_histogan.pipeline`.
    launcher
        Where: "local", "ssh HOST [PYTHON]", or "slurm [OPTIONS]"; empty takes what the project says.
    then
        Stages that the worker starts when this one has ended well, one after the other; they wait in the
        run folder, so that it does not matter whether this process still lives.

    Returns
    -------
    Job
        Its state is "queued" until the worker has begun and no other job runs.

    Raises
    ------
    ProjectError
        If the project cannot be opened or written to.
    ConfigError
        If there is no such launcher.
    JobError
        If the process cannot be started.
    """
    project = Project.open(project_root)
    parse_launcher(launcher)
    job = Job(project.new_run(settled(project, with_absolute_paths(config))))
    write_chain(job.run_dir, [with_absolute_paths(each) for each in then])
    _launch(job, nice, pipeline, launcher)
    return job


def resume_job(run_dir: Path | str, *, nice: bool = False, pipeline: str = "", launcher: str = "") -> Job:
    """Let a stopped or failed job go on from its last checkpoint.

    A job that is done is not run again, and one that is at work is left alone; of two who
    resume it at the same time one starts it.

    Raises
    ------
    JobError
        If the folder is not a run, or a program called the stage itself.
    """
    job = Job(run_dir)
    with storage_errors(job.run_dir), FileLock(job.run_dir / RESUME_LOCK):
        _resume(job, nice, pipeline, launcher)
    return job


def _resume(job: Job, nice: bool, pipeline: str, launcher: str) -> None:
    """Start a job again if nobody works on it; called by one process at a time."""
    status = job.status()
    if status.without_worker:
        raise JobError(
            f"{job.run_dir.name} was not a job; a program called the stage itself",
            "a run that `histogan` or the dock started",
            "call the stage again from that program",
        )
    if status.state in ("done", "queued", "running"):
        return
    if not (job.run_dir / "config.toml").is_file():
        raise JobError(
            f"{job.run_dir.name} cannot go on: its config.toml is missing",
            "the settings that it began with",
            "start the stage anew",
        )
    for name in (STOP_FILE, PROCESS_FILE):
        with suppress(FileNotFoundError):
            (job.run_dir / name).unlink()
    fresh = replace(status, state="queued", pid=None, heartbeat=time.time(), ended="", error=None)
    write_status(job.run_dir, fresh)
    _launch(job, nice, pipeline, launcher)


def start_next(run_dir: Path, *, nice: bool = False, pipeline: str = "") -> Job | None:
    """Start the stage that waits for a run; the ones after it wait for that one.  None if none waits.

    Raises
    ------
    ProjectError
        If the project cannot be written to.
    ConfigError, ArtifactMissing
        If the stage cannot begin.
    JobError
        If the process cannot be started.
    """
    configs = take_chain(run_dir)
    if not configs:
        return None
    try:
        root = run_dir.parent.parent
        return start_job(root, configs[0], nice=nice, pipeline=pipeline, then=configs[1:])
    except BaseException:
        give_chain_back(run_dir)
        raise


def list_jobs(project_root: Path | str) -> list[Job]:
    """Return every run of a project, oldest first, whoever started it."""
    _reap()
    return [Job(run) for run in run_folders(Path(os.path.abspath(project_root)))]


def find_unfinished(project_root: Path | str, config: StageConfig) -> Job | None:
    """Return the newest run of a stage if it has this config and no result yet, else None.

    This is what lets the same command go on where it was stopped.
    """
    project = Project.open(project_root)
    config = settled(project, with_absolute_paths(config))
    for job in reversed(list_jobs(project_root)):
        if job.stage == config.stage:
            status = job.status()
            open_end = not status.without_worker and status.state != "done"
            return job if open_end and _has_config(project, job, config) else None
    return None


def _has_config(project: Project, job: Job, config: StageConfig) -> bool:
    """Whether a run has a config; one that this version cannot read has another."""
    try:
        return settled(project, job.config()) == config
    except (ConfigError, JobError, OSError):
        return False


def follow_job(job: Job, offset: int = 0, poll_s: float = POLL_S) -> Iterator[dict[str, Any] | None]:
    """Yield the events of a job as they come, until it has ended.

    Yields
    ------
    dict or None
        An event, or None whenever there was none for ``poll_s`` seconds.
    """
    while True:
        _reap()
        alive = job.is_alive()  # asked before reading, so that the last events are not missed
        events, offset = job.events(offset)
        yield from events
        if not alive:
            return
        if not events:
            yield None
            time.sleep(poll_s)


def run_job_and_wait(
    project_root: Path | str,
    config: StageConfig,
    on_event: Callable[[dict[str, Any]], None] | None = None,
    *,
    pipeline: str = "",
) -> JobStatus:
    """Run a stage as a job, or resume it, and wait for its end.

    Returns
    -------
    JobStatus
        "done", "stopped", or "failed" with its error; never raises for a failed stage.
    """
    unfinished = find_unfinished(project_root, config)
    if unfinished is None:
        job = start_job(project_root, config, pipeline=pipeline)
    else:
        job = resume_job(unfinished.run_dir, pipeline=pipeline)
    for event in follow_job(job, offset=job.events()[1] if unfinished else 0):
        if event is not None and on_event is not None:
            on_event(event)
    return job.status()


def with_absolute_paths(config: StageConfig) -> StageConfig:
    """Return the config with its relative paths made absolute; an empty path stays empty."""

    def absolute(value: Any) -> Any:
        if isinstance(value, Path) and value != Path():
            return Path(os.path.abspath(value.expanduser()))
        return tuple(absolute(item) for item in value) if isinstance(value, tuple) else value

    changed = {name: absolute(value) for name, value in config}
    if isinstance(config, TrainSegmenterConfig):
        changed["sources"] = tuple(map(absolute_source, config.sources))
    return config.model_copy(update=changed)


def _launch(job: Job, nice: bool, pipeline: str, words: str) -> None:
    """Start the worker so that neither closing nor killing this process ends it."""
    words = words or Project.open(job.project_root).launcher
    arguments = ["--nice"] if nice and words == LOCAL else []
    arguments += ["--pipeline", pipeline] if pipeline else []
    command = worker_command(sys.executable, job.run_dir, arguments)
    if words != LOCAL:
        launching = [sys.executable, "-P", "-m", "napari_histogan.jobs.launchers", str(job.run_dir)]
        command = [*launching, words, "--", *arguments]
    flags = 0
    if sys.platform == "win32":
        flags = subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.CREATE_NO_WINDOW
    with storage_errors(job.run_dir), (job.run_dir / LOG_FILE).open("ab") as log:
        try:
            child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=job.project_root,
                env=child_environment(),
                start_new_session=True,
                creationflags=flags,
            )
        except (FileNotFoundError, PermissionError) as error:
            raise JobError(f"python cannot be started: {error}", sys.executable, "repair it") from error
    _children.append(child)
    job.note_process(child.pid)


def _reap() -> None:
    """Forget the workers that have ended."""
    _children[:] = [child for child in _children if child.poll() is None]
