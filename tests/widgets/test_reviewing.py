"""Looking over a heatmap: outline, second view, places and objects to fly to; by mouse and keys."""

import numpy as np
import pytest
from qtpy.QtCore import Qt
from qtpy.QtTest import QTest

from napari_histogan.geometry import Region, Size
from napari_histogan.slides.zarr_pyramid import PyramidWriter

pytestmark = pytest.mark.gui


@pytest.fixture
def looking(opened):
    """The dock with the slide and a map in which the second class has two objects and one place is unsure."""
    project = opened.session.project
    artifact = project.artifacts("heatmap")[-1]
    entry = project.slide("")
    side = Size(round(entry.size.height * entry.mpp), round(entry.size.width * entry.mpp))
    import shutil

    shutil.rmtree(artifact.path / "heatmap.zarr")
    percent = np.zeros((3, *side.shape), np.uint8)
    percent[0] = 95
    percent[1, 100:200, 100:180] = 90
    percent[1, 400:440, 500:580] = 60
    percent[0][percent[1] > 0] = 5
    percent[:, 700:760, 700:760] = 33
    names = list(project.classes.names)
    writer = PyramidWriter(artifact.path / "heatmap.zarr", side, names, mpp=1.0)
    writer.write(Region(0, 0, *side.shape), percent)
    writer.close()
    opened.activate()
    opened.dock.show_tab("slides")
    opened.dock.slides.threshold.setValue(0)  # the window stays open between tests
    opened.until(lambda: opened.session.slide_view.map is not None)
    opened.canvas.setFocus()
    return opened


def center(opened):
    return opened.session.slide_view.center_um()


@pytest.mark.timeout(600)
def test_keys_fly_to_unsure_places_and_doubtful_objects_and_rows_too(looking):
    panel, reviewing = looking.dock.slides, looking.session.reviewing
    looking.key("J")
    looking.until(lambda: reviewing.places is not None, 200)
    assert np.abs(np.subtract(center(looking), (730, 730))).max() < 20
    looking.key("2")
    panel.threshold.setValue(50)
    looking.key("B")
    looking.until(lambda: len(reviewing.objects) == 2, 200)
    assert panel.review.objects.isVisible()
    looking.key("D")
    assert np.abs(np.subtract(center(looking), (420, 540))).max() < 5  # 60 %: the more doubtful one
    looking.key("D")
    assert np.abs(np.subtract(center(looking), (150, 140))).max() < 5
    panel.review.objects.sortByColumn(2, Qt.SortOrder.DescendingOrder)
    assert panel.review.objects.model().index(0, 4).data() == "90"
    place = panel.review.objects.visualRect(panel.review.objects.model().index(1, 0)).center()
    none = Qt.KeyboardModifier.NoModifier
    QTest.mouseClick(panel.review.objects.viewport(), Qt.MouseButton.LeftButton, none, place)
    assert np.abs(np.subtract(center(looking), (420, 540))).max() < 5
    assert looking.errors() == []


def test_the_outline_follows_the_slider(looking):
    view, panel = looking.session.slide_view, looking.dock.slides
    looking.key("2")
    assert view.outline.layer is None or not view.outline.layer.visible
    panel.threshold.setValue(50)
    looking.until(lambda: view.outline.layer is not None and view.outline.layer.visible)
    layer = view.outline.layer
    assert layer.contour > 0
    full = np.asarray(layer.data[0][0:600, 0:700])
    assert full[420, 540] == 1
    panel.threshold.setValue(80)
    looking.until(lambda: np.asarray(layer.data[0][420, 540]) == 0)
    assert np.asarray(layer.data[0][150, 140]) == 1
    looking.key("O")
    assert not layer.visible
    looking.key("O")
    assert layer.visible
    panel.threshold.setValue(0)
    looking.until(lambda: not layer.visible)


def test_a_second_view_shows_the_slide_alone_and_goes_again(looking):
    view, viewer = looking.session.slide_view, looking.viewer
    looking.key("S")
    assert view.beside.active
    grid = viewer.canvas.grid
    assert grid.enabled
    where = {layer.name: grid.position(i, viewer.layers) for i, layer in enumerate(viewer.layers)}
    assert where[view.slide.name] == where[view.heat.name] == (0, 0)
    assert where["Slide (right)"] == (0, 1)
    looking.dock.correct.place()  # a layer that is added later belongs to the left view
    index = viewer.layers.index(looking.session.correcting.layer)
    assert grid.position(index, viewer.layers) == (0, 0)
    looking.session.correcting.discard()
    looking.key("S")
    assert not grid.enabled
    assert "Slide (right)" not in [layer.name for layer in viewer.layers]
    looking.key("S")
    looking.session.open_sample(3)  # the samples have one view
    assert not grid.enabled
    assert looking.errors() == []


@pytest.mark.timeout(600)
def test_objects_that_a_stage_kept_are_chosen_flown_to_and_written(looking, tmp_path):
    from napari_histogan.config import DetectObjectsConfig
    from napari_histogan.pipeline import STAGE_FUNCTIONS
    from napari_histogan.progress import QuietReporter

    panel, reviewing, project = looking.dock.slides, looking.session.reviewing, looking.session.project
    assert not panel.review.found.isVisible()
    config = DetectObjectsConfig(threshold=0.5, threads=1)
    kept = STAGE_FUNCTIONS[config.stage](project, config, QuietReporter())
    looking.session.artifacts_changed.emit()
    box = panel.review.found
    assert box.isVisible()
    assert box.sets.findData(kept.id) >= 0
    box.sets.setFocus()
    box.sets.setCurrentIndex(box.sets.findData(kept.id))
    box.sets.activated.emit(box.sets.currentIndex())  # as a click on the entry
    looking.until(lambda: reviewing.source is not None, 200)
    assert len(reviewing.objects) == kept.summary["objects"]
    names = [box.table.model_.index(row, 1).data() for row in range(box.table.model_.rowCount())]
    assert sorted(set(names)) == sorted(
        name for name in project.classes.names if kept.summary[f"objects_{name}"]
    )
    row = names.index("dermis")
    box.table.selectRow(row)
    looking.let_qt_work()
    y, x = reviewing.objects[int(box.table.model_.order[row])][:2]
    assert np.abs(np.subtract(center(looking), (y, x))).max() < 1
    lines = box.table.csv().splitlines()
    assert lines[0] == (kept.path / "objects.csv").read_text().splitlines()[0]
    assert len(lines) == 1 + len(reviewing.objects)
    areas = [float(line.split(",")[3]) for line in lines[1:]]
    assert sorted(areas) == pytest.approx(sorted(reviewing.objects[:, 2]), rel=1e-4)
