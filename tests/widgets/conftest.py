"""A real napari window with the dock open, and hands to use it: clicks, keys, strokes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from qtpy.QtCore import QStandardPaths
from qtpy.QtWidgets import QApplication
from window_hands import WindowHands

QStandardPaths.setTestModeEnabled(True)


class Studio(WindowHands):
    """A window with the dock."""

    def __init__(self, viewer) -> None:
        from napari_histogan.widgets.launch import open_dock

        super().__init__(viewer)
        viewer.window.resize(1100, 680)  # drawing is done by the processor here
        self.dock = open_dock(viewer)
        self.until(lambda: self.dock.session is not None)
        self.session = self.dock.session
        self.told: list[tuple[str, str]] = []
        self.session.told.connect(lambda text, level: self.told.append((level, text)))

    def until(self, condition: Callable[[], object], seconds: float = 30.0) -> None:
        """Let Qt work until something is so."""
        end = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > end:
                raise AssertionError(f"it did not happen within {seconds} s; told: {self.told}")
            QApplication.processEvents()
            time.sleep(0.005)

    def open(self, root: Path) -> None:
        assert self.dock.open_project(root), self.told
        self.let_qt_work()

    def errors(self) -> list[str]:
        return [text for level, text in self.told if level != "info"]


@pytest.fixture(scope="module")
def window(qapp) -> Iterator[Studio]:
    """One window for all tests of a module, as a person keeps it open."""
    import gc

    import napari

    viewer = napari.Viewer()
    studio = Studio(viewer)
    yield studio
    studio.session.shut_down()
    studio.let_qt_work()
    viewer.close()
    del studio, viewer
    for _ in range(3):
        QApplication.processEvents()
        gc.collect()


@pytest.fixture
def studio(window) -> Iterator[Studio]:
    """The dock without a project."""
    window.session.close_project()
    window.told.clear()
    window.dock.message_bar.hide()
    window.dock.paint.live.setChecked(True)
    yield window
    window.session.close_project()
    window.let_qt_work()


@pytest.fixture
def opened(studio, tiny_project_copy) -> Studio:
    """The dock with a project that has everything."""
    studio.open(tiny_project_copy.root)
    return studio
