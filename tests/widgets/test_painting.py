"""Painting by mouse and keys in a real window; then the files are looked at."""

from __future__ import annotations

import numpy as np
import pytest

pytestmark = pytest.mark.gui


def on_disk(opened, index):
    path = opened.session.project.masks(opened.session.samples_artifact).path(index)
    return np.load(path) if path.exists() else None


def test_strokes_keys_undo_and_prediction_end_up_on_disk_and_screen(opened):
    session = opened.session
    opened.activate()
    session.open_sample(7)
    painting = session.painting
    opened.until(lambda: painting.mask is not None and painting.index == 7)
    opened.let_qt_work(0.3)

    opened.key("2")
    assert painting.mask.selected_label == 2
    opened.stroke(painting.mask, [(8, 6), (8, 16), (8, 24)])
    mask = on_disk(opened, 7)
    assert mask is not None
    assert mask.dtype == np.uint8
    assert set(np.unique(mask)) == {0, 2}
    assert (mask[8, 8:22] == 2).all()
    assert not mask[20:].any()

    opened.key("1")
    opened.stroke(painting.mask, [(22, 6), (22, 24)])
    both = on_disk(opened, 7)
    assert set(np.unique(both)) == {0, 1, 2}

    painting.mask.undo()
    opened.let_qt_work()
    np.testing.assert_array_equal(on_disk(opened, 7), mask)
    painting.mask.redo()
    opened.let_qt_work()
    np.testing.assert_array_equal(on_disk(opened, 7), both)
    project, samples = session.project, session.samples_artifact
    assert len(project.masks(samples).history(7)) >= 2

    opened.key("E")
    assert str(painting.mask.mode) == "erase"
    opened.stroke(painting.mask, [(22, 6), (22, 24)])
    assert 1 not in np.unique(on_disk(opened, 7)[22, 8:22])

    opened.until(lambda: painting.prediction.data.any())
    assert set(np.unique(painting.prediction.data)) <= {1, 2, 3}
    assert painting.prediction.visible
    opened.key("T")
    assert not painting.prediction.visible
    opened.key("U")
    assert painting.uncertainty.visible

    before = on_disk(opened, 7)
    painting.take_prediction(everywhere=True)
    after = on_disk(opened, 7)
    assert (after > 0).all()
    np.testing.assert_array_equal(after[before > 0], before[before > 0])

    opened.key("M")  # napari's key for a new label
    assert painting.mask.selected_label <= 3

    opened.until(lambda: session.scores)
    opened.key("N")
    best = max((i for i in session.scores if i != 7), key=lambda i: session.scores[i])
    assert painting.index == best
    assert opened.errors() == []


def test_another_sample_swaps_the_data_and_undo_does_not_cross_over(opened):
    session = opened.session
    session.open_sample(10)
    painting = session.painting
    layer = painting.mask
    painting.mask.paint((10, 10), 1)
    opened.let_qt_work()
    first = on_disk(opened, 10)
    assert first is not None
    session.open_sample(11)
    assert painting.mask is layer
    assert not painting.mask.data.any()
    painting.mask.undo()
    opened.let_qt_work()
    assert on_disk(opened, 11) is None
    session.open_sample(10)
    np.testing.assert_array_equal(painting.mask.data, first)
    painting.open_previous()
    assert painting.index == 11
    assert sum(layer.name == "Mask" for layer in opened.viewer.layers) == 1


def test_a_stroke_is_kept_when_another_set_of_samples_is_opened(opened):
    session = opened.session
    session.open_sample(3)
    session.painting.mask.data[4:8, 4:8] = 3  # as a tool would that sends no event
    session.use_samples()
    assert (on_disk(opened, 3)[4:8, 4:8] == 3).all()


def test_layers_are_in_micrometers_and_cannot_be_deleted_by_accident(opened):
    opened.session.open_sample(0)
    for layer in opened.viewer.layers:
        assert [str(unit) for unit in layer.units] == ["micrometer", "micrometer"]
        assert layer.locked


def test_live_preview_can_be_turned_off(opened):
    session = opened.session
    opened.dock.paint.live.setChecked(False)
    session.open_sample(9)
    session.painting.mask.paint((10, 10), 1)
    opened.let_qt_work(0.3)
    assert not session.painting.prediction.data.any()
    assert session.painting.live is False
