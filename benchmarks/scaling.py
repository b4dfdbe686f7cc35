"""Two workers of a dask scheduler on this machine beside one process: two slides, the same maps either way.

The net is the default U-Net with random weights; one thread in the process, and one in each worker. Workers
are warm (they have loaded torch). Ideal is half the time of one process. The maps are compared byte by byte.

- one process: all its threads (net, decoding, writing) are bound to one core, as many as each worker has. The
  share of the ideal is against this one.
- free process: its decoding and writing threads use the second core while the net computes.
- two processes: a slide and a core for each, nothing between them. No scheduler can be faster; what they lack
  of the ideal is the machine's (cores share caches and memory).
- two workers: a slide for each; scheduler and watching process share their two cores.
- with --bands: also each slide shared by both workers, one slide after the other.

Beside the times stand CPU seconds, which say where they went: of the workers, and of the process that holds
the scheduler and watches.

    python benchmarks/scaling.py [--quick] [--side PX] [--bands]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import psutil
import torch
from distributed import LocalCluster
from large_slides import MPP, large_slide
from measuring import finish, machine

from napari_histogan.config import PredictHeatmapConfig
from napari_histogan.errors import HistoganError
from napari_histogan.inference.heatmap import WantedHeatmap, predict_heatmap, share_heatmaps
from napari_histogan.models.segmenter import save_segmenter
from napari_histogan.models.unet import UNet
from napari_histogan.progress import QuietReporter
from napari_histogan.slides.reader import open_slide

GOAL = 0.9
MAP = "map.zarr"
WARM_PX = 1024
HERE = PredictHeatmapConfig(device="cpu", threads=1)


def reporter_of(slide: Path, folder: Path) -> QuietReporter:
    """Return the reporter of one slide's map."""
    return QuietReporter(folder / slide.stem)


def one_by_one(slides: Sequence[Path], net: Path, folder: Path, config: PredictHeatmapConfig) -> None:
    """Make a map of each slide, one after the other."""
    for slide in slides:
        reporter = reporter_of(slide, folder)
        with open_slide(slide) as reader:
            predict_heatmap(reader, net, config, reporter, reporter.run_dir / MAP)


def together(slides: Sequence[Path], net: Path, folder: Path, config: PredictHeatmapConfig) -> None:
    """Make the maps of all slides by the workers, a slide for each."""

    def ended(number: int, told: dict[str, Any] | HistoganError) -> None:
        if isinstance(told, HistoganError):
            raise told

    reporters = [reporter_of(slide, folder) for slide in slides]
    wanted = [
        WantedHeatmap(partial(open_slide, slide), config, reporter, reporter.run_dir / MAP)
        for slide, reporter in zip(slides, reporters, strict=True)
    ]
    share_heatmaps(wanted, net, config, QuietReporter(folder), ended)


def child(slides: Sequence[Path], net: Path, folder: Path, cores: Sequence[int]) -> dict[str, float]:
    """Do all slides in this process, which may use some cores only, once told to; returns its figures."""
    os.sched_setaffinity(0, cores)
    one_by_one([large_slide(WARM_PX)], net, folder / f"warm-up-{slides[0].stem}", HERE)
    print("ready", flush=True)
    sys.stdin.readline()
    started, cpu = time.perf_counter(), time.process_time()
    one_by_one(slides, net, folder, HERE)
    return {"s": time.perf_counter() - started, "CPU s": time.process_time() - cpu}


