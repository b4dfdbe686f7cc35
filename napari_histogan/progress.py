"""How a stage tells what it does, and hears that it should stop.

Long work takes a :class:`Reporter`.  A job gives it a :class:`RunReporter`, which
appends one JSON object per line to ``events.jsonl`` in the run folder; the command
line and the dock read that file.  The library itself never prints.
"""

from __future__ import annotations

import atexit
import json
import logging
import math
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

logger = logging.getLogger("napari_histogan")

STOP_FILE = "stop"
"""Name of the file in a run folder whose presence asks the stage to stop."""


@runtime_checkable
class Reporter(Protocol):
    """What a stage may call while it works.

    Attributes
    ----------
    run_dir
        Folder for ``checkpoints/`` and ``previews/``; exists; kept between a stop and a resume.
    """

    run_dir: Path

    def progress(self, done: float, total: float, unit: str = "", message: str = "") -> None:
        """Tell how much of the present phase is done."""

    def metric(self, step: int, **values: float) -> None:
        """Record named numbers at a step."""

    def preview(self, name: str, path: Path) -> None:
        """Announce a picture (PNG) that was written below ``run_dir``."""

    def event(self, kind: str, **data: Any) -> None:
        """Record anything else, such as a block of a heatmap that is now on disk."""

    def warn(self, message: str) -> None:
        """Tell the user something that does not end the stage."""

    def should_stop(self) -> bool:
        """Whether the stage should finish its step, save its state, and raise ``Stopped``."""


