"""The window of studio_latency.py, in a process of its own that never loads torch.

Usage: python studio_window.py FOLDER QUICK; prints one line of JSON.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import napari
import numpy as np
import psutil
from qtpy.QtCore import QPoint, QPointF, Qt
from qtpy.QtGui import QWheelEvent
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication
from studio_watch import Watch, settle, stroke, until

from napari_histogan.config import PredictHeatmapConfig, TrainSegmenterConfig
from napari_histogan.jobs.runner import start_job
from napari_histogan.widgets.gallery import GalleryDock
from napari_histogan.widgets.launch import open_dock
from napari_histogan.widgets.sample_store import SampleStore

TABS = ("samples", "paint", "train", "slides", "correct", "blocks", "labels", "patches")
NONE = Qt.KeyboardModifier.NoModifier


class Window:
    """A window with hands."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.viewer = napari.Viewer()
        self.viewer.window.resize(1366, 768)
        self.rows: list[str] = []
        self.figures: dict[str, float] = {}
        settle(0.5)
        self.alone_mb = psutil.Process().memory_info().rss / 1e6

    # With the dock

    def open_dock(self) -> None:
        """Open the dock and its project."""
        self.dock = open_dock(self.viewer)
        until(lambda: self.dock.session is not None)
        self.session: Any = self.dock.session
        if not self.dock.open_project(self.folder / "project"):
            raise SystemExit(self.dock.message.text())
        until(lambda: self.session.warming.done and self.dock.panels.done)

    def warm(self) -> None:
        """Show each page and layer once."""
        self.session.open_sample(8)
        until(lambda: self.session.painting.prediction.data.any())
        for tab in TABS:
            self._click_tab(tab)
            settle(0.3)
        self.session.slide_view.set_threshold(50)
        settle(0.3)
        self.session.slide_view.set_threshold(0)

    def use(self, watch: Watch, rounds: int) -> None:
        """Play the story while a net of another project is trained."""
        busy = start_job(
            self.folder / "busy", TrainSegmenterConfig(steps=100_000, width=8, batch=8), nice=True
        )
        until(lambda: any(event.get("kind") == "progress" for event in busy.events(0)[0]))
        acts: dict[str, Callable[[int], None]] = {
            "painting": self._paint,
            "other samples": self._browse,
            "tabs": self._change_tabs,
            "flying": self._fly_around,
            "threshold and class": self._look_closer,
            "growing map": self._grow,
            "correcting": self._correct,
            "gallery": lambda _rounds: self._scroll(),
        }
        for phase, act in acts.items():
            watch.phase = phase
            act(rounds)
            settle(0.2)
            watch.phase = ""
        busy.request_stop()

    def _click_tab(self, name: str) -> None:
        button = self.dock.tabs.button(TABS.index(name))
        QTest.mouseClick(button, Qt.MouseButton.LeftButton, NONE, button.rect().center())

    def _paint(self, rounds: int) -> None:
        """Draw strokes and wait for the prediction of each."""
        painting, waits, seen = self.session.painting, [], []
        self._click_tab("paint")
        settle(0.3)
        painting.predicted.connect(lambda seconds, _words: seen.append(seconds))
        for k in range(2 * rounds):
            painting.choose_class(1 + k % 4)
            row = 6 + 5 * (k % 11)
            stroke(self.viewer, painting.mask, [(row, x) for x in range(6, 56, 4)], seen.clear)
            began = time.perf_counter()
            until(lambda: seen)
            waits.append(time.perf_counter() - began)
        self.figures["stroke_to_prediction_s"] = median(waits)
        self.rows.append(f"stroke to prediction: median {median(waits):.2f} s, worst {max(waits):.2f} s")

    def _browse(self, rounds: int) -> None:
        for k in range(rounds):
            self.session.open_sample(10 + k)
            settle(0.4)

    def _change_tabs(self, _rounds: int) -> None:
        for tab in (*TABS, "paint"):
            self._click_tab(tab)
            settle(0.3)

    def _fly_around(self, rounds: int) -> None:
        self._click_tab("slides")
        for k in range(4 * rounds):
            place = (200.0 + 100 * (k % 8), 300.0 + 60 * (k % 5))
            self.session.slide_view.fly_to(place, 150.0 + 100 * (k % 3))
            settle(0.15)

    def _look_closer(self, rounds: int) -> None:
        view = self.session.slide_view
        for k in range(rounds):
            view.set_threshold(40 + 5 * k)
            settle(0.2)
            view.set_class(1 + k % 3)
            settle(0.2)
            view.toggle_heatmap()
            settle(0.2)
            view.toggle_heatmap()
            settle(0.2)
        view.set_threshold(0)
        view.set_class(1)

    def _grow(self, _rounds: int) -> None:
        """Watch a map grow until it is whole."""
        before = len(self.session.project.artifacts("heatmap"))
        self.session.run(PredictHeatmapConfig())
        until(lambda: len(self.session.project.artifacts("heatmap")) > before)
        until(lambda: self.session.slide_view.heatmap is not None)

    def _correct(self, rounds: int) -> None:
        """Fix places: a frame, strokes, and back."""
        self._click_tab("correct")
        for k in range(rounds):
            self.session.slide_view.fly_to((300.0 + 40 * k, 400.0), 200.0)
            self.session.correcting.place(128)
            settle(0.3)
            layer = self.session.correcting.layer
            for row in (40, 80):
                stroke(self.viewer, layer, [(row, x) for x in range(20, 110, 10)], lambda: None)
                settle(0.1)
            self.session.correcting.discard()
            settle(0.3)

    def _scroll(self) -> None:
        """Scroll through all samples, some rows at each turn of the wheel."""
        gallery = self.dock.window().findChild(GalleryDock)
        gallery.show_filter("all")
        store = SampleStore(self.folder / "many")
        gallery.model.set_source(len(store), store.image)
        bar, viewport = gallery.view.verticalScrollBar(), gallery.view.viewport()
        until(lambda: bar.maximum() > 5000)
        began, steps, works = time.perf_counter(), [], []
        while bar.value() < bar.maximum():
            wheel = QWheelEvent(
                QPointF(50, 50), QPointF(50, 50), QPoint(0, -600), QPoint(0, -600),
                Qt.MouseButton.NoButton, NONE, Qt.ScrollPhase.NoScrollPhase, False,
            )  # fmt: skip
            clock, work = time.perf_counter(), time.thread_time()
            QApplication.sendEvent(viewport, wheel)
            viewport.repaint()
            steps.append(1000 * (time.perf_counter() - clock))
            works.append(1000 * (time.thread_time() - work))
            settle(0.01)
        self.figures["gallery_step_ms"] = median(works)
        self.rows.append(
            f"gallery: {len(store)} samples in {time.perf_counter() - began:.1f} s, {len(steps)} turns of "
            f"the wheel; each {median(works):.1f} ms of work (worst {max(works):.1f}), "
            f"{median(steps):.1f} ms by the clock (worst {max(steps):.1f})"
        )

    # Large slides

    def open_slides(self) -> None:
        """Open three large slides through the reader; time the first pixels, weigh all."""
        self.session.close_project()
        settle(0.5)
        seconds, drawn = [], []
        for k in range(3):
            path = self.folder / f"large-{k}.tif"
            os.link(self.folder / "large.tif", path)
            began = time.perf_counter()
            (layer,) = self.viewer.open(path, plugin="napari-histogan")
            self.viewer.reset_view(layers=[layer])
            picture = self.viewer.screenshot(canvas_only=True, flash=False)
            seconds.append(time.perf_counter() - began)
            drawn.append(len(np.unique(picture.reshape(-1, 4), axis=0)))
            self._tour(layer)
        if min(drawn) < 100:
            raise SystemExit("nothing was drawn")
        self.figures["slide_first_pixels_s"] = max(seconds)
        self.figures["three_slides_mb"] = psutil.Process().memory_info().rss / 1e6 - self.alone_mb
        self.rows.append("slides: first pixels after " + ", ".join(f"{s:.2f} s" for s in seconds))
        self.rows.append(
            f"memory of the dock, its project, and three slides, flown over, beyond the "
            f"{self.alone_mb:.0f} MB of napari alone: {self.figures['three_slides_mb']:.0f} MB"
        )

    def _tour(self, layer: Any) -> None:
        """Look at twelve places at two magnifications."""
        height, width = (side * 0.25 for side in layer.data[0].shape[:2])
        for k in range(12):
            self.viewer.scene.camera.center = (height * (0.1 + 0.07 * k), width * (0.9 - 0.07 * k))
            self.viewer.scene.camera.zoom = (4.0, 0.5)[k % 2]
            settle(0.05)


def main() -> None:
    """Measure, and print one line."""
    folder, quick, stacks = Path(sys.argv[1]), bool(int(sys.argv[2])), sys.argv[3]
    window = Window(folder)
    watch = Watch(window.viewer.window._qt_viewer.canvas._scene_canvas)
    watch.phase = "opening"
    window.open_dock()
    watch.phase = "first showing of tabs and layers"
    window.warm()
    watch.phase = ""
    window.use(watch, 3 if quick else 10)
    window.open_slides()
    if "torch" in sys.modules:
        raise SystemExit("the process that draws loaded torch")
    window.viewer.close()
    if stacks:
        watch.write(Path(stacks))
    sys.stdout.write(
        json.dumps({"rows": window.rows, "figures": window.figures, "pauses": watch.summary()}) + "\n"
    )


if __name__ == "__main__":
    main()
