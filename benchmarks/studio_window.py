"""The window of studio_latency.py, in a process of its own that never loads torch.

Usage: python studio_window.py FOLDER QUICK; prints one line of JSON.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from types import FrameType
from typing import Any

import napari
import numpy as np
import psutil
from qtpy.QtCore import QPoint, QPointF, Qt, QTimer
from qtpy.QtGui import QWheelEvent
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication

from napari_histogan.config import PredictHeatmapConfig, TrainSegmenterConfig
from napari_histogan.jobs.runner import start_job
from napari_histogan.widgets.gallery import GalleryDock
from napari_histogan.widgets.launch import open_dock
from napari_histogan.widgets.sample_store import SampleStore

TICK_MS, LOOK_MS, LIMIT_MS = 5, 25, 50
TABS = ("samples", "paint", "train", "slides", "correct", "blocks", "labels", "patches")
LEFT, NONE = Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier


class Block:
    """A pause of the thread that draws: milliseconds by the clock, of its work, and of that for drawing."""

    def __init__(self, phase: str, clock: float, work: float, drawing: float, seen: Counter[str]) -> None:
        self.phase, self.clock, self.work, self.drawing = phase, clock, work, drawing
        self.where = seen.most_common(1)[0][0] if seen else "Qt"


class Watch:
    """Notices pauses of the thread that draws; another thread samples what it is doing meanwhile.

    Parameters
    ----------
    canvas
        The canvas whose drawing is told apart, of vispy.
    """

    def __init__(self, canvas: Any) -> None:
        self._drawing, self._draw_began = 0.0, 0.0
        canvas.events.draw.connect(self._begin_draw, position="first")
        canvas.events.draw.connect(self._end_draw, position="last")
        self.phase = ""
        self.blocks: list[Block] = []
        self._last, self._cpu = time.perf_counter(), time.thread_time()
        self._seen: Counter[str] = Counter()
        self._main = threading.get_ident()
        self.timer = QTimer()
        self.timer.setTimerType(Qt.TimerType.PreciseTimer)
        self.timer.timeout.connect(self._tick)
        self.timer.start(TICK_MS)
        threading.Thread(target=self._look, daemon=True).start()

    def _begin_draw(self, _event: Any) -> None:
        self._draw_began = time.thread_time()

    def _end_draw(self, _event: Any) -> None:
        self._drawing += 1000 * (time.thread_time() - self._draw_began)

    def _tick(self) -> None:
        now, cpu = time.perf_counter(), time.thread_time()
        clock, work = 1000 * (now - self._last) - TICK_MS, 1000 * (cpu - self._cpu)
        if clock > LOOK_MS and self.phase:
            self.blocks.append(Block(self.phase, clock, work, self._drawing, self._seen))
        self._seen, self._drawing = Counter(), 0.0
        self._last, self._cpu = time.perf_counter(), time.thread_time()

    def _look(self) -> None:
        """Note where the other thread is whenever it has not come back for a while."""
        while True:
            time.sleep(LOOK_MS / 2000)
            if 1000 * (time.perf_counter() - self._last) > LOOK_MS:
                self._seen[_told(sys._current_frames().get(self._main))] += 1

    def worst(self, phase: str = "") -> Block:
        """Return the block with the most work of the thread itself."""
        fitting = [block for block in self.blocks if phase in ("", block.phase)]
        return max(fitting, key=lambda block: block.work, default=Block("", 0.0, 0.0, 0.0, Counter()))


def _told(frame: FrameType | None) -> str:
    """Say where a thread is: the innermost function of ours, and napari's below it."""
    ours, below = "", ""
    while frame is not None:
        name = f"{Path(frame.f_code.co_filename).stem}.{frame.f_code.co_name}"
        parts = Path(frame.f_code.co_filename).parts
        if "napari_histogan" in parts:
            ours = name
            break
        if not below and "napari" in parts:
            below = name
        frame = frame.f_back
    return " in ".join(part for part in (below, ours) if part) or "Qt"


