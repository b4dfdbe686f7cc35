"""Learn from labels of composed slides, whose truth is known, with ever sparser malign tissue.

A slide is a square of real breast patches of 50 px (`idc_breast`): a malign one holds a blob of tumor
patches, a fraction f of its cells, a benign one none.  Half of all patches, drawn at random, make the slides
to judge by: what differs is how sparse malign tissue is, not stain or patients.  Segmentation of the malign
ones is scored by cells, by their mean malign probability (which pixels of a tumor patch are tumor nobody
said): by AUC, and by MCC at three probabilities: 0.5; that which f of the cells of the malign slides learned
from reach (a person who knows gamma knows f, and no outline is needed); and the best one in hindsight.

* naive: cross-entropy, uniform places, mean of all pixels, no pre-training
* ours: the stage's defaults, pre-trained
* paper: beta_1 for gamma = 1 - f and 5 % accepted, alpha = 2 of the probability, and eta = 50, from the first
  step; pre-trained
* supervised: the same net on the label of every patch, the ceiling
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measuring import finish, machine
from numpy.typing import NDArray
from PIL import Image

from napari_histogan.config.weak_labels import TrainWeaklyConfig
from napari_histogan.evaluation.detection import roc_auc
from napari_histogan.models.segmenter import load_segmenter, pixels_to_input
from napari_histogan.models.weak_unet import WeakUNet
from napari_histogan.progress import QuietReporter
from napari_histogan.slide_label_inputs import slide_mapper
from napari_histogan.slides.reader import open_slide
from napari_histogan.slides.tissue import TissueMask
from napari_histogan.training.train_weakly import train_weakly
from napari_histogan.training.weak_maps import WeakSlide

SIDE, MPP = 50, 4.0
NAIVE = {"beta_1": 0.0, "alpha": 0.0, "eta": 100.0, "pretrain_steps": 0}
PAPER = {"beta_rise": 0.0, "alpha": 2.0, "places": "probability", "eta": 50.0, "even_share": 0.0}
FRACTIONS = (0.003, 0.03, 0.1, 0.3)
WAYS = ("naive", "paper", "ours", "supervised")
FIGURES = ("MCC at 0.5", "MCC at f", "best MCC", "AUC")


@dataclass(frozen=True)
class Composed:
    """A picture ``(H, W, 3) uint8`` and which of its cells are malign ``(n, n) bool``."""

    picture: NDArray[np.uint8]
    malign: NDArray[np.bool_]


def blob(cells: int, count: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Return a connected blob of so many cells of a square, grown at random."""
    found = np.zeros((cells, cells), bool)
    if not count:
        return found
    found[tuple(rng.integers(0, cells, 2))] = True
    while found.sum() < count:
        wide = np.pad(found, 1)
        near = wide[:-2, 1:-1] | wide[2:, 1:-1] | wide[1:-1, :-2] | wide[1:-1, 2:]
        edge = np.argwhere(near & ~found)
        found[tuple(rng.choice(edge))] = True
    return found


def compose(
    patches: tuple[NDArray[np.uint8], NDArray[np.uint8]],
    fraction: float,
    cells: int,
    rng: np.random.Generator,
) -> Composed:
    """Return a slide of benign and malign patches ``(n, 50, 50, 3)``; fraction 0 is benign."""
    count = max(1, round(fraction * cells**2)) if fraction else 0
    malign = blob(cells, count, rng)
    drawn = patches[0][rng.integers(0, len(patches[0]), cells**2)]
    drawn[malign.ravel()] = patches[1][rng.integers(0, len(patches[1]), count)]
    square = drawn.reshape(cells, cells, SIDE, SIDE, 3).transpose(0, 2, 1, 3, 4)
    return Composed(square.reshape(cells * SIDE, cells * SIDE, 3), malign)


def learn(slides: list[Composed], config: TrainWeaklyConfig) -> WeakUNet:
    """Train on composed slides with their labels alone."""
    with tempfile.TemporaryDirectory() as folder:
        given = []
        for k, slide in enumerate(slides):
            path = Path(folder) / f"{k}.png"
            Image.fromarray(slide.picture).save(path)
            tissue = TissueMask(np.ones(slide.malign.shape, bool), SIDE * MPP)
            given.append(WeakSlide(str(k), open_slide(path, MPP), bool(slide.malign.any()), tissue))
        result = train_weakly(given, config, QuietReporter(Path(folder) / "run"), slide_mapper(config))
        net = WeakUNet(2, config.width, config.depth)
        net.load_state_dict(load_segmenter(result)[0].state_dict())
    return net.eval()


