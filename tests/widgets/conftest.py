"""A real napari window with the dock open, and hands to use it: clicks, keys, strokes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from qtpy.QtCore import QPoint, QStandardPaths, Qt
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication

QStandardPaths.setTestModeEnabled(True)


class Studio:
    """A window with the dock."""

    def __init__(self, viewer) -> None:
        from napari_histogan.widgets.launch import open_dock

        self.viewer = viewer
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

    def let_qt_work(self, seconds: float = 0.05) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            QApplication.processEvents()
            time.sleep(0.005)

    def open(self, root: Path) -> None:
        assert self.dock.open_project(root), self.told
        self.let_qt_work()

    def errors(self) -> list[str]:
        return [text for level, text in self.told if level != "info"]

    @property
    def canvas(self):
        return self.viewer.window._qt_viewer.canvas.native

    def point(self, layer, y: float, x: float) -> QPoint:
        """Return where a place of a layer, in its pixels, lies on the canvas."""
        world = layer.data_to_world((y, x))
        center, zoom = self.viewer.scene.camera.center[-2:], self.viewer.scene.camera.zoom
        size = self.canvas.size()
        return QPoint(
            round((world[1] - center[1]) * zoom + size.width() / 2),
            round((world[0] - center[0]) * zoom + size.height() / 2),
        )

    def stroke(self, layer, places: Sequence[tuple[float, float]]) -> None:
        """Draw with the left mouse button."""
        canvas, none = self.canvas, Qt.KeyboardModifier.NoModifier
        points = [self.point(layer, y, x) for y, x in places]
        QTest.mouseMove(canvas, points[0])
        self.let_qt_work()
        QTest.mousePress(canvas, Qt.MouseButton.LeftButton, none, points[0])
        for point in points[1:]:
            QTest.mouseMove(canvas, point)
            self.let_qt_work(0.02)
        QTest.mouseRelease(canvas, Qt.MouseButton.LeftButton, none, points[-1])
        self.let_qt_work()

    def activate(self) -> None:
        """Make the window the active one, as keys need it."""
        window = self.dock.window()
        window.activateWindow()
        window.raise_()
        QTest.qWaitForWindowActive(window, 3000)
        self.canvas.setFocus()
        self.let_qt_work()

    def key(self, key: str) -> None:
        """Press a key with the focus on the canvas."""
        QTest.keySequence(self.canvas, key)
        self.let_qt_work()


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
