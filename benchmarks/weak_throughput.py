"""How much trainer and mapper of the training on slide labels slow each other down.

In turns: the trainer alone (no maps while it trains), trainer and mapper side by side, and the tiling engine
alone with the same net and slides.  One thread each, so that two cores serve both.  "Per CPU second" counts
only the time in which a thread had a core (on Linux): other programs that want the cores change it little.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np
import torch
from measuring import finish, machine
from PIL import Image

from napari_histogan.config.weak_labels import TrainWeaklyConfig
from napari_histogan.inference.slide_maps import write_slide_map
from napari_histogan.inference.tiles import TilesSummary
from napari_histogan.models.device import resolve
from napari_histogan.models.weak_unet import WeakUNet
from napari_histogan.progress import QuietReporter
from napari_histogan.slides.reader import open_slide
from napari_histogan.slides.tissue import TissueMask
from napari_histogan.training.train_weakly import train_weakly
from napari_histogan.training.weak_maps import WeakSlide

SIDE, CELL = 1024, 16
GOALS = {"trainer beside the mapper": 0.7, "mapper beside the trainer": 0.8}
_TRAINING = "Training on slide labels"
_NEVER = 10**9


class Stopwatch(QuietReporter):
    """Notes when training steps end; those of a start that is still warming up are left out."""

    def __init__(self, run_dir: Path) -> None:
        super().__init__(run_dir)
        self.times: list[float] = []
        self.cpu_times: list[float] = []
        self.shares: list[float] = []

    def progress(self, done: float, total: float, unit: str = "", message: str = "") -> None:
        """Note the time of a step."""
        if message == _TRAINING:
            self.times.append(time.perf_counter())
            self.cpu_times.append(time.thread_time())

    def metric(self, step: int, **values: float) -> None:
        """Note the share of the time that the mapper takes."""
        self.shares += [values["mapper_share"]] if "mapper_share" in values else []

    def steps_per_second(self, cpu: bool = False) -> float:
        """Return the rate over the later four fifths, by the clock or by the thread's time on a core."""
        kept = (self.cpu_times if cpu else self.times)[len(self.times) // 5 :]
        return (len(kept) - 1) / (kept[-1] - kept[0])


class TimedMapper:
    """Makes maps by the tiling engine, and notes windows and seconds of each."""

    def __init__(self, config: TrainWeaklyConfig) -> None:
        self.config, self.compute = config, resolve(config)
        self.made: list[tuple[float, float, TilesSummary]] = []

    def __call__(self, net, slide: WeakSlide, out: Path, reporter) -> None:
        """Write a map."""
        begun, cpu = time.perf_counter(), time.thread_time()
        summary = write_slide_map(
            net,
            slide.reader,
            slide.tissue,
            out,
            reporter,
            mpp=self.config.mpp,
            class_names=("benign", "malign"),
            compute=self.compute,
            tile_px=self.config.map_tile_px,
        )
        self.made.append((begun, time.thread_time() - cpu, summary))

    def windows_per_second(self, until: float = float("inf"), cpu: bool = False) -> float:
        """Return the rate over all maps that were begun before a moment."""
        kept = [(on_core, summary) for begun, on_core, summary in self.made if begun < until]
        seconds = sum(on_core if cpu else summary.seconds for on_core, summary in kept)
        return sum(summary.windows for _, summary in kept) / max(seconds, 1e-9)


def make_slides(folder: Path, count: int = 4) -> list[WeakSlide]:
    """Write slides of blotches, half of them malign."""
    rng, slides = np.random.default_rng(0), []
    for k in range(count):
        coarse = rng.integers(90, 230, (SIDE // CELL, SIDE // CELL, 3), np.uint8)
        Image.fromarray(np.kron(coarse, np.ones((CELL, CELL, 1), np.uint8))).save(folder / f"{k}.png")
        tissue = TissueMask(np.ones((8, 8), bool), SIDE / 8)
        slides.append(WeakSlide(str(k), open_slide(folder / f"{k}.png", 1.0), k % 2 == 1, tissue))
    return slides


def train(slides: list[WeakSlide], config: TrainWeaklyConfig) -> tuple[Stopwatch, TimedMapper]:
    """Train once; returns when steps ended and what the mapper did."""
    mapper = TimedMapper(config)
    with tempfile.TemporaryDirectory() as run:
        watch = Stopwatch(Path(run))
        train_weakly(slides, config, watch, mapper)
    return watch, mapper


def measure(options: argparse.Namespace) -> None:
    """Measure in turns and print the last line."""
    print(machine())
    torch.set_num_threads(1)
    given = {"steps": options.steps, "width": options.width, "depth": 3, "patch_px": 128, "batch": 8}
    shared = {**given, "buffer": 32, "pretrain_steps": 0, "threads": 1, "map_tile_px": 256}
    alone, both = TrainWeaklyConfig(map_every=_NEVER, **shared), TrainWeaklyConfig(**shared)
    names = ("alone", "beside", "engine", "mapper")
    found: dict[str, list[float]] = {name: [] for name in (*names, *(f"{name} CPU" for name in names))}
    with tempfile.TemporaryDirectory() as folder:
        slides = make_slides(Path(folder))
        net = WeakUNet(2, options.width, 3).eval()
        for turn in range(options.rounds):
            lone = train(slides, alone)[0]
            watch, mapper = train(slides, both)
            engine = TimedMapper(both)
            for slide in slides:
                with tempfile.TemporaryDirectory() as out:
                    engine(net, slide, Path(out) / "map.zarr", QuietReporter())
            for cpu, mark in ((False, ""), (True, " CPU")):
                found[f"alone{mark}"].append(lone.steps_per_second(cpu))
                found[f"beside{mark}"].append(watch.steps_per_second(cpu))
                found[f"mapper{mark}"].append(mapper.windows_per_second(watch.times[-1], cpu))
                found[f"engine{mark}"].append(engine.windows_per_second(cpu=cpu))
            told = "; ".join(f"{name} {values[-1]:.2f}" for name, values in found.items())
            print(f"round {turn}, mapper at work {np.mean(watch.shares):.2f} of the time: {told}", flush=True)
    ratios = {}
    for mark, unit in (("", ""), (" CPU", " per CPU second")):
        trainer = zip(found[f"beside{mark}"], found[f"alone{mark}"], strict=True)
        maps = zip(found[f"mapper{mark}"], found[f"engine{mark}"], strict=True)
        ratios[f"trainer beside the mapper{unit}"] = median(a / b for a, b in trainer)
        ratios[f"mapper beside the trainer{unit}"] = median(a / b for a, b in maps)
    rates = {f"{name} per second": median(values) for name, values in found.items()}
    met = all(ratios[name] >= goal for name, goal in GOALS.items())
    finish("weak_supervision", ratios | rates, GOALS, met)
