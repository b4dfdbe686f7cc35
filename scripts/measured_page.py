"""The page docs/measured.md, made from docs/measured.json: figures beside goals and peers, and a picture."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.figure import Figure
from measured_goals import BESIDE, JUDGED, Judged, matching, one

PAGES = {"many_slides": "reliability.md#many-slides-samples-and-masks"}
"""Where a benchmark is told of, if not in docs/benchmarks.md."""
PICTURE = "images/measured.svg"
REACHED, MISSED, PEER = "#0072b2", "#d55e00", "#009e73"
"""Of Okabe and Ito's colors, which people with any color vision tell apart."""
SHORTEST, WIDEST = 0.1, 20.0
"""Bars begin and end here; what is shorter or longer says so by its number."""


@dataclass(frozen=True)
class Row:
    """One comparison as it is shown: a benchmark, words, two numbers, and how many times better ours is."""

    benchmark: str
    words: str
    ours: float
    other: float
    times: float | None
    reached: bool
    note: str


def goal_rows(entry: Mapping[str, Any]) -> list[Row]:
    """Return a row for each goal of a benchmark that was measured; `times` is None for goals of 0."""
    rows = []
    known = {judged.goal: judged for judged in JUDGED.get(entry["benchmark"], ())}
    for key, goal in entry["goals"].items():
        judged = known.get(key, Judged(key, key, one(key)))
        try:
            value = judged.value(entry["figures"])
        except (KeyError, ValueError):
            continue
        times = None
        if goal > 0 and value > 0:
            times = value / goal if judged.at_least else goal / value
        # Goals that this page does not know were judged by the benchmark itself.
        reached = judged.reached(value, goal) if key in known else bool(entry["met"])
        sign = ("above " if judged.above else "at least ") if judged.at_least else (
            "below " if judged.above else "at most ")  # fmt: skip
        rows.append(
            Row(entry["benchmark"], judged.words, value, goal, times, reached, sign if key in known else "")
        )
    return rows


def peer_rows(entry: Mapping[str, Any]) -> list[Row]:
    """Return a row for each comparison with a peer that was measured."""
    rows = []
    for beside in BESIDE.get(entry["benchmark"], ()):
        ours, other = (matching(entry["figures"], pattern) for pattern in (beside.ours, beside.peer))
        if ours and other:
            pick = max if beside.more else min
            a, b = pick(ours), pick(other)
            times = a / b if beside.more else b / a
            rows.append(Row(entry["benchmark"], beside.words, a, b, times, times >= 1, beside.peer_words))
    return rows


def as_page(record: Mapping[str, Any], missing: list[str]) -> str:
    """Return the page: goals, peers, what was not measured, and every figure.

    Parameters
    ----------
    record
        What measured.json holds.
    missing
        Benchmarks that have no entry.
    """
    done = [entry for entry in record["benchmarks"] if "failed" not in entry]
    failed = [entry for entry in record["benchmarks"] if "failed" in entry]
    goals = [row for entry in done for row in goal_rows(entry)]
    peers = [row for entry in done for row in peer_rows(entry)]
    notes = [f"- `{entry['command']}`: {entry['failed']}." for entry in failed]
    notes += [
        f"- {entry['benchmark']}, tried again on {entry['failed_since']}; its figures above are older."
        for entry in done
        if "failed_since" in entry
    ]
    notes += [f"- Left out: {', '.join(missing)}."] if missing else []
    lines = [
        "# Measured last",
        "",
        f"Made by `make benchmarks`; last changed on {record['date']}. {record['system']}.",
        "What the benchmarks compare, and what longer runs brought, is in [benchmarks](benchmarks.md).",
        "Every figure lies in `docs/measured.json`.",
        "",
        f"![How far goals are reached, and how many times better than the peer]({PICTURE})",
        "",
        "## Goals",
        "",
        f"{sum(row.reached for row in goals)} of {len(goals)} are reached.",
        "",
        "| | measured | goal | reached | benchmark |",
        "|---|---|---|---|---|",
        *map(_goal_line, goals),
        "",
        "## Beside the plain way, or a peer",
        "",
        "Both measured in the same run, in turns.",
        "",
        "| | ours | the other | times better | benchmark |",
        "|---|---|---|---|---|",
        *map(_peer_line, peers),
        "",
        *(["## Not measured", "", *notes, ""] if notes else []),
        "## Runs",
        "",
        "| command | took | machine |",
        "|---|---|---|",
        *map(_run_line, done),
        "",
        *_together(done),
    ]
    return "\n".join(lines)


