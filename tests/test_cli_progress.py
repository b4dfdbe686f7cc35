"""The bar and the tables say what a job does, on a terminal and in a log."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from napari_histogan.cli_progress import JobDisplay, duration
from napari_histogan.cli_tables import next_step, status_json, status_tables
from napari_histogan.config import SampleImagesConfig, TrainGanConfig
from napari_histogan.jobs.runner import list_jobs
from napari_histogan.progress import RunReporter
from napari_histogan.project.overview import overview
from napari_histogan.project.runs import read_status, this_process, write_status
from napari_histogan.project.store import Project


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, ""),
        (0, "0 s left"),
        (59.4, "59 s left"),
        (59.6, "1 min 0 s left"),
        (150, "2 min 30 s left"),
        (3600, "1 h 0 min left"),
        (90_060, "25 h 1 min left"),
    ],
)
def test_a_time_left_in_words(seconds: float | None, text: str) -> None:
    assert duration(seconds) == text


def shown(events: list[dict], terminal: bool) -> str:
    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal, width=120, color_system=None)
    with JobDisplay(console, "0003-train-gan") as display:
        for event in events:
            display.show(event)
    return out.getvalue()


EVENTS = [
    {"kind": "state", "state": "queued", "message": "process 7 runs a job"},
    {"kind": "progress", "done": 1, "total": 4, "message": "reading [slides]", "seconds_left": 90.0},
    {"kind": "metric", "step": 1, "t": 0.0, "loss": 0.123456, "note": "nan"},
    {"kind": "progress", "done": 2, "total": 4, "message": "reading [slides]", "seconds_left": 60.0},
    {"kind": "warning", "message": "[odd] slide"},
    {"kind": "preview", "name": "x", "path": "y.png"},
]


def test_a_log_gets_one_line_a_phase_and_every_note() -> None:
    assert shown(EVENTS, terminal=False).splitlines() == [
        "0003-train-gan: waits: process 7 runs a job",
        "0003-train-gan: reading [slides]",
        "0003-train-gan: note: [odd] slide",
    ]


def test_a_terminal_gets_phase_percent_time_and_numbers() -> None:
    text = shown(EVENTS, terminal=True)
    for part in (
        "0003-train-gan: reading [slides]",
        "50%",
        "1 min 0 s left",
        "loss 0.123",
        "note: [odd] slide",
    ):
        assert part in text


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project.create(tmp_path / "[odd] name")


def rendered(project: Project) -> str:
    out = io.StringIO()
    console = Console(file=out, width=150, color_system=None, soft_wrap=True)
    for part in status_tables(project, overview(project), list_jobs(project.root), "P"):
        console.print(part)
    return out.getvalue()


def test_the_status_shows_names_as_they_are_and_jobs_at_work(project: Project) -> None:
    assert "[odd] name" in rendered(project)
    run = project.new_run(TrainGanConfig())
    write_status(run, replace(read_status(run), state="running", **this_process()))
    reporter = RunReporter(run)
    reporter.progress(1, 4, "kimg", "training [G]")
    reporter.close()
    text = rendered(project)
    assert "0001-train-gan" in text
    assert "training [G] 25%" in text
    assert "0001-train-gan is at work; end it with: histogan stop P 1" in text


def test_what_stopped_is_the_next_step_only_for_its_own_stage(project: Project) -> None:
    run = project.new_run(TrainGanConfig())
    write_status(run, replace(read_status(run), state="stopped"))
    found, jobs = overview(project), list_jobs(project.root)
    assert found.next_stage == "add_slides"
    assert next_step(found, jobs) == found.next_step
    assert "histogan resume PROJECT 1" in next_step(replace(found, next_stage="train_gan"), jobs)
    assert status_json(project, found, jobs)["jobs"][0]["state"] == "stopped"


def test_failures_that_were_overtaken_are_left_out(project: Project) -> None:
    def put(config, state: str) -> str:
        run = project.new_run(config)
        error = {"type": "X", "message": f"trouble in {run.name}"} if state == "failed" else None
        write_status(run, replace(read_status(run), state=state, error=error))
        return run.name

    for state in ("failed", "failed", "done"):
        put(SampleImagesConfig(), state)
    for state in ("failed", "done", "failed", "failed"):
        put(TrainGanConfig(), state)
    text = rendered(project)
    shown = re.findall(r"^(\d{4}-\S+) +(\w+)", text, re.MULTILINE)
    assert shown == [("0003-sample-images", "done"), ("0005-train-gan", "done"), ("0007-train-gan", "failed")]
    assert "trouble in 0007-train-gan" in text


def test_the_status_names_stages_like_their_verbs(project: Project) -> None:
    text = rendered(project)
    for verb in ("add-slides", "train-gan", "train-pixel-classifier"):
        assert re.search(rf"^{verb} ", text, re.MULTILINE)
    assert "train_gan" not in text
