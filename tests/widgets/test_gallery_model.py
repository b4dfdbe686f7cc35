"""What the gallery lists, and that it makes thumbnails only when they are looked at."""

import numpy as np
import pytest
from qtpy.QtCore import Qt

from napari_histogan.widgets.gallery_model import PAINTED_ROLE, SCORE_ROLE, THUMBNAIL_PX, GalleryModel


@pytest.fixture
def read():
    return []


@pytest.fixture
def model(qapp, read):
    def image(index):
        read.append(index)
        return np.full((16, 16, 3), index % 256, np.uint8)

    model = GalleryModel()
    model.set_source(1000, image, painted=[3, 7])
    return model


def shown(model):
    return [model.sample(row) for row in range(model.rowCount())]


def test_filters(model):
    assert shown(model) == list(range(1000))
    model.set_filter("painted")
    assert shown(model) == [3, 7]
    model.set_filter("unpainted")
    assert 3 not in shown(model)
    assert model.rowCount() == 998
    model.set_scores({5: 0.1, 9: 0.9, 7: 1.0, 2: 0.9})
    model.set_filter("informative")
    assert shown(model) == [2, 9, 5]


def test_thumbnails_are_made_on_demand_and_kept(model, read):
    assert read == []
    index = model.index(42)
    pixmap = model.data(index, Qt.ItemDataRole.DecorationRole)
    assert pixmap.width() == THUMBNAIL_PX
    assert abs(pixmap.toImage().pixelColor(5, 5).red() - 42) <= 1
    model.data(index, Qt.ItemDataRole.DecorationRole)
    assert read == [42]


def test_few_thumbnails_stay_in_memory(model):
    for row in range(700):
        model.data(model.index(row), Qt.ItemDataRole.DecorationRole)
    assert len(model._pixmaps) == 400


def test_paint_is_marked_without_a_reset(model, qtbot):
    resets = []
    model.modelReset.connect(lambda: resets.append(1))
    with qtbot.waitSignal(model.dataChanged):
        model.set_painted(10, True)
    with qtbot.waitSignal(model.dataChanged):
        model.set_scores({10: 0.25})
    assert not resets
    assert model.data(model.index(10), PAINTED_ROLE)
    assert model.data(model.index(10), SCORE_ROLE) == 0.25
    assert "painted" in model.data(model.index(10), Qt.ItemDataRole.ToolTipRole)


def test_row_of_a_hidden_sample(model):
    model.set_filter("painted")
    assert model.row_of(7) == 1
    assert model.row_of(8) == -1
