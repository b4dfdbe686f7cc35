"""Notices pauses of the thread that draws, and what it was doing then; for studio_latency.py."""

from __future__ import annotations

import gc
import json
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from qtpy.QtCore import QPoint, Qt, QTimer
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication

LEFT, NONE = Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier
TICK_MS, LOOK_MS, LIMIT_MS = 5, 20, 50
_SAMPLE_S = 0.005
_TOLD = 3
"""So many places are told of each block."""
_OURS = "napari_histogan"
_DEEPEST = 5


class Block:
    """A pause: milliseconds by the clock, of the thread's work, of that for drawing and for old memory.

    Parameters
    ----------
    phase
        What people did.
    clock, work, drawing, garbage
        In ms: by the clock; of the thread itself; of that within the canvas' drawing; of that within
        Python's garbage collector.
    seen
        Stacks from the outermost call to the innermost, and how often each was seen.
    """

    def __init__(
        self,
        phase: str,
        clock: float,
        work: float,
        drawing: float,
        garbage: float,
        seen: Counter[tuple[str, ...]],
    ) -> None:
        self.phase, self.clock, self.work, self.drawing = phase, clock, work, drawing
        self.garbage, self.seen = garbage, seen

    def told(self) -> str:
        """Say how long it was and where it was seen, the most frequent places first."""
        places: Counter[str] = Counter()
        for stack, times in self.seen.items():
            places[_short(stack)] += times
        where = "; ".join(f"{times}x {place}" for place, times in places.most_common(_TOLD))
        return (
            f"{self.work:.0f} ms of work ({self.drawing:.0f} drawing, {self.garbage:.0f} garbage, "
            f"{self.clock:.0f} by the clock): {where or 'not seen'}"
        )


class Watch:
    """Notices pauses of the thread that draws; another thread samples what it is doing meanwhile.

    Parameters
    ----------
    canvas
        The canvas whose drawing is told apart, of vispy.
    """

    def __init__(self, canvas: Any) -> None:
        self._drawing, self._draw_began = 0.0, 0.0
        self._garbage, self._garbage_began = 0.0, 0.0
        canvas.events.draw.connect(self._begin_draw, position="first")
        canvas.events.draw.connect(self._end_draw, position="last")
        gc.callbacks.append(self._on_garbage)
        self.phase = ""
        self.blocks: list[Block] = []
        self._last, self._cpu = time.perf_counter(), time.thread_time()
        self._seen: Counter[tuple[str, ...]] = Counter()
        self._main = threading.get_ident()
        self.timer = QTimer()
        self.timer.setTimerType(Qt.TimerType.PreciseTimer)
        self.timer.timeout.connect(self._tick)
        self.timer.start(TICK_MS)
        threading.Thread(target=self._look, daemon=True).start()

    def summary(self) -> dict[str, dict[str, Any]]:
        """Return for each phase that had pauses the worst of them, and each block above the limit."""
        return {phase: self._summary(phase) for phase in dict.fromkeys(b.phase for b in self.blocks)}

    def _summary(self, phase: str) -> dict[str, Any]:
        blocks = [block for block in self.blocks if block.phase == phase]
        worst = max(blocks, key=lambda block: block.work)
        above = sorted((b for b in blocks if b.work > LIMIT_MS), key=lambda b: -b.work)
        return {
            "work": worst.work,
            "drawing": worst.drawing,
            "work_without_drawing": max(block.work - block.drawing for block in blocks),
            "clock": max(block.clock for block in blocks),
            "above": [block.told() for block in above],
        }

    def write(self, path: Path) -> None:
        """Write every pause with all its stacks, a line of JSON each."""
        with path.open("w", encoding="utf-8") as file:
            for block in self.blocks:
                row = {key: value for key, value in vars(block).items() if key != "seen"}
                row["seen"] = [[times, *stack] for stack, times in block.seen.most_common()]
                file.write(json.dumps(row) + "\n")

    def _begin_draw(self, _event: Any) -> None:
        self._draw_began = time.thread_time()

    def _end_draw(self, _event: Any) -> None:
        self._drawing += 1000 * (time.thread_time() - self._draw_began)

    def _on_garbage(self, stage: str, _told: dict[str, int]) -> None:
        if threading.get_ident() != self._main:
            return
        if stage == "start":
            self._garbage_began = time.thread_time()
        else:
            self._garbage += 1000 * (time.thread_time() - self._garbage_began)

    def _tick(self) -> None:
        now, cpu = time.perf_counter(), time.thread_time()
        clock, work = 1000 * (now - self._last) - TICK_MS, 1000 * (cpu - self._cpu)
        if clock > LOOK_MS and self.phase:
            self.blocks.append(Block(self.phase, clock, work, self._drawing, self._garbage, self._seen))
        self._seen, self._drawing, self._garbage = Counter(), 0.0, 0.0
        self._last, self._cpu = time.perf_counter(), time.thread_time()

    def _look(self) -> None:
        """Note where the other thread is whenever it has not come back for a while."""
        while True:
            time.sleep(_SAMPLE_S)
            if 1000 * (time.perf_counter() - self._last) > LOOK_MS / 2:
                self._seen[_stack(sys._current_frames().get(self._main))] += 1


def settle(seconds: float) -> None:
    """Let Qt work for a while."""
    end = time.monotonic() + seconds
    until(lambda: time.monotonic() > end)


def until(condition: Callable[[], object], seconds: float = 600.0) -> None:
    """Let Qt work until something is so."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise SystemExit("it did not happen")
        QApplication.processEvents()
        time.sleep(0.001)


def stroke(
    viewer: Any, layer: Any, places: Sequence[tuple[float, float]], at_end: Callable[[], None]
) -> None:
    """Draw on a layer with the left mouse button; something is done just before it is let go."""
    canvas = viewer.window._qt_viewer.canvas.native
    center, zoom, size = viewer.scene.camera.center[-2:], viewer.scene.camera.zoom, canvas.size()
    points = []
    for place in places:
        y, x = layer.data_to_world(place)
        points.append(
            QPoint(
                round((x - center[1]) * zoom + size.width() / 2),
                round((y - center[0]) * zoom + size.height() / 2),
            )
        )
    QTest.mousePress(canvas, LEFT, NONE, points[0])
    for point in points[1:]:
        QTest.mouseMove(canvas, point)
        settle(0.01)
    at_end()
    QTest.mouseRelease(canvas, LEFT, NONE, points[-1])


def _stack(frame: FrameType | None) -> tuple[str, ...]:
    """Return the calls of a thread, the outermost first, without those of the benchmark."""
    calls: list[str] = []
    here = Path(__file__).parent
    while frame is not None:
        path = Path(frame.f_code.co_filename)
        if path.parent != here:
            owner = "" if _OURS in path.parts else f"{_package(path)}:"
            calls.append(f"{owner}{path.stem}.{frame.f_code.co_name}")
        frame = frame.f_back
    return tuple(reversed(calls))


def _package(path: Path) -> str:
    parts = path.parts
    return parts[parts.index("site-packages") + 1] if "site-packages" in parts else "python"


def _short(stack: tuple[str, ...]) -> str:
    """Return the innermost calls of ours, napari's below them, and the innermost of all."""
    ours = [k for k, call in enumerate(stack) if ":" not in call]
    below = stack[ours[-1] + 1 :] if ours else stack
    parts = [stack[k] for k in ours[-_DEEPEST:]]
    napari = [call for call in below if call.startswith("napari:") and "events" not in call]
    parts += list(dict.fromkeys([*napari[:1], *napari[-1:], *below[-1:]]))
    return " > ".join(parts) or "Qt"
