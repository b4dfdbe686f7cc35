"""Outlines on a slide as patches: pixels and classes fit at every scale, and bad outlines are said."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image
from shapely import Polygon, box

from napari_histogan.errors import ConfigError, LabelError, SlideError
from napari_histogan.labels.annotation import Annotation
from napari_histogan.labels.classes import ClassTable
from napari_histogan.labels.interchange import read_annotations
from napari_histogan.slides.reader import open_slide
from napari_histogan.training.annotated_slides import AnnotatedSlide
from napari_histogan.training.datasets import PairPool

CLASSES = ClassTable.from_names(["dark", "bright"])
SIDE = 512
OUTLINES = [Annotation("dark", box(0, 0, 256, SIDE)), Annotation("bright", box(256, 0, SIDE, SIDE))]


@pytest.fixture
def slide(tmp_path):
    """One level, no pyramid: the left half is dark, the right half bright."""
    picture = np.full((SIDE, SIDE, 3), 60, np.uint8)
    picture[:, 256:] = 200
    Image.fromarray(picture).save(tmp_path / "halves.png")
    with open_slide(tmp_path / "halves.png", mpp=0.5) as reader:
        yield reader


def test_patches_of_every_scale_hold_the_pixels_that_their_outlines_label(slide):
    source = AnnotatedSlide(slide, OUTLINES, CLASSES, 32, 0.5)
    assert set(source.scales) == {1, 2, 3, 4}
    for scale in (1, 2, 3, 4):
        images, masks = source.batch(np.flatnonzero(source.scales == scale))
        assert images.shape[1:] == (32, 32, 3)
        labeled = masks > 0
        assert labeled.mean() > 0.8
        # A pixel of the border between the halves is a mix; all others tell their class.
        right = (images[..., 0] > 130) == (masks == 2)
        assert right[labeled].mean() > 0.99
    assert sum(source.scales == 1) == (SIDE // 32) ** 2


def test_a_patch_that_is_drawn_twice_is_the_same(slide):
    source = AnnotatedSlide(slide, OUTLINES, CLASSES, 32, 1.0)
    first, again = source.batch([3, 5]), source.batch([5, 3])
    np.testing.assert_array_equal(first[0], again[0][::-1])
    np.testing.assert_array_equal(first[1], again[1][::-1])


def test_patches_of_one_place_are_held_out_together(slide):
    source = AnnotatedSlide(slide, OUTLINES, CLASSES, 32, 0.5)
    for group in np.unique(source.groups):
        corners = [
            (source.regions[i].y * source.scales[i] // 128, source.regions[i].x * source.scales[i] // 128)
            for i in np.flatnonzero(source.groups == group)
        ]
        assert len(set(corners)) == 1
    assert len(np.unique(source.groups)) == 16


def test_a_rare_class_is_drawn_as_often_as_a_common_one(slide):
    outlines = [Annotation("dark", box(0, 0, SIDE, SIDE)), Annotation("bright", box(288, 32, 320, 64))]
    source = AnnotatedSlide(slide, outlines, CLASSES, 32, 0.5, downsamples=(1.0,))
    rare = np.array([bool((mask == 2).any()) for mask in source.batch(range(len(source)))[1]])
    assert rare.sum() == 1
    assert source.odds[rare].sum() / source.odds.sum() == pytest.approx(0.5, abs=0.01)
    pool = PairPool([source], 0.0, seed=0)
    chosen = np.concatenate([pool.choose(step, 16)[:, 1] for step in range(60)])
    assert 0.4 < rare[chosen].mean() < 0.6


def test_hard_patches_are_revisited(slide):
    source = AnnotatedSlide(slide, OUTLINES, CLASSES, 32, 0.5, downsamples=(1.0,))
    pool = PairPool([source], 0.0, seed=0, revisit_hard=0.8)
    everything = np.stack([np.zeros(len(source), int), np.arange(len(source))], axis=1)
    losses = np.zeros(len(source))
    losses[7] = 50.0
    for _ in range(12):
        pool.note_losses(everything, losses)
    chosen = np.concatenate([pool.choose(step, 16)[:, 1] for step in range(60)])
    assert 0.65 < (chosen == 7).mean() < 0.95
    fresh = PairPool([source], 0.0, seed=0, revisit_hard=0.8)
    fresh.load_state_dict(pool.state_dict())
    np.testing.assert_array_equal(fresh.choose(99, 16), pool.choose(99, 16))


def test_outlines_beyond_the_slide_are_refused_and_those_over_its_rim_are_cut(slide):
    beyond = [*OUTLINES, Annotation("dark", box(600, 20, 700, 90))]
    with pytest.raises(LabelError, match=r"outline 2 .* outside of halves\.png"):
        AnnotatedSlide(slide, beyond, CLASSES, 32, 0.5)
    rim = [Annotation("dark", box(-100, -100, 100, 100)), Annotation("bright", box(450, 450, 900, 900))]
    source = AnnotatedSlide(slide, rim, CLASSES, 32, 0.5)
    assert all(r.y >= 0 and r.y * s < SIDE for r, s in zip(source.regions, source.scales, strict=True))


def test_an_outline_that_crosses_itself_labels_its_two_halves(slide, tmp_path):
    ring = [[32, 32], [224, 224], [224, 32], [32, 224], [32, 32]]
    feature = {
        "type": "Feature",
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "properties": {"classification": {"name": "bright"}},
    }
    path = tmp_path / "bow.geojson"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": [feature]}))
    source = AnnotatedSlide(slide, read_annotations(path), CLASSES, 64, 0.5, downsamples=(4.0,))
    (_, masks) = source.batch([0])
    assert masks[0][32, 14] == 2
    assert masks[0][32, 50] == 2
    assert masks[0][14, 32] == 0


def test_unknown_classes_are_named(slide):
    with pytest.raises(LabelError, match="'tumor'"):
        AnnotatedSlide(slide, [Annotation("tumor", box(0, 0, 9, 9))], CLASSES, 32, 0.5)


def test_outlines_that_cover_nothing_are_refused(slide):
    for outlines in ([], [Annotation("ignore", box(0, 0, 99, 99))], [Annotation("dark", Polygon())]):
        with pytest.raises(LabelError, match=r"no pixel of halves\.png"):
            AnnotatedSlide(slide, outlines, CLASSES, 32, 0.5)


def test_a_far_resolution_is_taken_only_if_asked_for(slide):
    with pytest.raises(ConfigError, match="accept_far_mpp"):
        AnnotatedSlide(slide, OUTLINES, CLASSES, 32, 4.0)
    assert len(AnnotatedSlide(slide, OUTLINES, CLASSES, 32, 4.0, (1.0,), accept_far_mpp=True)) > 0
    with pytest.raises(SlideError, match="coarser"):
        AnnotatedSlide(slide, OUTLINES, CLASSES, 32, 0.05, (1.0,), accept_far_mpp=True)
