"""Measuring in turns, the machine in one line, and the line of JSON in which every benchmark ends."""

from __future__ import annotations

import datetime
import json
import platform
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from typing import NamedTuple

import psutil
import torch

from napari_histogan.models.device import available_cores, has_native_bfloat16


class Cost(NamedTuple):
    """Seconds of one call: by the clock, and of all threads of this process together."""

    wall: float
    cpu: float


def machine() -> str:
    """Return processor, cores, number types, load, versions, and date in one line."""
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        lines = info.read_text(errors="replace").splitlines()
        name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), name)
        flags = next((line.split() for line in lines if line.startswith("flags")), [])
        name += ", AMX" if "amx_bf16" in flags else ""
    bfloat16 = "bfloat16 in hardware" if has_native_bfloat16() else "no bfloat16 in hardware"
    load = f"load {psutil.getloadavg()[0]:.1f} before the start"
    versions = f"Python {platform.python_version()}, torch {torch.__version__}"
    return f"{name}, {available_cores()} cores, {bfloat16}, {load}; {versions}; {datetime.date.today()}"


def cost(work: Callable[[], object]) -> Cost:
    """Run once."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return Cost(time.perf_counter() - wall, time.process_time() - cpu)


def in_turns(ways: Mapping[str, Callable[[], object]], rounds: int, warm_up: bool = True) -> dict[str, Cost]:
    """Run all ways in turns, so that whatever else the machine does hits all of them.

    Returns
    -------
    dict[str, Cost]
        The fastest wall time and the smallest CPU time of each way: what others take only adds to them.
    """
    seen: dict[str, list[Cost]] = {name: [] for name in ways}
    for turn in range(rounds + warm_up):
        for name, work in ways.items():
            found = cost(work)
            if turn >= warm_up:
                seen[name].append(found)
    return {name: Cost(min(c.wall for c in runs), min(c.cpu for c in runs)) for name, runs in seen.items()}


def ratio_in_turns(first: Callable[[], object], second: Callable[[], object], rounds: int) -> float:
    """Return the median over rounds of the wall time of `first` over that of `second`, run back to back."""
    return median(cost(first).wall / cost(second).wall for _ in range(rounds))


def finish(name: str, figures: Mapping[str, float], goals: Mapping[str, float], met: bool) -> None:
    """Print the last line of a benchmark."""
    rounded = {key: float(f"{value:.4g}") for key, value in figures.items()}
    print(json.dumps({"benchmark": name, "figures": rounded, "goals": dict(goals), "met": bool(met)}))
