"""The near side of the interactive compute process; imports neither torch nor Qt.

:class:`EngineClient` starts ``python -m napari_histogan.jobs.engine`` and speaks with
it in JSON lines.  Arrays come back as ``.npy`` files in a temporary folder, which the
client reads and deletes before it hands a message on.  Of several requests of one
kind only the newest is answered; the others come back as ``dropped``.
"""

from __future__ import annotations

import json
import logging
import os
import queue
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import psutil
from numpy.typing import NDArray

from napari_histogan.errors import JobError
from napari_histogan.jobs.environment import child_environment
from napari_histogan.project.store import Project

logger = logging.getLogger("napari_histogan")

ENGINE_MODULE = "napari_histogan.jobs.engine"
_FOLDER = "histogan-engine-"
State = Literal["progress", "done", "failed", "dropped", "ended"]


@dataclass(frozen=True)
class Reply:
    """One message from the engine.

    Attributes
    ----------
    request
        Number that :meth:`EngineClient.request` returned; -1 when the process ended.
    do
        What was asked for: "load", "predict", "sample", "mix", or "rank".
    state
        "progress" may come several times; "done", "failed", and "dropped" end a request;
        "ended" says that the process is gone.
    data
        Free values.  A failure has ``message``.
    arrays
        Arrays by name.
    """

    request: int
    do: str
    state: State
    data: Mapping[str, Any] = field(default_factory=dict)
    arrays: Mapping[str, NDArray[Any]] = field(default_factory=dict)


