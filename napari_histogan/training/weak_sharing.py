"""How trainer and mapper share a machine: the mapper pauses so that the trainer keeps most of its speed.

How much a mapper slows its trainer depends on what both share: nothing on two GPUs, memory on two idle
cores, everything on one GPU or a busy machine.  So it is measured while both work: some steps are made while
maps are computed, some while the mapper pauses, and the two rates say how long the pauses have to be.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

KEPT = 0.75
"""Share of its speed alone that the trainer keeps beside the mapper."""

MOST_SHARE = 0.95
"""Even a mapper that slows nothing pauses at times, or its slowing could not be measured."""

_LEAST_SHARE, _FIRST_SHARE = 0.05, 0.5
_KNOWN_FROM = 6
_REMEMBERED = 64
_PAUSE_STEPS = 4.0
_LEAST_PAUSE_S = 0.05
_IDLE_S = 0.05


class TimeShare:
    """Times training steps with the mapper at work and at rest, and says when it has to rest.

    The trainer's thread calls :meth:`step`, the mapper's :meth:`working` and :meth:`rest`.

    Parameters
    ----------
    fixed
        Share of the time in which maps may be computed, in (0, 1]; 0 measures it.
    """

    def __init__(self, fixed: float = 0.0) -> None:
        self._fixed = fixed
        self._alone: deque[float] = deque(maxlen=_REMEMBERED)
        self._beside: deque[float] = deque(maxlen=_REMEMBERED)
        self._is_working, self._turns = False, 0
        self._since = time.monotonic()

    @property
    def share(self) -> float:
        """Largest share of the time in which to compute maps now.

        With the rate r beside a working mapper, as a part of that alone, a share s leaves the trainer
        ``1 - s (1 - r)`` of its speed; s is chosen so that this is :data:`KEPT`.
        """
        if self._fixed:
            return self._fixed
        slowed = self.slowed
        if slowed is None:
            return _FIRST_SHARE
        if slowed >= 1:
            return MOST_SHARE
        return min(MOST_SHARE, max(_LEAST_SHARE, (1 - KEPT) / (1 - slowed)))

    @property
    def slowed(self) -> float | None:
        """Steps per second beside a working mapper by those alone; None as long as too few were timed."""
        alone, beside = list(self._alone), list(self._beside)
        if min(len(alone), len(beside)) < _KNOWN_FROM:
            return None
        return (sum(alone) / len(alone)) / (sum(beside) / len(beside))

    @contextmanager
    def step(self) -> Iterator[None]:
        """Time a training step; one in which the mapper began or paused counts nowhere."""
        turns, began = self._turns, time.perf_counter()
        yield
        if turns == self._turns:
            (self._beside if self._is_working else self._alone).append(time.perf_counter() - began)

    @contextmanager
    def working(self) -> Iterator[None]:
        """Compute a map."""
        self._turn(True)
        try:
            yield
        finally:
            self._turn(False)

    def rest(self, stop: Callable[[], bool]) -> None:
        """Pause if the mapper has worked for long enough; called between windows.

        A pause lasts some steps, so that whole steps fall into it; the work between pauses lasts as long as
        makes the share.
        """
        share = self.share
        if share >= 1 or not self._is_working:
            return
        worked, away = time.monotonic() - self._since, 1 / share - 1
        if worked * away < self._pause():
            return
        self._turn(False)
        end = time.monotonic() + worked * away
        while (left := end - time.monotonic()) > 0 and not stop():
            time.sleep(min(left, _IDLE_S))
        self._turn(True)

    def _pause(self) -> float:
        """Return the least seconds of a pause."""
        known = [*list(self._alone)[-8:], *list(self._beside)[-8:]]
        return max(_LEAST_PAUSE_S, _PAUSE_STEPS * sum(known) / len(known) if known else 0.0)

    def _turn(self, is_working: bool) -> None:
        self._is_working, self._turns = is_working, self._turns + 1
        self._since = time.monotonic()
