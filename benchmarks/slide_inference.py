"""A net over a slide of 20,480 x 20,480 px: share of the bare forward passes, and two other ways beside it.

The slide is made from the texture of the slide that ships (runs-local/, 71 MB). The net is the default U-Net
with random weights, folded, in channels-last, in bfloat16 where the processor has it: the same in all ways.
The two others are also measured as one finds them: with the net as it is, under autocast to that type.

Each way does a square of the slide, in a process of its own, with windows of 256 px that overlap by a
quarter, and writes percent to zarr. Before and after, the same process times the bare forward pass of the
folded net on batches in memory: the share is that time, for as many windows, over the way's own.

- ours: `run_tiles`; it plans the whole slide, then does the blocks of the square.
- OpenSlide loop: read a window, collect a batch, predict, keep each window's middle.
- MONAI: OpenSlide reads the square in one piece, `sliding_window_inference` predicts it, Gaussian blending.

    python benchmarks/slide_inference.py [--quick] [--threads N] [--side PX]

MONAI is measured if it is installed (extra [benchmarks]).
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

SLIDE_PX, SMALL_PX, TILE, OVERLAP, BATCH, CLASSES = 20_480, 2048, 256, 0.25, 4, 3
STEP = round(TILE * (1 - OVERLAP))
SHARE, TIMES, PEAK_GB = 0.90, 2.0, 2.0
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


def bare_seconds(forward: Callable[[Tensor], Tensor], dtype: torch.dtype, seconds: float) -> float:
    """Return the seconds of the forward pass for one window, on batches in memory."""
    x = torch.rand(BATCH, 3, TILE, TILE).to(dtype).contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        forward(x)
        spent: list[float] = []
        while sum(spent) < seconds:
            started = time.perf_counter()
            forward(x)
            spent.append(time.perf_counter() - started)
    return sum(spent) / len(spent) / BATCH


def ours(slide: Path, region: Region, model: NetTiles, out: Path) -> int:
    """Do the blocks of the square by the tiling engine; returns the number of windows."""
    with open_slide(slide) as reader:
        writer = PyramidWriter(out, reader.size_at(MPP), NAMES, np.uint8, mpp=MPP)
        settings = {"tile_px": TILE, "overlap": OVERLAP, "batch": BATCH}
        done = run_tiles(reader, model, writer, QuietReporter(), mine=region.intersects, **settings)
    return done.windows


def probabilities(forward: Callable[[Tensor], Tensor], pixels: Tensor, dtype: torch.dtype) -> Tensor:
    """Return what a net says of pixels (n, 3, S, S) uint8, as percent."""
    x = pixels_to_input(pixels).to(dtype).contiguous(memory_format=torch.channels_last)
    return forward(x).float().softmax(dim=1).mul_(100).round_().to(torch.uint8)


@torch.inference_mode()
def openslide_loop(
    slide: Path, region: Region, forward: Callable[[Tensor], Tensor], dtype: torch.dtype, out: Path
) -> int:
    """Read, predict, keep the middle of each window; returns the number of windows."""
    import openslide

    source, rim = openslide.OpenSlide(str(slide)), (TILE - STEP) // 2
    shape = (CLASSES, region.height, region.width)
    target = zarr.create_array(out, shape=shape, chunks=(1, 512, 512), dtype=np.uint8)
    result = np.zeros(shape, np.uint8)
    places = [(y, x) for y in range(0, region.height, STEP) for x in range(0, region.width, STEP)]
    for first in range(0, len(places), BATCH):
        chosen = places[first : first + BATCH]
        windows = [
            np.asarray(
                source.read_region((region.x + x - rim, region.y + y - rim), 0, (TILE, TILE)).convert("RGB")
            )
            for y, x in chosen
        ]
        percent = probabilities(forward, torch.from_numpy(np.stack(windows)).permute(0, 3, 1, 2), dtype)
        for (y, x), window in zip(chosen, percent.numpy(), strict=True):
            inside = result[:, y : y + STEP, x : x + STEP]
            inside[:] = window[:, rim : rim + inside.shape[1], rim : rim + inside.shape[2]]
    target[:] = result
    return len(places)


@torch.inference_mode()
def monai_way(
    slide: Path, region: Region, forward: Callable[[Tensor], Tensor], dtype: torch.dtype, out: Path
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
    logits = sliding_window_inference(x, (TILE, TILE), BATCH, counted, overlap=OVERLAP, mode="gaussian")
    percent = logits.float().softmax(dim=1)[0].mul_(100).round_().to(torch.uint8).numpy()
    zarr.create_array(out, shape=percent.shape, chunks=(1, 512, 512), dtype=np.uint8)[:] = percent
    return windows


def child(way: str, slide_px: int, side: int, threads: int, bare_s: float) -> dict[str, float]:
    """Do one way in this process; returns its figures."""
    compute = resolve(PredictHeatmapConfig(device="cpu", threads=threads))
    slide, net = large_slide(slide_px), new_net()
    folded = fold_batch_norm(net).to(compute.device, compute.dtype).to(memory_format=torch.channels_last)
    middle = (slide_px - side) // 2 // 512 * 512
    region = Region(middle, middle, side, side)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "map.zarr"
        work: Callable[[], int]
        if way == "ours":
            work = partial(ours, slide, region, NetTiles(net, MPP, compute), out)
        else:
            plain = openslide_loop if way.startswith("OpenSlide loop") else monai_way
            as_found = way.endswith(AS_FOUND)
            forward = partial(_autocast, net.eval(), compute) if as_found else folded
            dtype = torch.float32 if as_found else compute.dtype
            work = partial(plain, slide, region, forward, dtype, out)
        before = bare_seconds(folded, compute.dtype, bare_s)
        started, cpu = time.perf_counter(), time.process_time()
        windows = work()
        spent, cpu = time.perf_counter() - started, time.process_time() - cpu
    bare = (before + bare_seconds(folded, compute.dtype, bare_s)) / 2
    return {
        "seconds": spent,
        "windows/s": windows / spent,
        "megapixels/s": side**2 / 1e6 / spent,
        "CPU s/megapixel": cpu / (side**2 / 1e6),
        "share of bare": bare * windows / spent,
        "peak GB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a smaller square, one round")
    parser.add_argument("--smoke", action="store_true", help="the smallest run that says anything")
    parser.add_argument("--threads", type=int, default=max(1, available_cores() - 1))
    parser.add_argument("--side", type=int, default=0, help="of the square; a multiple of 512", metavar="PX")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    side = options.side or (512 if options.smoke else 2048 if options.quick else 6144)
    slide_px, bare_s = (SMALL_PX, 0.5) if options.smoke else (SLIDE_PX, 3.0 if options.quick else 10.0)
    if options.child:
        print(json.dumps(child(options.child, slide_px, side, options.threads, bare_s)))
        return
    print(f"{machine()}; {options.threads} threads; {slide_px} px slide, square of {side} px", flush=True)
    large_slide(slide_px)
    others = ["OpenSlide loop", *(["MONAI"] if importlib.util.find_spec("monai") else [])]
    others = others[:1] if options.smoke else [*others, *(f"{way}{AS_FOUND}" for way in others)]
    ways = ["ours", *others]
    seen: dict[str, list[dict[str, float]]] = {way: [] for way in ways}
    for _ in range(1 if options.quick or options.smoke else 3):
        for way in ways:
            command = [sys.executable, __file__, "--child", way, "--side", str(side)]
            command += [
                "--threads",
                str(options.threads),
                *[f"--{form}" for form in ("quick", "smoke") if getattr(options, form)],
            ]
            run = subprocess.run(command, capture_output=True, text=True, check=True)
            seen[way].append(json.loads(run.stdout.splitlines()[-1]))
            print(way, {name: float(f"{value:.3g}") for name, value in seen[way][-1].items()}, flush=True)
    figures: dict[str, float] = {}
    for way, runs in seen.items():
        fastest = min(runs, key=lambda run: run["seconds"])
        figures |= {f"{way}, {name}": value for name, value in fastest.items()}
        figures[f"{way}, share of bare"] = float(np.median([run["share of bare"] for run in runs]))
        figures[f"{way}, peak GB"] = max(run["peak GB"] for run in runs)
    for words, as_found in (("other way", False), ("other way as found", True)):
        chosen = [figures[f"{way}, windows/s"] for way in others if as_found <= way.endswith(AS_FOUND)]
        if chosen:
            figures[f"times faster than the faster {words}"] = figures["ours, windows/s"] / max(chosen)
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
