"""Replies arrive in the thread that draws, and a process that dies is told."""

import os
import signal
import sys
import threading
from pathlib import Path

import pytest

from napari_histogan.jobs.engine_client import EngineClient
from napari_histogan.widgets.engine_link import EngineLink

ECHO = [sys.executable, str(Path(__file__).parents[1] / "jobs" / "engine_echo.py")]


@pytest.fixture
def link(qapp):
    link = EngineLink()
    link.client = EngineClient(link._post, ECHO)
    yield link
    link.close()


def test_reply_comes_in_the_main_thread(link, qtbot):
    threads = []
    link.ask("predict", lambda _reply: threads.append(threading.current_thread()))
    assert link.busy
    qtbot.waitUntil(lambda: bool(threads), timeout=20_000)
    assert threads == [threading.main_thread()]
    assert not link.busy


def test_replaced_request_is_not_answered(link, qtbot):
    answered = []
    for value in range(3):
        link.ask("rank", lambda reply: answered.append(reply.data["value"]), value=value, steps=100)
    qtbot.waitUntil(lambda: bool(answered), timeout=20_000)
    assert answered == [2]


def test_failure_goes_to_its_asker_or_to_everybody(link, qtbot):
    mine = []
    link.ask("sample", lambda _reply: None, on_failed=mine.append)
    qtbot.waitUntil(lambda: bool(mine), timeout=20_000)
    with qtbot.waitSignal(link.failed, timeout=20_000) as failed:
        link.ask("sample", lambda _reply: None)
    assert mine[0] == failed.args[0]
    assert "nothing is painted" in mine[0]


def test_death_is_told_and_the_next_request_works(link, qtbot):
    link.ask("predict", lambda _reply: None)
    qtbot.waitUntil(lambda: not link.busy, timeout=20_000)
    with qtbot.waitSignal(link.failed, timeout=20_000) as failed:
        link.ask("rank", lambda _reply: None, steps=10_000)
        os.kill(link.client.pid, signal.SIGKILL)
    assert "ended" in failed.args[0]
    answered = []
    link.ask("predict", answered.append)
    qtbot.waitUntil(lambda: bool(answered), timeout=20_000)
