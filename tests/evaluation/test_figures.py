import numpy as np
import pytest
import shapely
from PIL import Image

from napari_histogan.errors import LabelError
from napari_histogan.evaluation.figures import (
    heat,
    panels_in_rows,
    sample_sheet,
    scale_bar_um,
    slide_overlay,
    with_legend,
)
from napari_histogan.labels.annotation import Annotation
from napari_histogan.labels.classes import ClassInfo, ClassTable

CLASSES = ClassTable(
    (
        ClassInfo(1, "epidermis", "#0000ff"),
        ClassInfo(2, "dermis", "#ff0000"),
        ClassInfo(3, "glass", "#00ff00"),
    )
)


def count(image: Image.Image, color: tuple[int, int, int]) -> int:
    return int((np.asarray(image) == color).all(-1).sum())


def white(height: int, width: int) -> np.ndarray:
    return np.full((height, width, 3), 255, np.uint8)


def test_a_sheet_shows_outlines_uncertainty_and_a_legend():
    images = np.full((3, 32, 32, 3), 128, np.uint8)
    masks = np.zeros((3, 32, 32), np.uint8)
    masks[1, 8:20, 8:20] = 1
    uncertainty = np.zeros((3, 32, 32))
    uncertainty[2, 0, 0] = 0.5
    plain = sample_sheet(images, None, None, CLASSES)
    sheet = sample_sheet(images, masks, uncertainty, CLASSES, ["a", "b", "c"], 2)
    swatch = 14 * 14
    zoom = 5
    rim = (12 * zoom) ** 2 - (12 * zoom - 4) ** 2
    assert count(sheet, (0, 0, 255)) == rim + swatch
    assert count(sheet, (255, 0, 0)) == swatch
    assert count(sheet, (252, 253, 191)) >= zoom**2
    assert count(plain, (0, 0, 255)) == 0
    assert count(plain, (128, 128, 128)) == 3 * (32 * zoom) ** 2


def test_sheets_refuse_arrays_that_do_not_fit():
    images = np.zeros((2, 8, 8, 3), np.uint8)
    with pytest.raises(LabelError, match=r"masks have the shape \(2, 8, 9\)"):
        sample_sheet(images, np.zeros((2, 8, 9), np.uint8), None, CLASSES)
    with pytest.raises(LabelError, match="value 9"):
        sample_sheet(images, np.full((2, 8, 8), 9, np.uint8), None, CLASSES)
    with pytest.raises(LabelError, match="no samples"):
        sample_sheet(images[:0], None, None, CLASSES)


def test_tints_follow_the_prediction_and_leave_the_background_light():
    mask = np.zeros((20, 30), np.uint8)
    mask[:10, :10], mask[:10, 10:20], mask[:10, 20:] = 1, 2, 3
    image = np.asarray(slide_overlay(white(200, 300), CLASSES, 2.0, mask, opacity=1.0))
    np.testing.assert_array_equal(image[50, 50], (0, 0, 255))
    np.testing.assert_array_equal(image[50, 150], (255, 0, 0))
    np.testing.assert_array_equal(image[50, 250], (255, 255, 255))
    np.testing.assert_array_equal(image[120, 250], (255, 255, 255))


def test_a_sure_prediction_is_tinted_more_than_an_unsure_one():
    percent = np.zeros((3, 10, 20), np.uint8)
    percent[0, :, :10], percent[0, :, 10:], percent[1, :, 10:] = 100, 60, 40
    image = np.asarray(slide_overlay(white(100, 200), CLASSES, 2.0, percent, opacity=1.0))
    assert image[20, 20].tolist() == [0, 0, 255]
    assert image[20, 180].tolist() == [102, 102, 255]
    with pytest.raises(LabelError, match=r"shape \(2, 4, 4\)"):
        slide_overlay(white(40, 40), CLASSES, 2.0, np.zeros((2, 4, 4), np.uint8))


def test_outlines_lie_where_level_0_says():
    square = Annotation("dermis", shapely.box(400, 400, 1200, 1200))
    strange = Annotation("ignore", shapely.Point(1400, 300).buffer(100))
    image = slide_overlay(white(400, 400), CLASSES, 2.0, None, [square, strange], downsample=4.0)
    red = (np.asarray(image)[:400] == (255, 0, 0)).all(-1)
    ys, xs = np.nonzero(red)
    assert (ys.min(), xs.min()) == pytest.approx((99, 99), abs=2)
    assert (ys.max(), xs.max()) == pytest.approx((299, 299), abs=2)
    assert not red[110:290, 110:290].any()
    assert count(image, (110, 110, 110)) > 14 * 14


def test_a_scale_bar_has_a_round_length():
    for width_um, expected in ((1000, 200), (1111, 200), (260, 50), (99, 10), (7, 1), (30_000, 5000)):
        assert scale_bar_um(width_um) == pytest.approx(expected)


def test_the_scale_bar_is_as_long_as_it_says():
    image = np.asarray(slide_overlay(white(300, 500), CLASSES, 2.0))
    dark = (image[:300] == (32, 32, 32)).all(-1)
    assert dark.sum(1).max() == pytest.approx(scale_bar_um(1000) / 2.0, abs=2)


def test_heat_rises_and_survives_nan():
    colors = heat(np.array([0.0, 0.5, 1.0, 9.0, np.nan]), 1.0).astype(int)
    assert colors[0].tolist() == colors[4].tolist() == [0, 0, 4]
    assert colors[2].tolist() == colors[3].tolist() == [252, 253, 191]
    assert colors[0].sum() < colors[1].sum() < colors[2].sum()
    assert heat(np.zeros((2, 3)), 0.0).shape == (2, 3, 3)


def test_rows_wrap_and_legends_wrap():
    panels = [("", Image.new("RGB", (40, 30), (9, 9, 9)))] * 5
    assert panels_in_rows(panels, 2).size == (2 * 48 + 8, 3 * 38 + 8)
    narrow = with_legend(Image.new("RGB", (90, 10)), CLASSES)
    wide = with_legend(Image.new("RGB", (900, 10)), CLASSES)
    assert narrow.height > wide.height > 10
    assert with_legend(Image.new("RGB", (90, 10)), ClassTable()).size == (90, 10)
