"""Pictures survive the way to Qt."""

import numpy as np

from napari_histogan.widgets.pictures import swatch, to_pixmap


def test_pixels_and_sides(qapp):
    picture = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    image = to_pixmap(picture).toImage()
    assert (image.width(), image.height()) == (7, 5)
    found = [[image.pixelColor(x, y).getRgb()[:3] for x in range(7)] for y in range(5)]
    np.testing.assert_array_equal(found, picture)
    assert to_pixmap(picture, 70).width() == 70


def test_swatch_has_the_color(qapp):
    color = swatch("#56b4e9").pixmap(16, 16).toImage().pixelColor(8, 8)
    assert color.name() == "#56b4e9"
