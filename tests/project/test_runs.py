"""Runs get numbers that nobody else has, and appear whole."""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from napari_histogan.config import AddSlidesConfig, SampleImagesConfig, TrainGanConfig
from napari_histogan.errors import JobError, ProjectDamaged
from napari_histogan.progress import QuietReporter
from napari_histogan.project import runs
from napari_histogan.project.store import Project


def test_a_run_folder_holds_what_the_stage_needs(project: Project) -> None:
    config = AddSlidesConfig(paths=(Path("/a/b.svs"),), mpp=None)
    run = project.new_run(config)
    assert run == project.root / "runs" / "0001-add-slides"
    assert {p.name for p in run.iterdir()} == {"config.toml", "status.json", "checkpoints", "previews"}
    assert runs.read_run_config(run) == config
    status = runs.read_status(run)
    assert (status.number, status.stage, status.state, status.pid) == (1, "add_slides", "queued", None)


def test_numbers_run_over_runs_and_artifacts_together(project: Project) -> None:
    with project.new_artifact("generator", TrainGanConfig(), QuietReporter()):
        pass
    assert project.new_run(SampleImagesConfig()).name == "0002-sample-images"
    (project.root / "heatmaps" / "0041").mkdir(parents=True)
    assert project.new_run(SampleImagesConfig()).name == "0042-sample-images"
    (project.root / "datasets").mkdir()
    (project.root / "datasets" / ".0050.tmp-1-abc").mkdir()
    assert project.new_run(SampleImagesConfig()).name == "0051-sample-images"
    assert [run.name[:4] for run in project.runs()] == ["0001", "0002", "0042", "0051"]


def test_numbers_beyond_four_digits_sort_as_numbers(project: Project) -> None:
    (project.root / "runs").mkdir()
    (project.root / "runs" / "9999-train-gan").mkdir()
    run = project.new_run(TrainGanConfig())
    assert run.name == "10000-train-gan"
    assert runs.run_number(project.root, run) == 10000
    assert project.runs()[-1] == run


def test_a_claim_left_by_a_killed_process_is_passed_over(project: Project) -> None:
    (project.root / ".locks" / "numbers" / "0001").mkdir(parents=True)
    assert project.new_run(TrainGanConfig()).name == "0002-train-gan"


def _allocate(root: Path, stage: int, out: Path) -> None:
    project = Project.open(root)
    config = (TrainGanConfig(), SampleImagesConfig())[stage]
    names = [project.new_run(config).name for _ in range(15)]
    out.write_text(json.dumps(names))


def test_processes_and_threads_never_share_a_number(project: Project, tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    outs = [tmp_path / f"{i}.json" for i in range(2)]
    workers = [context.Process(target=_allocate, args=(project.root, i, out)) for i, out in enumerate(outs)]
    for worker in workers:
        worker.start()
    threads = [
        threading.Thread(target=_allocate, args=(project.root, 0, tmp_path / f"t{i}")) for i in range(2)
    ]
    for thread in threads:
        thread.start()
    for each in (*threads, *workers):
        each.join()
    numbers = [int(run.name.split("-")[0]) for run in project.runs()]
    assert len(numbers) == 60
    assert len(set(numbers)) == 60
    assert not list((project.root / ".locks" / "numbers").iterdir())


def test_a_library_call_is_a_run_of_its_own(project: Project) -> None:
    with project.new_artifact("generator", TrainGanConfig(), QuietReporter()) as draft:
        status = runs.read_status(project.runs()[0])
        assert (status.state, status.pid, status.without_worker) == ("running", os.getpid(), True)
    status = runs.read_status(project.runs()[0])
    assert (status.state, status.artifact) == ("done", draft.result.id)
    assert status.ended_well


def test_a_status_of_a_newer_version_is_read(project: Project) -> None:
    run = project.new_run(TrainGanConfig())
    path = run / "status.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "mood": "good"}))
    assert runs.read_status(run).number == 1
    path.write_text('{"stage": "train_gan"}')
    with pytest.raises(ProjectDamaged, match="incomplete"):
        runs.read_status(run)


def test_folders_that_are_no_runs_are_refused(project: Project, tmp_path: Path) -> None:
    for name in ("0001-unicorn", "notes", "1-train-gan"):
        with pytest.raises(JobError, match="is not a run"):
            runs.read_run_config(tmp_path / name)
    assert runs.run_number(project.root, tmp_path / "0001-train-gan") is None


def test_a_process_is_known_by_pid_and_start(tmp_path: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", "pass"])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT) if hasattr(os, "waitid") else child.wait()
    assert runs.process_started(child.pid) is None, "a zombie is no living process"
    child.wait()
    assert runs.process_started(os.getpid()) is not None


def test_events_are_read_by_whole_lines(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    assert runs.load_events(path) == ([], 0)
    path.write_bytes(b'{"kind": "a"}\nnot json\n[1]\n{"kind": "b"')
    events, offset = runs.load_events(path)
    assert events == [{"kind": "a"}]
    with path.open("ab") as file:
        file.write(b', "x": 1}\n')
    assert runs.load_events(path, offset)[0] == [{"kind": "b", "x": 1}]
    assert runs.load_events(path, runs.load_events(path)[1])[0] == []
