"""Middles of patches lie on the skeleton, away from the object, inside the view; shares are equal."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from napari_histogan.errors import LabelError
from napari_histogan.labels.centers import (
    balanced,
    free_places,
    object_mask,
    pixel_places,
    skeleton_places,
)


def scene() -> tuple[list[np.ndarray], list[np.ndarray]]:
    """A thick line in each of two pictures, and a view that leaves out the right half of the second."""
    masks = [np.zeros((60, 80), bool), np.zeros((50, 40), bool)]
    masks[0][20:29, 5:75] = True
    masks[1][5:45, 8:13] = True
    inside = [np.ones(m.shape, bool) for m in masks]
    inside[1][:, 20:] = False
    return masks, inside


def test_vessels_are_met_in_their_middle_and_background_away_from_them():
    masks, inside = scene()
    lines, ground = skeleton_places(masks, inside, dilation_px=4)
    first = lines[lines[:, 0] == 0]
    assert len(first) >= 55
    middle = first[(first[:, 2] > 15) & (first[:, 2] < 65)]
    assert set(middle[:, 1].tolist()) == {24}  # the line reaches from 20 to 28
    for number, y, x in ground.tolist():
        assert inside[number][y, x]
    away = ndimage.distance_transform_edt(~masks[0])[
        ground[ground[:, 0] == 0][:, 1], ground[ground[:, 0] == 0][:, 2]
    ]
    assert away.min() > 4
    assert (
        len(ground[ground[:, 0] == 1]) == (inside[1] & (ndimage.distance_transform_edt(~masks[1]) > 4)).sum()
    )
    touching = skeleton_places(masks, inside, dilation_px=0)[1]
    assert len(touching) == sum((~m & i).sum() for m, i in zip(masks, inside, strict=True))


def test_painted_pixels_count_where_they_are_inside():
    mask = np.zeros((6, 6), np.uint8)
    mask[0], mask[5] = 1, 3
    inside = np.ones((6, 6), bool)
    inside[0, :2] = False
    found = pixel_places([mask], [inside], 3)
    assert [len(p) for p in found] == [4, 0, 6]
    assert found[2][0].tolist() == [0, 5, 0]
    with pytest.raises(LabelError, match=r"value 3.*1 to 2"):
        pixel_places([mask], [inside], 2)


def test_a_set_has_equal_shares_no_place_twice_and_grows_by_the_same_places():
    masks, inside = scene()
    places = skeleton_places(masks, inside, 4)
    small, large = (balanced(places, ("vessel", "ground"), n, seed=5) for n in (40, 60))
    assert np.bincount(small.classes).tolist() == [20, 20]
    assert len({tuple(p) for p in large.places.tolist()}) == len(large) == 60
    in_large = {tuple(p) for p in large.places.tolist()}
    assert all(tuple(p) in in_large for p in small.places.tolist())
    assert len(balanced(places, ("vessel", "ground"), 0, seed=5)) == 2 * len(places[0])


def test_a_class_that_is_too_rare_is_named_with_the_numbers():
    masks, inside = scene()
    places = skeleton_places(masks, inside, 4)
    with pytest.raises(LabelError) as error:
        balanced(places, ("vessel", "ground"), 5000, seed=0)
    assert f"vessel {len(places[0])}" in str(error.value)
    assert "2,500 of each" in str(error.value)
    with pytest.raises(LabelError, match="ground 0"):
        balanced([places[0], places[1][:0]], ("vessel", "ground"), 0, seed=0)


def test_places_without_labels_are_spread_over_all_views():
    _, inside = scene()
    drawn = free_places(inside, 4000, seed=1)
    assert drawn.shape == (4000, 3)
    assert all(inside[n][y, x] for n, y, x in drawn.tolist())
    share = (drawn[:, 0] == 1).mean()
    assert share == pytest.approx(inside[1].sum() / (inside[0].sum() + inside[1].sum()), abs=0.04)
    with pytest.raises(LabelError, match="field of view"):
        free_places([np.zeros((3, 3), bool)], 5, 0)


def test_masks_that_are_empty_or_not_binary_are_refused():
    assert object_mask(np.array([[0, 255], [255, 0]], np.uint8), "a").sum() == 2
    with pytest.raises(LabelError, match="the mask of a holds only the value 0"):
        object_mask(np.zeros((4, 4), np.uint8), "a")
    with pytest.raises(LabelError, match=r"3 values \(0, 7, 9\)"):
        object_mask(np.array([[0, 7, 9]], np.uint8), "a")
    with pytest.raises(LabelError, match="2 values"):
        object_mask(np.array([[3, 9]], np.uint8), "a")