class EngineClient:
    """Starts the engine, sends requests, and receives replies.

    Parameters
    ----------
    on_reply
        Called with every :class:`Reply` in the reader thread.  Without it, replies
        are kept for :meth:`wait`.
    command
        Program and arguments; by default this Python and the engine's module.
    """

    def __init__(
        self, on_reply: Callable[[Reply], None] | None = None, command: list[str] | None = None
    ) -> None:
        self._on_reply = on_reply
        self._command = command or [sys.executable, "-m", ENGINE_MODULE]
        self._process: subprocess.Popen[bytes] | None = None
        self._folder: Path | None = None
        self._reader: threading.Thread | None = None
        self._lock = threading.Lock()
        self._last = 0
        self._inbox: queue.Queue[Reply] = queue.Queue()

    @property
    def pid(self) -> int | None:
        """Process number of the engine; None while it is not running."""
        return self._process.pid if self._process is not None and self.running else None

    @property
    def running(self) -> bool:
        """Whether the process is alive."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start the process if it is not running; returns at once, before torch is loaded there.

        Raises
        ------
        JobError
            If the process cannot be started.
        """
        if self.running:
            return
        self._forget_process()
        _sweep()
        self._folder = Path(tempfile.mkdtemp(prefix=f"{_FOLDER}{os.getpid()}-"))
        environment = child_environment()
        try:
            with (self._folder / "log.txt").open("wb") as log:
                self._process = subprocess.Popen(
                    [*self._command, str(self._folder)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    env=environment,
                )
        except OSError as error:
            raise JobError(
                f"the compute process could not be started: {error}", "", "close other programs and try again"
            ) from error
        self._reader = threading.Thread(
            target=self._read, args=(self._process,), name="histogan-engine-reader", daemon=True
        )
        self._reader.start()

    def request(self, do: str, **values: Any) -> int:
        """Send a request and return its number; starts the process when needed.

        A newer request of the same kind replaces an older one.

        Raises
        ------
        JobError
            If the process cannot be started or has just died.
        """
        self.start()
        with self._lock:
            self._last += 1
            number = self._last
            self._send({"id": number, "do": do, **values})
        return number

    def cancel(self, request: int) -> None:
        """Drop a request if it has not been answered; a dead engine needs no word."""
        if self.running:
            with self._lock:
                self._send({"id": request, "do": "cancel"})

    def wait(self, request: int, timeout: float = 60.0) -> Reply:
        """Return the reply that ends a request; for scripts, not for a thread that draws.

        Raises
        ------
        JobError
            If the engine ended, or did not answer in ``timeout`` seconds.
        """
        while True:
            try:
                reply = self._inbox.get(timeout=timeout)
            except queue.Empty:
                raise JobError(f"the compute process did not answer within {timeout:g} s") from None
            if reply.state == "ended":
                raise JobError(str(reply.data.get("message", "the compute process ended")))
            if reply.request == request and reply.state != "progress":
                return reply

    def log_tail(self, lines: int = 20) -> str:
        """Return the last lines that the process wrote about itself."""
        if self._folder is None:
            return ""
        try:
            text = (self._folder / "log.txt").read_text(encoding="utf-8", errors="replace")
        except OSError:
            return ""
        return "\n".join(text.splitlines()[-lines:])

    def close(self, timeout: float = 3.0) -> None:
        """End the process: close its input, then kill it if it stays longer than ``timeout`` seconds."""
        process, self._process = self._process, None
        if process is not None:
            self._on_reply = None
            if process.stdin is not None:
                with suppress(OSError):
                    process.stdin.close()
            try:
                process.wait(timeout)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            if self._reader is not None:
                self._reader.join(timeout)
            if process.stdout is not None:
                process.stdout.close()
        self._clean_folder()

    def _forget_process(self) -> None:
        """Close what a process that has ended leaves open."""
        process, self._process = self._process, None
        if process is not None:
            if self._reader is not None:
                self._reader.join()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    with suppress(OSError):
                        pipe.close()
        self._clean_folder()

    def _send(self, message: dict[str, Any]) -> None:
        process = self._process
        try:
            if process is None or process.stdin is None:
                raise OSError("closed")
            process.stdin.write(json.dumps(message, default=str).encode() + b"\n")
            process.stdin.flush()
        except (OSError, ValueError) as error:
            raise JobError(
                "the compute process ended", "", "the next request starts it anew; its last words:\n"
                + self.log_tail(5)
            ) from error  # fmt: skip

    def _read(self, process: subprocess.Popen[bytes]) -> None:
        """Hand on every line of the process until it ends."""
        if process.stdout is None:
            return
        for line in process.stdout:
            try:
                message = json.loads(line)
                reply = self._parse(message)
            except (ValueError, KeyError, TypeError, OSError) as error:
                logger.warning("a line of the engine was not understood: %s (%r)", error, line[:200])
                continue
            self._hand_on(reply)
        code = process.wait()
        words = self.log_tail(5)
        text = f"the compute process ended (code {code})" + (f": {words}" if code and words else "")
        self._hand_on(Reply(-1, "", "ended", {"message": text, "code": code}))

    def _hand_on(self, reply: Reply) -> None:
        if self._on_reply is not None:
            self._on_reply(reply)
        else:
            self._inbox.put(reply)

    def _parse(self, message: dict[str, Any]) -> Reply:
        arrays = {}
        for name, file in message.pop("arrays", {}).items():
            path = Path(file)
            arrays[name] = np.load(path, allow_pickle=False)
            path.unlink()
        number, do, state = message.pop("id"), message.pop("do"), message.pop("state")
        return Reply(int(number), str(do), state, message, arrays)

    def _clean_folder(self) -> None:
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None


def ranked_samples(project: Project, samples: str = "", timeout: float = 3600.0) -> list[tuple[int, float]]:
    """Ask a compute process of its own which samples to paint next; for scripts.

    Parameters
    ----------
    project
        With painted samples.
    samples
        Which set; "" is the newest.
    timeout
        Seconds to wait for the process.

    Returns
    -------
    list of (int, float)
        Samples without paint, the most informative first, and how much the ensemble disagrees, 0 to 1.

    Raises
    ------
    JobError
        If fewer than two classes are painted, or the process fails.
    """
    artifact = project.artifact(samples, "samples")
    painted = set(project.painted(artifact))
    pool = [i for i in range(int(artifact.summary["count"])) if i not in painted]
    client = EngineClient()
    try:
        where = {"project": str(project.root), "samples": artifact.id}
        reply = client.wait(client.request("rank", pool=pool, **where), timeout)
    finally:
        client.close()
    if "pool" not in reply.arrays:
        found = str(reply.data.get("message", "nothing was ranked"))
        raise JobError(found, "two classes painted, and a sample without paint", "paint in the dock")
    order, uncertainty = reply.arrays["pool"].tolist(), reply.arrays["uncertainty"].tolist()
    return list(zip(order, uncertainty, strict=True))


def _sweep() -> None:
    """Remove the folders of clients that were killed; the name holds the client's process number."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_FOLDER}*-*"):
        owner = folder.name.removeprefix(_FOLDER).split("-")[0]
        if owner.isdecimal() and not psutil.pid_exists(int(owner)):
            shutil.rmtree(folder, ignore_errors=True)
