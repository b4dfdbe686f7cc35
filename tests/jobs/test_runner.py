"""Jobs outlive whoever started them, stop when asked, and go on where they were."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from napari_histogan.config import AddSlidesConfig, ExtractPatchesConfig, SampleImagesConfig, TrainGanConfig
from napari_histogan.errors import JobError, ProjectNotFound
from napari_histogan.jobs.job import Job
from napari_histogan.jobs.runner import (
    find_unfinished,
    follow_job,
    list_jobs,
    resume_job,
    run_job_and_wait,
    start_job,
    with_absolute_paths,
)
from napari_histogan.progress import QuietReporter
from napari_histogan.project.runs import read_status
from napari_histogan.project.store import Project

pytestmark = pytest.mark.timeout(90)

WALK = TrainGanConfig(kimg=60, seed=5)
LONG = TrainGanConfig(kimg=1_000_000)
"""Walks until it is stopped."""


def until(true: Callable[[], object], what: str, seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, f"waited in vain for {what}"
        time.sleep(0.01)


def steps(job: Job) -> list[int]:
    return [event["step"] for event in job.events()[0] if event["kind"] == "metric"]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Content hash of what an undisturbed walk makes."""
    project = Project.create(tmp_path_factory.mktemp("undisturbed") / "p")
    stages = f"{Path(__file__).parent / 'counting_stages.py'}:STAGES"
    assert start_job(project.root, WALK, pipeline=stages).wait(30).state == "done"
    return project.artifact("", "generator").hash


def test_a_job_makes_an_artifact_of_its_number(project: Project, stages: str) -> None:
    with project.new_artifact("samples", SampleImagesConfig(), QuietReporter()):
        pass
    job = start_job(project.root, TrainGanConfig(kimg=3), pipeline=stages)
    status = job.wait(30)
    assert (status.state, status.artifact, status.error) == ("done", "generators/0002", None)
    assert project.artifact("", "generator").number == job.number == 2
    assert steps(job) == [1, 2, 3]
    assert status.started <= status.ended
    assert job.config() == TrainGanConfig(kimg=3)
    progress = job.progress()
    assert progress is not None
    assert (progress.done, progress.total, progress.unit, progress.message) == (3, 3, "steps", "walking")
    assert progress.fraction == 1


def test_starting_returns_at_once(project: Project, stages: str) -> None:
    started = time.monotonic()
    job = start_job(project.root, TrainGanConfig(kimg=2), pipeline=stages)
    assert time.monotonic() - started < 1
    assert job.status().state == "queued"
    job.wait(30)


def test_stopping_and_resuming_gives_the_undisturbed_result(
    project: Project, stages: str, undisturbed: str
) -> None:
    job = start_job(project.root, WALK, pipeline=stages)
    until(lambda: len(steps(job)) >= 5, "five steps")
    job.request_stop()
    status = job.wait(30)
    assert (status.state, status.artifact) == ("stopped", "")
    assert project.artifacts() == []
    done = len(steps(job))
    assert done < 60
    assert resume_job(job.run_dir, pipeline=stages).wait(30).state == "done"
    assert steps(job) == list(range(1, 61)), "no step was lost or taken twice"
    assert {"kind": "resumed", "step": done}.items() <= next(
        e for e in job.events()[0] if e["kind"] == "resumed"
    ).items()
    assert project.artifact("", "generator").hash == undisturbed


def test_resuming_the_moment_it_has_stopped_works(project: Project, stages: str) -> None:
    job = start_job(project.root, LONG, pipeline=stages)
    for _ in range(3):
        seen = len(steps(job))
        until(lambda: len(steps(job)) > seen, "a step")  # noqa: B023 - used at once
        job.request_stop()
        assert job.wait(30, poll_s=0.001).state == "stopped"
        resume_job(job.run_dir, pipeline=stages)
    job.request_stop()
    assert job.wait(30).state == "stopped"
    assert steps(job) == list(range(1, len(steps(job)) + 1))


def test_a_status_damaged_by_a_power_cut_does_not_keep_a_job_from_resuming(
    project: Project, stages: str
) -> None:
    job = start_job(project.root, WALK.model_copy(update={"micro_batch": 3}), pipeline=stages)
    job.wait(30)
    (job.run_dir / "status.json").write_bytes(b"")
    (found,) = list_jobs(project.root)
    assert found.status().state == "failed"
    assert resume_job(found.run_dir, pipeline=stages).wait(30).state == "done"
    assert steps(job) == list(range(1, 61))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_like_a_request(project: Project, stages: str, number: signal.Signals) -> None:
    job = start_job(project.root, LONG, pipeline=stages)
    until(lambda: steps(job), "a step")
    pid = job.status().pid
    assert pid is not None
    os.kill(pid, number)
    assert job.wait(30).state == "stopped"


def test_a_second_signal_ends_what_does_not_listen(project: Project, stages: str) -> None:
    job = start_job(project.root, SampleImagesConfig(seed=5), pipeline=stages)
    until(lambda: job.status().state == "running", "the start")
    pid = job.status().pid
    assert pid is not None
    os.kill(pid, signal.SIGTERM)
    time.sleep(0.3)
    assert job.is_alive()
    os.kill(pid, signal.SIGTERM)
    assert job.wait(10).state == "stopped"


