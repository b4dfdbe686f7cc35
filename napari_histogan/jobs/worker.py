"""The process of one job: ``python -m napari_histogan.jobs.worker RUN_DIR``.

It waits until no other job of the project runs, calls the stage's function, and
writes ``status.json``.  SIGTERM, SIGINT, or the file ``stop`` end it after the present
step with its state saved; a second signal ends it at once, at its last checkpoint.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import importlib.util
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

import psutil
from filelock import FileLock, Timeout

from napari_histogan.config import StageConfig
from napari_histogan.errors import HistoganError, JobError, ProjectLocked, Stopped, StorageError
from napari_histogan.jobs.ranks import companions
from napari_histogan.jobs.runner import start_next
from napari_histogan.progress import RunReporter
from napari_histogan.project.artifacts import KINDS, Artifact
from napari_histogan.project.locks import now
from napari_histogan.project.runs import (
    JobStatus,
    overwrite_status,
    process_started,
    read_run_config,
    read_status,
    run_number,
    this_process,
    write_status,
)
from napari_histogan.project.store import Project

StageFunction = Callable[[Project, Any, Any], Artifact]

DEFAULT_PIPELINE = "napari_histogan.pipeline:STAGE_FUNCTIONS"
HEARTBEAT_S = 1.0
NICENESS = 5
VANISH_S = 30.0

EXIT = {"done": 0, "failed": 1, "stopped": 3}
"""Exit codes of the worker and of the command line, by the state that the job ended in."""

OUT_OF_MEMORY = (
    "the memory was not enough. What to do: take a smaller batch (or micro_batch), a smaller picture, or "
    "close other programs; then resume the job, or start it anew with other settings"
)

logger = logging.getLogger("napari_histogan.jobs")


class StatusFile:
    """Writes ``status.json`` of a run, with a heartbeat every second.

    Parameters
    ----------
    run_dir
        The run folder.
    """

    def __init__(self, run_dir: Path) -> None:
        self._run_dir = run_dir
        self._status = read_status(run_dir)
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)

    def begin(self) -> None:
        """Name this process in the status and start the heartbeat."""
        self.update(**this_process(), state="queued", error=None, ended="")
        self._thread.start()

    def update(self, **values: Any) -> None:
        """Change fields and write the status at once."""
        with self._lock:
            self._status = replace(self._status, heartbeat=time.time(), **values)
            write_status(self._run_dir, self._status)

    def end(self, state: str, **values: Any) -> None:
        """Stop the heartbeat and write the last status."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()
        try:
            self.update(state=state, ended=now(), **values)
        except StorageError:  # a full disk must not keep the job from saying that it is full
            overwrite_status(self._run_dir, self._status)

    @property
    def status(self) -> JobStatus:
        """The status as written last."""
        return self._status

    def _beat(self) -> None:
        while not self._ended.wait(HEARTBEAT_S):
            # A disk that is full for a moment must not end the work.
            with contextlib.suppress(OSError), self._lock:
                self._status = replace(self._status, heartbeat=time.time())
                write_status(self._run_dir, self._status, durable=False)


