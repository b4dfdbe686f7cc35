"""Cleaning removes left-overs, and never results, human work, or what somebody is writing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from napari_histogan.config import LabelEfficiencyConfig, TrainGanConfig
from napari_histogan.progress import QuietReporter
from napari_histogan.project.cleaning import ELSEWHERE_S, leftovers, remove
from napari_histogan.project.runs import read_status, write_status
from napari_histogan.project.store import Project

KILLED = """
import os, signal, sys
from pathlib import Path
from napari_histogan.config import LabelEfficiencyConfig, TrainGanConfig
from napari_histogan.progress import QuietReporter
from napari_histogan.project.store import Project
with Project.open(sys.argv[1]).new_artifact("generator", TrainGanConfig(), QuietReporter()) as draft:
    (draft.path / "weights").write_bytes(bytes(1000))
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def killed(project: Project) -> Path:
    """What a process that was killed in the middle of an artifact left."""
    assert subprocess.run([sys.executable, "-c", KILLED, str(project.root)], check=False).returncode < 0
    (found,) = (project.root / "generators").iterdir()
    return found


def test_a_killed_process_leaves_no_artifact_and_cleaning_finds_the_rest(
    project: Project, killed: Path
) -> None:
    assert project.artifacts() == []
    assert leftovers(project.root) == [], "it is too young to be sure that nobody writes to it"
    (found,) = leftovers(project.root, settled_s=0)
    assert (found.path, found.size) == (killed, 1000)
    assert remove([found]) == 1000
    assert not killed.exists()
    assert remove([found]) == 0


def test_what_lives_or_matters_stays(project: Project, killed: Path) -> None:
    with project.new_artifact("samples", TrainGanConfig(), QuietReporter()) as draft:
        (draft.path / "x").write_text("x")
        found = leftovers(project.root, settled_s=0)
        assert [item.path for item in found] == [killed], "a living process is at work on the other"
    project.save_mask("samples/0002", 0, np.ones((4, 4), np.uint8))
    project.save_mask("samples/0002", 0, np.zeros((4, 4), np.uint8))
    project.masks("0002").finish_history()
    old = time.time() - 1000
    for path in project.root.rglob("*"):
        os.utime(path, (old, old))
    before = {p for p in project.root.rglob("*") if killed not in (p, *p.parents)}
    remove(leftovers(project.root))
    assert {p for p in project.root.rglob("*") if p.exists()} == before


def test_checkpoints_go_once_there_is_a_result(project: Project) -> None:
    run = project.new_run(TrainGanConfig())
    (run / "checkpoints" / "000100").mkdir()
    (run / "checkpoints" / "000100" / "state").write_bytes(bytes(500))
    for state in ("queued", "running", "stopped", "failed"):
        write_status(run, replace(read_status(run), state=state))
        assert leftovers(project.root) == [], "a run that may go on needs its checkpoints"
    write_status(run, replace(read_status(run), state="done"))
    assert remove(leftovers(project.root)) == 500
    assert list((run / "checkpoints").iterdir()) == []
    assert (run / "config.toml").exists()


def test_chunks_half_written_within_a_study_go(project: Project) -> None:
    run = project.new_run(LabelEfficiencyConfig())
    chunks = run / "seed-0" / "synthetic" / "pairs" / "pairs.zarr" / "masks" / "c" / "0"
    chunks.mkdir(parents=True)
    (chunks / "0").write_bytes(bytes(100))
    half = chunks / "1.9a3c71af7c62420b92d89d4ee43a3d6f.partial"
    half.write_bytes(bytes(10))
    assert [item.path for item in leftovers(project.root, settled_s=0)] == [half]


def test_numbers_claimed_by_nobody_go(project: Project) -> None:
    claim = project.root / ".locks" / "numbers" / "0009"
    claim.mkdir(parents=True)
    assert leftovers(project.root) == []
    remove(leftovers(project.root, settled_s=0))
    assert not claim.exists()


def test_the_name_of_who_held_a_lock_goes_with_him(project: Project) -> None:
    told = project.root / ".locks" / "jobs.json"
    with project.job_lock("train_gan"):
        assert leftovers(project.root, settled_s=0) == []
        name = told.read_bytes()
    assert not told.exists()
    told.write_bytes(name)  # as a killed process leaves it
    assert leftovers(project.root) == []
    remove(leftovers(project.root, settled_s=0))
    assert not told.exists()


def test_nothing_half_written_goes_while_another_machine_works(project: Project, killed: Path) -> None:
    run = project.new_run(TrainGanConfig())
    far = replace(read_status(run), state="running", host="elsewhere", pid=1, heartbeat=time.time())
    write_status(run, far)
    assert leftovers(project.root, settled_s=0) == []
    write_status(run, replace(far, heartbeat=time.time() - ELSEWHERE_S - 1))
    assert [item.path for item in leftovers(project.root, settled_s=0)] == [killed]
    lock = project.root / ".locks" / "jobs.json"
    with project.job_lock("train_gan"):
        lock.write_text(json.dumps({"pid": 1, "host": "elsewhere", "stage": "train_gan", "since": "now"}))
        assert leftovers(project.root, settled_s=0) == []


def test_checkpoints_stay_when_the_result_is_gone(project: Project) -> None:
    run = project.new_run(TrainGanConfig())
    (run / "checkpoints" / "step").write_bytes(bytes(5))
    write_status(run, replace(read_status(run), state="done", artifact="generators/0001"))
    assert leftovers(project.root) == []
    (project.root / "generators" / "0001").mkdir(parents=True)
    assert [item.size for item in leftovers(project.root)] == [5]
