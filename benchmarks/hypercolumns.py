"""Hypercolumns without building them, against building them: labeling, training, and 4096 px.

Labeling: one image, projecting before upsampling against upsampling, concatenating, and multiplying; the
memory is what labeling adds to feature maps and weights.  At 1024 px, where the plain way needs 20 GiB, ours
alone.  Training: 16 fully painted 256 px images, see hypercolumn_training.py for what is scaled.  With
--huge, which has a goal of its own, a generator of the usual widths at 4096 px: train on 16 samples with a
few strokes, label one, write it; the memory is that of the whole process.

Each way runs in a process of its own.  Random weights: time, memory, and agreement are measured.  Ratios of
time are of CPU seconds of the whole process, which other work on the machine blurs least.

    python benchmarks/hypercolumns.py [--quick | --smoke | --huge] [--threads N]
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
from hypercolumn_training import ours, plain, random_generator
from hypercolumns_4096 import whole_path
from measuring import finish, machine

from napari_histogan.models.device import has_native_bfloat16
from napari_histogan.models.hypercolumns import layout_of, upsample_and_concatenate
from napari_histogan.models.pixel_classifier import PixelClassifier, PixelClassifierSpec, PixelPredictor
from napari_histogan.models.stylegan2 import FeatureMap
from napari_histogan.models.uncertainty import ensemble_statistics

GOALS = {
    "times faster": 10.0,
    "times smaller": 15.0,
    "1024px MiB": 1024.0,
    "training times faster": 20.0,
    "training peak MiB": 1536.0,
    "training Dice below the plain way's": 0.005,
}
HUGE_GOAL = {"4096px peak MiB": 8192.0}
TRAINING_SIZE = 256
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


def measured(work: Callable[[], np.ndarray], runs: int = 2) -> tuple[np.ndarray, float, float, float]:
    """Return the labels, wall and CPU seconds of the fastest run, and MiB added at the peak."""
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
    for _ in range(runs):
        start = time.perf_counter(), time.process_time()
        labels = work()
        seconds.append((time.process_time() - start[1], time.perf_counter() - start[0]))
    stop.set()
    watcher.join()
    return labels, min(s[1] for s in seconds), min(s[0] for s in seconds), max(peak[0] - before, 0) / 2**20


@torch.inference_mode()
def label_one(way: str, size: int, threads: int, out: Path) -> dict[str, float]:
    """Label one image in a way; keeps the labels in ``out``."""
    torch.set_num_threads(threads)
    generator = random_generator(size)
    w = generator.mapping(torch.randn(1, 512))
    dtype = torch.bfloat16 if way == "projected, bfloat16" else torch.float32
    start = time.process_time()
    maps = generator.synthesis.features(w, dtype=dtype)[1]
    generation = time.process_time() - start
    net = PixelClassifier(PixelClassifierSpec(layout_of(maps, size), CLASSES)).eval()
    del generator
    if way == "naive":
        labels, wall, cpu, mebibytes = measured(lambda: naive(net, maps, size))
    else:
        predictor = PixelPredictor(net, dtype)
        labels, wall, cpu, mebibytes = measured(
            lambda: predictor(maps, probabilities=False).labels[0].numpy(), 1 if size > 512 else 2
        )
    np.save(out / "labels.npy", labels)
    return {"s": wall, "cpu_s": cpu, "peak_mib": mebibytes, "generation_cpu_s": generation}


def child(what: str, threads: int, out: Path) -> None:
    """Measure one thing in this process."""
    name, _, argument = what.partition(":")
    argument, _, side = argument.partition("@")
    if name == "ours":
        found = ours(out, int(side or TRAINING_SIZE), threads)
    elif name == "plain":
        found = plain(int(side or TRAINING_SIZE), threads, int(argument))
    elif name == "huge":
        found = whole_path(out, int(argument), threads)
    else:
        found = label_one(name, int(argument), threads, out)
    (out / "figures.json").write_text(json.dumps(found))


def measure(what: str, threads: int, out: Path) -> dict[str, float]:
    """Measure one thing in a process of its own."""
    out.mkdir(parents=True, exist_ok=True)
    arguments = ["--threads", str(threads), "--child", what, str(out)]
    subprocess.run([sys.executable, __file__, *arguments], check=True)
    found = {k: float(f"{v:.4g}") for k, v in json.loads((out / "figures.json").read_text()).items()}
    print(f"{what}: {found}", flush=True)
    return found


def compare_labeling(sizes: tuple[int, ...], threads: int, out: Path) -> dict[str, float]:
    """Label by all ways; figures with the ratios of the best of ours to the plain way."""
    ways = ["projected, float32"]
    if has_native_bfloat16():
        ways.append("projected, bfloat16")
    figures: dict[str, float] = {}
    for size in sizes:
        found = {way: measure(f"{way}:{size}", threads, out / way / str(size)) for way in ("naive", *ways)}
        reference = np.load(out / "naive" / str(size) / "labels.npy")
        for way in ways:
            labels = np.load(out / way / str(size) / "labels.npy")
            found[way]["agreement"] = round(float((labels == reference).mean()), 5)
        best = min(ways, key=lambda way: found[way]["cpu_s"])
        figures |= {f"{size}px {way} {k}": v for way, values in found.items() for k, v in values.items()}
        figures[f"{size}px times faster"] = round(found["naive"]["cpu_s"] / found[best]["cpu_s"], 1)
        figures[f"{size}px times smaller"] = round(
            found["naive"]["peak_mib"] / max(found[best]["peak_mib"], 1), 1
        )
    return figures


def compare_training(steps: int, size: int, threads: int, out: Path) -> dict[str, float]:
    """Train in both ways; see hypercolumn_training.py."""
    own = measure(f"ours:@{size}", threads, out / "ours")
    other = measure(f"plain:{steps}@{size}", threads, out / "plain")
    figures = {f"training ours {k}": v for k, v in own.items()}
    figures |= {f"training plain, scaled, {k}": v for k, v in other.items()}
    figures["training times faster"] = round(other["cpu_s"] / own["cpu_s"], 1)
    figures["training peak MiB"] = own["peak_mib"]
    figures["training Dice below the plain way's"] = round(other["dice"] - own["dice"], 4)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="256 px, and the plain training for 500 steps")
    parser.add_argument("--smoke", action="store_true", help="128 px: to see that every part runs")
    parser.add_argument("--huge", action="store_true", help="the whole path at 4096 px, and nothing else")
    parser.add_argument("--size", type=int, default=4096, help="side of the images of --huge")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--child", nargs=2, metavar=("WHAT", "OUT"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(options.child[0], options.threads, Path(options.child[1]))
        return
    print(machine(), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        out, threads = Path(folder), options.threads
        if options.huge:
            figures = measure(f"huge:{options.size}", threads, out)
            goals = HUGE_GOAL
            met = figures["peak_mib"] <= HUGE_GOAL["4096px peak MiB"]
            finish("hypercolumns", figures, goals, met)
            return
        sizes = (128,) if options.smoke else (256,) if options.quick else (256, 512)
        figures = compare_labeling(sizes, threads, out)
        if not options.quick and not options.smoke:
            large = "projected, bfloat16" if has_native_bfloat16() else "projected, float32"
            found = measure(f"{large}:1024", threads, out / "1024")
            figures |= {"1024px MiB": found["peak_mib"], "1024px cpu_s": found["cpu_s"]}
        steps, side = (500, 128) if options.smoke else (500 if options.quick else 8000, TRAINING_SIZE)
        figures |= compare_training(steps, side, threads, out)
    finish("hypercolumns", figures, GOALS, is_met(figures, sizes))


def is_met(figures: dict[str, float], sizes: tuple[int, ...]) -> bool:
    """Whether every goal that was measured is reached."""
    reached = [
        figures[f"{size}px {name}"] >= GOALS[name]
        for size in sizes
        for name in ("times faster", "times smaller")
    ]
    reached.append(figures["training times faster"] >= GOALS["training times faster"])
    for name in ("1024px MiB", "training peak MiB", "training Dice below the plain way's"):
        reached.append(figures.get(name, GOALS[name]) <= GOALS[name])
    return all(reached)


if __name__ == "__main__":
    main()
