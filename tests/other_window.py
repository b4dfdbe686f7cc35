"""A napari window in a process of its own, with a project open in its dock: it ends well, or it is killed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

OPENING = """
import time
from pathlib import Path

import napari
from qtpy.QtWidgets import QApplication

from napari_histogan.widgets.launch import open_dock


def until(condition, seconds=200):
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        QApplication.processEvents()
        time.sleep(0.01)
    assert condition()


viewer = napari.Viewer(show={show})
dock = open_dock(viewer, Path({root!r}))
if not {show}:
    dock.window().show()
until(lambda: dock.session is not None and dock.session.project is not None)
session = dock.session
"""


def window_command(root: Path, acts: str, show: bool = True) -> list[str]:
    """Return the command of a process that opens a project and does the acts.

    Parameters
    ----------
    root
        The project.
    acts
        Python code; it knows ``viewer``, ``dock``, ``session``, and ``until(condition)``.
    show
        Whether napari shows its window by itself.
    """
    return [sys.executable, "-c", OPENING.format(root=str(root), show=show) + acts]


def in_other_window(root: Path, acts: str, show: bool = True, **environment: str | None) -> str:
    """Do the acts in another window; returns all that it said.

    Parameters
    ----------
    root, acts, show
        See :func:`window_command`.
    environment
        Variables to set; None takes one away.
    """
    changed = {**os.environ, **environment}
    ran = subprocess.run(
        window_command(root, acts, show),
        capture_output=True,
        text=True,
        check=False,
        timeout=250,
        env={name: value for name, value in changed.items() if value is not None},
    )
    return ran.stdout + ran.stderr[-3000:]


def kill_window_after(root: Path, acts: str) -> None:
    """Do the acts in another window, and kill it right after them as a crash does."""
    last = 'QApplication.processEvents()\nprint("did it", flush=True)\ntime.sleep(60)\n'
    command = window_command(root, acts.rstrip() + "\n" + last)
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "did it\n"
    os.kill(child.pid, 9)
    child.wait()
    child.stdout.close()
