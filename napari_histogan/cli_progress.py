"""How the command line shows a job: a bar with phase, percent, and time left."""

from __future__ import annotations

from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

from napari_histogan.jobs.job import Progress as JobProgress


class JobDisplay:
    """Turns events of a job into a bar, or into lines where there is no terminal.

    Parameters
    ----------
    console
        Where to write.
    name
        Name of the run.
    """

    def __init__(self, console: Console, name: str) -> None:
        self._console = console
        self._name = name
        self._phase = ""
        self._metrics = ""
        self._bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[left]}"),
            TextColumn("{task.fields[metrics]}", markup=False),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task(f"{name}: starting", total=None, left="", metrics="")

    def __enter__(self) -> JobDisplay:
        """Draw the bar."""
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Remove the bar."""
        self._bar.stop()

    def say(self, text: str) -> None:
        """Write a line above the bar."""
        self._bar.console.print(f"{self._name}: {text}", markup=False)

    def show(self, event: dict[str, Any]) -> None:
        """Show one event."""
        kind = event.get("kind")
        if kind == "progress":
            self._show_progress(JobProgress.of(event))
        elif kind == "metric":
            values = {k: v for k, v in event.items() if k not in ("t", "kind", "step")}
            parts = [f"{k} {v:.3g}" for k, v in values.items() if isinstance(v, (int, float))]
            self._metrics = "  ".join(parts[:4])
            self._bar.update(self._task, metrics=self._metrics)
        elif kind == "warning":
            self.say(f"note: {event.get('message', '')}")
        elif kind == "state" and event.get("state") == "queued":
            self.say(f"waits: {event.get('message', '')}")

    def _show_progress(self, progress: JobProgress) -> None:
        """Move the bar."""
        phase = progress.message or "working"
        if phase != self._phase:
            self._phase = phase
            if not self._console.is_terminal:
                self.say(phase)
        self._bar.update(
            self._task,
            description=f"{self._name}: {phase}",
            total=progress.total,
            completed=progress.done,
            left=duration(progress.seconds_left),
        )


def duration(seconds: float | None) -> str:
    """Return a time left in words, such as "3 min left"; "" if it is not known.

    Examples
    --------
    >>> duration(150)
    '2 min 30 s left'
    """
    if seconds is None:
        return ""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s left"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s left"
    return f"{whole // 3600} h {whole % 3600 // 60} min left"
