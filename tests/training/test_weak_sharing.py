"""The mapper leaves the trainer most of its speed, by what both were seen to do to each other."""

from __future__ import annotations

import threading
import time

import pytest

from napari_histogan.training.weak_sharing import KEPT, MOST_SHARE, TimeShare


def steps(share: TimeShare, count: int, seconds: float) -> None:
    for _ in range(count):
        with share.step():
            time.sleep(seconds)


def test_the_share_follows_from_how_much_the_mapper_slows_steps():
    share = TimeShare()
    assert share.slowed is None
    steps(share, 8, 0.02)
    with share.working():
        steps(share, 8, 0.08)
    assert share.slowed == pytest.approx(0.25, rel=0.5)
    s, r = share.share, share.slowed
    assert 1 - s * (1 - r) == pytest.approx(KEPT)


def test_a_mapper_that_slows_nothing_hardly_pauses():
    share = TimeShare()
    with share.working():
        steps(share, 8, 0.02)
    steps(share, 8, 0.03)
    assert share.share == MOST_SHARE


def test_a_step_in_which_the_mapper_began_is_not_taken_for_either():
    share = TimeShare()
    for _ in range(8):
        with share.step(), share.working():
            time.sleep(0.001)
    steps(share, 8, 0.001)
    assert share.slowed is None


@pytest.mark.parametrize("fixed", [0.25, 0.5])
def test_a_given_share_of_the_time_is_kept(fixed):
    share, worked, ended = TimeShare(fixed), 0.0, threading.Event()
    began = time.monotonic()
    with share.working():
        while time.monotonic() - began < 1.5:
            at = time.monotonic()
            time.sleep(0.01)
            worked += time.monotonic() - at
            share.rest(ended.is_set)
    assert worked / (time.monotonic() - began) == pytest.approx(fixed, rel=0.3)


def test_a_stop_ends_a_pause_at_once():
    share, began = TimeShare(0.05), time.monotonic()
    with share.working():
        time.sleep(0.5)  # ten seconds of pause would follow
        share.rest(lambda: time.monotonic() - began > 0.7)
    assert time.monotonic() - began < 5


def test_all_of_the_time_needs_no_pause():
    share = TimeShare(1.0)
    with share.working():
        time.sleep(0.1)
        at = time.monotonic()
        for _ in range(100):
            share.rest(lambda: False)
    assert time.monotonic() - at < 0.05
