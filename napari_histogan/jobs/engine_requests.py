"""Which request the engine answers next: the newest of its kind, the most urgent kind first."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

URGENCY = {"load": 0, "predict": 1, "sample": 2, "mix": 2, "unsure": 3, "objects": 3, "round": 3, "rank": 4}
"""Kinds of requests; a smaller number goes first."""


Answer = tuple[dict[str, Any], dict[str, NDArray[Any]]]
"""Values and arrays of a reply."""


@dataclass(frozen=True)
class Request:
    """One request.

    Attributes
    ----------
    number
        Given by the client; grows.
    do
        Kind; a key of :data:`URGENCY`.
    values
        What the client sent beside.
    """

    number: int
    do: str
    values: dict[str, Any]


Handler = Callable[[Request], Iterator[Answer | None]]
"""Yields None where it may be interrupted, partial answers, and last the answer."""


class Requests:
    """A mailbox with one slot per kind; filled by one thread, emptied by another.

    Parameters
    ----------
    on_drop
        Called with a request that a newer one replaced before it was begun.
    """

    def __init__(self, on_drop: Callable[[Request], None]) -> None:
        self._slots: dict[str, Request] = {}
        self._newest: dict[str, int] = {}
        self._cancelled: set[int] = set()
        self._closed = False
        self._changed = threading.Condition()
        self._on_drop = on_drop

    def put(self, request: Request) -> None:
        """Add a request; one of the same kind that waits is dropped."""
        with self._changed:
            old = self._slots.get(request.do)
            self._slots[request.do] = request
            self._newest[request.do] = request.number
            self._changed.notify_all()
        if old is not None:
            self._on_drop(old)

    def cancel(self, number: int) -> None:
        """Drop a waiting request, or make a running one stale."""
        with self._changed:
            self._cancelled.add(number)
            waiting = [request for request in self._slots.values() if request.number == number]
            for request in waiting:
                del self._slots[request.do]
        for request in waiting:
            self._on_drop(request)

    def close(self) -> None:
        """Make every request stale and :meth:`take` return None."""
        with self._changed:
            self._closed = True
            self._slots.clear()
            self._changed.notify_all()

    @property
    def closed(self) -> bool:
        """Whether the client is gone."""
        return self._closed

    def take(self) -> Request | None:
        """Wait for the most urgent request; None when closed."""
        with self._changed:
            while not self._slots and not self._closed:
                self._changed.wait()
            return self._pop(len(URGENCY))

    def take_more_urgent(self, than: Request) -> Request | None:
        """Return a waiting request of a more urgent kind, if there is one."""
        with self._changed:
            return self._pop(URGENCY[than.do])

    def is_stale(self, request: Request) -> bool:
        """Whether a running request was replaced by a newer one, canceled, or left alone."""
        with self._changed:
            newer = self._newest.get(request.do, request.number) > request.number
            return self._closed or newer or request.number in self._cancelled

    def _pop(self, below: int) -> Request | None:
        kinds = [kind for kind in self._slots if URGENCY[kind] < below]
        return self._slots.pop(min(kinds, key=URGENCY.__getitem__)) if kinds else None
