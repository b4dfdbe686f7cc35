"""Trying the demo from the dock: the same command that people type, followed as it works."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from napari_histogan.errors import JobError, StorageError


def demo_folder() -> Path:
    """Return where the demo project lies if nobody says otherwise."""
    return Path.home() / "histogan-demo"


def start_demo(root: Path) -> subprocess.Popen[bytes]:
    """Start ``histogan demo`` in a process of its own; it goes on when the window is closed.

    The project appears in ``root`` within seconds, and each of its jobs can be followed there.

    Parameters
    ----------
    root
        The project folder to make; its parent must exist.

    Raises
    ------
    StorageError
        If nothing can be written beside the folder.
    JobError
        If the process cannot be started.
    """
    command = [sys.executable, "-m", "napari_histogan", "demo", str(root), "--no-open"]
    log_path = root.with_name(f"{root.name}-log.txt")
    try:
        root.parent.mkdir(parents=True, exist_ok=True)
        with log_path.open("wb") as log:
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
    except PermissionError as error:
        raise StorageError(f"{log_path} cannot be written: {error}", "", "choose another folder") from error
    except OSError as error:
        raise JobError(f"the demo could not be started: {error}", "", "free memory or disk") from error
