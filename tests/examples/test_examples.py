"""The examples run as people run them, are short, and leave out no stage."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from napari_histogan import config as c
from napari_histogan.project.store import Project
from napari_histogan.slides.zarr_pyramid import open_pyramid

FOLDER = Path(__file__).parents[2] / "examples"
MOST_LINES = 60

pytestmark = pytest.mark.timeout(900)  # a minute of work, on a machine that may be busy


def run(name: str, folder: Path) -> str:
    command = [sys.executable, str(FOLDER / f"{name}.py"), str(folder)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=800, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_main_way_a_patch_classifier_and_a_study(tmp_path):
    run("pictures_with_masks", tmp_path)  # runs every_stage first
    project = Project.open(tmp_path / "project")
    kinds = {artifact.kind for artifact in project.artifacts()}
    assert {"segmenter", "objects", "evaluation", "corrections", "patch_classifier", "study"} <= kinds
    corrected = project.artifacts("segmenter")[-1]
    assert project.artifacts("corrections")[0].id in {parent.id for parent in corrected.parents}


def test_coarse_labels(tmp_path):
    run("coarse_labels", tmp_path / "project")
    stages = [artifact.stage for artifact in Project.open(tmp_path / "project").artifacts("segmenter")]
    assert stages == ["train_super_resolution", "train_weakly"]


def test_a_net_of_ones_own_covers_the_slide(tmp_path):
    run("own_net", tmp_path)
    middle = open_pyramid(tmp_path / "own.zarr").levels[0][:, 150:200, 100:150].astype(int)
    assert (abs(middle.sum(axis=0) - 100) <= 1).all()


def test_a_slide_format_of_ones_own(tmp_path):
    text = run("own_slide_backend", tmp_path)
    assert "1200 x 1600 px, 0.5 um/px, 2 levels" in text
    found, drawn = map(float, re.search(r"tissue: ([\d.]+), drawn: ([\d.]+)", text).groups())
    assert found == pytest.approx(drawn, abs=0.03)


def test_they_are_short_and_call_every_stage():
    texts = {path.name: path.read_text(encoding="utf-8") for path in FOLDER.glob("*.py")}
    for name, text in texts.items():
        assert len(text.splitlines()) < MOST_LINES, name
    for stage, model in c.STAGES.items():
        assert any(f"c.{model.__name__}(" in text for text in texts.values()), stage
