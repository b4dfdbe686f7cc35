"""Learn from labels of composed slides, whose truth is known, with ever sparser malign tissue.

A slide is a square of real breast patches of 50 px (`idc_breast`): a malign one holds a blob of tumor
patches, a fraction f of its cells, a benign one none.  The patches of a third of the patients make the slides
to judge by.  Segmentation is scored pixel by pixel by MCC at probability 0.5, and by the AUC of cells.

* naive: cross-entropy, uniform places, mean of all pixels, no pre-training
* ours: beta_1 for gamma = 1 - f and 5 % accepted, alpha = 2, eta = 50, pre-trained
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import dataclass
from pathlib import Path

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
FRACTIONS = (0.001, 0.01, 0.05, 0.1, 0.3)


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


@torch.inference_mode()
def judge(net: WeakUNet, slides: list[Composed]) -> tuple[float, float]:
    """Return MCC over all pixels of slides at probability 0.5, and the AUC of their cells' means."""
    matrix, scores, labels = np.zeros((2, 2)), [], []
    for slide in slides:
        pixels = torch.from_numpy(slide.picture).permute(2, 0, 1)[None]
        malign = net(pixels_to_input(pixels)).softmax(dim=1)[0, 1].numpy()
        cells = len(slide.malign)
        truth = np.kron(slide.malign, np.ones((SIDE, SIDE), bool))
        matrix += np.bincount(2 * truth.ravel() + (malign > 0.5).ravel(), minlength=4).reshape(2, 2)
        scores.append(malign.reshape(cells, SIDE, cells, SIDE).mean(axis=(1, 3)).ravel())
        labels.append(slide.malign.ravel())
    (tn, fp), (fn, tp) = matrix
    below = np.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn))
    mcc = float((tp * tn - fp * fn) / below) if below else 0.0
    return mcc, roc_auc(np.concatenate(labels), np.concatenate(scores).astype(np.float64))


def settings(way: str, fraction: float, options: argparse.Namespace, seed: int) -> TrainWeaklyConfig:
    """Return a way's config."""
    ours = {
        "gamma": min(1 - fraction, 0.999),
        "alpha": 2.0,
        "eta": 50.0,
        "pretrain_steps": options.steps // 4,
    }
    chosen = NAIVE if way == "naive" else ours
    sizes = {"width": options.width, "depth": 3, "patch_px": 48, "batch": 16, "buffer": 96, "threads": 1}
    return TrainWeaklyConfig(
        steps=options.steps, mpp=MPP, map_tile_px=256, seed=seed, elastic_px=2.0, **sizes, **chosen
    )


def measure(options: argparse.Namespace, patients: list, split) -> None:
    """Measure both ways at every fraction and print the last line."""
    print(machine())
    fractions = (0.01, 0.3) if options.quick else FRACTIONS
    cells, count = (10, 2) if options.quick else (32, 6)
    figures: dict[str, float] = {}
    for fraction in fractions:
        found: dict[str, list[tuple[float, float]]] = {"naive": [], "ours": []}
        for seed in range(options.seeds):
            parts = []
            for part in split(patients, seed):
                malign = np.concatenate([p.malign for p in part])
                pixels = np.concatenate([p.patches for p in part])
                parts.append((pixels[~malign], pixels[malign]))
            rng = np.random.default_rng([seed, 31])
            slides = [compose(parts[0], f, cells, rng) for f in (0.0, fraction) for _ in range(count)]
            test = [compose(parts[1], fraction, cells, rng) for _ in range(count)]
            for way, results in found.items():
                results.append(judge(learn(slides, settings(way, fraction, options, seed)), test))
        for way, results in found.items():
            mcc, auc = np.mean(results, axis=0)
            figures |= {f"MCC {way} {fraction:g}": mcc, f"AUC {way} {fraction:g}": auc}
            print(
                f"malign {100 * fraction:5.1f} %  {way:6s} MCC {mcc:6.3f}  AUC of cells {auc:.3f}", flush=True
            )
    better = all(figures[f"MCC ours {f:g}"] > figures[f"MCC naive {f:g}"] for f in fractions)
    finish("weak_supervision", figures, {"MCC of ours over naive at every fraction": 0.0}, better)
