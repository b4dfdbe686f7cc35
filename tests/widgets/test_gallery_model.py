"""What the gallery lists, and that it makes thumbnails only when they are looked at."""

import threading

import numpy as np
import pytest
from qtpy.QtCore import Qt

from napari_histogan.widgets.gallery_model import (
    LIKED_ROLE,
    PAINTED_ROLE,
    SCORE_ROLE,
    THUMBNAIL_PX,
    GalleryModel,
)


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


def thumbnail(model, qtbot, row):
    """Look at a row as a view does: ask, and look again when it is drawn anew."""
    index = model.index(row)
    qtbot.waitUntil(lambda: model.data(index, Qt.ItemDataRole.DecorationRole) is not None)
    return model.data(index, Qt.ItemDataRole.DecorationRole)


def test_thumbnails_are_made_on_demand_in_another_thread_and_kept(model, read, qtbot):
    assert read == []
    index = model.index(42)
    with qtbot.waitSignal(model.dataChanged):
        assert model.data(index, Qt.ItemDataRole.DecorationRole) is None  # nobody waited
    pixmap = model.data(index, Qt.ItemDataRole.DecorationRole)
    assert pixmap.width() == THUMBNAIL_PX
    assert abs(pixmap.toImage().pixelColor(5, 5).red() - 42) <= 1
    assert read == [42]


def test_what_was_scrolled_away_is_not_made(qtbot):
    gate, read = threading.Event(), []

    def image(index):
        gate.wait(5)
        read.append(index)
        return np.zeros((16, 16, 3), np.uint8)

    model = GalleryModel()
    model.set_source(1000, image)
    for row in range(900):
        model.data(model.index(row), Qt.ItemDataRole.DecorationRole)
    gate.set()
    qtbot.waitUntil(lambda: len(read) >= 81)
    qtbot.wait(50)
    assert len(read) <= 82
    assert read[1] == 899  # what is in sight comes first


def test_few_thumbnails_stay_in_memory(model, qtbot):
    for row in range(0, 900, 50):
        for k in range(row, row + 50):
            model.data(model.index(k), Qt.ItemDataRole.DecorationRole)
        thumbnail(model, qtbot, row)
    assert len(model._pixmaps) == 600


def test_other_samples_get_no_thumbnails_of_those_before(model, qtbot):
    model.data(model.index(5), Qt.ItemDataRole.DecorationRole)
    model.set_source(10, lambda _index: np.full((16, 16, 3), 200, np.uint8))
    assert abs(thumbnail(model, qtbot, 5).toImage().pixelColor(5, 5).red() - 200) <= 1


def test_favorites_are_marked_and_filtered(model):
    model.set_liked({9, 4})
    assert model.data(model.index(4), LIKED_ROLE)
    assert "favorite" in model.data(model.index(9), Qt.ItemDataRole.ToolTipRole)
    model.set_filter("liked")
    assert shown(model) == [4, 9]
    model.set_liked({9})
    assert shown(model) == [9]


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
