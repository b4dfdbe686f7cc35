"""Swipe: the heatmap on one side of a line, the slide or another version's map on the other."""

import numpy as np
import pytest
from qtpy.QtCore import QPoint
from qtpy.QtTest import QTest

from napari_histogan.widgets.swipe import CutLevel, CutMap


def test_a_level_is_empty_on_one_side():
    level = np.full((6, 10), 7, np.uint8)
    right, left = CutLevel(level, "right"), CutLevel(level, "left")
    right.column = left.column = 4
    assert np.array_equal(np.asarray(right), np.where(np.arange(10) >= 4, level, 0))
    assert np.array_equal(np.asarray(left), np.where(np.arange(10) < 4, level, 0))
    assert right[2:4, 3:9:2].tolist() == [[0, 7, 7], [0, 7, 7]]
    assert right[0].tolist() == np.asarray(right)[0].tolist()
    assert level.min() == 7


def test_a_map_is_cut_at_the_same_place_on_every_level_and_takes_up_what_grew():
    fine, coarse = np.full((8, 16), 50, np.uint8), np.zeros((4, 8), np.uint8)
    cut = CutMap([fine, coarse], 2.0, "right")
    cut.move(16.0)  # half of 16 px of 2 um
    assert (np.asarray(cut.levels[0])[0] > 0).tolist() == [False] * 8 + [True] * 8
    assert not cut.levels[1].any()
    coarse[:] = 9
    cut.move(16.0)
    assert (cut.levels[1][0] > 0).tolist() == [False] * 4 + [True] * 4
    cut.move(-5.0)
    assert (cut.levels[1] > 0).all()
    cut.move(1e9)
    assert not cut.levels[1].any()


@pytest.mark.gui
def test_the_line_follows_the_mouse_and_the_slider(opened):
    opened.activate()
    opened.dock.show_tab("slides")
    panel, view = opened.dock.slides, opened.session.slide_view
    whole = np.array(view.heat.data[-1])
    opened.key("W")
    assert view.swipe.active
    assert panel.swipe_button.isChecked()
    width = opened.canvas.width()
    for share in (0.3, 0.6):
        QTest.mouseMove(opened.canvas, QPoint(round(share * width), 40))
        opened.until(lambda share=share: abs(view.swipe.percent - 100 * share) <= 1)
        opened.until(lambda: not view.swipe._timer.isActive())
        assert panel.swipe.value() == view.swipe.percent
        shown = np.array(view.heat.data[-1])
        left = view.heat.world_to_data((0, view.swipe._x_um()))[1] / view.levels[0].shape[1]
        column = round(left * shown.shape[1])
        assert not shown[:, : column - 1].any()
        assert np.array_equal(shown[:, column + 1 :], whole[:, column + 1 :])
    panel.swipe.setValue(0)
    assert view.swipe.percent == 0
    view.set_class(2)
    opened.let_qt_work(0.2)
    assert view.swipe.active
    assert np.array_equal(np.array(view.levels[-1]), np.array(view.map.levels[-1][1]))
    view.set_class(1)
    opened.key("W")
    assert not view.swipe.active
    assert np.array_equal(np.array(view.heat.data[-1]), whole)
    opened.key("W")
    opened.dock.show_tab("paint")
    opened.session.open_sample(0)
    assert not view.swipe.active
    assert opened.errors() == []
