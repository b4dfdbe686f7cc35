from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from napari_histogan.evaluation.classifier_scores import score_classifier


def plan(folder: Path, validation: Any, test: Any) -> Path:
    """A classifier's JSON file with confusion matrices by image."""
    parts = {
        name: {"confusions": np.asarray(counts).tolist()} if len(counts) else {}
        for name, counts in (("validation", validation), ("test", test))
    }
    spec = {"classes": [{"name": "gland"}, {"name": "rest"}]}
    (folder / "classifier.json").write_text(json.dumps({"spec": spec, **parts}))
    return folder


def test_figures_of_all_images_with_intervals_over_images(tmp_path: Path) -> None:
    good, bad = [[90, 10], [0, 100]], [[50, 50], [50, 50]]
    shown = score_classifier(plan(tmp_path, [], [good] * 5 + [bad] * 5))
    found = json.loads((tmp_path / "classifier.json").read_text())["test"]["intervals"]
    value, low, high = found["pixel_accuracy"]
    assert value == pytest.approx((190 + 100) / 400)
    assert 0.5 < low < value < high < 0.95
    assert found["dice"]["gland"][0] == pytest.approx(2 * 140 / (2 * 140 + 50 + 60))
    assert found["class_accuracy"]["gland"][0] == pytest.approx(0.7)
    assert found["dice"]["gland"][0] != pytest.approx(value)  # Dice is not pixel accuracy
    assert shown["judged on"] == "10 test images"
    assert shown["most confused"] == "30% of gland taken for rest"
    assert str(shown["dice of gland"]).startswith("0.718 (")


def test_like_images_have_a_narrow_interval_and_one_image_none_to_speak_of(tmp_path: Path) -> None:
    score_classifier(plan(tmp_path, [[[9, 1], [2, 8]]] * 6, []))
    read = json.loads((tmp_path / "classifier.json").read_text())
    assert read["validation"]["intervals"]["pixel_accuracy"] == pytest.approx([0.85] * 3)
    assert read["test"] == {}


def test_a_class_without_pixels_has_no_figure(tmp_path: Path) -> None:
    shown = score_classifier(plan(tmp_path, [[[9, 0], [0, 0]]] * 2, []))
    read = json.loads((tmp_path / "classifier.json").read_text())
    assert read["validation"]["intervals"]["dice"]["rest"] == [None, None, None]
    assert shown["dice of rest"] == "not painted there"
    assert shown["most confused"] == "nothing"


def test_nothing_held_out_shows_nothing(tmp_path: Path) -> None:
    assert score_classifier(plan(tmp_path, [], [])) == {}
