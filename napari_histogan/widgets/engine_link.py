"""The compute process as Qt sees it: replies arrive as calls in the thread that draws."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from qtpy.QtCore import QObject, Signal

from napari_histogan.errors import JobError
from napari_histogan.jobs.engine_client import EngineClient, Reply

logger = logging.getLogger("napari_histogan")

OnReply = Callable[[Reply], None]


@dataclass(frozen=True)
class _Waiting:
    on_done: OnReply
    on_progress: OnReply | None
    on_failed: Callable[[str], None] | None


class EngineLink(QObject):
    """Asks the engine and calls back; owned by the session, not by a dock.

    Signals
    -------
    busy_changed
        Whether anything is being computed.
    failed
        A message for people.
    """

    busy_changed = Signal(bool)
    failed = Signal(str)
    _arrived = Signal(object)

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._waiting: dict[int, _Waiting] = {}
        self._arrived.connect(self._take)
        self.client = EngineClient(on_reply=self._post)
        client = self.client
        # A function, not a method: this object is gone when the signal comes.
        self.destroyed.connect(lambda: client.close(0.5))

    def ask(
        self,
        do: str,
        on_done: OnReply,
        on_progress: OnReply | None = None,
        on_failed: Callable[[str], None] | None = None,
        **values: Any,
    ) -> int:
        """Send a request; returns its number, -1 if the process could not be started.

        Parameters
        ----------
        do
            "load", "predict", "sample", "mix", or "rank".
        on_done
            Called with the reply that ends the request; never for one that was replaced.
        on_progress
            Called with replies on the way.
        on_failed
            Called with a message; without it, :attr:`failed` is emitted.
        values
            What the request says.
        """
        try:
            number = self.client.request(do, **values)
        except JobError as error:
            self.failed.emit(str(error))
            return -1
        self._waiting[number] = _Waiting(on_done, on_progress, on_failed)
        self.busy_changed.emit(True)
        return number

    @property
    def busy(self) -> bool:
        """Whether a request waits for its reply."""
        return bool(self._waiting)

    def cancel(self, number: int) -> None:
        """Drop a request."""
        if number in self._waiting:
            try:
                self.client.cancel(number)
            except JobError:
                logger.debug("the engine ended before a request was canceled")

    def forget(self) -> None:
        """Call nobody back for what was asked so far; the process stays, ready for the next project."""
        self._waiting.clear()
        self.busy_changed.emit(False)

    def close(self) -> None:
        """End the process; waiting requests are forgotten."""
        self._waiting.clear()
        self.client.close()
        self.client = EngineClient(on_reply=self._post)

    def _post(self, reply: Reply) -> None:
        """Bring a reply from the reader's thread to the thread that draws."""
        try:
            self._arrived.emit(reply)
        except RuntimeError:
            logger.debug("a reply came after the window was gone")

    def _take(self, reply: Reply) -> None:
        if reply.state == "ended":
            self._on_ended(reply)
            return
        waiting = self._waiting.get(reply.request)
        if waiting is None:
            return
        if reply.state == "progress":
            if waiting.on_progress is not None:
                waiting.on_progress(reply)
            return
        del self._waiting[reply.request]
        if not self._waiting:
            self.busy_changed.emit(False)
        if reply.state == "done":
            waiting.on_done(reply)
        elif reply.state == "failed":
            message = str(reply.data.get("message", "the compute process failed"))
            if waiting.on_failed is not None:
                waiting.on_failed(message)
            else:
                self.failed.emit(message)

    def _on_ended(self, reply: Reply) -> None:
        lost = bool(self._waiting)
        self._waiting.clear()
        self.busy_changed.emit(False)
        if lost or reply.data.get("code"):
            self.failed.emit(
                f"{reply.data.get('message')}. The next stroke starts it again; your paint is saved."
            )
