"""A server with handlers that only count, to test the protocol without a network; run by test_engine."""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path

import numpy as np

from napari_histogan.errors import LabelError
from napari_histogan.jobs.engine import Engine


def slow(request):
    """Take many small steps; the answer tells which request it was."""
    for _ in range(int(request.values.get("steps", 1))):
        time.sleep(0.01)
        yield None
    yield {"value": request.values.get("value")}, {"array": np.arange(4)}


def refuse(_request):
    raise LabelError("nothing is painted", "paint", "paint some")
    yield None


if __name__ == "__main__":
    engine = Engine({"rank": slow, "predict": slow, "sample": refuse}, sys.stdout.buffer, Path(sys.argv[-1]))
    threading.Thread(target=engine.listen, args=(sys.stdin.buffer,), daemon=True).start()
    engine.work()
