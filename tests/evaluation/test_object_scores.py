"""Object F1, by hand on small masks."""

from __future__ import annotations

import math

import numpy as np
import pytest

from napari_histogan.evaluation.object_scores import ObjectMatcher, ObjectScores


def scores(truth: np.ndarray, predicted: np.ndarray, least_px: int = 0) -> ObjectScores:
    matcher = ObjectMatcher(2, least_px)
    matcher.add(truth, predicted)
    return matcher.scores()


def row(text: str) -> np.ndarray:
    return np.array([[int(value) for value in text]], np.uint8)


@pytest.mark.parametrize(
    ("truth", "predicted", "hits", "found", "true"),
    [
        ("1222211", "1222211", 1, 1, 1),
        ("1222211", "1222111", 1, 1, 1),  # 3 of 4
        ("1222211", "1221111", 0, 1, 1),  # half is not more than half
        ("1222211", "1112222", 0, 1, 1),
        ("1222221", "1212221", 1, 2, 1),  # one object, found in two pieces: the larger counts
        ("1221221", "1222221", 1, 1, 2),  # two objects, found as one
        ("1221221", "1111111", 0, 0, 2),
        ("1111111", "1221221", 0, 2, 0),
        ("0221221", "2221221", 2, 2, 2),  # nothing counts where the truth is unlabeled
    ],
)
def test_objects_are_counted_as_by_hand(truth: str, predicted: str, hits: int, found: int, true: int) -> None:
    assert scores(row(truth), row(predicted)) == ObjectScores(hits, found, true)


def test_f1_weighs_missed_and_false_objects_alike() -> None:
    assert ObjectScores(2, 3, 5).f1 == pytest.approx(0.5)
    assert ObjectScores(0, 1, 0).f1 == 0
    assert math.isnan(ObjectScores(0, 0, 0).f1)


def test_small_objects_are_left_out_on_both_sides() -> None:
    assert scores(row("1222211211"), row("1222211121"), least_px=2) == ObjectScores(1, 1, 1)


@pytest.mark.parametrize("order", [0, 1])
def test_parts_in_any_order_give_the_pictures_objects(order: int) -> None:
    rng = np.random.default_rng(3)
    truth = np.kron(1 + (rng.random((12, 12)) < 0.2), np.ones((3, 3))).astype(np.uint8)
    predicted = np.where(rng.random(truth.shape) < 0.1, 3 - truth, truth).astype(np.uint8)
    whole = scores(truth, predicted)
    assert whole.true > 3
    matcher = ObjectMatcher(2)
    places = [(y, x) for y in range(0, 36, 10) for x in range(0, 36, 10)]
    for index in np.random.default_rng(order).permutation(len(places)):
        y, x = places[index]
        matcher.add(truth[y : y + 10, x : x + 10], predicted[y : y + 10, x : x + 10], (y, x))
    assert matcher.scores() == whole


def test_pixels_that_touch_at_a_corner_are_one_object_across_parts() -> None:
    truth = np.ones((4, 4), np.uint8)
    truth[:2, :2] = truth[2:, 2:] = 2
    matcher = ObjectMatcher(2)
    for y, x in ((0, 0), (2, 2), (0, 2), (2, 0)):
        matcher.add(truth[y : y + 2, x : x + 2], truth[y : y + 2, x : x + 2], (y, x))
    assert matcher.scores() == scores(truth, truth) == ObjectScores(1, 1, 1)