def test_a_killed_job_is_noticed_and_resumes_to_the_undisturbed_result(
    project: Project, stages: str, undisturbed: str
) -> None:
    config = WALK.model_copy(update={"micro_batch": 20})
    job = start_job(project.root, config, pipeline=stages)
    status = job.wait(30)
    assert status.state == "failed"
    assert status.error is not None
    assert status.error["type"] == "ProcessDied"
    assert "ran out of memory" in status.error["message"]
    assert read_status(job.run_dir).state == "running", "the killed process had no time to say so"
    assert steps(job)[-1] == 20
    assert resume_job(job.run_dir, pipeline=stages).wait(30).state == "done"
    assert steps(job) == list(range(1, 61))
    assert project.artifact("", "generator").hash == undisturbed


def test_a_job_killed_after_its_result_is_in_place_is_not_run_again(project: Project, stages: str) -> None:
    job = start_job(project.root, TrainGanConfig(kimg=3, z_dim=99), pipeline=stages)
    assert job.wait(30).state == "failed"
    assert len(project.artifacts("generator")) == 1
    status = resume_job(job.run_dir, pipeline=stages).wait(30)
    assert (status.state, status.artifact) == ("done", "generators/0001")
    assert steps(job) == [1, 2, 3]


def test_a_finished_job_is_not_run_again(project: Project, stages: str) -> None:
    job = start_job(project.root, TrainGanConfig(kimg=2), pipeline=stages)
    assert job.wait(30).state == "done"
    before = job.events()
    assert resume_job(job.run_dir, pipeline=stages).status().state == "done"
    assert job.events() == before


def test_a_living_job_is_left_alone_and_a_second_worker_goes_away(project: Project, stages: str) -> None:
    job = start_job(project.root, LONG, pipeline=stages)
    until(lambda: steps(job), "a step")
    pid = job.status().pid
    assert resume_job(job.run_dir, pipeline=stages).status().pid == pid
    command = [sys.executable, "-m", "napari_histogan.jobs.worker", str(job.run_dir), "--pipeline", stages]
    second = subprocess.run(command, capture_output=True, text=True, check=False)
    assert second.returncode == 1
    assert "another process works on" in second.stderr
    assert job.status().pid == pid
    job.request_stop()
    assert job.wait(30).state == "stopped"
    assert steps(job) == list(range(1, len(steps(job)) + 1))


