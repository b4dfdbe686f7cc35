"""A run folder tells its state to anybody, also when its process is gone or elsewhere."""

from __future__ import annotations

import json
import os
import time
from dataclasses import replace
from pathlib import Path

import pytest

from napari_histogan.config import TrainGanConfig
from napari_histogan.errors import JobError
from napari_histogan.jobs.job import SILENCE_S, START_S, Job, Progress
from napari_histogan.jobs.runner import find_unfinished, list_jobs, resume_job
from napari_histogan.progress import RunReporter
from napari_histogan.project.locks import now
from napari_histogan.project.runs import process_started, read_status, this_process, write_status
from napari_histogan.project.store import Project


@pytest.fixture
def job(project: Project) -> Job:
    return Job(project.new_run(TrainGanConfig()))


def put(job: Job, **values) -> None:
    write_status(job.run_dir, replace(read_status(job.run_dir), **values))


def test_only_run_folders_are_jobs(project: Project, tmp_path: Path) -> None:
    for folder in (tmp_path, project.root, project.root / "runs" / "0009-train-gan"):
        with pytest.raises(JobError, match="is not a run"):
            Job(folder)


def test_a_job_knows_its_place(job: Job, project: Project) -> None:
    assert (job.number, job.stage, job.project_root) == (1, "train_gan", project.root)
    assert job.config() == TrainGanConfig()
    assert job.events() == ([], 0)
    assert job.progress() is None
    assert job.tail_log() == ""


def test_a_living_process_is_alive(job: Job) -> None:
    put(job, state="running", **this_process())
    assert job.status().state == "running"


def test_a_process_with_the_same_number_but_another_start_is_another_one(job: Job) -> None:
    begun = process_started(os.getpid())
    assert begun is not None
    put(job, state="running", **{**this_process(), "pid_started": begun - 60})
    assert job.status().state == "failed"


def test_a_job_on_another_machine_lives_by_its_heartbeat(job: Job) -> None:
    put(job, state="running", pid=1, pid_started=0.0, host="elsewhere", heartbeat=time.time())
    assert job.is_alive()
    put(job, heartbeat=time.time() - SILENCE_S - 1)
    assert job.status().state == "failed"


def test_a_run_that_nobody_started_counts_as_dead_after_a_while(job: Job) -> None:
    assert job.status().state == "queued"
    put(job, created="2020-01-01T00:00:00+00:00")
    assert job.status().state == "failed"
    put(job, created=now())
    job.note_process(os.getpid())
    assert job.status().state == "queued"
    told = json.loads((job.run_dir / "process.json").read_text())
    (job.run_dir / "process.json").write_text(json.dumps({"at": told["at"] - START_S - 1}))
    assert job.status().state == "failed"


@pytest.mark.parametrize("state", ["stopped", "done", "failed"])
def test_an_ended_job_is_what_it_says(job: Job, state: str) -> None:
    put(job, state=state, pid=1, host="elsewhere")
    assert job.status().state == state
    assert not job.is_alive()


def test_events_and_progress_are_those_of_the_reporter(job: Job) -> None:
    reporter = RunReporter(job.run_dir)
    reporter.progress(1, 4, "images", "sampling")
    events, offset = job.events()
    reporter.metric(3, loss=0.5)
    reporter.close()
    assert [e["kind"] for e in events] == ["progress"]
    assert job.events(offset)[0][0]["loss"] == 0.5
    assert job.progress() == Progress(1, 4, "images", "sampling", None)


def test_progress_is_a_share() -> None:
    assert Progress(5, 4, "", "", None).fraction == 1
    assert Progress(1, 0, "", "", None).fraction == 0
    assert Progress.of({"done": 1, "total": 4, "seconds_left": 9}) == Progress(1, 4, "", "", 9.0)


def test_the_end_of_a_long_log_is_enough(job: Job) -> None:
    (job.run_dir / "log.txt").write_text("\n".join(f"line {i}" for i in range(100_000)) + "\n")
    assert job.tail_log(3) == "line 99997\nline 99998\nline 99999"


def test_waiting_ends(job: Job) -> None:
    put(job, state="running", **this_process())
    with pytest.raises(JobError, match="still at work"):
        job.wait(0.05, poll_s=0.01)


def test_a_stop_is_a_file_that_the_reporter_sees(job: Job) -> None:
    reporter = RunReporter(job.run_dir)
    assert not reporter.should_stop()
    job.request_stop()
    assert reporter.should_stop()
    reporter.close()


def test_a_run_whose_settings_are_lost_is_listed_and_told(project: Project, job: Job) -> None:
    second = Job(project.new_run(TrainGanConfig(kimg=7)))
    third = Job(project.new_run(TrainGanConfig(kimg=9)))
    strange = project.root / "runs" / "0004-fold-proteins"
    strange.mkdir()
    (job.run_dir / "config.toml").unlink()
    (second.run_dir / "config.toml").write_bytes(b"\xff\x00 = ")
    for each in (job, second, third):
        put(each, state="stopped")
    assert [found.number for found in list_jobs(project.root)] == [1, 2, 3, 4]
    told = [found.unreadable() for found in list_jobs(project.root)]
    assert "there is no config file" in told[0]
    assert "not valid TOML" in told[1]
    assert told[2] == ""
    assert "not a run of a stage" in told[3]
    found = find_unfinished(project.root, TrainGanConfig(kimg=9))
    assert found is not None
    assert found.number == 3
    assert find_unfinished(project.root, TrainGanConfig()) is None
    with pytest.raises(JobError, match=r"its config\.toml is missing"):
        resume_job(job.run_dir)
    assert [each.status().state for each in list_jobs(project.root)] == ["stopped"] * 3 + ["failed"]


def test_a_progress_event_that_lacks_its_numbers_is_no_progress(job: Job) -> None:
    (job.run_dir / "events.jsonl").write_text('{"kind": "progress", "done": null}\n')
    assert job.progress() is None


def test_a_worker_that_died_is_told_with_its_last_lines(job: Job) -> None:
    put(job, state="running", **{**this_process(), "pid_started": 1.0})
    (job.run_dir / "log.txt").write_text("\n".join(f"line {i}" for i in range(50)) + "\nKilled\n")
    error = job.status().error
    assert error is not None
    assert "ended without a word" in error["message"]
    assert error["message"].endswith("Its last lines:\nline 46\nline 47\nline 48\nline 49\nKilled")
    assert "line 45" not in error["message"]
