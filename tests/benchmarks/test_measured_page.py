"""The page of measured figures: what it says of goals is what the benchmarks say, and nothing gets lost."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).parents[2]
SCRIPTS = ROOT / "scripts"
sys.path.insert(0, str(SCRIPTS))

from measured_goals import BESIDE, JUDGED, Beside, Judged, one  # noqa: E402
from measured_page import as_page, goal_rows, number, peer_rows  # noqa: E402
from run_benchmarks import cpu_of_children, end_with_children, merged  # noqa: E402

RECORD = json.loads((ROOT / "docs/measured.json").read_text(encoding="utf-8"))
PAGE = (ROOT / "docs/measured.md").read_text(encoding="utf-8")
DONE = [entry for entry in RECORD["benchmarks"] if "failed" not in entry]


@pytest.mark.parametrize("entry", DONE, ids=lambda entry: entry["benchmark"])
def test_goals_are_judged_as_the_benchmark_judges_them(entry):
    rows = goal_rows(entry)
    assert rows
    assert all(row.reached for row in rows) == entry["met"]
    for row in rows:
        assert f"| {row.words} | {number(row.ours)} |" in PAGE


def test_every_figure_of_a_goal_is_found_in_what_was_measured():
    for entry in DONE:
        known = {judged.goal for judged in JUDGED.get(entry["benchmark"], ())}
        if known:
            assert set(entry["goals"]) <= known, entry["benchmark"]
        if entry["benchmark"] in BESIDE:
            assert peer_rows(entry), entry["benchmark"]


@pytest.mark.parametrize(
    ("judged", "value", "reached"),
    [
        (Judged("g", "", one("f")), 2.0, True),
        (Judged("g", "", one("f")), 1.9, False),
        (Judged("g", "", one("f"), at_least=False), 2.0, True),
        (Judged("g", "", one("f"), at_least=False), 2.1, False),
        (Judged("g", "", one("f"), at_least=False, above=True), 2.0, False),
        (Judged("g", "", one("f"), above=True), 2.1, True),
    ],
)
def test_goals_are_bounds_from_above_or_below(judged: Judged, value: float, reached: bool):
    assert judged.reached(value, 2.0) is reached


def test_the_best_of_ours_stands_beside_the_best_of_the_peer(monkeypatch):
    monkeypatch.setitem(BESIDE, "b", (Beside("s", r"ours \w+", r"peer \w+", "the peer", more=False),))
    figures = {"ours a": 3.0, "ours b": 2.0, "peer a": 5.0, "peer b": 4.0}
    (row,) = peer_rows({"benchmark": "b", "figures": figures})
    assert (row.ours, row.other, row.times, row.reached) == (2.0, 4.0, 2.0, True)


def test_other_benchmarks_stay_and_a_failure_replaces_nothing():
    old = [{"benchmark": "scaling", "met": True}, {"benchmark": "many_slides", "failed": "so"}]
    new = [
        {"benchmark": "patch_stream", "met": False},
        {"benchmark": "scaling", "failed": "not done"},
        {"benchmark": "many_slides", "failed": "again"},
    ]
    first, second, third = merged(old, new)
    assert (first, second) == (new[0], new[2])
    assert third["met"]
    assert third["failed_since"].endswith("not done")
    assert merged([third], [{"benchmark": "scaling", "met": False}]) == [
        {"benchmark": "scaling", "met": False}
    ]


def test_the_page_tells_what_failed_and_what_is_older():
    newer = [{"benchmark": DONE[0]["benchmark"], "command": "x", "failed": "ended with 1: broken"}]
    page = as_page({**RECORD, "benchmarks": merged(DONE[:2], newer)}, ["scaling"])
    assert "ended with 1: broken; its figures above are older" in page
    assert "Left out: scaling." in page
    assert goal_rows(DONE[0])[0].words in page


def test_what_a_run_by_hand_printed_is_taken_up(tmp_path):
    log = tmp_path / "log.txt"
    entry = next(entry for entry in DONE if entry["benchmark"] == "patch_stream")
    last = {key: entry[key] for key in ("benchmark", "figures", "goals", "met")}
    log.write_text(f"{entry['machine']}\nten slides\n{json.dumps(last)}\n", encoding="utf-8")
    command = [sys.executable, str(SCRIPTS / "run_benchmarks.py"), "--out", str(tmp_path)]
    subprocess.run([*command, "--take", str(log), "python x"], check=True, capture_output=True)
    pictured = (tmp_path / "images/measured.svg").read_bytes()
    subprocess.run([*command, "--take", str(log), "python y"], check=True, capture_output=True)
    record = json.loads((tmp_path / "measured.json").read_text(encoding="utf-8"))
    assert [(one["command"], one["figures"]) for one in record["benchmarks"]] == [
        ("python y", entry["figures"])
    ]
    assert (tmp_path / "images/measured.svg").read_bytes() == pictured  # the same figures, the same bytes
    page = (tmp_path / "measured.md").read_text(encoding="utf-8")
    assert "`python y`" in page
    assert "Left out: generator_speed" in page
    log.write_text("it broke\n", encoding="utf-8")
    done = subprocess.run([*command, "--take", str(log), "z"], capture_output=True, text=True, check=False)
    assert done.returncode
    assert "is not what a benchmark printed" in done.stderr


def test_the_page_adds_up_how_long_runs_took():
    timed = [{**entry, "seconds": 150, "cpu_seconds": 90} for entry in DONE[:2]]
    page = as_page({**RECORD, "benchmarks": [*timed, *DONE[2:3]]}, [])
    assert "| 150 s, 90 CPU s |" in page
    assert "The 2 runs whose CPU time is told took 5 minutes by the clock" in page
    assert "and 3 CPU minutes." in page


def test_a_benchmark_whose_time_is_over_ends_with_all_that_it_started():
    sleep = "import time; time.sleep(600)"
    start = f"p = subprocess.Popen([sys.executable, '-c', {sleep!r}])"
    work = f"import subprocess, sys; {start}; print(p.pid, flush=True); p.wait()"
    with subprocess.Popen([sys.executable, "-c", work], stdout=subprocess.PIPE, text=True) as process:
        child = psutil.Process(int(process.stdout.readline()))
        end_with_children(process.pid)
    assert process.returncode
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE


def test_cpu_time_of_a_benchmark_is_that_of_its_processes():
    before = cpu_of_children()
    work = "import time\nwhile time.process_time() < 0.5: pass"
    subprocess.run([sys.executable, "-c", work], check=True)
    if sys.platform != "win32":
        assert 0.4 <= cpu_of_children() - before < 5