START_AND_DIE = """
import os, signal, sys
from napari_histogan.config import TrainGanConfig
from napari_histogan.jobs.runner import start_job
start_job(sys.argv[1], TrainGanConfig(kimg=60, seed=5), pipeline=sys.argv[2])
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_job_outlives_its_starter_and_is_found_by_another_process(
    project: Project, stages: str, undisturbed: str
) -> None:
    command = [sys.executable, "-c", START_AND_DIE, str(project.root), stages]
    starter = subprocess.run(command, check=False)
    assert starter.returncode == -signal.SIGKILL
    (job,) = list_jobs(project.root)
    assert job.is_alive()
    events = [event for event in follow_job(job) if event is not None]
    assert [e["step"] for e in events if e["kind"] == "metric"] == list(range(1, 61))
    assert events[-1]["kind"] == "state"
    assert job.status().state == "done"
    assert project.artifact("", "generator").hash == undisturbed


def test_one_job_runs_at_a_time_and_a_waiting_one_can_be_stopped(project: Project, stages: str) -> None:
    first = start_job(project.root, LONG, pipeline=stages)
    until(lambda: steps(first), "a step")
    second = start_job(project.root, SampleImagesConfig(), pipeline=stages)
    third = start_job(project.root, SampleImagesConfig(count=9), pipeline=stages)
    until(lambda: second.events()[0] and third.events()[0], "both to wait")
    for waiting in (second, third):
        assert waiting.status().state == "queued"
        told = waiting.events()[0][0]
        assert told["state"] == "queued"
        assert f"process {first.status().pid}" in told["message"]
    third.request_stop()
    assert third.wait(30).state == "stopped"
    assert second.status().state == "queued"
    first.request_stop()
    assert first.wait(30).state == "stopped"
    assert second.wait(30).state == "done"


@pytest.mark.parametrize(
    ("seed", "kind", "words"),
    [
        (1, "LabelError", "nothing is painted. Expected: a mask. What to do: paint first."),
        (2, "OutOfMemory", "take a smaller batch"),
        (3, "ZeroDivisionError", "of all things. log.txt holds the full report"),
        (4, "ProcessDied", "ended without a word"),
    ],
)
def test_failures_are_told_in_plain_words(project: Project, stages: str, seed, kind, words) -> None:
    job = start_job(project.root, SampleImagesConfig(seed=seed), pipeline=stages)
    status = job.wait(30)
    assert status.state == "failed"
    assert status.error is not None
    assert status.error["type"] == kind
    assert words in status.error["message"]
    assert ("Traceback" in job.tail_log()) == (kind != "ProcessDied")
    assert project.artifacts() == []


def test_a_worker_that_cannot_begin_is_noticed(project: Project) -> None:
    job = start_job(project.root, SampleImagesConfig(), pipeline="no_such_module:STAGES")
    status = job.wait(30)
    assert status.state == "failed"
    assert status.error is not None
    assert "no_such_module" in status.error["message"]


def test_a_config_damaged_in_the_run_folder_is_told(project: Project, stages: str) -> None:
    job = start_job(project.root, TrainGanConfig(kimg=60), pipeline=stages)
    job.request_stop()
    assert job.wait(30).state == "stopped"
    (job.run_dir / "config.toml").write_text("kimgs = 3\n")
    status = resume_job(job.run_dir, pipeline=stages).wait(30)
    assert status.error is not None
    assert "did you mean 'kimg'?" in status.error["message"]


@pytest.mark.skipif(os.name != "posix", reason="nice values are numbers on POSIX only")
def test_a_job_can_give_way(project: Project, stages: str) -> None:
    start_job(project.root, SampleImagesConfig(), nice=True, pipeline=stages).wait(30)
    own = os.nice(0)
    assert (project.artifact("", "samples").path / "nice.txt").read_text() == str(min(19, own + 5))


def test_the_heartbeat_goes_on_while_the_stage_is_deaf(project: Project, stages: str) -> None:
    job = start_job(project.root, SampleImagesConfig(seed=5), pipeline=stages)
    until(lambda: job.status().state == "running", "the start")
    beats = set()
    until(lambda: beats.add(read_status(job.run_dir).heartbeat) or len(beats) > 2, "heartbeats", 10)
    pid = job.status().pid
    assert pid is not None
    psutil.Process(pid).kill()
    until(lambda: not job.is_alive(), "the end to be noticed", 5)


def test_a_library_call_is_no_job_to_resume(project: Project) -> None:
    def fail() -> None:
        with project.new_artifact("samples", SampleImagesConfig(), QuietReporter()):
            raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011
        fail()
    (job,) = list_jobs(project.root)
    with pytest.raises(JobError, match="called the stage itself"):
        resume_job(job.run_dir)


def test_the_same_settings_go_on_with_what_is_unfinished(project: Project, stages: str) -> None:
    config = TrainGanConfig(kimg=60, micro_batch=4)
    assert find_unfinished(project.root, config) is None
    events: list[dict] = []
    status = run_job_and_wait(project.root, config, events.append, pipeline=stages)
    assert status.state == "failed"
    found = find_unfinished(project.root, config)
    assert found is not None
    assert found.number == status.number
    assert find_unfinished(project.root, TrainGanConfig(kimg=61, micro_batch=4)) is None
    again = run_job_and_wait(project.root, config, events.append, pipeline=stages)
    assert (again.state, again.number) == ("done", status.number)
    assert [e["step"] for e in events if e["kind"] == "metric"] == list(range(1, 61))
    assert find_unfinished(project.root, config) is None


def test_paths_are_taken_from_the_present_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = with_absolute_paths(AddSlidesConfig(paths=(Path("a.svs"), Path("/b.svs"))))
    assert config == AddSlidesConfig(paths=(tmp_path / "a.svs", Path("/b.svs")))
    untouched = TrainGanConfig()
    assert with_absolute_paths(untouched) == untouched


def test_there_must_be_a_project(tmp_path: Path) -> None:
    with pytest.raises(ProjectNotFound):
        start_job(tmp_path, TrainGanConfig())
    assert list_jobs(tmp_path) == []


def test_real_stages_run_as_jobs(project: Project, demo_slide: Path) -> None:
    for config in (AddSlidesConfig(paths=(demo_slide,)), ExtractPatchesConfig()):
        status = run_job_and_wait(project.root, config)
        assert status.state == "done", status.error
    assert [a.id for a in project.artifacts()] == ["slides/0001", "patches/0002"]
    assert project.slide().size.shape == (2967, 2220)


def test_of_several_who_resume_a_job_at_once_one_starts_it(project: Project, stages: str) -> None:
    job = start_job(project.root, LONG, pipeline=stages)
    until(lambda: steps(job), "a step")
    job.request_stop()
    assert job.wait(30).state == "stopped"
    code = "import sys; from napari_histogan.jobs.runner import resume_job as go; "
    code += "go(sys.argv[1], pipeline=sys.argv[2])"
    others = [subprocess.Popen([sys.executable, "-c", code, str(job.run_dir), stages]) for _ in range(4)]
    assert [other.wait(60) for other in others] == [0, 0, 0, 0]
    until(lambda: job.status().state == "running", "the worker")
    starts = (job.run_dir / "events.jsonl").read_text().count('"state": "running"')
    job.request_stop()
    assert job.wait(30).state == "stopped"
    assert starts == 2, "the first start and one of the four"
    assert "another process works" not in job.tail_log(1000)
    assert steps(job) == list(range(1, len(steps(job)) + 1))
