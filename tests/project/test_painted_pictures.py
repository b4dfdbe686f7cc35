"""Painted pictures in a project: kept once, with every change of paint; refused with the numbers."""

import numpy as np
import pytest
from PIL import Image

from napari_histogan.errors import LabelError, ProjectLocked
from napari_histogan.labels.classes import ClassTable
from napari_histogan.project.backup import back_up, restore
from napari_histogan.project.painted_pictures import keep_picture, picture_in
from napari_histogan.project.store import Project

PIXELS = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
MASK = np.zeros((20, 30), np.uint8)
MASK[:5], MASK[10:] = 1, 2


@pytest.fixture
def project(tmp_path):
    return Project.create(tmp_path / "p", "P", ClassTable.from_names(["a", "b"]))


def read(path):
    with Image.open(path) as picture:
        return np.asarray(picture)


def test_a_picture_is_kept_once_and_its_paint_with_history(project):
    folder = keep_picture(project, "eye: left/2", PIXELS, MASK)
    assert folder.name == "eye-left-2"
    other = MASK.copy()
    other[7] = 1
    assert keep_picture(project, "eye: left/2", PIXELS, MASK) == folder
    assert not (folder / "history").exists()
    assert keep_picture(project, "eye: left/2", PIXELS, other) == folder
    assert keep_picture(project, "eye: left/2", PIXELS) == folder
    np.testing.assert_array_equal(read(picture_in(folder)), PIXELS)
    np.testing.assert_array_equal(read(folder / "masks" / "eye-left-2.png"), other)
    np.testing.assert_array_equal(read(folder / "history" / "0001.png"), MASK)
    second = keep_picture(project, "eye: left/2", 255 - PIXELS, MASK)
    assert second.name == "eye-left-2-2"
    np.testing.assert_array_equal(read(picture_in(folder)), PIXELS)


def test_what_does_not_fit_is_refused_and_nothing_is_kept(project):
    with pytest.raises(LabelError, match="20 x 30 pixels, its paint 19 x 30"):
        keep_picture(project, "x", PIXELS, MASK[1:])
    with pytest.raises(LabelError, match="3"):
        keep_picture(project, "x", PIXELS, MASK + 1)
    with pytest.raises(LabelError, match="10,000 x 10,000"):
        keep_picture(project, "x", np.broadcast_to(np.uint8(0), (10_000, 10_000, 3)))
    with pytest.raises(ProjectLocked):
        keep_picture(Project.open(project.root, read_only=True), "x", PIXELS, MASK)
    assert not (project.root / "labels" / "pictures").exists()


def test_a_backup_brings_picture_and_paint_back(project, tmp_path):
    folder = keep_picture(project, "eye", PIXELS, MASK)
    back_up(project, tmp_path / "b.zip")
    found = restore(tmp_path / "b.zip", tmp_path / "again").project
    again = found.root / folder.relative_to(project.root)
    np.testing.assert_array_equal(read(picture_in(again)), PIXELS)
    np.testing.assert_array_equal(read(again / "masks" / "eye.png"), MASK)
