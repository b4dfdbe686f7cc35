"""Started and quit again and again: nothing is left of the window, its threads, processes, files, folders.

Five rounds by default; ``make quits`` plays twenty.
"""

from __future__ import annotations

import ast
import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.gui
ROUNDS = int(os.environ.get("HISTOGAN_ROUNDS", "5"))

CODE = """
import gc, os, sys, tempfile, threading, time
from pathlib import Path
import napari, psutil
from qtpy.QtWidgets import QApplication
from napari_histogan.widgets.launch import open_dock
from napari_histogan.widgets.session import Session

root, rounds, me = Path(sys.argv[1]), int(sys.argv[2]), psutil.Process()


def until(condition, seconds=120):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        QApplication.processEvents()
        time.sleep(0.005)


def left():
    for _ in range(5):
        QApplication.processEvents()
        gc.collect()
    ours = [w for w in QApplication.allWidgets() if type(w).__module__.startswith("napari_histogan")]
    sessions = [o for o in gc.get_objects() if isinstance(o, Session)]
    return {
        "widgets": len(ours),
        "sessions": len(sessions),
        "threads": threading.active_count(),
        "processes": len(me.children(recursive=True)),
        "files": me.num_fds(),
        "folders": len(os.listdir(tempfile.gettempdir())),
    }


for number in range(rounds):
    viewer = napari.Viewer()
    dock = open_dock(viewer, root)
    until(lambda: dock.session is not None and dock.session.project is not None)
    session = dock.session
    session.open_sample(number % 3)
    until(lambda: session.painting.prediction.data.any())
    for tab in ("slides", "correct", "train", "blocks", "labels"):
        dock.show_tab(tab)
        QApplication.processEvents()
    dock.correct.place()
    dock.correct.discard()
    viewer.close()
    del viewer, dock, session
    until(lambda: not me.children(recursive=True))
    print(number, left(), flush=True)
"""


@pytest.mark.timeout(60 + 60 * ROUNDS)
def test_nothing_is_left_after_each_quit(qapp, tiny_project_copy, tmp_path):
    folder = tmp_path / "temporary"
    folder.mkdir()
    environment = {**os.environ, "TMPDIR": str(folder), "XDG_CONFIG_HOME": str(tmp_path / "config")}
    command = [sys.executable, "-c", CODE, str(tiny_project_copy.root), str(ROUNDS)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert ran.returncode == 0, ran.stdout + ran.stderr[-4000:]
    lines = [line.partition(" ")[2] for line in ran.stdout.splitlines() if line[:1].isdigit()]
    assert len(lines) == ROUNDS
    rows = [ast.literal_eval(line) for line in lines]
    # The first round loads libraries; from the second on each must leave what the one before left.
    for key in ("widgets", "sessions", "threads", "processes", "folders"):
        assert rows[-1][key] <= rows[1][key], f"{key}: {[row[key] for row in rows]}"
    assert rows[-1]["processes"] == 0
    assert rows[-1]["files"] <= rows[1]["files"] + 1, f"files: {[row['files'] for row in rows]}"
    names = [path.name for path in folder.iterdir()]
    assert [name for name in names if not name.startswith("torchinductor_")] == []  # torch's own cache
