"""Label one image: projecting before upsampling against upsampling, concatenating, and multiplying.

Each way runs in a process of its own, so that peak memory is its own: the memory that labelling adds to that
of the feature maps and weights.  Random weights: only time, memory, and agreement are measured.

    python benchmarks/hypercolumns.py [--quick] [--threads N]
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import torch
import torch.nn.functional as F

from napari_histogan.models.device import has_native_bfloat16
from napari_histogan.models.hypercolumns import layout_of, upsample_and_concatenate
from napari_histogan.models.pixel_classifier import PixelClassifier, PixelClassifierSpec, PixelPredictor
from napari_histogan.models.stylegan2 import FeatureMap, Generator, GeneratorSpec
from napari_histogan.models.uncertainty import ensemble_statistics

GOAL_FASTER, GOAL_SMALLER = 10.0, 15.0
CLASSES = tuple({"index": i, "name": f"class {i}"} for i in range(1, 5))


def naive(net: PixelClassifier, maps: list[FeatureMap], size: int) -> np.ndarray:
    """Label as the published codes do, but net by net and without their second copy of the features."""
    columns = upsample_and_concatenate(maps, size)
    logits = []
    weights, biases = net.folded()
    for m in range(net.spec.members):
        h = columns
        for i, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
            h = F.conv2d(h, weight[m].t()[:, :, None, None], bias[m])
            h = h.relu_() if i + 1 < len(weights) else h
        logits.append(h.flatten(2)[0])
    mean, _ = ensemble_statistics(torch.stack(logits))
    return (mean.argmax(0) + 1).to(torch.uint8).view(size, size).numpy()


def measured(work: Callable[[], np.ndarray]) -> tuple[np.ndarray, float, float]:
    """Run twice; return the labels, the seconds of the faster run, and MiB added at the peak."""
    gc.collect()
    if sys.platform == "linux":  # hand freed memory back, or the peak would hide in it
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    process, stop, peak = psutil.Process(), threading.Event(), [0]
    before = process.memory_info().rss

    def watch() -> None:
        while not stop.wait(0.002):
            peak[0] = max(peak[0], process.memory_info().rss)

    watcher = threading.Thread(target=watch)
    watcher.start()
    seconds = []
    for _ in range(2):
        start = time.perf_counter()
        labels = work()
        seconds.append(time.perf_counter() - start)
    stop.set()
    watcher.join()
    return labels, min(seconds), max(peak[0] - before, 0) / 2**20


@torch.inference_mode()
def child(way: str, size: int, threads: int, out: Path) -> None:
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    base = 16384 if size <= 256 else 32768
    generator = Generator(GeneratorSpec(512, 0, 512, size, mapping_layers=2, channel_base=base)).eval()
    w = generator.mapping(torch.randn(1, 512))
    dtype = torch.bfloat16 if way == "projected, bfloat16" else torch.float32
    start = time.perf_counter()
    maps = generator.synthesis.features(w, dtype=dtype)[1]
    generation = time.perf_counter() - start
    net = PixelClassifier(PixelClassifierSpec(layout_of(maps, size), CLASSES)).eval()
    del generator
    if way == "naive":
        labels, seconds, mebibytes = measured(lambda: naive(net, maps, size))
    else:
        predictor = PixelPredictor(net, dtype)
        labels, seconds, mebibytes = measured(lambda: predictor(maps).labels[0].numpy())
    np.save(out / "labels.npy", labels)
    (out / "figures.json").write_text(
        json.dumps(
            {"s": round(seconds, 3), "peak_mib": round(mebibytes), "generation_s": round(generation, 3)}
        )
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="256 px only")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--child", nargs=3, metavar=("WAY", "SIZE", "OUT"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(options.child[0], int(options.child[1]), options.threads, Path(options.child[2]))
        return
    ways = ["naive", "projected, float32"]
    if has_native_bfloat16():
        ways.append("projected, bfloat16")
    figures: dict[str, float] = {}
    met = True
    for size in (256,) if options.quick else (256, 512):
        reference = None
        for way in ways:
            with tempfile.TemporaryDirectory() as folder:
                arguments = ["--threads", str(options.threads), "--child", way, str(size), folder]
                subprocess.run([sys.executable, __file__, *arguments], check=True)
                found = json.loads((Path(folder) / "figures.json").read_text())
                labels = np.load(Path(folder) / "labels.npy")
            reference = labels if reference is None else reference
            found["agreement"] = round(float((labels == reference).mean()), 5)
            print(f"{size} px, {way}: {found}", flush=True)
            figures |= {f"{size}px {way} {name}": value for name, value in found.items()}
        best = ways[-1]
        faster = figures[f"{size}px naive s"] / figures[f"{size}px {best} s"]
        smaller = figures[f"{size}px naive peak_mib"] / max(figures[f"{size}px {best} peak_mib"], 1)
        figures |= {f"{size}px times faster": round(faster, 1), f"{size}px times smaller": round(smaller, 1)}
        met = met and faster >= GOAL_FASTER and smaller >= GOAL_SMALLER
    goals = {"times faster": GOAL_FASTER, "times smaller": GOAL_SMALLER}
    print(json.dumps({"benchmark": "hypercolumns", "figures": figures, "goals": goals, "met": met}))


if __name__ == "__main__":
    main()
