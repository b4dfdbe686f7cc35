"""Run the short forms of the benchmarks, and write their figures beside their goals.

::

    python scripts/run_benchmarks.py                               all below, until 20 minutes are over
    python scripts/run_benchmarks.py --form smoke patch_stream     one, in its smallest form; others stay
    python scripts/run_benchmarks.py --take LOG COMMAND            what a longer run printed, started by hand

Each benchmark measures the plain way or a peer in the same run. ``docs/measured.json`` holds every figure
with machine, date, and versions; ``docs/measured.md`` shows them beside goals and peers, with a picture.
Benchmarks on data that may not be passed on are started by hand; docs/benchmarks.md names their commands.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
from measured_page import PICTURE, as_page, draw

ROOT = Path(__file__).parents[1]
NAMES = (
    "patch_stream", "generator_speed", "synthesis_rate", "many_slides", "slide_inference", "live_prediction",
    "studio_latency", "gan_training_speed", "hypercolumns", "scaling", "pixel_classifier_curve",
    "sample_selection",
)  # fmt: skip
"""The quick ones first: what the time does not suffice for is said, not dropped silently."""
PACKAGES = ("napari-histogan", "torch", "numpy", "zarr", "openslide-python")


def run(name: str, form: str, seconds: float) -> dict[str, Any]:
    """Return a benchmark's last line with what its first says, or why there is none."""
    started, spent = time.monotonic(), cpu_of_children()
    command = [sys.executable, str(ROOT / "benchmarks" / f"{name}.py"), f"--{form}"]
    result: dict[str, Any] = {"benchmark": name, "command": f"python benchmarks/{name}.py --{form}"}
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            said, complained = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            end_with_children(process.pid)
            return {**result, "failed": f"not done after {seconds:.0f} s"}
    result["seconds"] = round(time.monotonic() - started)
    result["cpu_seconds"] = round(cpu_of_children() - spent)
    lines = said.splitlines()
    try:
        last = json.loads(lines[-1])
        return {**result, "machine": lines[0], **{key: last[key] for key in ("figures", "goals", "met")}}
    except (IndexError, KeyError, TypeError, ValueError):
        last_words = (complained.strip().splitlines() or ["it said nothing"])[-1]
        return {**result, "failed": f"ended with {process.returncode}: {last_words}"}


def end_with_children(pid: int) -> None:
    """Kill a process and all that it started, which would else go on and spoil what is measured next."""
    try:
        root = psutil.Process(pid)
        family = [*root.children(recursive=True), root]
    except psutil.NoSuchProcess:
        return
    for one in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            one.kill()
    psutil.wait_procs(family[:-1], timeout=10)


def cpu_of_children() -> float:
    """Return the CPU seconds of all processes that this one started and that ended; 0 on Windows."""
    times = os.times()
    return times.children_user + times.children_system


def taken(log: Path, command: str) -> dict[str, Any]:
    """Return what a run that was started by hand said: its machine, and its last line.

    Raises
    ------
    SystemExit
        If the log does not end as benchmarks end.
    """
    lines = log.read_text(encoding="utf-8").splitlines()
    try:
        last = json.loads(next(line for line in reversed(lines) if line.startswith('{"benchmark"')))
        machine = next(line for line in lines if "cores, " in line)
        return {"benchmark": last["benchmark"], "command": command, "machine": machine,
                **{key: last[key] for key in ("figures", "goals", "met")}}  # fmt: skip
    except (StopIteration, KeyError, ValueError):
        raise SystemExit(f"{log} is not what a benchmark printed, from its first line to its last") from None


def merged(old: list[dict[str, Any]], new: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the new results, and of the old ones those of other benchmarks, in the order of :data:`NAMES`.

    A result that failed does not replace one that did not, but is told beside it, as ``failed_since``.
    """
    found = {one["benchmark"]: one for one in old}
    for one in new:
        before = found.get(one["benchmark"], one)
        if "failed" in one and "failed" not in before:
            one = {**before, "failed_since": f"{datetime.date.today()}: {one['failed']}"}
        found[one["benchmark"]] = one
    order = [*NAMES, *(name for name in found if name not in NAMES)]
    return [found[name] for name in order if name in found]


def main() -> int:
    """Run and write; 0 if all that was started ended well, whether goals were met or not."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", choices=[*NAMES, []], help="which; all if none is given")
    parser.add_argument("--form", choices=["quick", "smoke"], default="quick")
    parser.add_argument("--minutes", type=float, default=20.0, help="start nothing after so long")
    parser.add_argument("--out", type=Path, default=ROOT / "docs", help="folder of measured.json and .md")
    parser.add_argument(
        "--take", nargs=2, action="append", default=[], metavar=("LOG", "COMMAND"),
        help="take up what a run started by hand printed, and run nothing",
    )  # fmt: skip
    options = parser.parse_args()
    end = time.monotonic() + 60 * options.minutes
    results = [taken(Path(log), command) for log, command in options.take]
    for name in () if options.take else options.names or NAMES:
        left = end - time.monotonic()
        print(f"{name} ...", flush=True)
        late = {"benchmark": name, "command": f"python benchmarks/{name}.py --{options.form}"}
        results.append(run(name, options.form, left) if left > 0 else {**late, "failed": "the time was over"})
    target = options.out / "measured.json"
    old = json.loads(target.read_text(encoding="utf-8"))["benchmarks"] if target.exists() else []
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in PACKAGES)
    record = {
        "date": datetime.date.today().isoformat(),
        "system": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}; {versions}",
        "benchmarks": merged(old, results),
    }
    target.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    missing = [name for name in NAMES if name not in {one["benchmark"] for one in record["benchmarks"]}]
    (options.out / "measured.md").write_text(as_page(record, missing), encoding="utf-8")
    (options.out / PICTURE).parent.mkdir(exist_ok=True)
    draw(record, options.out / PICTURE)
    return int(any("failed" in one for one in results))


if __name__ == "__main__":
    sys.exit(main())
