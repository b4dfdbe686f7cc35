"""Projects of every layout that there ever was are read, with all that people did and all results."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest

from napari_histogan.inference.sampling import load_samples
from napari_histogan.models.generator_file import load_generator
from napari_histogan.models.pixel_classifier import load_pixel_classifier
from napari_histogan.models.segmenter import load_segmenter
from napari_histogan.project.artifacts import verify_all
from napari_histogan.project.calibrations import Calibration
from napari_histogan.project.overview import overview
from napari_histogan.project.store import Project
from napari_histogan.project.upgrades import SCHEMA
from napari_histogan.slides.zarr_pyramid import open_pyramid

HERE = Path(__file__).parent
ARCHIVES = sorted(HERE.glob("schema-*.zip"))


@pytest.fixture(params=ARCHIVES, ids=lambda path: path.stem)
def project(request, tmp_path):
    with zipfile.ZipFile(request.param) as bundle:
        bundle.extractall(tmp_path)
    return Project.open(tmp_path / "project")


def test_there_is_an_archive_of_the_present_layout():
    assert (HERE / f"schema-{SCHEMA}.zip") in ARCHIVES


def test_what_people_did_is_read(project):
    assert project.classes.names == ("disc", "ground")
    assert project.painted("samples/0004") == [0, 1, 2]
    assert set(np.unique(project.load_mask("samples/0004", 1))) == {0, 1, 2}
    (edge,) = project.corrections()
    assert (edge.name, edge.slide, edge.mask.shape) == ("edge", "m1", (64, 64))
    assert len(Calibration(project, "block_labels/0009").estimates()) == 6


def test_results_are_whole_and_their_settings_and_contents_are_read(project):
    found = verify_all(project.root)
    assert len(found) == 10
    assert not any(found.values())
    for artifact in project.artifacts():
        assert artifact.stage_config().stage == artifact.stage
        assert project.family(artifact).id == artifact.id
    assert overview(project).next_step
    generator = load_generator(project.artifact("", "generator").path)
    assert generator.spec.img_resolution == 32
    assert len(load_samples(project.artifact("", "samples").path).w) == 8
    assert load_pixel_classifier(project.artifact("", "pixel_classifier").path).spec.num_classes == 2
    assert load_segmenter(project.artifact("", "segmenter").path)[1].class_names == ("disc", "ground")
    heatmap = open_pyramid(project.artifact("", "heatmap").path / "heatmap.zarr")
    assert heatmap.channels == ("disc", "ground")


def test_slides_are_found_where_they_moved_with_the_project(project, tmp_path):
    assert [entry.path.parent for entry in project.slides()] == [tmp_path / "slides"] * 4
    moved = shutil.move(tmp_path / "slides", tmp_path / "elsewhere")
    assert not project.slide("m1").path.exists()
    assert Path(moved, "m1.png").exists()
