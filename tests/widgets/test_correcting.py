"""A frame on the slide: taken from the map, fixed by the brush, kept on disk."""

import json

import numpy as np
import pytest

from napari_histogan.geometry import Region, Size
from napari_histogan.inference.review import predicted_labels
from napari_histogan.widgets.correcting import frame_around


def test_frame_stays_on_the_map():
    size = Size(100, 300)
    assert frame_around((50, 150), 1.0, 40, size) == Region(30, 130, 40, 40)
    assert frame_around((0, 0), 1.0, 40, size) == Region(0, 0, 40, 40)
    assert frame_around((25, 149), 0.5, 40, size) == Region(30, 260, 40, 40)
    assert frame_around((50, 150), 1.0, 1000, size) == Region(0, 0, 100, 300)
    assert frame_around((500, 150), 1.0, 40, size).height == 0


@pytest.mark.gui
@pytest.mark.timeout(200)
def test_correction_is_painted_saved_and_trained_on(opened):
    session, panel = opened.session, opened.dock.correct
    opened.activate()
    opened.dock.show_tab("correct")
    panel.side.setValue(64)
    opened.key("C")
    correcting = session.correcting
    assert correcting.active, opened.told
    region = correcting.region
    assert region.size == Size(64, 64)
    expected = predicted_labels(session.slide_view.map, region)
    np.testing.assert_array_equal(correcting.layer.data, expected)
    assert correcting.layer.data_to_world((-0.5, -0.5)) == pytest.approx((region.y, region.x))
    opened.let_qt_work(0.3)

    opened.key("3")
    opened.stroke(correcting.layer, [(20, 10), (20, 40)])
    assert (correcting.layer.data[20, 14:36] == 3).all()
    opened.key("Return")
    assert not correcting.active
    (saved,) = session.project.corrections()
    assert (saved.mask[20, 14:36] == 3).all()
    assert saved.region == region
    place = json.loads((session.project.root / "labels/corrections" / saved.name / "region.json").read_text())
    assert place["source"] == session.slide_view.heatmap.id
    assert place["mpp"] == 1.0

    opened.until(lambda: opened.dock.header.next_button.text() == "Retrain with 1 correction")
    panel.retrain_button.click()
    opened.until(lambda: not session.waiting_stages and not session.jobs.active(), 120)
    assert opened.errors() == []
    newest = session.project.artifacts("segmenter")[-1]
    assert any(parent.id.startswith("corrections/") for parent in newest.parents)
    opened.let_qt_work(0.3)
    assert panel.versions.rowCount() == 2


@pytest.mark.gui
def test_discarded_frame_leaves_nothing(opened):
    opened.activate()
    opened.dock.show_tab("correct")
    opened.dock.correct.place_button.click()
    layer = opened.session.correcting.layer
    opened.key("Escape")
    assert not opened.session.correcting.active
    assert not layer.visible
    assert opened.session.project.corrections() == []
    opened.dock.correct.place_button.click()
    assert opened.session.correcting.layer is layer


@pytest.mark.gui
def test_without_a_heatmap_it_says_what_is_missing(studio, tmp_path):
    assert studio.dock.create_project(tmp_path / "new")
    studio.dock.show_tab("correct")
    studio.dock.correct.place()
    assert "slide" in studio.errors()[-1]