def in_children(
    parts: Sequence[tuple[Sequence[Path], Sequence[int]]], net: Path, folder: Path
) -> dict[str, float]:
    """Do slides in processes that begin at once; each part is slides, and the cores for them."""
    children = [
        subprocess.Popen(
            [
                sys.executable,
                __file__,
                "--child",
                json.dumps([str(net), str(folder), cores, *map(str, slides)]),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for slides, cores in parts
    ]
    for each in children:
        if each.stdout is None or each.stdout.readline() != "ready\n":
            raise SystemExit("a process could not begin")
    for each in children:
        if each.stdin is not None:
            each.stdin.write("go\n")
            each.stdin.flush()
    told = [json.loads(each.communicate()[0].splitlines()[-1]) for each in children]
    return {"s": max(one["s"] for one in told), "CPU s": sum(one["CPU s"] for one in told)}


def by_workers(work: Callable[[], None], workers: Sequence[psutil.Process]) -> dict[str, float]:
    """Time what workers do for this process."""

    def spent() -> float:
        return sum(times.user + times.system for times in (worker.cpu_times() for worker in workers))

    started, cpu, theirs = time.perf_counter(), time.process_time(), spent()
    work()
    return {
        "s": time.perf_counter() - started,
        "workers' CPU s": spent() - theirs,
        "scheduler's and watcher's CPU s": time.process_time() - cpu,
    }


def content(folder: Path) -> dict[str, bytes | list[bytes]]:
    """Return all files of the maps below a folder; blocks may have been noted in any order."""
    found: dict[str, bytes | list[bytes]] = {}
    for path in folder.glob(f"*/{MAP}/**/*"):
        if path.is_file() and "warm-up" not in path.parts:
            data = path.read_bytes()
            found[str(path.relative_to(folder))] = sorted(data.split()) if path.suffix == ".jsonl" else data
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="smaller slides, one round")
    parser.add_argument("--smoke", action="store_true", help="the smallest run that says anything")
    parser.add_argument("--side", type=int, default=0, help="of the slides; a multiple of 512", metavar="PX")
    parser.add_argument("--bands", action="store_true", help="also share each slide")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        net, folder, cores, *slides = json.loads(options.child)
        print(json.dumps(child([Path(slide) for slide in slides], Path(net), Path(folder), cores)))
        return
    side = options.side or (1024 if options.smoke else 4096 if options.quick else 8192)
    cores = sorted(os.sched_getaffinity(0))[:2]
    os.sched_setaffinity(0, cores)
    print(f"{machine()}; two slides of {side} px, two cores", flush=True)
    slides = [large_slide(side), large_slide(side, 777)]
    large_slide(WARM_PX)
    rounds = [
        measure(slides, cores, options.bands) for _ in range(1 if options.quick or options.smoke else 3)
    ]
    figures = {name: median(found[name] for found in rounds) for name in rounds[0]}
    finish("scaling", figures, {"share of the ideal": GOAL}, figures["share of the ideal"] >= GOAL)


def measure(slides: Sequence[Path], cores: Sequence[int], bands: bool) -> dict[str, float]:
    """Do one round of all ways; returns their figures."""
    with (
        tempfile.TemporaryDirectory() as folder,
        LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, host="127.0.0.1", dashboard_address=None
        ) as cluster,
    ):
        root = Path(folder)
        net = root / "net"
        torch.manual_seed(0)
        save_segmenter(net, UNet(3), ("a", "b", "c"), mpp=MPP)
        there = HERE.model_copy(update={"scheduler": cluster.scheduler_address})
        warm = [large_slide(WARM_PX)]
        for number in range(2):  # both workers load torch
            one_by_one(warm, net, root / f"warm-up-{number}", there)
        workers = [psutil.Process(worker.pid) for worker in cluster.workers.values()]
        ways: dict[str, Callable[[Path], dict[str, float]]] = {
            "one process": lambda out: in_children([(slides, cores[:1])], net, out),
            "free process": lambda out: in_children([(slides, cores)], net, out),
            "two processes": lambda out: in_children(
                [([slide], [core]) for slide, core in zip(slides, cores, strict=True)], net, out
            ),
            "two workers": lambda out: by_workers(lambda: together(slides, net, out, there), workers),
        }
        if bands:
            ways["two workers, shared slides"] = lambda out: by_workers(
                lambda: one_by_one(slides, net, out, there), workers
            )
        seen = {}
        for number, (way, work) in enumerate(ways.items()):
            seen[way] = work(root / f"way-{number}")
            print(way, {name: float(f"{value:.4g}") for name, value in seen[way].items()}, flush=True)
            if content(root / f"way-{number}") != content(root / "way-0"):
                raise SystemExit(f"the maps by {way} are not those of one process")
    figures = {f"{way}, {name}": value for way, found in seen.items() for name, value in found.items()}
    alone = figures["one process, s"]
    shares = {
        "share of the ideal": (alone, "two workers"),
        "share of the ideal, beside the free process": (figures["free process, s"], "two workers"),
        "share of the ideal, two processes without a scheduler": (alone, "two processes"),
    }
    if bands:
        shares["share of the ideal, shared slides"] = (alone, "two workers, shared slides")
    figures |= {name: of / figures[f"{way}, s"] / 2 for name, (of, way) in shares.items()}
    print(f"{figures['share of the ideal']:.1%} of the ideal", flush=True)
    return figures


if __name__ == "__main__":
    main()
