"""Slides and heatmaps on the canvas: aligned, growing, and changed by the controls."""

import numpy as np
import pytest
from qtpy.QtCore import QPoint, Qt
from qtpy.QtTest import QTest

from napari_histogan.geometry import Region
from napari_histogan.widgets.layer_data import HEATMAP_STORE

pytestmark = pytest.mark.gui


def test_slide_opens_with_its_heatmap_over_it(opened):
    view = opened.session.slide_view
    opened.dock.show_tab("slides")
    assert view.slide.multiscale
    assert view.heatmap.id == opened.session.project.artifacts("heatmap")[-1].id
    start = view.slide.data_to_world((-0.5, -0.5))
    assert start == pytest.approx((0, 0), abs=1e-9)
    assert view.heat.data_to_world((-0.5, -0.5)) == pytest.approx((0, 0), abs=1e-9)
    end = view.slide.data_to_world(np.array(view.slide.data[0].shape[:2]) - 0.5)
    assert view.heat.data_to_world(np.array(view.heat.data[0].shape) - 0.5) == pytest.approx(end, abs=1.0)
    assert opened.viewer.canvas.overlays.scale_bar.visible


def test_controls_choose_class_threshold_and_opacity(opened):
    opened.dock.show_tab("slides")
    panel, view = opened.dock.slides, opened.session.slide_view
    opened.activate()
    opened.key("3")
    assert view.class_index == 3
    assert view.heat.name == "Heatmap: glass"
    level = view.map.levels[-1]
    np.testing.assert_array_equal(np.asarray(view.heat.data[-1]), np.asarray(level[2]))
    panel.threshold.setValue(40)
    assert tuple(view.heat.contrast_limits) == (40, 100)
    panel.opacity.setValue(30)
    assert view.heat.opacity == pytest.approx(0.3)
    opened.key("H")
    assert not view.heat.visible
    opened.dock.show_tab("paint")
    assert view.class_index == 3


@pytest.mark.timeout(120)
def test_map_grows_while_the_job_runs_and_is_then_the_result(opened):
    session, view = opened.session, opened.session.slide_view
    opened.dock.show_tab("slides")
    old = view.heatmap.id
    opened.dock.slides.run_button.click()
    opened.until(lambda: len(session.project.artifacts("heatmap")) == 2, 60)
    opened.until(lambda: view.heatmap is not None and view.heatmap.id != old, 30)
    assert view.map.path == session.project.artifacts("heatmap")[-1].path / HEATMAP_STORE
    assert opened.dock.slides.versions.count() == 2
    assert opened.errors() == []


def test_block_on_disk_reaches_the_picture_in_memory(opened):
    """Follows a map as it is written: napari keeps the coarsest level, so the view must change it."""
    view = opened.session.slide_view
    opened.dock.show_tab("slides")
    truth = np.asarray(view.map.levels[-1][view.class_index - 1])
    view._top[:] = 0
    view.heat.refresh()
    view._update_top(Region(0, 0, 512, 512))
    f = 2 ** (len(view.map.levels) - 1)
    np.testing.assert_array_equal(view._top[: 512 // f, : 512 // f], truth[: 512 // f, : 512 // f])
    assert not view._top[512 // f + 1 :].any()


def test_missing_slide_is_told_in_words(opened):
    project = opened.session.project
    entry = project.slides()[0]
    from dataclasses import replace

    project.add_slide_entries([replace(entry, path=entry.path.with_name("gone.svs"), relative="")])
    assert not opened.dock.slides.open(entry.name)
    assert "gone.svs" in opened.errors()[-1]
    assert opened.dock.message_bar.isVisible()


@pytest.mark.timeout(180)
def test_all_slides_get_a_map_by_one_click_and_the_shown_one_grows(opened, tmp_path):
    session, view, panel = opened.session, opened.session.slide_view, opened.dock.slides
    first = session.project.slides()[0]
    opened.dock.show_tab("slides")
    assert not panel.all_slides.isVisible()  # there is one slide only
    copy = tmp_path / f"second{first.path.suffix}"
    copy.write_bytes(first.path.read_bytes())
    assert panel.add([copy], first.mpp)
    opened.until(lambda: len(session.project.slides()) == 2 and panel.all_slides.isVisible(), 60)
    panel.list.setCurrentRow(1)
    assert panel.open("second")
    box = panel.all_slides
    QTest.mouseClick(box, Qt.MouseButton.LeftButton, pos=QPoint(8, box.height() // 2))
    assert panel.all_slides.isChecked()
    grown = []
    view.heatmap_opened.connect(grown.append)
    QTest.mouseClick(panel.run_button, Qt.MouseButton.LeftButton)
    opened.until(lambda: len(session.project.artifacts("heatmap")) == 3, 90)
    opened.until(lambda: view.heatmap is not None, 30)
    made = session.project.artifacts("heatmap")[1:]
    assert {str(artifact.summary["slide"]) for artifact in made} == {first.name, "second"}
    assert view.heatmap.summary["slide"] == "second"
    assert grown[0] == ""  # it was shown before it was whole
    assert opened.errors() == []
