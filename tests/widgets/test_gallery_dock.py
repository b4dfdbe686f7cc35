"""The gallery in a real window: likes, mixes, more of a kind, and scrolling through two thousand samples."""

import time

import numpy as np
import pytest
import zarr
from qtpy.QtCore import QPoint, QPointF, Qt
from qtpy.QtGui import QWheelEvent
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication

from napari_histogan.inference.sampling import load_samples
from napari_histogan.project.store import Project
from napari_histogan.widgets.gallery import GalleryDock
from napari_histogan.widgets.sample_store import SampleStore

pytestmark = pytest.mark.gui


@pytest.fixture
def gallery(opened) -> GalleryDock:
    gallery = opened.dock.window().findChild(GalleryDock)
    opened.until(lambda: gallery.session is not None and gallery.model.rowCount() == 24)
    gallery.show_filter("all")
    opened.activate()
    return gallery


def click(gallery, sample, ctrl=False):
    index = gallery.model.index(gallery.model.row_of(sample))
    gallery.view.scrollTo(index)
    place = gallery.view.visualRect(index).center()
    keys = Qt.KeyboardModifier.ControlModifier if ctrl else Qt.KeyboardModifier.NoModifier
    QTest.mouseClick(gallery.view.viewport(), Qt.MouseButton.LeftButton, keys, place)


def test_a_key_likes_and_the_project_keeps_it(opened, gallery):
    click(gallery, 5)
    QTest.keyClick(gallery.view, Qt.Key.Key_L)
    click(gallery, 9)
    QTest.keyClick(gallery.view, Qt.Key.Key_L)
    assert opened.session.favorites.marked == {5, 9}
    gallery.show_filter("liked")
    assert [gallery.model.sample(row) for row in range(gallery.model.rowCount())] == [5, 9]
    opened.until(lambda: gallery.model.data(gallery.model.index(0), Qt.ItemDataRole.DecorationRole))
    place = gallery.view.visualRect(gallery.model.index(0))
    color = gallery.view.grab().toImage().pixelColor(place.right() - 4 - 9, place.bottom() - 4 - 24)
    assert color.name() == "#f0e442"
    click(gallery, 9)
    QTest.keyClick(gallery.view, Qt.Key.Key_L)
    assert gallery.model.rowCount() == 1
    opened.session.open(Project.open(opened.session.project.root).root)
    assert opened.session.favorites.marked == {5}
    gallery.show_filter("all")


@pytest.mark.timeout(120)
def test_two_samples_are_mixed_looked_at_and_kept(opened, gallery):
    old = opened.session.samples_artifact
    click(gallery, 3)
    click(gallery, 6, ctrl=True)
    assert gallery.chosen() == [3, 6]
    QTest.keyClick(gallery.view, Qt.Key.Key_M)
    box = opened.dock.samples.mix
    assert box.isVisible()
    opened.until(lambda: not box.look.pixmap().isNull(), 60)
    QTest.mouseClick(box.keep_button, Qt.MouseButton.LeftButton)
    opened.until(lambda: opened.session.samples_artifact.id != old.id, 60)
    assert opened.errors() == []
    made = load_samples(opened.session.samples_artifact.path)
    np.testing.assert_array_equal(made.w[0][0], load_samples(old.path).w[3][0])
    np.testing.assert_array_equal(made.w[0][1:], load_samples(old.path).w[6][1:])
    assert gallery.model.rowCount() == len(made.w)
    assert not box.isVisible()


@pytest.mark.timeout(120)
def test_more_like_one_follows_its_slider(opened, gallery):
    click(gallery, 4)
    QTest.keyClick(gallery.view, Qt.Key.Key_M)
    assert "two samples" in opened.dock.message.text()
    QTest.keyClick(gallery.view, Qt.Key.Key_S)
    box = opened.dock.samples.mix
    opened.until(lambda: not box.look.pixmap().isNull(), 60)
    before = box.look.pixmap().toImage()
    box.strength.setValue(0.9)
    opened.until(lambda: box.look.pixmap().toImage() != before, 30)


def test_two_thousand_samples_scroll_without_a_pause(opened, gallery, tmp_path):
    side, count = 256, 2000
    group = zarr.create_group(tmp_path / "many" / "samples.zarr", attributes={"mpp": 1.0})
    images = group.create_array(
        "image", shape=(count, side, side, 3), chunks=(64, side, side, 3), dtype=np.uint8
    )
    noise = np.random.default_rng(0).integers(0, 256, (64, side, side, 3), np.uint8)
    for first in range(0, count, 64):
        part = noise[: min(64, count - first)].copy()
        part[:, :40] = np.arange(first, first + len(part))[:, None, None, None] % 256
        images[first : first + len(part)] = part
    gallery.model.set_source(count, SampleStore(tmp_path / "many").image)
    bar, viewport = gallery.view.verticalScrollBar(), gallery.view.viewport()
    opened.until(lambda: bar.maximum() > 5000)
    slowest, none = 0.0, Qt.KeyboardModifier.NoModifier
    while bar.value() < bar.maximum():
        began = time.thread_time()
        wheel = QWheelEvent(
            QPointF(50, 50), QPointF(50, 50), QPoint(0, -600), QPoint(0, -600),
            Qt.MouseButton.NoButton, none, Qt.ScrollPhase.NoScrollPhase, False,
        )  # fmt: skip
        QApplication.sendEvent(viewport, wheel)
        QApplication.processEvents()
        slowest = max(slowest, time.thread_time() - began)
    # Of this thread alone, so that a busy machine does not count; unpacking one chunk takes as long.
    assert slowest < 0.05
    last = gallery.model.index(count - 1)
    opened.until(lambda: gallery.model.data(last, Qt.ItemDataRole.DecorationRole) is not None, 20)
    color = gallery.model.data(last, Qt.ItemDataRole.DecorationRole).toImage().pixelColor(40, 6)
    assert abs(color.red() - (count - 1) % 256) <= 2
