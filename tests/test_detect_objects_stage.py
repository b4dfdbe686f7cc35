"""The stage that turns a heatmap into objects: files for other programs, and errors before any work."""

from __future__ import annotations

import csv

import numpy as np
import pytest

from napari_histogan.config import DetectObjectsConfig
from napari_histogan.errors import ConfigError, Stopped
from napari_histogan.labels.classes import ClassTable
from napari_histogan.labels.interchange import read_annotations
from napari_histogan.pipeline import detect_objects
from napari_histogan.progress import QuietReporter
from napari_histogan.project.overview import overview
from napari_histogan.slides.zarr_pyramid import open_pyramid

LARGE_AREA = 2000.0


def test_table_and_outlines_tell_the_same_objects(tiny_project_copy, tmp_path):
    project = tiny_project_copy
    made = detect_objects(
        project, DetectObjectsConfig(threshold=0.4, min_area_um2=LARGE_AREA), QuietReporter(tmp_path / "run")
    )
    with (made.path / "objects.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    outlines = read_annotations(made.path / "objects.geojson")
    assert len(rows) == len(outlines) == made.summary["objects"] > 0
    heatmap = project.artifacts("heatmap")[-1]
    percent = np.asarray(open_pyramid(heatmap.path / "heatmap.zarr").levels[0][:])
    slide = project.slides()[0]
    for row, outline in zip(rows, outlines, strict=True):
        assert row["class"] == outline.class_name
        assert float(row["area_um2"]) >= LARGE_AREA
        # Level 0 pixels of the slide; smoothing and filled holes move the outline a little.
        assert outline.geometry.area * slide.mpp**2 == pytest.approx(float(row["area_um2"]), rel=0.2)
        found = percent[project.classes.names.index(row["class"])]
        assert found.max() >= 40
    assert made.parents[0].id == heatmap.id
    counts = {name: made.summary[f"objects_{name}"] for name in project.classes.names}
    assert counts == {name: sum(r["class"] == name for r in rows) for name in project.classes.names}
    state = next(state for state in overview(project).stages if state.kind == "objects")
    assert (state.stage, state.newest) == ("detect_objects", made.id)
    assert overview(project).next_stage != "detect_objects"  # optional


def test_classes_can_be_chosen_and_unknown_ones_are_refused(tiny_project_copy, tmp_path):
    project = tiny_project_copy
    made = detect_objects(
        project, DetectObjectsConfig(classes=("dermis",), threshold=0.2), QuietReporter(tmp_path / "run")
    )
    assert {o.class_name for o in read_annotations(made.path / "objects.geojson")} <= {"dermis"}
    assert "objects_glass" not in made.summary
    with pytest.raises(ConfigError, match="no class 'nail'"):
        detect_objects(project, DetectObjectsConfig(classes=("nail",)), QuietReporter(tmp_path / "other"))
    project.set_classes(ClassTable.from_names(["epidermis", "dermis", "glass", "nail"]))
    with pytest.raises(ConfigError, match="the heatmap has the classes epidermis, dermis, glass"):
        detect_objects(project, DetectObjectsConfig(), QuietReporter(tmp_path / "third"))
    assert len(project.artifacts("objects")) == 1


def test_a_stop_leaves_nothing(tiny_project_copy, tmp_path):
    with pytest.raises(Stopped):
        detect_objects(
            tiny_project_copy, DetectObjectsConfig(), QuietReporter(tmp_path / "run", stop_when=lambda: True)
        )
    assert tiny_project_copy.artifacts("objects") == []
