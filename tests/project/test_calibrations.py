"""Estimates of blocks are human work: nothing of them is lost, and backups carry them."""

from __future__ import annotations

import json

import pytest

from napari_histogan.errors import LabelError, ProjectDamaged, ProjectLocked
from napari_histogan.labels.classes import ClassTable
from napari_histogan.project.backup import back_up, restore
from napari_histogan.project.calibrations import Calibration, damaged_calibrations
from napari_histogan.project.store import Project


@pytest.fixture
def project(tmp_path):
    return Project.create(tmp_path / "p", classes=ClassTable.from_names(["tumor", "other"]))


def test_each_estimate_is_on_disk_at_once_and_none_is_forgotten(project):
    calibration = Calibration(project, "block_labels/0007")
    assert calibration.content_hash() is None
    calibration.estimate(3, 4, "low", {"tumor": 0.25, "other": 0.75})
    calibration.estimate(0, 1, "high", {"tumor": 1.0, "other": 0.0})
    calibration.estimate(3, 4, "low", {"tumor": 0.5, "other": 0.5})
    # Another process, as after the window was closed without a word.
    again = Calibration(Project.open(project.root), "block_labels/0007")
    assert again.estimates()[3, 4].shares == {"tumor": 0.5, "other": 0.5}
    assert again.shares(("other", "tumor")) == {"low": [[0.5, 0.5]], "high": [[0.0, 1.0]]}
    assert again.shares(("other", "stroma")) == {}
    before = again.content_hash()
    again.take_back(3, 4)
    assert (3, 4) not in calibration.estimates()
    assert calibration.content_hash() != before
    earlier = json.loads(calibration.path.read_text())["earlier"]
    assert [e["shares"]["tumor"] for e in earlier] == [0.25, 0.5]


def test_what_cannot_be_right_is_refused(project):
    calibration = Calibration(project, "block_labels/0007")
    with pytest.raises(LabelError, match=r"row 0, column 1.*sum to 1"):
        calibration.estimate(0, 1, "low", {"tumor": 0.5, "other": 0.1})
    closed = Calibration(Project.open(project.root, read_only=True), "block_labels/0007")
    with pytest.raises(ProjectLocked):
        closed.estimate(0, 1, "low", {"tumor": 0.5, "other": 0.5})
    assert not calibration.path.exists()


def test_a_backup_carries_the_estimates(project, tmp_path):
    calibration = Calibration(project, "block_labels/0007")
    calibration.estimate(3, 4, "low", {"tumor": 0.25, "other": 0.75})
    assert back_up(project, tmp_path / "b.zip") == 1
    restored = restore(tmp_path / "b.zip", tmp_path / "new").project
    assert Calibration(restored, "block_labels/0007").content_hash() == calibration.content_hash()


def test_damage_is_found(project):
    calibration = Calibration(project, "block_labels/0007")
    calibration.estimate(3, 4, "low", {"tumor": 0.25, "other": 0.75})
    assert damaged_calibrations(project) == {}
    calibration.path.write_text(calibration.path.read_text()[:-40], encoding="utf-8")
    assert list(damaged_calibrations(project)) == [calibration.id]
    with pytest.raises(ProjectDamaged, match="restore it from a backup"):
        calibration.estimates()
