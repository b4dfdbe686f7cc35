"""The interactive compute process: ``python -m napari_histogan.jobs.engine FOLDER``.

It holds the generator and the live pixel classifier for the dock.  Requests come as
JSON lines on standard input, replies go as JSON lines to standard output, arrays as
``.npy`` files in FOLDER.  A thread reads requests while another computes, so a newer
request can replace a running one.  The process ends when its input ends or its parent
is gone.  The near side is :mod:`napari_histogan.jobs.engine_client`.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import sys
import threading
import time
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from napari_histogan.errors import HistoganError
from napari_histogan.jobs.engine_requests import URGENCY, Answer, Handler, Request, Requests

logger = logging.getLogger("napari_histogan")

_PARENT_POLL_S = 1.0
_LEAVE_S = 2.0


class Engine:
    """Takes requests in turn and sends replies.

    Parameters
    ----------
    handlers
        What answers each kind of request.
    output
        Where replies go, line by line.
    folder
        Where arrays go.
    """

    def __init__(self, handlers: dict[str, Handler], output: BinaryIO, folder: Path) -> None:
        self._handlers = handlers
        self._output = output
        self._folder = folder
        self._writing = threading.Lock()
        self._files = 0
        self.requests = Requests(on_drop=lambda request: self._send(request, "dropped"))

    def listen(self, source: BinaryIO) -> None:
        """Read requests until the source ends; then make everything stale."""
        for line in source:
            try:
                message = json.loads(line)
                number, do = int(message.pop("id")), str(message.pop("do"))
            except (ValueError, KeyError, AttributeError):
                logger.warning("a request was not understood: %r", line[:200])
                continue
            if do == "cancel":
                self.requests.cancel(number)
            elif do in self._handlers and do in URGENCY:
                self.requests.put(Request(number, do, message))
            else:
                text = f"the compute process does not know how to {do!r}"
                self._send(Request(number, do, {}), "failed", {"message": text})
        self.requests.close()

    def work(self) -> None:
        """Answer requests until the client is gone."""
        while (request := self.requests.take()) is not None:
            self._answer(request)

    def _answer(self, request: Request) -> None:
        """Run a handler; let more urgent requests go between its steps."""
        try:
            last: Answer | None = None
            for step in self._handlers[request.do](request):
                if self.requests.is_stale(request):
                    self._send(request, "dropped")
                    return
                if (urgent := self.requests.take_more_urgent(request)) is not None:
                    self._answer(urgent)
                if step is not None:
                    if last is not None:
                        self._send(request, "progress", *last)
                    last = step
            self._send(request, "done", *(last or ({}, {})))
        except HistoganError as error:
            self._send(request, "failed", {"message": str(error), "error": type(error).__name__})
        except Exception as error:
            logger.exception("request %s failed", request)
            self._send(request, "failed", {"message": f"{type(error).__name__}: {error}"})

    def _send(
        self,
        request: Request,
        state: str,
        values: dict[str, Any] | None = None,
        arrays: dict[str, NDArray[Any]] | None = None,
    ) -> None:
        """Write one reply; a client that is gone is not an error."""
        with self._writing:
            files = {}
            for name, array in (arrays or {}).items():
                self._files += 1
                path = self._folder / f"{self._files}-{name}.npy"
                np.save(path, array, allow_pickle=False)
                files[name] = str(path)
            message = {**(values or {}), "id": request.number, "do": request.do, "state": state}
            try:
                self._output.write(json.dumps({**message, "arrays": files}).encode() + b"\n")
                self._output.flush()
            except (OSError, ValueError):
                self.requests.close()


def main(arguments: list[str] | None = None) -> int:
    """Serve one client on standard input and output."""
    folder = Path((sys.argv[1:] if arguments is None else arguments)[0])
    output = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    # Libraries that print must not spoil the protocol.
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    logging.basicConfig(level=logging.INFO, stream=sys.stderr)
    from napari_histogan.jobs.live_model import LiveModel

    engine = Engine(LiveModel(folder).handlers(), output, folder)
    threading.Thread(target=_listen, args=(engine, folder), daemon=True).start()
    threading.Thread(target=_watch_parent, args=(engine, os.getppid(), folder), daemon=True).start()
    engine.work()
    shutil.rmtree(folder, ignore_errors=True)
    return 0


def _listen(engine: Engine, folder: Path) -> None:
    """Read requests; leave soon after they end, even from the middle of a long computation."""
    engine.listen(sys.stdin.buffer)
    _leave(folder)


def _leave(folder: Path) -> None:
    """End the process; nobody reads its files any more."""
    time.sleep(_LEAVE_S)
    shutil.rmtree(folder, ignore_errors=True)
    os._exit(0)


def _watch_parent(engine: Engine, parent: int, folder: Path) -> None:
    """Leave when the parent is gone although its pipe is still open somewhere."""
    while os.getppid() == parent:
        time.sleep(_PARENT_POLL_S)
    engine.requests.close()
    _leave(folder)


if __name__ == "__main__":
    sys.exit(main())