def cell_means(net: WeakUNet, slides: list[Composed]) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Return whether each cell of slides is malign, and its mean malign probability, both ``(n,)``."""
    scores = []
    for slide in slides:
        pixels = torch.from_numpy(slide.picture).permute(2, 0, 1)[None]
        malign, cells = net(pixels_to_input(pixels)).softmax(dim=1)[0, 1].numpy(), len(slide.malign)
        scores.append(malign.reshape(cells, SIDE, cells, SIDE).mean(axis=(1, 3)).ravel())
    return np.concatenate([s.malign.ravel() for s in slides]), np.concatenate(scores).astype(np.float64)


@torch.inference_mode()
def judge(net: WeakUNet, learned: list[Composed], slides: list[Composed]) -> tuple[float, ...]:
    """Return the figures of :data:`FIGURES` of malign slides; thresholds come from the learned ones."""
    known, seen = cell_means(net, [slide for slide in learned if slide.malign.any()])
    truth, scores = cell_means(net, slides)
    limit = float(np.quantile(seen, 1 - known.mean()))
    best = max(coefficient(truth, scores >= each) for each in np.unique(scores))
    at_half, at_share = (coefficient(truth, scores > each) for each in (0.5, limit))
    return at_half, at_share, best, roc_auc(truth, scores)


def coefficient(truth: NDArray[np.bool_], found: NDArray[np.bool_]) -> float:
    """Return the MCC; 0 where one kind is never said or never there."""
    if truth.all() or not truth.any() or found.all() or not found.any():
        return 0.0
    return float(np.corrcoef(truth, found)[0, 1])


def halves(patients: list, rng: np.random.Generator) -> list[tuple[NDArray[np.uint8], NDArray[np.uint8]]]:
    """Return benign and malign patches to learn from, and others to judge by."""
    malign = np.concatenate([p.malign for p in patients])
    pixels = np.concatenate([p.patches for p in patients])
    first = rng.random(len(malign)) < 0.5
    return [(pixels[half & ~malign], pixels[half & malign]) for half in (first, ~first)]


def settings(way: str, fraction: float, options: argparse.Namespace, seed: int) -> TrainWeaklyConfig:
    """Return a way's config."""
    chosen: dict[str, Any] = {
        "pretrain_steps": options.steps // 4,
        "map_every": max(1, options.steps // options.map_rounds),
    }
    if way in ("naive", "supervised"):
        chosen = {**NAIVE, "map_every": options.steps + 1}
    elif way == "paper":
        chosen |= {**PAPER, "gamma": min(1 - fraction, 0.999)}
    sizes = {"width": options.width, "depth": 3, "patch_px": 48, "batch": 16, "buffer": 96, "threads": 1}
    return TrainWeaklyConfig(
        steps=options.steps,
        mpp=MPP,
        map_tile_px=256,
        seed=seed,
        elastic_px=2.0,
        learning_rate=options.rate,
        ema=0.95,
        **sizes,
        **chosen,
    )


def measure(options: argparse.Namespace, patients: list, supervised) -> None:
    """Measure all ways at every fraction and print the last line."""
    print(machine())
    fractions = (0.01, 0.3) if options.quick else options.fractions or FRACTIONS
    cells, count = (10, 2) if options.quick else (options.cells, options.slides)
    ways = [way for way in WAYS if way in options.ways.split(",")]
    figures: dict[str, float] = {}
    for fraction in fractions:
        found: dict[str, list[tuple[float, ...]]] = {way: [] for way in ways}
        for seed in range(options.first_seed, options.first_seed + options.seeds):
            rng = np.random.default_rng([seed, 31])
            parts = halves(patients, rng)
            slides = [compose(parts[0], f, cells, rng) for f in (0.0, fraction) for _ in range(count)]
            test = [compose(parts[1], fraction, cells, rng) for _ in range(count)]
            for way, results in found.items():
                config = settings(way, fraction, options, seed)
                net = supervised(*parts[0], config) if way == "supervised" else learn(slides, config)
                results.append(judge(net, slides, test))
                told = "  ".join(f"{n} {v:.3f}" for n, v in zip(FIGURES, results[-1], strict=True))
                print(f"  {100 * fraction:g} % malign, seed {seed}, {way}: {told}", flush=True)
        for way, results in found.items():
            means = dict(zip(FIGURES, np.mean(results, axis=0).tolist(), strict=True))
            figures |= {f"{name} {way} {fraction:g}": value for name, value in means.items()}
            told = "  ".join(f"{name} {value:6.3f}" for name, value in means.items())
            print(f"malign {100 * fraction:5.1f} %  {way:8s} {told}", flush=True)
    if not {"naive", "ours"} <= set(ways):
        finish("weak_supervision", figures, {}, True)
        return
    ahead = [figures[f"{FIGURES[1]} ours {f:g}"] - figures[f"{FIGURES[1]} naive {f:g}"] for f in fractions]
    goal = {f"{FIGURES[1]} of ours over naive at every fraction": 0.0}
    finish("weak_supervision", figures, goal, min(ahead) > 0)
