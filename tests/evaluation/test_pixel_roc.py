"""Pixels count inside the view only, by picture and pooled; curves of millions of pixels stay small."""

from __future__ import annotations

import numpy as np
import pytest

from napari_histogan.errors import LabelError
from napari_histogan.evaluation.detection import roc_curve
from napari_histogan.evaluation.pixel_roc import ROC_AXES, pixel_auc, pooled_curve, scored
from napari_histogan.evaluation.plots import line_plot


def test_areas_are_those_inside_the_view():
    truth = np.array([[True, False], [True, False]])
    probability = np.array([[0.9, 0.1], [0.0, 0.8]], np.float32)
    whole = np.ones((2, 2), bool)
    top = np.array([[True, True], [False, False]])
    assert pixel_auc([scored("a", probability, truth, top)]).pooled == 1
    assert pixel_auc([scored("a", probability, truth, whole)]).pooled == 0.5
    with pytest.raises(LabelError):
        pixel_auc([scored("a", probability, truth, ~whole)])


def test_pooled_is_not_the_mean_where_pictures_differ_in_brightness():
    truth, inside = np.array([[True, False]] * 50), np.ones((50, 2), bool)
    dark = np.where(truth, 0.3, 0.2).astype(np.float32)
    found = pixel_auc([scored("dark", dark, truth, inside), scored("light", dark + 0.5, truth, inside)])
    assert found.by_picture == {"dark": 1.0, "light": 1.0}
    assert found.mean == 1
    assert found.pooled == pytest.approx(0.75)


def test_the_area_below_the_curve_is_the_auc_and_a_million_pixels_are_drawn():
    rng = np.random.default_rng(0)
    truth = rng.random((1000, 1000)) < 0.2
    probability = (rng.normal(0, 1, truth.shape) + truth).astype(np.float32)
    picture = scored("a", probability, truth, np.ones_like(truth))
    curve = pooled_curve("net", [picture])
    assert len(curve.x) < 500
    area = np.trapezoid(curve.y, curve.x)
    assert area == pytest.approx(pixel_auc([picture]).pooled, abs=2e-3)
    assert line_plot([curve], ROC_AXES).width > 300
    false, true = roc_curve(picture.truth, picture.probability)
    assert np.trapezoid(true, false) == pytest.approx(pixel_auc([picture]).pooled, abs=1e-9)


def test_equal_scores_pass_a_threshold_together():
    false, true = roc_curve(np.array([True, False, True, False]), np.array([0.5, 0.5, 0.9, 0.1]))
    assert false.tolist() == [0, 0, 0.5, 1]
    assert true.tolist() == [0, 0.5, 1, 1]
