"""An evaluation of several slides: which heatmaps are meant, and what is said if files are missing."""

from __future__ import annotations

import json
import shutil

import pytest

from napari_histogan.config import AddSlidesConfig, EvaluateConfig, PredictHeatmapConfig
from napari_histogan.errors import ConfigError
from napari_histogan.pipeline import STAGE_FUNCTIONS
from napari_histogan.progress import QuietReporter
from napari_histogan.project.reads import what_it_reads


@pytest.fixture
def project(tiny_project_copy, demo_slide, tmp_path):
    """The tiny project with a second slide, a heatmap of each, and a folder of outlines."""
    copy = tmp_path / "second.svs"
    shutil.copyfile(demo_slide, copy)
    run(tiny_project_copy, AddSlidesConfig(paths=(copy,)))
    run(tiny_project_copy, PredictHeatmapConfig(slide="second", threads=1))
    folder = tmp_path / "outlines"
    folder.mkdir()
    square = [[0, 0], [900, 0], [900, 900], [0, 900], [0, 0]]
    for name, found in (("CMU-1-Small-Region", "dermis"), ("second", "glass")):
        feature = {
            "type": "Feature",
            "geometry": {"type": "Polygon", "coordinates": [square]},
            "properties": {"classification": {"name": found}},
        }
        text = json.dumps({"type": "FeatureCollection", "features": [feature]})
        (folder / f"{name}.geojson").write_text(text)
    return tiny_project_copy


def run(project, config):
    return STAGE_FUNCTIONS[config.stage](project, config, QuietReporter())


def test_a_folder_evaluates_the_newest_heatmap_of_each_slide(project, tmp_path):
    config = EvaluateConfig(reference=tmp_path / "outlines", bootstrap=50)
    heatmaps = [a.id for a in project.artifacts("heatmap")]
    assert set(heatmaps) < set(what_it_reads(project, config))
    made = run(project, config)
    assert made.summary["slides"] == 2
    files = [f"file:{tmp_path / 'outlines' / name}.geojson" for name in ("CMU-1-Small-Region", "second")]
    assert [parent.id for parent in made.parents] == [*heatmaps, *files]
    document = json.loads((made.path / "evaluation.json").read_text())
    assert list(document["slides"]) == ["CMU-1-Small-Region", "second"]
    assert document["unit"] == "slides"
    assert "Each slide" in (made.path / "report.html").read_text()
    (tmp_path / "outlines" / "second.geojson").unlink()
    alone = run(project, config)
    assert alone.summary["slide"] == "CMU-1-Small-Region"


def test_what_does_not_fit_together_is_said_before_any_work(project, tmp_path):
    folder = tmp_path / "outlines"
    first, second = (a.id for a in project.artifacts("heatmap"))
    one = folder / "second.geojson"
    for fields, words in (
        ({"reference": one, "heatmap": f"{first},{second}"}, "2 heatmaps and one file second.geojson"),
        ({"reference": folder, "heatmap": f"{first},{first}"}, "two of the heatmaps are of CMU-1"),
        ({"reference": folder, "ignore": one}, "one file second.geojson to ignore was given for 2 slides"),
        ({"reference": tmp_path / "none"}, "there are no outlines at"),
        ({}, "there are no outlines at"),
    ):
        with pytest.raises(ConfigError, match=words):
            run(project, EvaluateConfig(**fields))
    with pytest.raises(ConfigError, match="evaluate was given no file"):
        what_it_reads(project, EvaluateConfig())
    one.unlink()
    with pytest.raises(ConfigError, match="has no outlines of second"):
        run(project, EvaluateConfig(reference=folder, heatmap=f"{first},{second}"))
    assert project.artifacts("evaluation") == []
