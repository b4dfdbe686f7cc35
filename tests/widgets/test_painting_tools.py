"""The brush that follows the prediction, looks by key, and going back to an earlier version of a mask."""

import numpy as np
import pytest
from qtpy.QtCore import QPoint, Qt
from qtpy.QtTest import QTest

from napari_histogan.project.store import Project

pytestmark = pytest.mark.gui


def on_disk(opened, index):
    return Project.open(opened.session.project.root).load_mask(opened.session.samples_artifact, index)


@pytest.mark.timeout(600)
def test_assist_paints_only_where_the_prediction_agrees(opened):
    session, painting = opened.session, opened.session.painting
    opened.activate()
    session.open_sample(1)  # is painted, so there is a prediction
    opened.until(lambda: painting.prediction.data.any(), 200)
    before = painting.mask.data.copy()
    labels = painting.prediction.data.copy()
    opened.dock.paint.live.setChecked(False)  # the prediction stays as it is
    row = next(y for y in (28, 29, 30, 31, 1, 2) if len(np.unique(labels[y, 4:28])) > 1)
    chosen = int(labels[row, 6])
    opened.key("A")
    opened.key(str(chosen))
    painting.mask.brush_size = 1
    opened.stroke(painting.mask, [(row, 3), (row, 16), (row, 28)])
    stroke = painting.mask.data != before
    assert stroke.any()
    assert (labels[stroke] == chosen).all()
    agreed = labels[row, 4:28] == chosen
    assert (painting.mask.data[row, 4:28][agreed] == chosen).all()
    np.testing.assert_array_equal(on_disk(opened, 1), painting.mask.data)
    painting.mask.undo()
    opened.let_qt_work()
    np.testing.assert_array_equal(on_disk(opened, 1), before)
    opened.key("P")
    assert not painting.assist


def test_looks_change_by_key_and_the_paint_stays(opened):
    session, painting = opened.session, opened.session.painting
    opened.activate()
    session.open_sample(2)
    mask = painting.mask
    opened.key("O")
    assert (mask.contour, painting.prediction.contour) == (1, 1)
    assert str(mask.mode) == "paint"
    opened.key("Q")
    assert not mask.visible
    assert not painting.prediction.visible
    assert painting.picture.visible
    opened.key("Q")
    assert mask.visible
    assert str(mask.mode) == "paint"
    opened.key("O")
    assert mask.contour == 0
    before = mask.opacity
    opened.key("W")
    assert mask.opacity < before
    opened.key("L")
    assert session.favorites.marked == {2}
    opened.key("L")
    assert session.favorites.marked == set()


def test_an_earlier_version_comes_back_by_its_menu(opened):
    session, painting = opened.session, opened.session.painting
    opened.activate()
    session.open_sample(13)
    opened.key("1")
    painting.mask.brush_size = 3
    opened.stroke(painting.mask, [(6, 6), (6, 20)])
    first = on_disk(opened, 13)
    opened.key("2")
    opened.stroke(painting.mask, [(20, 6), (20, 20)])
    opened.key("3")
    opened.stroke(painting.mask, [(26, 6), (26, 20)])
    last = on_disk(opened, 13)
    history = opened.dock.paint.history
    history.fill()
    words = [action.text() for action in history.versions.actions()]
    assert len(words) == 2
    assert f"{np.count_nonzero(first):,} px painted" in words[1]
    history.versions.popup(history.mapToGlobal(QPoint(0, 0)))
    opened.let_qt_work()
    oldest = history.versions.actions()[-1]
    place = history.versions.actionGeometry(oldest).center()
    QTest.mouseClick(history.versions, Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier, place)
    opened.let_qt_work()
    np.testing.assert_array_equal(on_disk(opened, 13), first)
    painting.mask.undo()
    opened.let_qt_work()
    np.testing.assert_array_equal(on_disk(opened, 13), last)
    history.fill()
    assert len(history.versions.actions()) >= 3
    assert opened.errors() == []
