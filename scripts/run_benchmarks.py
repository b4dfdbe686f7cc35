"""Run the short forms of the benchmarks, and write their figures beside their goals.

::

    python scripts/run_benchmarks.py                               all below, until 20 minutes are over
    python scripts/run_benchmarks.py --form smoke patch_stream     one, in its smallest form

Each benchmark measures the plain way or a peer in the same run. ``docs/measured.json`` holds every figure
with machine, date, and versions; ``docs/measured.md`` is the same as a table. Benchmarks on data that may not
be passed on are started by hand; docs/benchmarks.md names their commands.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import json
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
NAMES = (
    "patch_stream", "generator_speed", "synthesis_rate", "many_slides", "slide_inference", "live_prediction",
    "gan_training_speed", "hypercolumns", "scaling", "pixel_classifier_curve", "sample_selection",
)  # fmt: skip
"""The quick ones first: what the time does not suffice for is said, not dropped silently."""
PAGES = {"many_slides": "reliability.md#many-slides-samples-and-masks"}
"""Where a benchmark is told of, if not in docs/benchmarks.md."""
PACKAGES = ("napari-histogan", "torch", "numpy", "zarr", "openslide-python")


def run(name: str, form: str, seconds: float) -> dict[str, Any]:
    """Return a benchmark's last line with what its first says, or why there is none."""
    started = time.monotonic()
    command = [sys.executable, str(ROOT / "benchmarks" / f"{name}.py"), f"--{form}"]
    result: dict[str, Any] = {"benchmark": name, "command": f"python benchmarks/{name}.py --{form}"}
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=seconds, check=False)
    except subprocess.TimeoutExpired:
        return {**result, "failed": f"not done after {seconds:.0f} s"}
    result["seconds"] = round(time.monotonic() - started)
    lines = done.stdout.splitlines()
    try:
        last = json.loads(lines[-1])
        return {**result, "machine": lines[0], **{key: last[key] for key in ("figures", "goals", "met")}}
    except (IndexError, KeyError, TypeError, ValueError):
        said = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        return {**result, "failed": f"ended with {done.returncode}: {said}"}


def as_page(record: dict[str, Any]) -> str:
    """Return the record as Markdown: a row for each figure, its goal beside it."""
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    rows = ["| benchmark | figure | measured | goal |", "|---|---|---|---|"]
    notes = []
    for one in record["benchmarks"]:
        name = f"[{one['benchmark']}]({PAGES.get(one['benchmark'], 'benchmarks.md#' + one['benchmark'])})"
        if "failed" in one:
            notes.append(f"- `{one['command']}`: {one['failed']}.")
            continue
        figures, goals = one["figures"], one["goals"]
        rows += [f"| {name} | {key} | {value:g} | {goals.get(key, '')} |" for key, value in figures.items()]
        rows += [f"| {name} | {key} | | {goal} |" for key, goal in goals.items() if key not in figures]
        rows.append(f"| {name} | **all goals** | **{'met' if one['met'] else 'not met'}** | |")
    missing = [name for name in NAMES if name not in {one["benchmark"] for one in record["benchmarks"]}]
    notes += [f"- Left out: {', '.join(missing)}."] if missing else []
    machines = list(dict.fromkeys(one["machine"] for one in record["benchmarks"] if "machine" in one))
    return "\n".join([
        "# Measured last", "",
        f"Made by `make benchmarks` on {record['date']}; {versions}; {record['system']}. The short forms of "
        "the benchmarks; what they compare, and longer runs, are in [benchmarks](benchmarks.md).", "",
        *(f"- {machine}" for machine in machines), "", *rows, "",
        *(["Not measured:", "", *notes, ""] if notes else []),
    ])  # fmt: skip


def main() -> int:
    """Run and write; 0 if all that was started ended well, whether goals were met or not."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", choices=[*NAMES, []], help="which; all if none is given")
    parser.add_argument("--form", choices=["quick", "smoke"], default="quick")
    parser.add_argument("--minutes", type=float, default=20.0, help="start nothing after so long")
    parser.add_argument("--out", type=Path, default=ROOT / "docs", help="folder of measured.json and .md")
    options = parser.parse_args()
    end = time.monotonic() + 60 * options.minutes
    results = []
    for name in options.names or NAMES:
        left = end - time.monotonic()
        print(f"{name} ...", flush=True)
        late = {"benchmark": name, "command": f"python benchmarks/{name}.py --{options.form}"}
        results.append(run(name, options.form, left) if left > 0 else {**late, "failed": "the time was over"})
    record = {
        "date": datetime.date.today().isoformat(),
        "system": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
        "benchmarks": results,
    }
    (options.out / "measured.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    (options.out / "measured.md").write_text(as_page(record), encoding="utf-8")
    return int(any("failed" in one for one in results))


if __name__ == "__main__":
    sys.exit(main())
