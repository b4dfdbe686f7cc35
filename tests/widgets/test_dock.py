"""The dock as a whole: projects, tabs, drops, a second window, a vanished folder, no torch."""

import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from other_window import in_other_window, kill_window_after
from qtpy.QtCore import QMimeData, QPointF, Qt, QUrl
from qtpy.QtGui import QDropEvent

from napari_histogan.project.store import Project
from napari_histogan.widgets.gallery import GalleryDock

pytestmark = pytest.mark.gui


def drop(widget, path: Path) -> None:
    data = QMimeData()
    data.setUrls([QUrl.fromLocalFile(str(path))])
    buttons, keys = Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier
    widget.dropEvent(QDropEvent(QPointF(5, 5), Qt.DropAction.CopyAction, data, buttons, keys))


def gallery_of(studio) -> GalleryDock:
    return studio.dock.window().findChild(GalleryDock)


@pytest.mark.timeout(120)
def test_new_project_takes_a_dropped_slide(studio, tmp_path, demo_slide):
    assert studio.dock.create_project(tmp_path / "new")
    assert studio.dock.stack.currentIndex() == 1
    studio.until(lambda: studio.dock.header.next_button.text() == "Add slides ...")
    no_slide = tmp_path / "notes.svs"
    no_slide.write_text("these are no pixels")
    drop(studio.dock.slides, no_slide)
    assert "notes.svs" in studio.errors()[-1]
    assert studio.session.jobs.active() == []
    drop(studio.dock.slides, demo_slide)
    studio.until(lambda: studio.session.project.slides(), 60)
    studio.until(lambda: studio.dock.slides.list.count() == 1)
    assert "0.499 um/px" in studio.dock.slides.list.item(0).text()
    assert not studio.dock.slides.list.item(0).icon().isNull()
    studio.until(lambda: studio.dock.header.next_button.text() == "Find tissue ...")


def test_gallery_opens_below_and_enter_paints(opened):
    gallery = gallery_of(opened)
    opened.until(lambda: gallery.session is not None)
    assert gallery.model.rowCount() == 24
    assert gallery.status.text() == "24 samples, 3 painted"
    gallery.show_filter("painted")
    assert gallery.model.rowCount() == 3
    gallery.view.setCurrentIndex(gallery.model.index(1))
    from qtpy.QtTest import QTest

    QTest.keyClick(gallery.view, Qt.Key.Key_Return)
    assert opened.session.painting.index == 1
    assert opened.dock.tabs.tabText(opened.dock.tabs.currentIndex()) == "2 Paint"


def test_open_dock_holds_the_lock(opened):
    root = opened.session.project.root
    code = (
        "import sys\n"
        "from napari_histogan.project.store import Project\n"
        "from napari_histogan.errors import ProjectLocked\n"
        f"project = Project.open({str(root)!r})\n"
        "try:\n"
        "    project.studio_lock().__enter__()\n"
        "except ProjectLocked as error:\n"
        "    sys.exit(7)\n"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 7


def test_project_that_another_process_has_open_is_for_looking_only(studio, tiny_project_copy):
    root = tiny_project_copy.root
    code = (
        "import sys\n"
        "from napari_histogan.project.store import Project\n"
        f"with Project.open({str(root)!r}).studio_lock():\n"
        "    print('held', flush=True)\n"
        "    sys.stdin.read()\n"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert other.stdout.readline() == "held\n"
        studio.open(root)
        assert studio.session.read_only
        assert "looking only" in studio.errors()[-1]
        studio.session.open_sample(5)
        assert not studio.session.painting.mask.editable
        studio.session.painting.mask.data[2:9] = 1
        studio.session.painting.flush()
        assert Project.open(root).load_mask(studio.session.samples_artifact, 5) is None
        assert not studio.dock.train.train_button.isEnabled()
    finally:
        other.communicate()


def test_folder_deleted_under_the_open_dock_is_told(opened):
    root = opened.session.project.root
    opened.session.open_sample(4)
    shutil.rmtree(root)
    opened.until(lambda: opened.session.project is None, 10)
    assert opened.dock.stack.currentIndex() == 0
    assert str(root) in opened.dock.message.text()
    assert opened.dock.message_bar.isVisible()


def test_open_says_why_a_folder_is_no_project(studio, tmp_path):
    assert not studio.dock.open_project(tmp_path)
    assert "no project" in studio.errors()[-1]
    assert studio.dock.stack.currentIndex() == 0


def test_dock_closed_and_opened_again_finds_everything(opened):
    opened.session.open_sample(6)
    first = opened.dock
    first.window().removeDockWidget(first.parentWidget())
    opened.viewer.window.remove_dock_widget(first)
    from napari_histogan.widgets.launch import open_dock

    again = open_dock(opened.viewer)
    opened.until(lambda: again.session is not None)
    opened.dock = again
    assert again is not first
    assert again.session is opened.session
    assert first.session is None
    opened.until(lambda: "Sample 6" in again.paint.title.text())


def test_classes_are_edited_in_the_project(opened):
    opened.dock.paint.classes.add_button.click()
    assert Project.open(opened.session.project.root).classes.names[-1] == "class 4"
    opened.dock.paint.classes.table.item(3, 1).setText("fat")
    assert Project.open(opened.session.project.root).classes.names[-1] == "fat"
    opened.session.open_sample(8)
    opened.dock.paint.classes.recolor(4, "#112233")
    color = opened.session.painting.mask.colormap.map(4)
    np.testing.assert_allclose(np.asarray(color)[:3], np.array([0x11, 0x22, 0x33]) / 255, atol=0.01)


@pytest.mark.timeout(120)
def test_samples_tab_shows_the_generator_and_draws_samples(opened):
    opened.dock.show_tab("samples")
    panel = opened.dock.samples
    opened.until(lambda: not panel.look.pixmap().isNull(), 60)
    first = panel.look.pixmap().toImage()
    panel.seed.setValue(5)
    opened.until(lambda: panel.look.pixmap().toImage() != first, 30)
    panel.count.setValue(10)
    panel.draw_button.click()
    opened.until(lambda: len(opened.session.samples) == 10, 60)
    assert opened.session.samples_artifact.config["seed"] == 5
    assert panel.sets.count() == 2
    panel.sets.setCurrentIndex(1)
    panel.sets.activated.emit(1)
    assert len(opened.session.samples) == 24


@pytest.mark.timeout(280)
def test_process_that_draws_never_imports_torch_and_ends_its_engine(tiny_project_copy):
    said = in_other_window(
        tiny_project_copy.root,
        """
import sys

import psutil

session.open_sample(5)
session.painting.mask.paint((9, 9), 1)
until(lambda: session.painting.prediction.data.any())
for tab in ("samples", "train", "slides", "correct"):
    dock.show_tab(tab)
dock.correct.place()
assert "torch" not in sys.modules
pid = session.engine.client.pid
assert psutil.pid_exists(pid)
viewer.close()
until(lambda: not psutil.pid_exists(pid))
print("fine", pid)
""",
    )
    assert "fine" in said, said


@pytest.mark.timeout(280)
def test_stroke_survives_kill(tiny_project_copy):
    root = tiny_project_copy.root
    acts = "session.open_sample(5)\nsession.painting.mask.paint((9, 9), 2)\n"
    kill_window_after(root, acts)
    time.sleep(0.1)
    project = Project.open(root)
    assert project.load_mask(project.artifacts("samples")[-1], 5)[9, 9] == 2
    with project.studio_lock():
        pass
