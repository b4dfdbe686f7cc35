"""What goes wrong around the dock is said in it, in plain words: silent drives, full disks, no OpenGL."""

import errno
import os
import resource
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from other_window import in_other_window

from napari_histogan.project.store import Project
from napari_histogan.widgets.folder_watch import FolderWatch, is_project

pytestmark = pytest.mark.gui


class Drive:
    """Looks at a folder, and stops answering when it is told so."""

    def __init__(self) -> None:
        self.works = threading.Event()
        self.works.set()
        self.error = 0

    def __call__(self, root: Path) -> bool:
        self.works.wait(60)
        if self.error:
            raise OSError(self.error, os.strerror(self.error))
        return is_project(root)


@pytest.fixture
def drive(opened):
    """The opened project on a drive that can fall silent."""
    made, session = Drive(), opened.session
    usual = session.folder._there
    session.folder._there = made
    session.folder.watch(session.project.root)
    yield made
    made.works.set()
    session.folder._there = usual


def test_drive_that_hangs_is_told_and_paint_waits_for_it(opened, drive):
    session = opened.session
    session.open_sample(5)
    drive.works.clear()
    opened.until(lambda: not session.folder.reachable)
    assert "does not answer" in opened.dock.message.text()
    assert "saved as soon as" in opened.errors()[-1]
    samples = session.samples_artifact
    session.painting.mask.data_setitem((np.array([9]), np.array([9])), 2)
    session.painting.flush()
    project = Project.open(session.project.root, read_only=True)
    assert project.load_mask(samples, 5) is None, "nothing is written to a drive that hangs"
    drive.works.set()
    opened.until(lambda: session.folder.reachable)
    assert project.load_mask(samples, 5)[9, 9] == 2
    opened.until(lambda: "answers again" in opened.dock.message.text())


def test_drive_with_errors_is_told_by_its_error(opened, drive):
    drive.error = errno.EIO
    opened.until(lambda: not opened.session.folder.reachable)
    assert os.strerror(errno.EIO) in opened.errors()[-1]
    drive.error = 0
    opened.until(lambda: opened.session.folder.reachable)
    assert opened.session.project is not None


def test_watch_tells_a_folder_that_goes(qtbot, tmp_path):
    (tmp_path / "project.toml").write_text("", encoding="utf-8")
    watch = FolderWatch()
    watch.watch(tmp_path)
    with qtbot.waitSignal(watch.gone, timeout=20_000):
        (tmp_path / "project.toml").unlink()
    assert watch.reachable


@pytest.mark.skipif(sys.platform == "win32", reason="limits of file sizes are POSIX")
def test_disk_that_takes_no_more_is_told_and_no_stroke_is_lost(opened):
    session = opened.session
    session.open_sample(6)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    session.painting.mask.data_setitem((np.array([4]), np.array([4])), 1)
    resource.setrlimit(resource.RLIMIT_FSIZE, (16, hard))
    try:
        session.painting.flush()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert opened.errors(), "a stroke that could not be saved was not told"
    assert opened.dock.message_bar.isVisible()
    assert session.painting.mask.data[4, 4] == 1
    session.painting.flush()
    assert session.project.load_mask(session.samples_artifact, 6)[4, 4] == 1


@pytest.mark.timeout(200)
def test_display_without_opengl_still_opens_the_dock(tiny_project_copy):
    """Without OpenGL napari cannot draw, but the dock opens its project and says what is missing."""
    said = in_other_window(
        tiny_project_copy.root,
        'session.open_sample(3)\nprint("said", dock.message.text())\n',
        show=False,
        DISPLAY=None,  # with a display, the platform below finds OpenGL there
        QT_QPA_PLATFORM="offscreen",
    )
    assert "OpenGL" in said.partition("said")[2], said