def main(arguments: list[str] | None = None) -> int:
    """Run one job; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m napari_histogan.jobs.worker", description=main.__doc__)
    parser.add_argument("run_dir", type=Path)
    parser.add_argument("--pipeline", default=DEFAULT_PIPELINE, help="module:NAME or file.py:NAME")
    parser.add_argument("--nice", action="store_true", help="give way to other programs")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    if options.nice:
        _give_way()
    run_dir = Path(os.path.abspath(options.run_dir))
    lock = FileLock(run_dir / ".worker.lock")
    if not _take(lock, run_dir):
        logger.error("another process works on %s already", run_dir)
        return EXIT["failed"]
    try:
        return work(run_dir, options.pipeline, options.nice)
    finally:
        lock.release()


def _take(lock: FileLock, run_dir: Path) -> bool:
    """Become the only worker of a run; one that has ended already may take a moment to vanish."""
    for _ in range(int(VANISH_S / 0.2)):
        try:
            lock.acquire(timeout=0.2)
            return True
        except Timeout:
            status = read_status(run_dir)
            if (
                status.pid is not None
                and process_started(status.pid)
                and status.state in ("queued", "running")
            ):
                return False
    return False


def _give_way() -> None:
    """Let other programs go first; a system that does not allow it is no reason to stop."""
    with contextlib.suppress(psutil.Error, OSError):
        if os.name == "posix":
            os.nice(NICENESS)
        else:
            psutil.Process().nice(getattr(psutil, "BELOW_NORMAL_PRIORITY_CLASS"))  # noqa: B009 - Windows only


def work(run_dir: Path, pipeline: str = DEFAULT_PIPELINE, nice: bool = False) -> int:
    """Do the work of one run folder, from "queued" to the end; returns the exit code."""
    status = StatusFile(run_dir)
    status.begin()
    reporter = RunReporter(run_dir)
    _listen_to_signals(reporter)
    try:
        artifact_id = _call_stage(run_dir, pipeline, reporter, status)
    except (Stopped, KeyboardInterrupt):
        logger.info("stopped; the state is saved")
        return _end(reporter, status, "stopped")
    except BaseException as error:
        logger.exception("the stage failed")
        return _end(reporter, status, "failed", error=describe(error))
    _start_next(run_dir, pipeline, nice, reporter)  # before "done", so that who sees that sees the next job
    return _end(reporter, status, "done", artifact=artifact_id)


def _start_next(run_dir: Path, pipeline: str, nice: bool, reporter: RunReporter) -> None:
    """Start the stage that waits for this run; its result stays whatever happens to the next."""
    own = "" if pipeline == DEFAULT_PIPELINE else pipeline
    try:
        start_next(run_dir, nice=nice, pipeline=own)
    except (HistoganError, OSError) as error:
        logger.exception("the next stage could not be started")
        reporter.warn(f"The next step could not be started: {error}")


def _end(reporter: RunReporter, status: StatusFile, state: str, **values: Any) -> int:
    """Write the last event and the last status."""
    with contextlib.suppress(OSError):
        reporter.event("state", state=state, **values)
        reporter.close()
    status.end(state, **values)
    return EXIT[state]


def _call_stage(run_dir: Path, pipeline: str, reporter: RunReporter, status: StatusFile) -> str:
    """Wait for the turn of this job and call the stage's function; returns the artifact's id."""
    root = run_dir.parent.parent
    project = Project.open(root)
    config = read_run_config(run_dir)
    made = _result_of(root, run_dir, config)
    if made:
        # Killed after the result was in place and before the status said so.
        return made
    told = False
    while True:
        if reporter.should_stop():
            raise Stopped
        try:
            with project.job_lock(config.stage):
                status.update(state="running", started=status.status.started or now())
                reporter.event("state", state="running")
                project.reload()  # classes may have been added while this job waited
                functions = load_stage_functions(pipeline)
                if config.stage not in functions:
                    raise JobError(f"{pipeline} has no stage {config.stage!r}", ", ".join(functions))
                with companions(run_dir, config):
                    return functions[config.stage](project, config, reporter).id
        except ProjectLocked as locked:
            if status.status.state == "running":
                raise
            if not told:
                reporter.event("state", state="queued", message=str(locked))
                told = True
        time.sleep(0.3)


def _result_of(root: Path, run_dir: Path, config: StageConfig) -> str:
    """Return the id of the artifact that a run made already, or ""."""
    number = run_number(root, run_dir)
    folder = root / KINDS[config.result] / f"{number:04d}"
    return f"{folder.parent.name}/{folder.name}" if folder.is_dir() else ""


def load_stage_functions(where: str) -> Mapping[str, StageFunction]:
    """Import the stage functions that "module:NAME" or "file.py:NAME" names.

    Raises
    ------
    JobError
        If there is nothing of that name.
    """
    place, _, name = where.rpartition(":")
    if place.endswith(".py"):
        spec = importlib.util.spec_from_file_location(Path(place).stem, place)
        if spec is None or spec.loader is None:
            raise JobError(f"{place} cannot be imported", "a Python file")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    else:
        module = importlib.import_module(place)
    functions = getattr(module, name, None)
    if not isinstance(functions, Mapping):
        raise JobError(f"{where} is no table of stage functions", DEFAULT_PIPELINE)
    return functions


def describe(error: BaseException) -> dict[str, str]:
    """Return type and message of an error in plain words, for ``status.json``."""
    kind = type(error).__name__
    if isinstance(error, HistoganError):
        return {"type": kind, "message": str(error)}
    text = str(error).lower()
    # torch reports a full device by a class of its own and a full host by a RuntimeError.
    scarce = any(words in text for words in ("can't allocate memory", "can't start new thread"))
    if isinstance(error, MemoryError) or kind == "OutOfMemoryError" or scarce:
        return {"type": "OutOfMemory", "message": OUT_OF_MEMORY}
    if isinstance(error, ModuleNotFoundError):
        message = f"a part of the program is not installed: {error}. What to do: install it, then resume"
        return {"type": kind, "message": message}
    message = f"an error that the program did not expect: {kind}: {error}. log.txt holds the full report"
    return {"type": kind, "message": message}


def _listen_to_signals(reporter: RunReporter) -> None:
    """Let the first signal ask for a stop and the second one insist."""
    asked = False

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True
        reporter.request_stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, handle)


if __name__ == "__main__":
    sys.exit(main())
