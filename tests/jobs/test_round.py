"""What the compute process says of a round: on what it was judged, and how good the nets were there."""

import json

import numpy as np
import pytest

from napari_histogan.config import (
    EvaluateConfig,
    MergeCorrectionsConfig,
    PredictHeatmapConfig,
    TrainSegmenterConfig,
)
from napari_histogan.geometry import Region
from napari_histogan.jobs.engine_requests import Request
from napari_histogan.jobs.live_maps import judge_round
from napari_histogan.pipeline import STAGE_FUNCTIONS
from napari_histogan.progress import QuietReporter
from napari_histogan.project.corrections import Correction

pytestmark = pytest.mark.timeout(400)
TINY = {"steps": 2, "width": 4, "depth": 2, "batch": 4, "threads": 1}


def run(project, config):
    return STAGE_FUNCTIONS[config.stage](project, config, QuietReporter())


def judged(project, before, after):
    request = Request(1, "round", {"project": str(project.root), "before": before.id, "after": after.id})
    values, arrays = [answer for answer in judge_round(request) if answer is not None][-1]
    assert arrays == {}
    return values


def correct(project, number):
    mask = np.ones((64, 64), np.uint8)
    mask[:, 32:] = 2
    region = Region(40 + 70 * number, 40, 64, 64)
    made = f"2026-01-{number + 1:02d}T00:00:00"
    project.save_correction(
        Correction(f"c-{number}", project.slide("").name, region, 1.0, mask, created=made)
    )


def outlines_of_a_part(path):
    """One square of each of two classes, in pixels of the slide."""
    squares = {"epidermis": (100, 100), "dermis": (500, 500)}
    features = [
        {
            "type": "Feature",
            "geometry": {
                "type": "Polygon",
                "coordinates": [[[x, y], [x + 200, y], [x + 200, y + 200], [x, y + 200], [x, y]]],
            },
            "properties": {"objectType": "annotation", "classification": {"name": name}},
        }
        for name, (x, y) in squares.items()
    ]
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return path


def test_a_round_is_judged_where_no_version_learned_if_that_is_possible(tiny_project_copy, tmp_path):
    project = tiny_project_copy
    before = project.artifacts("heatmap")[-1]
    correct(project, 0)
    run(project, MergeCorrectionsConfig(patch_px=32))
    run(project, TrainSegmenterConfig(**TINY))
    after = run(project, PredictHeatmapConfig(threads=1))
    said = judged(project, before, after)
    assert (said["on"], said["places"], said["judged"]) == ("learned", 1, 1)
    assert said["area_mm2"] == pytest.approx(64 * 64 / 1e6)
    correct(project, 1)  # after the training: nobody learned it
    said = judged(project, before, after)
    assert (said["on"], said["places"], said["judged"]) == ("kept back", 2, 1)
    assert -1 <= said["before"] <= 1
    assert -1 <= said["after"] <= 1
    reference = outlines_of_a_part(tmp_path / "outlines.geojson")
    mcc = []
    for heatmap in (before, after):
        assert judged(project, before, after)["on"] == "kept back"  # until both were compared
        made = run(project, EvaluateConfig(reference=reference, heatmap=heatmap.id, bootstrap=0))
        mcc.append(made.summary["mcc"])
    said = judged(project, before, after)
    assert (said["on"], said["slides"]) == ("slides", project.slide("").name)
    assert [said["before"], said["after"]] == pytest.approx(mcc)
