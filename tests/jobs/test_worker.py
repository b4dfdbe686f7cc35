"""The worker tells how a job ended, whatever ends it, and two starts never share a run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from filelock import FileLock

from napari_histogan.config import SampleImagesConfig, TrainGanConfig
from napari_histogan.errors import JobError, LabelError
from napari_histogan.jobs.job import Job
from napari_histogan.jobs.runner import list_jobs, resume_job, start_job
from napari_histogan.jobs.worker import (
    EXIT,
    HEARTBEAT_S,
    StatusFile,
    describe,
    load_stage_functions,
)
from napari_histogan.project.runs import read_status, this_process, write_status
from napari_histogan.project.store import Project

pytestmark = pytest.mark.timeout(180)


def worker(run_dir: Path, stages: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", "-m", "napari_histogan.jobs.worker", str(run_dir), "--pipeline", stages]
    return subprocess.run(command, capture_output=True, text=True, check=False)


# Status


def test_a_status_says_who_works_and_beats_until_it_ends(project: Project) -> None:
    run = project.new_run(TrainGanConfig())
    write_status(
        run, replace(read_status(run), error={"type": "old", "message": "of the try before"}, ended="x")
    )
    status = StatusFile(run)
    status.begin()
    told = read_status(run)
    assert (told.pid, told.host) == (os.getpid(), this_process()["host"])
    assert (told.state, told.error, told.ended) == ("queued", None, "")
    first = told.heartbeat
    assert first is not None
    end = time.monotonic() + 20 * HEARTBEAT_S
    while (read_status(run).heartbeat or 0) <= first:
        assert time.monotonic() < end, "no heartbeat came"
        time.sleep(0.05)
    status.end("done", artifact="generators/0001")
    last = read_status(run)
    assert (last.state, last.artifact) == ("done", "generators/0001")
    assert last.ended >= last.created
    time.sleep(1.5 * HEARTBEAT_S)
    assert read_status(run) == last, "nothing beats after the end"


def test_a_heartbeat_never_undoes_an_update(project: Project) -> None:
    run = project.new_run(TrainGanConfig())
    status = StatusFile(run)
    threads = [threading.Thread(target=status.update, kwargs={"started": f"{i}"}) for i in range(8)]
    status.begin()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    status.update(state="running")
    assert read_status(run) == status.status
    status.end("stopped")
    assert read_status(run).state == "stopped"


def test_a_status_written_by_a_newer_version_is_read(project: Project) -> None:
    run = project.new_run(TrainGanConfig())
    values = json.loads((run / "status.json").read_text())
    (run / "status.json").write_text(json.dumps({**values, "energy_kwh": 3}))
    status = StatusFile(run)
    status.begin()
    status.end("done")
    assert Job(run).status().state == "done"


# Words


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (LabelError("nothing is painted", "a mask", "paint"), "LabelError", "What to do: paint."),
        (MemoryError(), "OutOfMemory", "take a smaller batch"),
        (
            RuntimeError("[enforce fail] can't allocate memory: you tried 9 GB"),
            "OutOfMemory",
            "smaller batch",
        ),
        (ModuleNotFoundError("No module named 'tifffile'"), "ModuleNotFoundError", "is not installed"),
        (ZeroDivisionError("by zero"), "ZeroDivisionError", "log.txt holds the full report"),
    ],
)
def test_every_failure_has_plain_words(error: BaseException, kind: str, words: str) -> None:
    told = describe(error)
    assert told["type"] == kind
    assert words in told["message"]


def test_stage_functions_come_from_a_module_or_a_file(stages: str, tmp_path: Path) -> None:
    assert set(load_stage_functions(stages)) == {"train_gan", "sample_images"}
    (tmp_path / "empty.py").write_text("STAGES = 3\n")
    with pytest.raises(JobError, match="no table of stage functions"):
        load_stage_functions(f"{tmp_path / 'empty.py'}:STAGES")
    with pytest.raises(JobError, match="no table of stage functions"):
        load_stage_functions("json:STAGES")


# Processes


def test_two_starts_at_once_get_two_runs_that_follow_each_other(project: Project, stages: str) -> None:
    jobs: list[Job] = []

    def start() -> None:
        jobs.append(start_job(project.root, TrainGanConfig(kimg=5), pipeline=stages))

    threads = [threading.Thread(target=start) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    statuses = sorted((job.wait(120) for job in jobs), key=lambda status: status.number)
    assert [(s.number, s.state) for s in statuses] == [(1, "done"), (2, "done")]
    assert [a.id for a in project.artifacts("generator")] == ["generators/0001", "generators/0002"]
    times = []
    for job in jobs:
        events = job.events()[0]
        ran = next(e["t"] for e in events if e["kind"] == "state" and e["state"] == "running")
        times.append((ran, max(e["t"] for e in events if e["kind"] == "metric")))
    (_, first_end), (second_start, _) = sorted(times)
    assert second_start >= first_end, "one job at a time"


def test_two_resumes_at_once_take_no_step_twice(project: Project, stages: str) -> None:
    run = project.new_run(TrainGanConfig(kimg=30))
    write_status(run, replace(read_status(run), state="stopped"))
    threads = [
        threading.Thread(target=resume_job, args=(run,), kwargs={"pipeline": stages}) for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert Job(run).wait(120).state == "done"
    steps = [event["step"] for event in Job(run).events()[0] if event["kind"] == "metric"]
    assert steps == list(range(1, 31))


def test_a_job_stopped_before_its_worker_began_does_nothing(project: Project, stages: str) -> None:
    run = project.new_run(TrainGanConfig(kimg=5))
    Job(run).request_stop()
    assert worker(run, stages).returncode == EXIT["stopped"]
    assert read_status(run).state == "stopped"
    assert not [e for e in Job(run).events()[0] if e["kind"] == "metric"]
    assert project.artifacts() == []


def test_a_second_worker_leaves_the_status_of_the_first_alone(project: Project, stages: str) -> None:
    run = project.new_run(SampleImagesConfig())
    write_status(run, replace(read_status(run), state="running", **this_process()))
    before = (run / "status.json").read_bytes()
    with FileLock(run / ".worker.lock"):
        ended = worker(run, stages)
    assert ended.returncode == EXIT["failed"]
    assert "another process works on" in ended.stderr
    assert (run / "status.json").read_bytes() == before


def test_a_worker_killed_in_the_middle_of_an_event_goes_on_with_a_whole_line(
    project: Project, stages: str
) -> None:
    run = project.new_run(TrainGanConfig(kimg=3))
    (run / "events.jsonl").write_bytes(b'{"t": 1, "kind": "met')
    write_status(
        run, replace(read_status(run), state="running", pid=2**22 + 7, pid_started=1.0, host=_host())
    )
    (job,) = list_jobs(project.root)
    assert job.status().state == "failed"
    assert resume_job(run, pipeline=stages).wait(120).state == "done"
    assert [e["step"] for e in job.events()[0] if e["kind"] == "metric"] == [1, 2, 3]


def _host() -> str:
    return str(this_process()["host"])
