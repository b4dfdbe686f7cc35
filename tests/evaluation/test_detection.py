"""ROC and FROC against examples that are done by hand in the comments."""

from __future__ import annotations

import numpy as np
import pytest

from napari_histogan.errors import LabelError
from napari_histogan.evaluation.detection import (
    ISOLATED,
    SlideDetections,
    detections_on,
    find_peaks,
    froc_curve,
    froc_score,
    lesion_froc,
    lesion_map,
    roc_auc,
    roc_curve,
    slide_auc,
)

MALIGN = np.array([1, 1, 1, 0, 0], bool)
SCORES = np.array([0.9, 0.6, 0.4, 0.6, 0.1])


def test_auc_by_hand():
    # Pairs (malign, benign): .9 beats .6 and .1 (2); .6 ties with .6 and beats .1 (1.5); .4 beats .1 (1).
    assert roc_auc(MALIGN, SCORES) == pytest.approx(4.5 / 6)
    false, true = roc_curve(MALIGN, SCORES)
    # Thresholds .9, .6, .4, .1: the tie at .6 takes one malign and one benign slide in one slanted step.
    np.testing.assert_allclose(false, [0, 0, 1 / 2, 1 / 2, 1])
    np.testing.assert_allclose(true, [0, 1 / 3, 2 / 3, 1, 1])
    assert np.trapezoid(true, false) == pytest.approx(4.5 / 6)
    with pytest.raises(LabelError, match="3 malign and 0 benign"):
        roc_auc(MALIGN[:3], SCORES[:3])


def test_the_interval_holds_the_value_and_shrinks_with_slides():
    few, many = slide_auc(MALIGN, SCORES, 300), slide_auc(np.tile(MALIGN, 20), np.tile(SCORES, 20), 300)
    assert few.low <= few.value <= few.high
    assert many.value == pytest.approx(few.value)
    assert many.high - many.low < few.high - few.low


def detections(count, *found):
    scores, lesions = zip(*found, strict=True) if found else ((), ())
    return SlideDetections(np.array(scores, float), np.array(lesions, np.int64), count)


def example():
    # Slide A, 2 lesions: hits of lesion 1 at .9 and .3 (count once, at .9), of lesion 2 at .5; a false
    # positive at .7; isolated cells hit at .95 count nowhere.  Slide B, benign: false positives .8 and .2.
    a = detections(2, (0.9, 1), (0.3, 1), (0.5, 2), (0.7, 0), (0.95, ISOLATED))
    return [a, detections(0, (0.8, 0), (0.2, 0))]


def test_froc_by_hand():
    # Thresholds .9 .8 .7 .5 .2: false positives 0 1 2 2 3 over 2 slides; lesions found 1 1 1 2 2 of 2.
    rates, found = froc_curve(example())
    np.testing.assert_allclose(rates, [0, 0, 0.5, 1, 1, 1.5])
    np.testing.assert_allclose(found, [0, 0.5, 0.5, 0.5, 1, 1])
    # At 1/4 and 1/2 false positives half of the lesions, at 1 and beyond all: (.5 + .5 + 4) / 6.
    assert froc_score(example()) == pytest.approx(5 / 6)
    interval = lesion_froc(example(), 200)
    assert interval.low <= interval.value <= interval.high


def test_without_lesions_there_is_no_froc():
    with pytest.raises(LabelError, match="no slide has a lesion"):
        froc_curve([detections(0, (0.5, 0))])


def test_near_regions_are_one_lesion_and_small_ones_are_isolated_cells():
    mask = np.zeros((120, 120), bool)  # cells of 10 um
    mask[10:20, 10:40] = True
    mask[10:20, 45:75] = True  # 50 um apart: one lesion
    mask[60:90, 10:40] = True  # 300 um: a lesion
    mask[100:105, 100:105] = True  # 50 um, 125 um after it has grown: isolated cells
    lesions = lesion_map(mask, 10.0)
    assert lesions[15, 20] == lesions[15, 60] > 0
    assert sorted(np.unique(lesions)) == [ISOLATED, 0, 1, 2]
    assert lesions[102, 102] == ISOLATED
    assert lesions[60 - 3, 20] == lesions[75, 20]  # grown by 37.5 um
    assert lesions[60 - 5, 20] == 0
    assert not lesion_map(np.zeros((5, 5), bool), 10.0).any()


def test_peaks_keep_their_distance_and_come_highest_first():
    ys, xs = np.mgrid[:40, :50]
    heat = np.zeros((40, 50), np.float32)
    for (y, x), height in {(0, 0): 0.9, (20, 30): 0.7, (22, 33): 0.6, (39, 49): 0.3}.items():
        heat = np.maximum(heat, height * np.exp(-((ys - y) ** 2 + (xs - x) ** 2) / 8))
    places, scores = find_peaks(heat.astype(np.float32), radius=8, least=0.1)
    assert places.tolist() == [[0, 0], [20, 30], [39, 49]]
    np.testing.assert_allclose(scores, [0.9, 0.7, 0.3], rtol=1e-6)
    lesions = np.zeros((40, 50), np.int64)
    lesions[18:24, 28:36] = 1
    found = detections_on(places, scores, lesions)
    assert found.lesions.tolist() == [0, 1, 0]
    assert found.lesion_count == 1
