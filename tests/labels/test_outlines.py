import time

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from napari_histogan.errors import LabelError
from napari_histogan.geometry import Point, Region
from napari_histogan.labels.annotation import Annotation, repaired
from napari_histogan.labels.classes import ClassTable
from napari_histogan.labels.outlines import polygonize, rasterize

CLASSES = ClassTable.from_names(["epidermis", "dermis", "keratin"])
masks = hnp.arrays(np.uint8, st.tuples(st.integers(1, 14), st.integers(1, 14)), elements=st.integers(0, 3))


def box(name: str, x0: float, y0: float, x1: float, y1: float) -> Annotation:
    return Annotation(name, shapely.box(x0, y0, x1, y1))


def circles(count: int, side: int, rng: np.random.Generator) -> list[Annotation]:
    centers = shapely.points(rng.uniform(0, side, (count, 2)))
    shapes = shapely.buffer(centers, rng.uniform(5, 40, count), quad_segs=2)
    names = CLASSES.names
    return [Annotation(names[i % 3], shape) for i, shape in enumerate(shapes)]


@given(masks, st.integers(-5, 5), st.integers(-5, 5), st.sampled_from([1.0, 2.0, 3.5]))
@settings(max_examples=150, deadline=None)
def test_a_mask_comes_back_pixel_for_pixel(mask, y, x, downsample):
    outlines = polygonize(mask, CLASSES, Point(y, x), downsample)
    region = Region(y, x, *mask.shape)
    assert all(outline.geometry.is_valid for outline in outlines)
    np.testing.assert_array_equal(rasterize(outlines, region, downsample, CLASSES), mask)


@given(masks)
@settings(max_examples=60, deadline=None)
def test_outlines_have_the_area_of_their_pixels(mask):
    outlines = polygonize(mask, CLASSES)
    for info in CLASSES:
        area = sum(o.geometry.area for o in outlines if o.class_name == info.name)
        assert area == pytest.approx(np.count_nonzero(mask == info.index))


@given(st.integers(0, 10_000))
@settings(max_examples=40, deadline=None)
def test_pixels_are_those_whose_center_lies_inside(seed):
    rng = np.random.default_rng(seed)
    star = shapely.make_valid(shapely.Polygon(rng.uniform(-4, 24, (7, 2))))
    region = Region(3, -2, 15, 20)
    mask = rasterize([Annotation("dermis", star)], region, 1.0, CLASSES)
    yy, xx = np.mgrid[3:18, -2:18] + 0.5
    np.testing.assert_array_equal(mask == 2, shapely.contains_xy(star, xx, yy))


def test_neighbors_neither_overlap_nor_leave_a_gap():
    rng = np.random.default_rng(0)
    line = np.column_stack([np.sort(rng.uniform(0, 50, 9)), rng.uniform(10, 40, 9)])
    line[0, 0], line[-1, 0] = 0, 50
    above = shapely.Polygon([*line, (50, 0), (0, 0)])
    below = shapely.Polygon([*line, (50, 50), (0, 50)])
    region = Region(0, 0, 50, 50)
    upper = rasterize([Annotation("dermis", above)], region, 1.0, CLASSES) > 0
    lower = rasterize([Annotation("dermis", below)], region, 1.0, CLASSES) > 0
    assert (upper ^ lower).all()


def test_later_outlines_lie_over_earlier_ones_unless_an_order_is_given():
    outlines = [box("dermis", 0, 0, 4, 4), box("keratin", 2, 0, 6, 4)]
    region = Region(0, 0, 1, 6)
    assert rasterize(outlines, region, 1.0, CLASSES).tolist() == [[2, 2, 3, 3, 3, 3]]
    turned = rasterize(outlines, region, 1.0, CLASSES, order=["keratin", "dermis"])
    assert turned.tolist() == [[2, 2, 2, 2, 3, 3]]


def test_ignored_areas_are_unlabelled_and_holes_are_not_filled():
    ring = Annotation("Dermis", shapely.box(0, 0, 6, 1).difference(shapely.box(4, 0, 5, 1)))
    mask = rasterize([ring, box("ignore", 1, 0, 2, 1)], Region(0, 0, 1, 6), 1.0, CLASSES)
    assert mask.tolist() == [[2, 0, 2, 2, 0, 2]]


def test_a_strange_class_is_refused_or_skipped():
    outlines = [box("dermis", 0, 0, 2, 1), box("patch", 0, 0, 9, 9)]
    with pytest.raises(LabelError, match=r"outline 1 .* 'patch'.*epidermis, dermis, keratin"):
        rasterize(outlines, Region(0, 0, 1, 3), 1.0, CLASSES)
    mask = rasterize(outlines, Region(0, 0, 1, 3), 1.0, CLASSES, skip=["Patch"])
    assert mask.tolist() == [[2, 2, 0]]


def test_lines_cover_nothing_and_say_so(caplog):
    line = Annotation("dermis", shapely.LineString([(0, 0), (9, 9)]))
    assert not rasterize([line], Region(0, 0, 9, 9), 1.0, CLASSES).any()
    assert "covers no pixel" in caplog.text


def test_outlines_elsewhere_and_empty_ones_paint_nothing():
    outlines = [box("dermis", 20, 20, 30, 30), Annotation("keratin", shapely.Polygon())]
    assert not rasterize(outlines, Region(0, 0, 9, 9), 2.0, CLASSES).any()
    assert rasterize(outlines, Region(9, 9, 2, 2), 2.0, CLASSES).tolist() == [[0, 0], [0, 2]]


def test_simplified_outlines_stay_within_the_tolerance():
    yy, xx = np.mgrid[:200, :200]
    mask = (np.hypot(yy - 100, xx - 100) < 80).astype(np.uint8)
    (exact,), (simple,) = polygonize(mask, CLASSES), polygonize(mask, CLASSES, simplify_px=1.5)
    assert shapely.get_num_coordinates(simple.geometry) < shapely.get_num_coordinates(exact.geometry) / 4
    assert exact.geometry.hausdorff_distance(simple.geometry) < 2


def test_repairs_follow_the_even_odd_rule():
    bow = shapely.Polygon([(0, 0), (4, 4), (4, 0), (0, 4)])
    (fixed,) = repaired([bow])
    assert fixed.is_valid
    assert fixed.geom_type == "MultiPolygon"
    assert fixed.area == pytest.approx(8)


def test_a_mask_of_other_classes_is_refused():
    with pytest.raises(LabelError, match="value 9"):
        polygonize(np.full((2, 2), 9, np.uint8), CLASSES)


def test_twenty_thousand_polygons_take_seconds():
    outlines = circles(20_000, 20_000, np.random.default_rng(0))
    start = time.process_time()
    mask = rasterize(outlines, Region(0, 0, 5000, 5000), 4.0, CLASSES)
    assert time.process_time() - start < 15
    assert set(np.unique(mask)) == {0, 1, 2, 3}
