"""Colors on the canvas are those of the class table; what is unlabeled is transparent."""

import numpy as np

from napari_histogan.labels.classes import ClassTable
from napari_histogan.widgets.class_colors import (
    heat_colormap,
    label_colormap,
    label_features,
    uncertainty_colormap,
)

TABLE = ClassTable.from_names(["tumor", "stroma"])


def test_label_colors():
    colors = label_colormap(TABLE)
    np.testing.assert_allclose(colors.map(2)[:3], np.array(TABLE[2].rgb) / 255, atol=1e-3)
    for value in (0, 9):
        assert colors.map(value)[3] == 0


def test_status_bar_names():
    assert label_features(TABLE) == {"index": [0, 1, 2], "class": ["unlabeled", "tumor", "stroma"]}


def test_improbable_is_transparent():
    for colormap in (heat_colormap("#e69f00"), uncertainty_colormap()):
        low, high = colormap.map(np.array([0.0, 1.0]))
        assert low[3] == 0
        assert high[3] > 0.8
