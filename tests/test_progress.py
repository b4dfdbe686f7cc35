"""Reporters: events are whole lines, progress is thinned, a stop is heard from file and signal."""

from __future__ import annotations

import json
import signal
import threading

import pytest

from napari_histogan.progress import STOP_FILE, QuietReporter, Reporter, RunReporter


def events(folder):
    return [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]


@pytest.fixture
def reporter(tmp_path):
    reporter = RunReporter(tmp_path, min_interval_s=0.05)
    yield reporter
    reporter.close()


@pytest.mark.parametrize("kind", [QuietReporter, RunReporter])
def test_both_reporters_keep_the_contract(kind, tmp_path):
    assert isinstance(kind(tmp_path), Reporter)


def test_metrics_previews_and_warnings_are_lines(reporter, tmp_path):
    (tmp_path / "previews").mkdir()
    reporter.metric(10, loss=0.5)
    reporter.preview("samples", tmp_path / "previews" / "a.png")
    reporter.warn("the disk is nearly full")
    found = events(tmp_path)
    assert [e["kind"] for e in found] == ["metric", "preview", "warning"]
    assert found[0]["loss"] == 0.5
    assert found[1]["path"] == "previews/a.png"


def test_progress_is_thinned_but_begin_and_end_are_kept(reporter, tmp_path):
    for done in range(1001):
        reporter.progress(done, 1000, "steps", "Training")
    found = events(tmp_path)
    assert found[0]["done"] == 0
    assert found[-1]["done"] == 1000
    assert len(found) < 100


def test_each_phase_starts_its_own_clock(reporter, tmp_path):
    reporter.progress(5, 10, message="one")
    reporter.progress(0, 10, message="two")
    assert [e["message"] for e in events(tmp_path)] == ["one", "two"]
    assert events(tmp_path)[1]["seconds_left"] is None


def test_values_that_json_lacks_are_written_by_name(reporter, tmp_path):
    reporter.metric(1, loss=float("nan"), score=float("inf"))
    assert events(tmp_path)[0]["loss"] == "nan"
    assert events(tmp_path)[0]["score"] == "inf"


def test_lines_of_many_threads_are_never_mixed(reporter, tmp_path):
    threads = [
        threading.Thread(target=lambda k=k: [reporter.metric(i, k=k, text=1e300) for i in range(200)])
        for k in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(events(tmp_path)) == 800


def test_stop_is_heard_from_the_file_and_from_a_signal(tmp_path):
    by_file, by_signal = RunReporter(tmp_path), RunReporter(tmp_path)
    assert not by_file.should_stop()
    by_signal.request_stop()
    assert by_signal.should_stop()
    (tmp_path / STOP_FILE).touch()
    assert by_file.should_stop()
    by_file.close()
    by_signal.close()


def test_quiet_reporter_asks_its_function(tmp_path):
    asked = iter([False, True])
    reporter = QuietReporter(tmp_path, stop_when=lambda: next(asked))
    assert [reporter.should_stop(), reporter.should_stop()] == [False, True]


def test_a_line_that_a_kill_cut_is_closed_before_the_next_one(tmp_path):
    (tmp_path / "events.jsonl").write_bytes(b'{"kind": "metric", "step": 1}\n{"kind": "met')
    reporter = RunReporter(tmp_path)
    reporter.metric(2)
    reporter.metric(3)
    reporter.close()
    lines = (tmp_path / "events.jsonl").read_text().splitlines()
    assert lines[1] == '{"kind": "met'
    assert [json.loads(line)["step"] for line in (lines[0], *lines[2:])] == [1, 2, 3]


def test_a_line_that_a_full_disk_cut_is_closed_before_the_next_one(tmp_path):
    resource = pytest.importorskip("resource")
    reporter = RunReporter(tmp_path)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20, before[1]))
        reporter.metric(1)
        reporter.metric(2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    reporter.metric(3)
    reporter.close()
    lines = (tmp_path / "events.jsonl").read_text().splitlines()
    assert len(lines) == 2
    assert json.loads(lines[1])["step"] == 3
