"""Hands for a napari window: they wait, press keys, and draw on the canvas as a person does."""

from __future__ import annotations

import time
from collections.abc import Sequence

from qtpy.QtCore import QPoint, Qt
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication, QWidget

LEFT, NONE = Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier


class WindowHands:
    """Uses the window of a viewer."""

    def __init__(self, viewer) -> None:
        self.viewer = viewer

    @property
    def canvas(self) -> QWidget:
        """The canvas as a widget."""
        return self.viewer.window._qt_viewer.canvas.native

    def let_qt_work(self, seconds: float = 0.05) -> None:
        """Let Qt work."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            QApplication.processEvents()
            time.sleep(0.005)

    def activate(self) -> None:
        """Make the window the active one, as keys need it."""
        window = self.canvas.window()
        window.activateWindow()
        window.raise_()
        QTest.qWaitForWindowActive(window, 3000)
        self.canvas.setFocus()
        self.let_qt_work()

    def key(self, key: str) -> None:
        """Press a key on the canvas."""
        QTest.keySequence(self.canvas, key)
        self.let_qt_work()

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
        points = [self.point(layer, y, x) for y, x in places]
        QTest.mouseMove(self.canvas, points[0])
        self.let_qt_work()
        QTest.mousePress(self.canvas, LEFT, NONE, points[0])
        for point in points[1:]:
            QTest.mouseMove(self.canvas, point)
            self.let_qt_work(0.02)
        QTest.mouseRelease(self.canvas, LEFT, NONE, points[-1])
        QApplication.processEvents()
