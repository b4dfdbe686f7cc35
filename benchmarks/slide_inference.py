"""A net over a slide of 20,480 x 20,480 px: share of the bare forward passes, and two other ways beside it.

The slide is made from the texture of the slide that ships (runs-local/, 71 MB). The net is the default U-Net
with random weights, folded, in channels-last, in bfloat16 where the processor has it: the same in all ways.
The two others are also measured as one finds them: with the net as it is, under autocast to that type.

Each way runs in a process of its own, and writes percent to zarr. Ours does the whole slide, in the windows
that the stage takes if nobody says otherwise; the others do a square of it, in the windows of ours and in
windows of 256 px, of which the better counts; ours does that square in windows of 256 px, too. All windows
overlap by 64 px, so that they have the same context at their seams. Before and after, the same process times
the bare forward pass of the folded net on batches in memory: the share is that time, for as many windows,
over the way's own. Speeds are compared by the megapixel, since windows differ.

- ours: `run_tiles`.
- OpenSlide loop: read a window, collect a batch, predict, keep each window's middle.
- MONAI: OpenSlide reads the square in one piece, `sliding_window_inference` predicts it, Gaussian blending.

    python benchmarks/slide_inference.py [--quick] [--threads N ...] [--side PX] [--whole PX]

All is done with one thread, and with as many as there are cores, unless `--threads` says otherwise; goals are
judged at the first number. MONAI is measured if it is installed (extra [benchmarks]).
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
import zarr
from large_slides import MPP, large_slide
from measuring import finish, machine
from torch import Tensor

from napari_histogan.config import PredictHeatmapConfig
from napari_histogan.geometry import Region
from napari_histogan.inference.net_tiles import NetTiles
from napari_histogan.inference.tiles import run_tiles
from napari_histogan.models.device import Compute, available_cores, resolve
from napari_histogan.models.segmenter import fold_batch_norm, pixels_to_input
from napari_histogan.models.unet import UNet
from napari_histogan.progress import QuietReporter
from napari_histogan.slides.reader import open_slide
from napari_histogan.slides.zarr_pyramid import PyramidWriter

SLIDE_PX, SMALL_PX, OVERLAP_PX, CLASSES = 20_480, 2048, 64, 3
TILE, SMALL_TILE = PredictHeatmapConfig().tile_px, 256
SHARE, TIMES, PEAK_GB = 0.90, 2.0, 2.0
OURS = "ours"
AS_FOUND = ", net as it is"
NAMES = tuple(f"class {k}" for k in range(1, CLASSES + 1))


def _autocast(net: UNet, compute: Compute, x: Tensor) -> Tensor:
    """Run a net as it is, in the type that pays."""
    with compute.autocast():
        found: Tensor = net(x)
    return found


def new_net() -> UNet:
    """Return the net with its random weights."""
    torch.manual_seed(0)
    return UNet(CLASSES)


@dataclass(frozen=True)
class Cut:
    """How a way cuts its square."""

    tile: int

    @property
    def step(self) -> int:
        """From one window to the next."""
        return self.tile - OVERLAP_PX

    @property
    def batch(self) -> int:
        """Windows per pass: as many as hold 512 x 512 pixels, for all ways."""
        return 512**2 // self.tile**2

    @property
    def overlap(self) -> float:
        """Share of a window."""
        return OVERLAP_PX / self.tile


def bare_seconds(forward: Callable[[Tensor], Tensor], dtype: torch.dtype, seconds: float, cut: Cut) -> float:
    """Return the seconds of the forward pass for one window, on batches in memory."""
    x = torch.rand(cut.batch, 3, cut.tile, cut.tile).to(dtype)
    x = x.contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        forward(x)
        spent: list[float] = []
        while sum(spent) < seconds:
            started = time.perf_counter()
            forward(x)
            spent.append(time.perf_counter() - started)
    return sum(spent) / len(spent) / cut.batch


def ours(slide: Path, region: Region, model: NetTiles, out: Path, cut: Cut) -> int:
    """Do the blocks of the square by the tiling engine; returns the number of windows."""
    with open_slide(slide) as reader:
        writer = PyramidWriter(out, reader.size_at(MPP), NAMES, np.uint8, mpp=MPP)
        settings = {"tile_px": cut.tile, "overlap": cut.overlap, "batch": cut.batch}
        done = run_tiles(reader, model, writer, QuietReporter(), mine=region.intersects, **settings)
    return done.windows


def probabilities(forward: Callable[[Tensor], Tensor], pixels: Tensor, dtype: torch.dtype) -> Tensor:
    """Return what a net says of pixels (n, 3, S, S) uint8, as percent."""
    x = pixels_to_input(pixels).to(dtype).contiguous(memory_format=torch.channels_last)
    return forward(x).float().softmax(dim=1).mul_(100).round_().to(torch.uint8)


@torch.inference_mode()
def openslide_loop(
    slide: Path, region: Region, forward: Callable[[Tensor], Tensor], dtype: torch.dtype, out: Path, cut: Cut
) -> int:
    """Read, predict, keep the middle of each window; returns the number of windows."""
    import openslide

    source, rim, step = openslide.OpenSlide(str(slide)), OVERLAP_PX // 2, cut.step
    shape = (CLASSES, region.height, region.width)
    target = zarr.create_array(out, shape=shape, chunks=(1, 512, 512), dtype=np.uint8)
    result = np.zeros(shape, np.uint8)
    places = [(y, x) for y in range(0, region.height, step) for x in range(0, region.width, step)]
    for first in range(0, len(places), cut.batch):
        chosen = places[first : first + cut.batch]
        windows = [
            np.asarray(
                source.read_region((region.x + x - rim, region.y + y - rim), 0, (cut.tile,) * 2).convert(
                    "RGB"
                )
            )
            for y, x in chosen
        ]
        percent = probabilities(forward, torch.from_numpy(np.stack(windows)).permute(0, 3, 1, 2), dtype)
        for (y, x), window in zip(chosen, percent.numpy(), strict=True):
            inside = result[:, y : y + step, x : x + step]
            inside[:] = window[:, rim : rim + inside.shape[1], rim : rim + inside.shape[2]]
    target[:] = result
    return len(places)


@torch.inference_mode()
def monai_way(
    slide: Path, region: Region, forward: Callable[[Tensor], Tensor], dtype: torch.dtype, out: Path, cut: Cut
) -> int:
    """Read the square, let MONAI slide over it; returns the number of windows."""
    import openslide
    from monai.inferers import sliding_window_inference

    source, windows = openslide.OpenSlide(str(slide)), 0

    def counted(x: Tensor) -> Tensor:
        nonlocal windows
        windows += len(x)
        return forward(x.contiguous(memory_format=torch.channels_last))

    picture = source.read_region((region.x, region.y), 0, (region.width, region.height)).convert("RGB")
    pixels = torch.from_numpy(np.asarray(picture).copy())[None].permute(0, 3, 1, 2)
    x = pixels_to_input(pixels).to(dtype)
    settings = {"overlap": cut.overlap, "mode": "gaussian"}
    logits = sliding_window_inference(x, (cut.tile,) * 2, cut.batch, counted, **settings)
    percent = logits.float().softmax(dim=1)[0].mul_(100).round_().to(torch.uint8).numpy()
    zarr.create_array(out, shape=percent.shape, chunks=(1, 512, 512), dtype=np.uint8)[:] = percent
    return windows


@dataclass(frozen=True)
class Task:
    """What one process is to do."""

    way: str
    tile: int
    side: int
    slide_px: int
    threads: int
    bare_s: float

    @property
    def name(self) -> str:
        """What its figures are called."""
        window = "" if (self.way, self.tile) == (OURS, TILE) else f", {self.tile} px"
        return f"{self.way}{window}"


def child(task: Task) -> dict[str, float]:
    """Do one way in this process; returns its figures."""
    compute = resolve(PredictHeatmapConfig(device="cpu", threads=task.threads))
    slide, net, cut = large_slide(task.slide_px), new_net(), Cut(task.tile)
    folded = fold_batch_norm(net).to(compute.device, compute.dtype).to(memory_format=torch.channels_last)
    middle = (task.slide_px - task.side) // 2 // 512 * 512
    region = Region(middle, middle, task.side, task.side)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "map.zarr"
        work: Callable[[], int]
        if task.way == OURS:
            work = partial(ours, slide, region, NetTiles(net, MPP, compute), out, cut)
        else:
            plain = openslide_loop if task.way.startswith("OpenSlide loop") else monai_way
            as_found = task.way.endswith(AS_FOUND)
            forward = partial(_autocast, net.eval(), compute) if as_found else folded
            dtype = torch.float32 if as_found else compute.dtype
            work = partial(plain, slide, region, forward, dtype, out, cut)
        before = bare_seconds(folded, compute.dtype, task.bare_s, cut)
        started, cpu = time.perf_counter(), time.process_time()
        windows = work()
        spent, cpu = time.perf_counter() - started, time.process_time() - cpu
    bare = (before + bare_seconds(folded, compute.dtype, task.bare_s, cut)) / 2
    return {
        "seconds": spent,
        "windows/s": windows / spent,
        "megapixels/s": task.side**2 / 1e6 / spent,
        "CPU s/megapixel": cpu / (task.side**2 / 1e6),
        "share of bare": bare * windows / spent,
        "peak GB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
    }


def tasks_of(options: argparse.Namespace, threads: int) -> list[Task]:
    """Return what is to be done with a number of threads, once."""
    slide_px, bare_s = (SMALL_PX, 0.5) if options.smoke else (SLIDE_PX, 3.0 if options.quick else 5.0)
    side = options.side or (512 if options.smoke else 2048 if options.quick else 3072)
    whole = options.whole or (side if options.smoke or options.quick else slide_px)
    loops = ["OpenSlide loop", *(["MONAI"] if importlib.util.find_spec("monai") else [])]
    loops = loops[:1] if options.smoke else [*loops, *(f"{way}{AS_FOUND}" for way in loops)]
    tiles = [TILE] if options.smoke else [TILE, SMALL_TILE]
    rest = slide_px, threads, bare_s
    small = [Task(OURS, SMALL_TILE, side, *rest)] if not options.smoke else []
    return [
        Task(OURS, TILE, whole, *rest),
        *small,
        *(Task(way, tile, side, *rest) for way in loops for tile in tiles),
    ]


def measured(tasks: list[Task], rounds: int) -> dict[str, float]:
    """Do tasks in turns, each in a process of its own; returns the figures of each."""
    seen: dict[str, list[dict[str, float]]] = {task.name: [] for task in tasks}
    for turn in range(rounds):
        for task in tasks:
            if turn and task.side == task.slide_px:
                continue  # minutes long: once is enough
            command = [sys.executable, __file__, "--child", json.dumps(asdict(task))]
            run = subprocess.run(command, capture_output=True, text=True, check=True)
            seen[task.name].append(json.loads(run.stdout.splitlines()[-1]))
            rounded = {name: float(f"{value:.3g}") for name, value in seen[task.name][-1].items()}
            print(f"{task.name}, {task.threads} threads, {task.side} px: {rounded}", flush=True)
    figures: dict[str, float] = {}
    for name, runs in seen.items():
        fastest = min(runs, key=lambda run: run["seconds"])
        figures |= {f"{name}, {words}": value for words, value in fastest.items()}
        figures[f"{name}, share of bare"] = float(np.median([run["share of bare"] for run in runs]))
        figures[f"{name}, peak GB"] = max(run["peak GB"] for run in runs)
    for words, as_found in (("other way", False), ("other way as found", True)):
        names = [task.name for task in tasks if task.way != OURS and as_found <= task.way.endswith(AS_FOUND)]
        if names:
            best = max(figures[f"{name}, megapixels/s"] for name in names)
            figures[f"times faster than the faster {words}"] = figures["ours, megapixels/s"] / best
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "--quick", action="store_true", help="ours does the square, too; one round, one thread"
    )
    parser.add_argument("--smoke", action="store_true", help="the smallest run that says anything")
    parser.add_argument("--threads", type=int, nargs="+", default=[])
    parser.add_argument("--side", type=int, default=0, help="of the square; a multiple of 512", metavar="PX")
    parser.add_argument(
        "--whole", type=int, default=0, help="of what ours does; by default the slide", metavar="PX"
    )
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(child(Task(**json.loads(options.child)))))
        return
    short = options.quick or options.smoke
    counts = options.threads or ([1] if short else sorted({1, available_cores()}))
    print(f"{machine()}; {counts} threads", flush=True)
    large_slide(SMALL_PX if options.smoke else SLIDE_PX)
    figures: dict[str, float] = {}
    for threads in counts:
        found = measured(tasks_of(options, threads), 1 if short else 2)
        suffix = "" if threads == counts[0] else f", {threads} threads"
        figures |= {f"{name}{suffix}": value for name, value in found.items()}
    goals = {
        "ours, share of bare": SHARE,
        "ours, peak GB below": PEAK_GB,
        "times faster than the faster other way": TIMES,
    }
    met = (
        figures["ours, share of bare"] >= SHARE
        and figures["ours, peak GB"] < PEAK_GB
        and figures["times faster than the faster other way"] >= TIMES
    )
    finish("slide_inference", figures, goals, met)


if __name__ == "__main__":
    main()
