"""The whole story by mouse and keys, with napari killed twice on the way and nothing lost.

Pictures of every step are kept in the ignored folder ``test-artifacts/story``.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from qtpy.QtWidgets import QApplication

from napari_histogan.project.store import Project

pytestmark = pytest.mark.gui
HERE = Path(__file__).parent
PICTURES = HERE.parents[1] / "test-artifacts" / "story"
LIMIT_S = 1200.0


class Child:
    """One sitting in a process of its own."""

    def __init__(self, act: str, folder: Path) -> None:
        config = folder / "config"
        config.mkdir(exist_ok=True)
        environment = {
            **os.environ,
            "NAPARI_CONFIG": str(config / "settings.yaml"),
            "XDG_CONFIG_HOME": str(config),
            "HOME": str(folder),
        }
        command = [sys.executable, str(HERE / "player.py"), act, str(folder), str(PICTURES)]
        self.errors = folder / f"{act}-errors.txt"
        with self.errors.open("wb") as errors:
            self.process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment
            )
        self._timer = threading.Timer(LIMIT_S, self.process.kill)
        self._timer.start()
        self.said: list[str] = []

    def until(self, word: str) -> None:
        """Read until a line says so."""
        for line in self.process.stdout:
            self.said.append(line.rstrip())
            if line.rstrip() == word:
                return
        self.end()
        raise AssertionError(f"never came to {word}\n{self.said}\n{self.errors.read_text()[-4000:]}")

    def kill(self) -> None:
        """End it as a crash does."""
        os.kill(self.process.pid, 9)
        self.end()

    def end(self) -> int:
        """Wait for its end; returns its exit code."""
        code = self.process.wait()
        self._timer.cancel()
        self.process.stdout.close()
        return code

    def complaints(self) -> list[str]:
        """Return errors and warnings that the dock told."""
        return [line for line in self.said if line.startswith(("error:", "warning:"))]


@pytest.mark.timeout(3600)
def test_from_an_empty_folder_to_outlines_with_two_crashes(qapp: QApplication, tmp_path):
    shutil.rmtree(PICTURES, ignore_errors=True)
    root = tmp_path / "project"
    root.mkdir()

    first = Child("begin", tmp_path)
    first.until("PAINTED")
    first.kill()
    assert first.complaints() == []
    project = Project.open(root)
    samples = project.artifacts("samples")[-1]
    assert project.painted(samples) == [0, 1, 2]
    last = project.load_mask(samples, 2)
    assert (last[54, 12:50] == 2).all(), "the very last stroke was lost"

    second = Child("train", tmp_path)
    second.until("TRAINING")
    assert not project.artifacts("segmenter")
    second.kill()
    assert second.complaints() == []

    third = Child("finish", tmp_path)
    third.until("FINISHED")
    assert third.end() == 0
    assert [said for said in third.complaints() if "made the net worse" not in said] == []

    nets = project.artifacts("segmenter")
    assert [net.config["steps"] for net in nets] == [120, 120]
    assert any(parent.id.startswith("corrections/") for parent in nets[1].parents)
    (correction,) = project.corrections()
    assert (correction.mask[40, 24:96] == 2).all()
    assert (correction.mask[80, 24:96] == 1).all()
    outlines = json.loads((tmp_path / "outlines.geojson").read_text(encoding="utf-8"))
    assert outlines["features"]
    names = {feature["properties"]["classification"]["name"] for feature in outlines["features"]}
    assert names <= {"epidermis", "other"}
    made = {path.stem for path in PICTURES.glob("*.png")}
    assert len(made) == 20
    assert not any(name.startswith("stuck") for name in made)
