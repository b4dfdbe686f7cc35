"""Plans of patches made by workers on this machine, over loopback."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from napari_histogan import config as c
from napari_histogan.errors import ConfigError, NoTissue, SlideError, Stopped
from napari_histogan.inference.shared_plan import NOTES
from napari_histogan.pipeline import add_slides, extract_patches
from napari_histogan.progress import QuietReporter
from napari_histogan.project.store import Project

SIDE, COUNT = 256, 6


def draw(path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    picture = np.full((SIDE, SIDE, 3), 240, np.uint8)
    y, x = rng.integers(10, 60, 2)
    tissue = rng.normal((190, 110, 160), 12, (150, 170, 3))
    picture[y : y + 150, x : x + 170] = tissue.clip(0, 255)
    Image.fromarray(picture).save(path)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A project with a few small slides."""
    (tmp_path / "slides").mkdir()
    for seed in range(COUNT):
        draw(tmp_path / "slides" / f"s{seed}.png", seed)
    project = Project.create(tmp_path / "project")
    add_slides(project, c.AddSlidesConfig(paths=(tmp_path / "slides",), mpp=1.0), QuietReporter())
    return project


def settings(**fields: Any) -> c.ExtractPatchesConfig:
    return c.ExtractPatchesConfig(patch_px=32, mpp=2.0, **fields)


def content(folder: Path) -> dict[str, bytes]:
    names = (path for path in folder.iterdir() if path.name != "artifact.json")
    return {path.name: path.read_bytes() for path in names}


class Meddler(QuietReporter):
    """Does something once, as soon as a slide is done; the deed says whether to stop."""

    def __init__(self, run_dir: Path, deed: Callable[[], bool]) -> None:
        super().__init__(run_dir)
        self._deed, self.counts, self._stop = deed, list[float](), False

    def progress(self, done: float, total: float, unit: str = "", message: str = "") -> None:
        """Meddle."""
        super().progress(done, total, unit, message)
        if done and not any(self.counts):
            self._stop = self._deed()
        self.counts.append(done)

    def should_stop(self) -> bool:
        """Tell what the deed said."""
        return self._stop


def test_workers_find_the_same_tissue_even_if_one_is_lost(
    project: Project, cluster: Any, tmp_path: Path
) -> None:
    here = extract_patches(project, settings(), QuietReporter(tmp_path / "here"))
    victim = next(iter(cluster.workers.values())).pid

    def kill() -> bool:
        os.kill(victim, signal.SIGKILL)
        return False

    reporter = Meddler(tmp_path / "there", kill)
    there = extract_patches(project, settings(scheduler=cluster.scheduler_address), reporter)
    assert reporter.counts[-1] == COUNT
    assert content(there.path) == content(here.path)
    assert not (tmp_path / "there" / NOTES).exists()


def test_a_stopped_plan_goes_on_with_the_slides_that_are_left(
    project: Project, cluster: Any, tmp_path: Path
) -> None:
    wanted = settings(scheduler=cluster.scheduler_address)
    with pytest.raises(Stopped):
        extract_patches(project, wanted, Meddler(tmp_path / "run", lambda: True))
    notes = tmp_path / "run" / NOTES
    done = {path: path.stat().st_mtime_ns for path in notes.glob("*.json")}
    assert 0 < len(done) < COUNT
    assert not project.artifacts("patches")
    again: list[bool] = []

    def look() -> bool:
        again.extend(path.stat().st_mtime_ns != written for path, written in done.items())
        return False

    resumed = Meddler(tmp_path / "run", look)
    made = extract_patches(project, wanted, resumed)
    assert again == [False] * len(done)  # what was done is not done again
    assert resumed.counts[0] == len(done)
    assert len(json.loads((made.path / "plan.json").read_text())["slides"]) == COUNT


def test_workers_refuse_slides_by_name(project: Project, cluster: Any, tmp_path: Path) -> None:
    wanted = settings(scheduler=cluster.scheduler_address)
    changed = tmp_path / "slides" / "s2.png"
    kept = changed.read_bytes()
    Image.new("RGB", (SIDE, SIDE), (200, 90, 150)).save(changed)
    with pytest.raises(SlideError, match=r"file of slide s2 .* is not the one that was added"):
        extract_patches(project, wanted, QuietReporter(tmp_path / "run"))
    changed.write_bytes(kept)
    Image.new("RGB", (SIDE, SIDE), (240, 240, 240)).save(tmp_path / "glass.png")
    add_slides(project, c.AddSlidesConfig(paths=(tmp_path / "glass.png",), mpp=1.0), QuietReporter())
    with pytest.raises(NoTissue, match=r"glass\.png shows tissue on 0\.00%"):
        extract_patches(project, wanted, QuietReporter(tmp_path / "other"))
    assert not project.artifacts("patches")


def test_a_scheduler_is_an_address() -> None:
    with pytest.raises((ConfigError, ValueError), match="must be an address such as tcp://host:8786"):
        settings(scheduler="localhost")
