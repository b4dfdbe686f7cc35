"""What the dock says comes next, along the way of a project."""

import numpy as np
import pytest

from napari_histogan.geometry import Region
from napari_histogan.labels.classes import ClassTable
from napari_histogan.project.corrections import Correction
from napari_histogan.project.store import Project
from napari_histogan.widgets.overview import next_step, overview, uncounted_corrections


def states(project):
    return {step.name: step.state for step in overview(project)}


def action(project, running=()):
    return next_step(project, overview(project, running), running).action


def test_empty_project_wants_slides(tmp_path):
    project = Project.create(tmp_path / "p")
    assert action(project) == "add_slides"
    assert set(states(project).values()) == {"missing"}


def test_finished_project_is_looked_at(tiny_project):
    assert action(tiny_project) == "look"
    assert set(states(tiny_project).values()) == {"there"}


def test_new_paint_makes_what_follows_stale(tiny_project_copy):
    project = tiny_project_copy
    samples = project.artifacts("samples")[-1]
    project.save_mask(samples, 9, np.ones((32, 32), np.uint8))
    found = states(project)
    assert found["masks"] == "there"
    assert found["pixel_classifier"] == found["segmenter"] == found["heatmap"] == "stale"
    assert action(project) == "train"


def test_running_job_is_the_next_thing_to_look_at(tiny_project):
    assert action(tiny_project, ["train_segmenter"]) == "show_job"
    running = {step.name: step.state for step in overview(tiny_project, ["train_segmenter"])}
    assert running["segmenter"] == "running"


def test_correction_asks_for_retraining(tiny_project_copy):
    project = tiny_project_copy
    mask = np.ones((32, 32), np.uint8)
    slide = project.slides()[0].name
    project.save_correction(Correction("one", slide, Region(0, 0, 32, 32), 1.0, mask))
    assert uncounted_corrections(project) == 1
    assert action(project) == "retrain"


@pytest.mark.parametrize(("kind", "expected"), [("samples", "sample_images"), ("segmenter", "train")])
def test_missing_results(tiny_project_copy, kind, expected):
    import shutil

    project = tiny_project_copy
    for artifact in project.artifacts(kind):
        shutil.rmtree(artifact.path)
    assert action(project) == expected


def test_project_without_classes_asks_for_them(tiny_project_copy):
    project = tiny_project_copy
    samples = project.artifacts("samples")[-1]
    for index in project.painted(samples):
        project.save_mask(samples, index, np.zeros((32, 32), np.uint8))
    project.set_classes(ClassTable())
    assert action(project) == "add_class"
