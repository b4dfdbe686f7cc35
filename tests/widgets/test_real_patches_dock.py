"""Real patches in the dock: one button or Alt+R, marked in the gallery, opened by Enter, painted as usual."""

import numpy as np
import pytest
from qtpy.QtCore import Qt
from qtpy.QtTest import QTest

from napari_histogan.config import InvertPatchesConfig, TrainGanConfig
from napari_histogan.pipeline import STAGE_FUNCTIONS
from napari_histogan.progress import QuietReporter
from napari_histogan.project.store import Project
from napari_histogan.widgets.gallery import GalleryDock
from napari_histogan.widgets.gallery_model import REAL_ROLE
from napari_histogan.widgets.sample_store import SampleStore

pytestmark = pytest.mark.gui
QUICK = {"steps": 3, "candidates": 4, "threads": 1, "count": 2, "drawn": 4}


@pytest.fixture
def with_real(studio, painted_project_copy):
    """The dock with a project in which real patches were found once."""
    function = STAGE_FUNCTIONS["invert_patches"]
    function(painted_project_copy, InvertPatchesConfig(**QUICK), QuietReporter())
    studio.open(painted_project_copy.root)
    return studio


def gallery_of(studio) -> GalleryDock:
    gallery = studio.dock.window().findChild(GalleryDock)
    studio.until(lambda: gallery.session is not None)
    return gallery


def test_real_ones_are_marked_beside_drawn_ones(with_real):
    gallery = gallery_of(with_real)
    with_real.until(lambda: gallery.model.rowCount() == 6)
    marks = [gallery.model.data(gallery.model.index(row), REAL_ROLE) for row in range(6)]
    assert marks == [True, True, False, False, False, False]
    tip = gallery.model.data(gallery.model.index(0), Qt.ItemDataRole.ToolTipRole)
    assert "real patch" in tip
    assert "dB" in tip
    assert "2 of them real" in with_real.dock.samples.sets.currentText()
    colors = gallery.view.grab().toImage()
    place = gallery.view.visualRect(gallery.model.index(0))
    assert colors.pixelColor(place.left() + 8, place.top() + 9).name() == "#e69f00"
    gallery.show_filter("real")
    assert [gallery.model.sample(row) for row in range(gallery.model.rowCount())] == [0, 1]
    gallery.show_filter("all")


@pytest.mark.timeout(120)
def test_enter_opens_a_real_patch_and_a_stroke_is_kept(with_real):
    gallery = gallery_of(with_real)
    with_real.until(lambda: gallery.model.rowCount() == 6)
    gallery.view.setCurrentIndex(gallery.model.index(1))
    QTest.keyClick(gallery.view, Qt.Key.Key_Return)
    painting = with_real.session.painting
    assert painting.index == 1
    with_real.activate()
    with_real.key("1")
    with_real.stroke(painting.mask, [(10, 8), (12, 16), (16, 24)])
    painting.flush()
    project = Project.open(with_real.session.project.root, read_only=True)
    samples = project.artifacts("samples")[-1]
    mask = project.load_mask(samples, 1)
    assert mask is not None
    assert np.count_nonzero(mask) > 0
    assert project.painted(samples) == [1]


@pytest.mark.timeout(120)
@pytest.mark.parametrize("by", ["mouse", "key"])
def test_the_button_starts_the_job_and_the_gallery_shows_what_it_found(with_real, by):
    """The settings are those that were used last, here very few steps."""
    samples = with_real.dock.samples
    before = len(with_real.session.project.artifacts("samples"))
    with_real.dock.show_tab("samples")
    with_real.activate()
    assert "Alt+R" in samples.real_button.toolTip()
    if by == "mouse":
        QTest.mouseClick(samples.real_button, Qt.MouseButton.LeftButton)
    else:
        QTest.keyClick(samples, Qt.Key.Key_R, Qt.KeyboardModifier.AltModifier)
    with_real.until(lambda: with_real.session.jobs.active(), 20)
    with_real.until(lambda: not with_real.session.jobs.active(), 90)
    with_real.let_qt_work(0.2)
    made = with_real.session.project.artifacts("samples")
    assert len(made) == before + 1
    assert (made[-1].stage, made[-1].config["steps"]) == ("invert_patches", 3)
    assert with_real.session.samples_artifact == made[-1]
    assert gallery_of(with_real).model.rowCount() == 6
    assert any("reproduced poorly" in text for text in with_real.errors()), "a poor one is told at the end"


def test_store_says_which_are_real(painted_project_copy):
    drawn = SampleStore(painted_project_copy.artifacts("samples")[-1].path)
    assert drawn.real == {}
    function = STAGE_FUNCTIONS["invert_patches"]
    made = function(painted_project_copy, InvertPatchesConfig(**QUICK), QuietReporter())
    store = SampleStore(made.path)
    assert list(store.real) == [0, 1]
    assert all(5 < value < 60 for value in store.real.values())
    assert store.image(5).dtype == np.uint8


@pytest.mark.timeout(200)
def test_a_moment_of_a_training_is_chosen_and_becomes_the_newest_generator(studio, painted_project_copy):
    opened = studio
    opened.open(painted_project_copy.root)
    session, panel = opened.session, opened.dock.train
    config = TrainGanConfig(
        kimg=0.032, batch=8, z_dim=16, w_dim=16, mapping_layers=1, channel_base=256, channel_max=16,
        tick_kimg=0.016, threads=1, preset="plain",
    )  # fmt: skip
    opened.dock.show_tab("train")
    assert session.run(config)
    opened.until(lambda: not session.jobs.active(), 120)
    opened.let_qt_work(0.2)
    picker = panel.jobs.checkpoints
    opened.until(picker.isVisible)
    offered = [picker.choices.itemText(i) for i in range(picker.choices.count())]
    assert any(text.startswith("last, 0.032 kimg, distance") for text in offered), offered
    assert any(text.startswith("best, ") for text in offered), offered
    before = len(session.project.artifacts("generator"))
    picker.choices.setFocus()
    picker.choices.setCurrentIndex([text.startswith("best") for text in offered].index(True))
    panel.area.ensureWidgetVisible(picker)
    opened.let_qt_work(0.1)
    QTest.mouseClick(picker.use_button, Qt.MouseButton.LeftButton)
    opened.until(lambda: len(session.project.artifacts("generator")) == before + 1, 60)
    newest = session.project.artifacts("generator")[-1]
    assert (newest.stage, newest.config["checkpoint"]) == ("import_gan", "best")
    opened.until(lambda: not session.jobs.active(), 20)