def number(value: float) -> str:
    """Return a figure with three digits, and in full from 1,000 on."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}" if abs(value) >= 1e-3 else f"{value:.1g}"


def _goal_line(row: Row) -> str:
    reached = "yes" if row.reached else "**no**"
    goal = f"{row.note}{number(row.other)}"
    return f"| {row.words} | {number(row.ours)} | {goal} | {reached} | {_link(row.benchmark)} |"


def _peer_line(row: Row) -> str:
    other = f"{number(row.other)} ({row.note})"
    times = number(row.times or 0.0)
    return f"| {row.words} | {number(row.ours)} | {other} | {times} | {_link(row.benchmark)} |"


def _run_line(entry: Mapping[str, Any]) -> str:
    took = f"{entry['seconds']} s" if "seconds" in entry else "by hand"
    took += f", {entry['cpu_seconds']} CPU s" if "cpu_seconds" in entry else ""
    return f"| `{entry['command']}` | {took} | {entry['machine']} |"


def _together(done: list[Mapping[str, Any]]) -> list[str]:
    """Tell how long the runs took together; nothing if fewer than two said it."""
    told = [entry for entry in done if "seconds" in entry and "cpu_seconds" in entry]
    if len(told) < 2:
        return []
    clock, cpu = (sum(entry[key] for entry in told) / 60 for key in ("seconds", "cpu_seconds"))
    words = f"{clock:.0f} minutes by the clock and {cpu:.0f} CPU minutes"
    return [f"The {len(told)} runs whose CPU time is told took {words}.", ""]


def _link(benchmark: str) -> str:
    return f"[{benchmark}]({PAGES.get(benchmark, 'benchmarks.md#' + benchmark)})"


def draw(record: Mapping[str, Any], target: Path) -> None:
    """Write the picture as SVG: bars for goals, below them bars for peers; same record, same bytes."""
    done = [entry for entry in record["benchmarks"] if "failed" not in entry]
    goals = [row for entry in done for row in goal_rows(entry) if row.times is not None]
    peers = [row for entry in done for row in peer_rows(entry)]
    heights = [max(len(goals), 1), max(len(peers), 1)]
    figure = Figure(figsize=(9, 1.6 + 0.26 * sum(heights)), layout="constrained")
    top, bottom = figure.subplots(2, 1, height_ratios=heights, sharex=True)
    _bars(top, goals, "Goals: 1 is reached", [REACHED if row.reached else MISSED for row in goals])
    _bars(
        bottom,
        peers,
        "Times better than the plain way or the peer",
        [PEER if row.reached else MISSED for row in peers],
    )
    # Text stays text, so that it can be searched and scaled; ids follow from the salt.

    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "histogan", "font.family": "sans-serif"}):
        figure.savefig(target, format="svg", metadata={"Date": None, "Creator": None})


def _bars(axes: Any, rows: list[Row], title: str, colors: list[str]) -> None:
    """Draw a bar for each row, the first at the top, with its numbers behind it."""
    lengths = [min(max(row.times or 0.0, 1.2 * SHORTEST), WIDEST) for row in rows]
    axes.barh(range(len(rows)), lengths, color=colors, height=0.7)
    axes.set_yticks(range(len(rows)), [row.words for row in rows], fontsize=8)
    for place, (row, length) in enumerate(zip(rows, lengths, strict=True)):
        other = (
            f"{row.note}{number(row.other)}" if row.note.endswith(" ") else f"{row.note} {number(row.other)}"
        )
        axes.text(length * 1.05, place, f"{number(row.ours)} ({other})", va="center", fontsize=7)
    axes.set(title=title, xscale="log", xlim=(SHORTEST, WIDEST * 5))
    axes.set_xticks([0.1, 0.5, 1, 2, 5, 10, WIDEST], ["0.1", "0.5", "1", "2", "5", "10", f"{WIDEST:g}+"])
    axes.axvline(1, color="black", linewidth=0.8)
    axes.invert_yaxis()
