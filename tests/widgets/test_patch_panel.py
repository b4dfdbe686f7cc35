"""Patch classifiers in the window: a picture is dropped in, painted on, trained on, and mapped."""

import numpy as np
import pytest
from PIL import Image
from qtpy.QtCore import Qt
from qtpy.QtTest import QTest

from napari_histogan.evaluation.pixel_roc import ScoredPicture, pixel_auc
from napari_histogan.labels.classes import ClassTable
from napari_histogan.project.store import Project
from napari_histogan.slides.zarr_pyramid import open_pyramid
from napari_histogan.widgets.overview import next_step, overview
from napari_histogan.widgets.picture_maps import picture_maps_of

pytestmark = pytest.mark.gui

SIDE = 128
TINY = {
    "patch_px": 32,
    "width": 4,
    "noise": 8,
    "batch": 32,
    "clahe": False,
    "threads": 1,
    "preview_every": 20,
}


def lines():
    """Return a picture of dark lines, and where they are."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:SIDE, :SIDE]
    mask = (np.abs(y - 40) < 4) | (np.abs(x - 90) < 4)
    gray = np.where(mask, 60, 170) + rng.normal(0, 12, mask.shape)
    return np.clip(gray, 0, 255).astype(np.uint8)[..., None].repeat(3, axis=2), mask


@pytest.fixture
def patches(studio, tmp_path, request):
    """The tab of patch classifiers in a project without slides, and a picture opened by napari."""
    project = Project.create(tmp_path / "project", "Lines", ClassTable.from_names(["line", "ground"]))
    studio.open(project.root)
    file = tmp_path / f"lines-{request.node.name.split('_')[1]}.png"  # the window is shared
    Image.fromarray(lines()[0]).save(file)
    studio.viewer.open(file, plugin="napari")
    studio.dock.show_tab("patches")
    studio.viewer.reset_view()
    studio.activate()
    return studio


def paint_both(studio):
    """Draw a stroke along a line, and one beside it, by keys and mouse."""
    painting = studio.dock.patches.painting
    studio.key("N")
    assert painting.paint.data.shape == (SIDE, SIDE)
    painting.tools.size.setValue(6)
    studio.stroke(painting.paint, [(40, 20), (40, 45), (40, 70)])
    studio.key("2")
    studio.stroke(painting.paint, [(80, 20), (80, 45), (80, 70)])
    studio.until(lambda: painting.counts[1] > 50 and painting.counts[2] > 50)
    assert set(np.unique(painting.paint.data)) == {0, 1, 2}


def test_the_panel_says_what_is_wanting(patches):
    panel = patches.dock.patches
    assert panel.painting.picture.name == "lines-the"
    assert panel.words.text() == "Press N for a layer to paint on."
    patches.key("N")
    assert panel.words.text() == "Paint some of each class; none yet: line, ground."
    assert not panel.train_button.isEnabled()
    patches.stroke(panel.painting.paint, [(40, 20), (40, 70)])
    patches.until(lambda: panel.words.text().endswith("none yet: ground."))
    patches.key("2")
    patches.stroke(panel.painting.paint, [(80, 20), (80, 70)])
    patches.until(lambda: "micrometers" in panel.words.text())
    panel.mpp.setFocus()
    QTest.keyClicks(panel.mpp, "2.0")
    patches.until(lambda: panel.train_button.isEnabled())
    panel.painting.paint.mode = "pan_zoom"  # napari may crash where a layer goes under its brush
    patches.let_qt_work()
    patches.viewer.layers.remove(panel.painting.paint)
    patches.until(lambda: panel.words.text() == "Press N for a layer to paint on.")


@pytest.mark.timeout(280)
def test_paint_becomes_a_map_over_the_picture(patches, tmp_path):
    panel, session = patches.dock.patches, patches.session
    paint_both(patches)
    panel.mpp.setText("2.0")
    panel.form.set_values(TINY)
    panel.steps.setValue(100)
    panel.map_form.set_values({"stride": 2, "tile_px": 128, "threads": 1})
    panel._tell()
    picture, paint = panel.painting.picture, panel.painting.paint
    painted = np.asarray(paint.data).copy()
    maps, seen = picture_maps_of(session), []
    session.jobs.told.connect(lambda _number, event: seen.append((event.get("kind"), event.get("name"))))
    patches.activate()
    patches.key("Ctrl+Return")
    patches.until(lambda: maps.layer is not None, 200)
    assert patches.errors() == []
    # The sample grids and losses were told while it ran, and can be looked at.
    assert seen.count(("preview", "samples")) > 3
    panel.jobs.show_job(session.jobs.newest("train_patch_gan").number)
    patches.let_qt_work()
    assert not panel.jobs.preview.pixmap().isNull()
    assert panel.jobs.pictures.currentText() == "samples"
    assert {"class_loss", "generator_loss"} <= set(panel.jobs.curve.names)
    # Picture and paint are the project's now.
    project = session.project
    kept = project.root / "labels" / "pictures" / "lines-paint"
    with Image.open(kept / "masks" / "lines-paint.png") as stored:
        np.testing.assert_array_equal(np.asarray(stored), painted)
    name = "lines-paint.png"
    with Image.open(kept / "images" / name) as stored, Image.open(tmp_path / name) as given:
        np.testing.assert_array_equal(np.asarray(stored), np.asarray(given))
    assert [slide.name for slide in project.slides()] == ["lines-paint"]
    # The map lies over the picture's very pixels, and tells lines from ground.
    shown = np.asarray(maps.layer.data[0])
    stored = open_pyramid(project.artifacts("heatmap")[-1].path / "heatmap.zarr")
    np.testing.assert_array_equal(shown, np.asarray(stored.levels[0][0]))
    assert shown.shape == (SIDE, SIDE)
    assert maps.layer.data_to_world((7.0, 9.0)) == pytest.approx(picture.data_to_world((7.0, 9.0)))
    # It lies below the paint, and the brush goes on.
    order = list(patches.viewer.layers)
    assert order.index(picture) < order.index(maps.layer) < order.index(paint)
    assert patches.viewer.layers.selection.active == paint
    _, mask = lines()
    auc = pixel_auc([ScoredPicture("lines", (shown / 100).astype(np.float32).ravel(), mask.ravel())])
    assert auc.pooled > 0.8
    patches.key("H")
    assert not maps.layer.visible
    patches.key("H")
    panel.map_classes.setCurrentIndex(1)
    panel.map_classes.activated.emit(1)
    np.testing.assert_array_equal(np.asarray(maps.layer.data[0]), np.asarray(stored.levels[0][1]))
    assert maps.layer.name == "Map of lines-paint: ground"
    assert next_step(project, overview(project)).action == "show_patches"
    # The same net maps again without training; nothing is kept or registered twice.
    # Said to be twice as fine, the map has the net's resolution and lies over all of it.
    before = maps.layer
    panel.mpp.setText("1.0")
    patches.until(lambda: panel.map_alone_button.isEnabled())
    QTest.mouseClick(panel.map_alone_button, Qt.MouseButton.LeftButton)
    patches.until(lambda: maps.layer is not None and maps.layer != before, 150)
    assert len(project.artifacts("heatmap")) == 2
    assert len(project.artifacts("patch_classifier")) == len(project.slides()) == 1
    assert np.asarray(maps.layer.data[0]).shape == (SIDE // 2, SIDE // 2)
    for corner in (0, 1):
        there = maps.layer.data_to_world(np.full(2, corner * SIDE / 2 - 0.5))
        assert there == pytest.approx(picture.data_to_world(np.full(2, corner * SIDE - 0.5)))
    assert panel.painting.picture == picture
    assert panel.painting.paint == paint
    assert patches.errors() == []