def _temporary_folder() -> Path:
    """Make a folder that goes when Python ends; until then, results may be read from it."""
    folder = tempfile.mkdtemp(prefix="histogan-run-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


class QuietReporter:
    """A reporter that keeps its events in memory; for library use and tests.

    Parameters
    ----------
    run_dir
        Where checkpoints and previews go; if not given, a temporary folder that goes when Python ends.
    stop_when
        Called by :meth:`should_stop`; None never stops.
    """

    def __init__(self, run_dir: Path | None = None, stop_when: Callable[[], bool] | None = None) -> None:
        self.run_dir = Path(run_dir) if run_dir else _temporary_folder()
        self.run_dir.mkdir(parents=True, exist_ok=True)
        self.events: list[dict[str, Any]] = []
        self._stop_when = stop_when

    def event(self, kind: str, **data: Any) -> None:
        """Keep one event."""
        self.events.append({"kind": kind, **data})

    def progress(self, done: float, total: float, unit: str = "", message: str = "") -> None:
        """Keep one progress event."""
        self.event("progress", done=done, total=total, unit=unit, message=message)

    def metric(self, step: int, **values: float) -> None:
        """Keep one metric event."""
        self.event("metric", step=step, **values)

    def preview(self, name: str, path: Path) -> None:
        """Keep one preview event."""
        self.event("preview", name=name, path=str(path))

    def warn(self, message: str) -> None:
        """Keep and log one warning."""
        logger.warning(message)
        self.event("warning", message=message)

    def should_stop(self) -> bool:
        """Ask ``stop_when``."""
        return self._stop_when is not None and self._stop_when()


class RunReporter:
    """Writes the events of a run folder; only the worker process makes one.

    Parameters
    ----------
    run_dir
        The run folder; must exist.
    min_interval_s
        Progress events closer together than this many seconds are dropped,
        except the last of a phase.
    """

    def __init__(self, run_dir: Path, min_interval_s: float = 0.2) -> None:
        self.run_dir = Path(run_dir)
        self._interval = min_interval_s
        self._last_progress = -math.inf
        self._phase = ""
        self._started = time.monotonic()
        self._fd = os.open(self.run_dir / "events.jsonl", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        self._stop_requested = False
        self._cut = _ends_within_a_line(self.run_dir / "events.jsonl")

    def close(self) -> None:
        """Close the event file."""
        os.close(self._fd)

    def request_stop(self) -> None:
        """Make :meth:`should_stop` true, as a signal handler does."""
        self._stop_requested = True

    def event(self, kind: str, **data: Any) -> None:
        """Append one event by one system call; a line that a kill or a full disk cut is closed first."""
        line = json.dumps({"t": round(time.time(), 3), "kind": kind, **_finite(data)}, default=str)
        data_out = (b"\n" if self._cut else b"") + line.encode() + b"\n"
        with suppress(OSError):  # a full disk must not end the work that it would be told of
            written = os.write(self._fd, data_out)
            self._cut = written < len(data_out) and (written > 1 or not self._cut)

    def progress(self, done: float, total: float, unit: str = "", message: str = "") -> None:
        """Append a progress event with the seconds left, at most one per interval."""
        now = time.monotonic()
        if message != self._phase:
            self._phase, self._started, self._last_progress = message, now, -math.inf
            self._first_done = done
        if now - self._last_progress < self._interval and done < total:
            return
        self._last_progress = now
        made, elapsed = done - self._first_done, now - self._started
        left = elapsed / made * (total - done) if made > 0 else None
        self.event("progress", done=done, total=total, unit=unit, message=message, seconds_left=left)

    _first_done: float = 0.0

    def metric(self, step: int, **values: float) -> None:
        """Append a metric event."""
        self.event("metric", step=step, **values)

    def preview(self, name: str, path: Path) -> None:
        """Append a preview event; the path is stored relative to the run folder."""
        path = Path(path)
        shown = path.relative_to(self.run_dir) if path.is_relative_to(self.run_dir) else path
        self.event("preview", name=name, path=shown.as_posix())

    def warn(self, message: str) -> None:
        """Append and log a warning."""
        logger.warning(message)
        self.event("warning", message=message)

    def should_stop(self) -> bool:
        """Whether a stop was requested by a signal or by the stop file."""
        return self._stop_requested or (self.run_dir / STOP_FILE).exists()


class PartReporter:
    """Tells of one part of a longer piece of work; its own phases' progress becomes the part's.

    Parameters
    ----------
    whole
        Reporter of the whole.
    run_dir
        Folder of this part; made if missing.
    done, parts
        Parts finished before this one, and parts in all.
    title
        What the part is called in messages.
    """

    def __init__(self, whole: Reporter, run_dir: Path, done: int, parts: int, title: str) -> None:
        self.run_dir = Path(run_dir)
        self.run_dir.mkdir(parents=True, exist_ok=True)
        self._whole, self._done, self._parts, self._title = whole, done, parts, title

    def within(self, name: str) -> PartReporter:
        """Return a reporter of a step of this part, with a folder of its own."""
        return PartReporter(self._whole, self.run_dir / name, self._done, self._parts, self._title)

    def progress(self, done: float, total: float, unit: str = "", message: str = "") -> None:
        """Tell how far the whole is; the present step's own progress stands in the message."""
        step = f"{self._title}: {message or 'working'} ({done:g} of {total:g} {unit})".replace(" )", ")")
        self._whole.progress(self._done, self._parts, "parts", step)

    def metric(self, step: int, **values: float) -> None:
        """Record nothing: curves of many small trainings would lie over each other."""

    def preview(self, name: str, path: Path) -> None:
        """Announce a picture of this part."""
        self._whole.preview(name, path)

    def event(self, kind: str, **data: Any) -> None:
        """Record an event of this part."""
        self._whole.event(kind, part=self._title, **data)

    def warn(self, message: str) -> None:
        """Tell the user, and which part it is about."""
        self._whole.warn(f"{self._title}: {message}")

    def should_stop(self) -> bool:
        """Whether the whole should stop."""
        return self._whole.should_stop()


def _ends_within_a_line(path: Path) -> bool:
    """Whether the last line of a file lacks its end, as after a kill in the middle of a write."""
    with path.open("rb") as file:
        if file.seek(0, os.SEEK_END) == 0:
            return False
        file.seek(-1, os.SEEK_END)
        return file.read(1) != b"\n"


def _finite(data: dict[str, Any]) -> dict[str, Any]:
    """Replace NaN and infinities, which JSON cannot hold, by their names."""
    return {k: str(v) if isinstance(v, float) and not math.isfinite(v) else v for k, v in data.items()}