class Window:
    """A window with hands."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.viewer = napari.Viewer()
        self.viewer.window.resize(1366, 768)
        self.canvas = self.viewer.window._qt_viewer.canvas.native
        self.rows: list[str] = []
        self.figures: dict[str, float] = {}
        self.rest(0.5)

    def until(self, condition: Callable[[], object], seconds: float = 600.0) -> None:
        """Let Qt work until something is so."""
        end = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > end:
                raise SystemExit("it did not happen")
            QApplication.processEvents()
            time.sleep(0.001)

    def rest(self, seconds: float) -> None:
        """Let Qt work."""
        end = time.monotonic() + seconds
        self.until(lambda: time.monotonic() > end)

    def stroke(self, layer: Any, places: Sequence[tuple[float, float]], at_end: Callable[[], None]) -> None:
        """Draw with the left mouse button; something is done just before it is let go."""
        center, zoom = self.viewer.scene.camera.center[-2:], self.viewer.scene.camera.zoom
        size = self.canvas.size()
        points = []
        for place in places:
            y, x = layer.data_to_world(place)
            points.append(
                QPoint(
                    round((x - center[1]) * zoom + size.width() / 2),
                    round((y - center[0]) * zoom + size.height() / 2),
                )
            )
        QTest.mousePress(self.canvas, LEFT, NONE, points[0])
        for point in points[1:]:
            QTest.mouseMove(self.canvas, point)
            self.rest(0.01)
        at_end()
        QTest.mouseRelease(self.canvas, LEFT, NONE, points[-1])

    # napari by itself

    def measure_alone(self) -> None:
        """Measure what napari costs without the plugin: the same kinds of layers, nothing else."""
        rng = np.random.default_rng(0)
        mask = rng.integers(0, 3, (256, 256)).astype(np.uint8)
        picture = rng.integers(0, 256, (256, 256, 3), np.uint8)
        for _ in range(2):  # the first of a kind compiles shaders
            self.viewer.add_image(picture, rgb=True)
            labels = self.viewer.add_labels(mask.copy())
            self.rest(0.3)
        works: dict[str, list[float]] = {"add": [], "swap": [], "hide": [], "show": [], "draw": []}
        for turn in range(5):
            works["add"].append(self._work(lambda: self.viewer.add_labels(mask.copy())))
            works["swap"].append(self._work(lambda by=turn: setattr(labels, "data", np.roll(mask, by))))
            works["hide"].append(self._work(lambda: setattr(labels, "visible", False)))
            works["show"].append(self._work(lambda: setattr(labels, "visible", True)))
            works["draw"].append(self._work(self.canvas.repaint))
            self.viewer.layers.pop()
        told = ", ".join(f"{name} {median(seen):.0f} (worst {max(seen):.0f})" for name, seen in works.items())
        self.rows.append(f"napari alone, ms of work with a layer of labels: {told}")
        self.figures["napari_alone_add_layer_ms"] = median(works["add"])
        self.figures["napari_alone_draw_ms"] = median(works["draw"])
        self.viewer.layers.clear()
        self.rest(0.5)
        self.alone_mb = psutil.Process().memory_info().rss / 1e6

    def _work(self, what: Callable[[], object]) -> float:
        """Return the milliseconds of work that this thread needs for something."""
        self.rest(0.05)
        began = time.thread_time()
        what()
        return 1000 * (time.thread_time() - began)

    # With the dock

    def open_dock(self) -> None:
        """Open the dock and its project."""
        self.dock = open_dock(self.viewer)
        self.until(lambda: self.dock.session is not None)
        self.session: Any = self.dock.session
        if not self.dock.open_project(self.folder / "project"):
            raise SystemExit(self.dock.message.text())
        self.until(lambda: self.session.warming.done)

    def warm(self) -> None:
        """Show each page and layer once."""
        self.session.open_sample(8)
        self.until(lambda: self.session.painting.prediction.data.any())
        for tab in TABS:
            self.dock.show_tab(tab)
            self.rest(0.3)
        self.session.slide_view.set_threshold(50)
        self.rest(0.3)
        self.session.slide_view.set_threshold(0)

    def use(self, watch: Watch, rounds: int) -> None:
        """Play the story while a net of another project is trained."""
        busy = start_job(
            self.folder / "busy", TrainSegmenterConfig(steps=100_000, width=8, batch=8), nice=True
        )
        self.until(lambda: any(event.get("kind") == "progress" for event in busy.events(0)[0]))
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
            self.rest(0.2)
            watch.phase = ""
        busy.request_stop()

    def _paint(self, rounds: int) -> None:
        """Draw strokes and wait for the prediction of each."""
        painting, waits, seen = self.session.painting, [], []
        self.dock.show_tab("paint")
        self.rest(0.3)
        painting.predicted.connect(lambda seconds, _words: seen.append(seconds))
        for k in range(2 * rounds):
            painting.choose_class(1 + k % 4)
            row = 6 + 5 * (k % 11)
            self.stroke(painting.mask, [(row, x) for x in range(6, 56, 4)], seen.clear)
            began = time.perf_counter()
            self.until(lambda: seen)
            waits.append(time.perf_counter() - began)
        self.figures["stroke_to_prediction_s"] = median(waits)
        self.rows.append(f"stroke to prediction: median {median(waits):.2f} s, worst {max(waits):.2f} s")

    def _browse(self, rounds: int) -> None:
        for k in range(rounds):
            self.session.open_sample(10 + k)
            self.rest(0.4)

    def _change_tabs(self, _rounds: int) -> None:
        for tab in (*TABS, "paint"):
            self.dock.show_tab(tab)
            self.rest(0.3)

    def _fly_around(self, rounds: int) -> None:
        self.dock.show_tab("slides")
        for k in range(4 * rounds):
            place = (200.0 + 100 * (k % 8), 300.0 + 60 * (k % 5))
            self.session.slide_view.fly_to(place, 150.0 + 100 * (k % 3))
            self.rest(0.15)

    def _look_closer(self, rounds: int) -> None:
        view = self.session.slide_view
        for k in range(rounds):
            view.set_threshold(40 + 5 * k)
            self.rest(0.2)
            view.set_class(1 + k % 3)
            self.rest(0.2)
            view.toggle_heatmap()
            self.rest(0.2)
            view.toggle_heatmap()
            self.rest(0.2)
        view.set_threshold(0)
        view.set_class(1)

    def _grow(self, _rounds: int) -> None:
        """Watch a map grow until it is whole."""
        before = len(self.session.project.artifacts("heatmap"))
        self.session.run(PredictHeatmapConfig())
        self.until(lambda: len(self.session.project.artifacts("heatmap")) > before)
        self.until(lambda: self.session.slide_view.heatmap is not None)

    def _correct(self, rounds: int) -> None:
        """Fix places: a frame, strokes, and back."""
        self.dock.show_tab("correct")
        for k in range(rounds):
            self.session.slide_view.fly_to((300.0 + 40 * k, 400.0), 200.0)
            self.session.correcting.place(128)
            self.rest(0.3)
            layer = self.session.correcting.layer
            for row in (40, 80):
                self.stroke(layer, [(row, x) for x in range(20, 110, 10)], lambda: None)
                self.rest(0.1)
            self.session.correcting.discard()
            self.rest(0.3)

    def _scroll(self) -> None:
        """Scroll through all samples, some rows at each turn of the wheel."""
        gallery = self.dock.window().findChild(GalleryDock)
        gallery.show_filter("all")
        store = SampleStore(self.folder / "many")
        gallery.model.set_source(len(store), store.image)
        bar, viewport = gallery.view.verticalScrollBar(), gallery.view.viewport()
        self.until(lambda: bar.maximum() > 5000)
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
            self.rest(0.01)
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
        self.rest(0.5)
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
            self.rest(0.05)


def tell_blocks(watch: Watch, window: Window) -> None:
    """Say the worst block of each phase, and note the worst of all."""
    for phase in dict.fromkeys(block.phase for block in watch.blocks):
        blocks = [block for block in watch.blocks if block.phase == phase]
        worst = watch.worst(phase)
        above = sum(block.work > LIMIT_MS for block in blocks)
        window.rows.append(
            f"{phase}: worst {worst.work:.0f} ms of work, {worst.drawing:.0f} of them for drawing "
            f"({worst.clock:.0f} ms by the clock): {worst.where}; {above} above {LIMIT_MS} ms; worst without "
            f"drawing {max(b.work - b.drawing for b in blocks):.0f} ms; "
            f"longest by the clock {max(b.clock for b in blocks):.0f} ms"
        )
    window.figures["worst_block_ms"] = watch.worst().work
    window.figures["worst_block_without_drawing_ms"] = max(
        (b.work - b.drawing for b in watch.blocks), default=0
    )
    window.figures["worst_block_clock_ms"] = max((block.clock for block in watch.blocks), default=0.0)
    window.figures["blocks_above_50_ms"] = sum(block.work > LIMIT_MS for block in watch.blocks)


def main() -> None:
    """Measure, and print one line."""
    folder, quick = Path(sys.argv[1]), bool(int(sys.argv[2]))
    window = Window(folder)
    window.measure_alone()
    watch = Watch(window.viewer.window._qt_viewer.canvas._scene_canvas)
    watch.phase = "opening"
    window.open_dock()
    watch.phase = "first showing of tabs and layers"
    window.warm()
    watch.phase = ""
    window.use(watch, 3 if quick else 10)
    tell_blocks(watch, window)
    window.open_slides()
    if "torch" in sys.modules:
        raise SystemExit("the process that draws loaded torch")
    window.viewer.close()
    sys.stdout.write(json.dumps({"rows": window.rows, "figures": window.figures}) + "\n")


if __name__ == "__main__":
    main()
