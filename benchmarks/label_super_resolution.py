"""Sharpen coarse labels of blocks to pixels on GlaS, and compare count losses, blocks, and full masks.

Pictures are reduced to 2.48 um/px, their gland masks averaged over blocks of 32 and 64 px and sorted into
the ten bins of paper 003.  Mean and deviation of each bin's shares are estimated from 12 random blocks.  Nets
learn from the official training part and are judged on test part A by the masked IoU and Dice of glands,
within one block of the true boundary, and by connected pieces per mm2.

Where the block labels come from (``--labels``):

* averaged: from the masks; those of test pictures then know the truth, which no net is told
* scored: from a scorer that learned what blocks of other pictures mostly are (block_scorer.py), in ten bins
  of as many blocks each; as in the paper, where nets are compared with the scorer's blocks

Rows:

* nearest, bilinear: the test pictures' block labels (their bins' mean shares), enlarged
* intra, inter, intra+inter: super-resolution by the three count models
* masks: the same net trained on every pixel, the ceiling
* ... with its blocks: the map of that net, shifted until it agrees with the same block labels of the test
  pictures, in whole percents as a heatmap keeps them

    python benchmarks/label_super_resolution.py --glas FOLDER [--quick] [--seeds 3] [--steps 600]
        [--labels averaged scored] [--more]
    python benchmarks/label_super_resolution.py --idc FOLDER [--figure FILE.png]   (real blocks)

Citation: Sirinukunwattana et al., Medical Image Analysis 35 (2017), doi 10.1016/j.media.2016.08.008.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import block_scorer
import breast_blocks
import cv2
import numpy as np
import torch
from measuring import finish, machine
from numpy.typing import NDArray
from PIL import Image

from napari_histogan.config import TrainSegmenterConfig
from napari_histogan.config.block_labels import TEN_BINS, TrainSuperResolutionConfig
from napari_histogan.evaluation.masked import MaskedScores, masked_counts, score_masked
from napari_histogan.inference.block_match import matched
from napari_histogan.labels.block_labels import bin_names, binned, block_means
from napari_histogan.labels.calibration import CalibrationTable, table_of
from napari_histogan.labels.classes import ClassTable
from napari_histogan.models.segmenter import load_segmenter, pixels_to_input
from napari_histogan.progress import QuietReporter
from napari_histogan.training.block_sources import ArrayBlocks
from napari_histogan.training.datasets import ArrayPairs
from napari_histogan.training.train_segmenter import train_segmenter
from napari_histogan.training.train_super_resolution import train_super_resolution

FACTOR, MPP = 4, 4 * 0.62
CLASSES = ("gland", "other")
Bins = NDArray[np.int16]
MODELS = ("intra", "inter", "intra+inter")
SIDES = (32, 64)
KINDS = ("averaged", "scored")
Kind = Literal["averaged", "scored"]
MARGINS = {"intra over blocks": 0.0125, "intra+inter over intra": 0.0143}
"""Masked IoU between the rows of the paper's table 2, block labels there being those of a net."""


@dataclass(frozen=True)
class Part:
    """Pictures ``(H, W, 3) uint8`` and gland masks ``(H, W) bool`` at 2.48 um/px."""

    images: list[NDArray[np.uint8]]
    glands: list[NDArray[np.bool_]]


def read_part(folder: Path, name: str) -> Part:
    """Read a part of GlaS, reduced."""
    images, glands = [], []
    for path in sorted(folder.glob(f"{name}_*_anno.png")):
        mask = np.asarray(Image.open(path)) > 0
        picture = Image.open(path.with_name(path.name.replace("_anno", ""))).convert("RGB")
        images.append(
            np.asarray(picture.reduce(FACTOR))[: mask.shape[0] // FACTOR, : mask.shape[1] // FACTOR]
        )
        glands.append(block_means(mask.astype(np.float64), FACTOR) >= 0.5)
    if not images:
        raise SystemExit(f"{folder} holds no pictures of the part {name}; give the GlaS folder by --glas")
    return Part(images, glands)


def cut(
    part: Part, side: int, context: int
) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.float64], NDArray[np.int64]]:
    """Return blocks with their context, masks (1 gland, 2 other; 0 context), gland shares, and pictures."""
    images, masks, shares, numbers = [], [], [], []
    edge = ((context, context), (context, context))
    for number, (picture, gland) in enumerate(zip(part.images, part.glands, strict=True)):
        wide = np.pad(picture, (*edge, (0, 0)), constant_values=255)
        wide_mask = np.pad(np.where(gland, 1, 2).astype(np.uint8), edge)
        for row, values in enumerate(block_means(gland.astype(np.float64), side)):
            for column, share in enumerate(values):
                inside = slice(row * side, row * side + side + 2 * context)
                across = slice(column * side, column * side + side + 2 * context)
                images.append(wide[inside, across])
                masks.append(wide_mask[inside, across])
                shares.append(float(share))
                numbers.append(number)
    return np.stack(images), np.stack(masks), np.array(shares), np.array(numbers)


def tenths(scores: NDArray[np.float64]) -> tuple[float, ...]:
    """Return edges in percent of ten bins with as many scores each; a scorer is seldom as sure as 95 %."""
    return 0.0, *np.quantile(100 * scores, np.linspace(0.1, 0.9, 9)).tolist(), 100.0


def completed(part: Part, side: int) -> Part:
    """Return pictures of whole blocks: what is missing at the edges repeats the last pixel."""
    images, glands = [], []
    for picture, gland in zip(part.images, part.glands, strict=True):
        more = tuple((0, -length % side) for length in gland.shape)
        images.append(np.pad(picture, (*more, (0, 0)), mode="edge"))
        glands.append(np.pad(gland, more, mode="edge"))
    return Part(images, glands)


def calibrate(
    shares: NDArray[np.float64], labels: NDArray[np.int64], count: int | None, seed: int, shift: float = 0.0
) -> CalibrationTable:
    """Estimate the table from ``count`` random blocks a bin (None: all); ``shift`` moves every gland mean."""
    rng = np.random.default_rng([seed, 11])
    names = bin_names(TEN_BINS)
    found: dict[str, list[tuple[float, float]]] = {}
    for z, name in enumerate(names):
        mine = np.flatnonzero(labels == z)
        few = mine if count is None else rng.permutation(mine)[:count]
        found[name] = [(s, 1 - s) for s in np.clip(shares[few] + shift, 0, 1)]
    return table_of(found, names, CLASSES)


def probabilities(folder: Path, part: Part) -> list[NDArray[np.float64]]:
    """Return the gland probability of every picture."""
    net, _ = load_segmenter(folder)
    out = []
    with torch.inference_mode():
        for picture in part.images:
            logits = net(pixels_to_input(torch.from_numpy(picture.copy()).permute(2, 0, 1)[None]))
            out.append(logits.softmax(dim=1)[0, 0].double().numpy())
    return out


def block_maps(
    part: Part, labels: Sequence[Bins], side: int, table: CalibrationTable, how: int
) -> list[NDArray[np.float64]]:
    """Return the pictures' block labels as gland shares of their bins, enlarged by OpenCV's ``how``."""
    out = []
    for gland, bins in zip(part.glands, labels, strict=True):
        shares = table.eta[bins, 0].astype(np.float32)
        size = shares.shape[1] * side, shares.shape[0] * side
        large = cv2.resize(shares, size, interpolation=how)
        out.append(np.asarray(large, np.float64)[: gland.shape[0], : gland.shape[1]])
    return out


def with_blocks(
    labels: Sequence[Bins], maps: Sequence[NDArray[np.float64]], side: int, table: CalibrationTable
) -> list[NDArray[np.float64]]:
    """Return gland probabilities brought into agreement with the pictures' block labels."""
    out = []
    for bins, found in zip(labels, maps, strict=True):
        both = np.rint(100 * np.stack([found, 1 - found])) / 100
        out.append(matched(both, bins, table.eta, side)[0])
    return out


def judge(part: Part, maps: Sequence[NDArray[np.float64]], side: int) -> MaskedScores:
    """Score gland probabilities within one block of the true boundary."""
    pairs = zip(part.glands, maps, strict=True)
    return score_masked([masked_counts(gland, p > 0.5, MPP, side * MPP) for gland, p in pairs])


def learn_blocks(
    source: ArrayBlocks, table: CalibrationTable, settings: dict[str, Any], model: str, seed: int
) -> Path:
    """Train by counts; returns the net's folder."""
    config = TrainSuperResolutionConfig.model_validate({**settings, "model": model, "seed": seed})
    return train_super_resolution(source, table, config, QuietReporter(Path(tempfile.mkdtemp())))


def learn_masks(
    images: NDArray[np.uint8], masks: NDArray[np.uint8], settings: dict[str, Any], seed: int
) -> Path:
    """Train the same net on every pixel of the same blocks."""
    config = TrainSegmenterConfig(
        seed=seed,
        steps=settings["steps"],
        batch=settings["groups"] * settings["per_group"],
        width=settings["width"],
        depth=settings["depth"],
        learning_rate=settings["learning_rate"],
        validate_every=settings["steps"],
        threads=settings["threads"],
    )
    table = ClassTable.from_names(CLASSES)
    reporter = QuietReporter(Path(tempfile.mkdtemp()))
    return train_segmenter([ArrayPairs(images, masks, MPP)], 2, config, reporter, classes=table)


class Study:
    """One size of blocks and one origin of their labels: what is measured, and the table of results."""

    def __init__(self, train: Part, test: Part, side: int, kind: Kind, options: argparse.Namespace) -> None:
        self.test, self.side, self.kind, self.context = test, side, kind, options.context
        self.scorer_steps = options.scorer_steps
        self.images, self.masks, self.shares, self.pictures = cut(train, side, self.context)
        batch = options.batch
        self.settings: dict[str, Any] = {
            "steps": options.steps,
            "width": options.width,
            "depth": options.depth,
            "block_px": side,
            "context_px": self.context,
            "groups": max(2, batch // 8 // (side // SIDES[0]) ** 2),
            "per_group": 8,
            "matching": options.matching,
            "learning_rate": options.rate,
            "validate_every": 100,
            "patience": 0,
            "threads": options.threads,
        }
        self.by_seed: dict[str, list[float]] = {}
        self._said: dict[int, tuple[NDArray[np.int64], list[Bins]]] = {}
        print(f"\nblocks of {side} px ({side * MPP:.0f} um), labels {kind}: {len(self.shares)}")

    def labels(self, seed: int) -> tuple[NDArray[np.int64], list[Bins]]:
        """Return the bins of the training blocks ``(n,)``, and of each test picture ``(rows, columns)``."""
        if seed not in self._said:
            if self.kind == "averaged":
                whole = [
                    block_means(g.astype(np.float64), self.side)
                    for g in completed(self.test, self.side).glands
                ]
                known = self.shares
            else:
                known, whole = self.scored(seed)
            edges = TEN_BINS if self.kind == "averaged" else tenths(known)
            bins = binned(100 * known, edges).astype(np.int64)
            self._said[seed] = bins, [binned(100 * each, edges) for each in whole]
            told = [
                f"{self.shares[bins == z].mean():.2f}+-{self.shares[bins == z].std():.2f}" for z in range(10)
            ]
            print(
                f"  blocks by bin {np.bincount(bins, minlength=10).tolist()}; gland shares {' '.join(told)}"
            )
        return self._said[seed]

    def scored(self, seed: int) -> tuple[NDArray[np.float64], list[NDArray[np.float64]]]:
        """Return a scorer's word: of the training blocks ``(n,)``, and of each test picture's blocks."""
        whole = completed(self.test, self.side)
        each = [
            cut(Part([p], [g]), self.side, self.context)[0]
            for p, g in zip(whole.images, whole.glands, strict=True)
        ]
        known, found = block_scorer.cross_scores(
            self.images, self.shares, self.pictures, each, self.scorer_steps, seed
        )
        sizes = [(g.shape[0] // self.side, g.shape[1] // self.side) for g in whole.glands]
        return known, [scores.reshape(size) for scores, size in zip(found, sizes, strict=True)]

    def table(self, seed: int, count: int | None = 12, shift: float = 0.0) -> CalibrationTable:
        """Return the calibration of a seed."""
        return calibrate(self.shares, self.labels(seed)[0], count, seed, shift)

    def measure(self, name: str, seeds: int, maps: Callable[[int], Sequence[NDArray[np.float64]]]) -> float:
        """Measure one way with every seed, print a row, and return the mean masked IoU."""
        return self.row(name, [judge(self.test, maps(seed), self.side) for seed in range(seeds)])

    def measure_net(
        self,
        name: str,
        seeds: int,
        maps: Callable[[int], Sequence[NDArray[np.float64]]],
        **calibration: Any,
    ) -> dict[str, float]:
        """Measure a net alone, and with the test pictures' blocks; returns both masked IoUs by name."""
        alone, helped = [], []
        for seed in range(seeds):
            found = maps(seed)
            alone.append(judge(self.test, found, self.side))
            tied = with_blocks(self.labels(seed)[1], found, self.side, self.table(seed, **calibration))
            helped.append(judge(self.test, tied, self.side))
        self.paired(f"{name}, blocks bring", alone, helped)
        return {name: self.row(name, alone), f"{name} with blocks": self.row(f"{name} with blocks", helped)}

    def paired(self, name: str, before: list[MaskedScores], after: list[MaskedScores]) -> None:
        """Print each seed's difference of two ways."""
        gains = [b.iou.value - a.iou.value for a, b in zip(before, after, strict=True)]
        print(f"  {name}: {', '.join(f'{gain:+.4f}' for gain in gains)} by seed", flush=True)

    def compared(self, models: Sequence[str]) -> None:
        """Print, seed by seed, what each net gains over the better of the enlarged block labels."""
        for model in models:
            best = np.maximum(self.by_seed["nearest"], self.by_seed["bilinear"])
            gains = np.array(self.by_seed[model]) - best
            print(f"  {model} over blocks: {', '.join(f'{gain:+.4f}' for gain in gains)} by seed", flush=True)

    def row(self, name: str, scores: list[MaskedScores]) -> float:
        """Print a row of all seeds, and return the mean masked IoU."""
        seeds = len(scores)
        self.by_seed[name] = [s.iou.value for s in scores]
        rows = np.array(
            [[s.iou.value, s.dice.value, s.mean_iou.value, s.components_per_mm2.value] for s in scores]
        )
        mean, sd = rows.mean(axis=0), rows.std(axis=0, ddof=1) if seeds > 1 else np.full(4, np.nan)
        interval = f"[{scores[0].iou.low:.3f}, {scores[0].iou.high:.3f}]"
        print(
            f"  {name:24s} IoU {mean[0]:.4f} (sd {sd[0]:.4f}, over images {interval})  Dice {mean[1]:.4f}  "
            f"IoU per image {mean[2]:.4f}  pieces/mm2 {mean[3]:.1f}",
            flush=True,
        )
        return float(mean[0])

    def by_counts(self, model: str, seed: int, **changes: Any) -> Sequence[NDArray[np.float64]]:
        """Train by counts and return the test pictures' maps."""
        given = {key: changes.pop(key) for key in ("count", "shift") if key in changes}
        settings = {**self.settings, **changes}
        source = ArrayBlocks(self.images, self.labels(seed)[0], MPP, self.side, self.context)
        folder = learn_blocks(source, self.table(seed, **given), settings, model, seed)
        return probabilities(folder, self.test)

    def compare(self, seeds: int, models: Sequence[str]) -> dict[str, float]:
        """Measure all ways."""
        found = {
            name: self.measure(
                name,
                seeds,
                lambda s, how=how: block_maps(self.test, self.labels(s)[1], self.side, self.table(s), how),
            )
            for name, how in (("nearest", cv2.INTER_NEAREST), ("bilinear", cv2.INTER_LINEAR))
        }
        for model in models:
            maps = self.by_masks if model == "masks" else partial(self.by_counts, model)
            found |= self.measure_net(model, seeds, maps)
        return found

    def by_masks(self, seed: int) -> Sequence[NDArray[np.float64]]:
        """Train on every pixel and return the test pictures' maps."""
        return probabilities(learn_masks(self.images, self.masks, self.settings, seed), self.test)


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--glas", type=Path, help="folder with train_1.png, train_1_anno.png ...")
    parser.add_argument("--idc", type=Path, help="folder with slide_14082.png; see breast_blocks.py")
    parser.add_argument("--figure", type=Path, help="where the picture of --idc goes")
    parser.add_argument(
        "--shares",
        type=float,
        nargs=4,
        default=[0.7, 0.25, 0.1, 0.12],
        help="assumed tumor share of tumor blocks and of others with --idc: mean sd mean sd",
    )
    parser.add_argument("--quick", action="store_true", help="blocks of 32 px, two count models, few steps")
    parser.add_argument("--seeds", type=int, default=0, help="3; 1 with --quick")
    parser.add_argument("--steps", type=int, default=0, help="600; 150 with --quick")
    parser.add_argument("--batch", type=int, default=48, help="blocks of 32 px a step; a quarter of 64 px")
    parser.add_argument("--width", type=int, default=8)
    parser.add_argument("--depth", type=int, default=3)
    parser.add_argument("--context", type=int, default=8)
    parser.add_argument("--matching", default="overlap", help="of all models: overlap, bhattacharyya, or kl")
    parser.add_argument("--rate", type=float, default=2e-3, help="largest learning rate, of all nets")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--sides", type=int, nargs="*", default=[])
    parser.add_argument("--models", nargs="*", default=[])
    parser.add_argument("--vary", choices=MODELS, default="intra", help="the model of --more")
    parser.add_argument("--labels", nargs="*", choices=KINDS, default=[*KINDS])
    parser.add_argument("--scorer-steps", type=int, default=300, help="of each of the two scorers")
    parser.add_argument("--more", action="store_true", help="also calibrated blocks, errors, and matchings")
    given = parser.parse_args()
    given.steps = given.steps or (150 if given.quick else 600)
    if given.idc is not None:
        breast_blocks.measure(given)
        return
    if given.glas is None:
        parser.error("give the folder of GlaS by --glas, or that of idc_breast by --idc")
    seeds = given.seeds or (1 if given.quick else 3)
    models = given.models or (("intra", "intra+inter", "masks") if given.quick else (*MODELS, "masks"))
    print(machine(), flush=True)
    train, test = read_part(given.glas, "train"), read_part(given.glas, "testA")
    print(f"{len(train.images)} training and {len(test.images)} test pictures at {MPP:.2f} um/px")
    figures: dict[str, float] = {}
    gains: dict[str, float] = {}
    for side in given.sides or (SIDES[:1] if given.quick else SIDES):
        for kind in given.labels:
            study = Study(train, test, side, kind, given)
            found = study.compare(seeds, models)
            if given.more:
                found |= vary(study, seeds, given.vary)
            gains |= {f"{name} {kind} {side}": gain for name, gain in gained(found).items()}
            study.compared(models)
            figures |= {f"{name} {kind} {side}": value for name, value in found.items()}
    # The paper's blocks are a scorer's; blocks that know the truth are no goal for a net alone.
    goals = {
        name: next(v for k, v in MARGINS.items() if name.startswith(k)) for name in gains if "scored" in name
    }
    met = all(gains[name] >= goal for name, goal in goals.items())
    finish("label_super_resolution", figures | gains, goals, met)


def gained(found: dict[str, float]) -> dict[str, float]:
    """Return the differences of the paper's table 2, of those ways that were measured."""
    blocks = max(found["nearest"], found["bilinear"])
    pairs = {"intra over blocks": ("intra", blocks), "intra+inter over intra": ("intra+inter", None)}
    return {
        name: found[model] - (found["intra"] if below is None else below)
        for name, (model, below) in pairs.items()
        if model in found and "intra" in found
    }


def vary(study: Study, seeds: int, model: str) -> dict[str, float]:
    """Measure a model with fewer and more calibrated blocks, wrong means, and other matchings."""
    found = {}
    ways: dict[str, dict[str, Any]] = {
        **{f"{count or 'all'} blocks a bin": {"count": count} for count in (3, 6, None)},
        **{f"means {shift:+.2f}": {"shift": shift} for shift in (-0.1, -0.05, 0.05, 0.1)},
        **{f"matching {name}": {"matching": name} for name in ("kl", "bhattacharyya")},
        **{f"{n} groups of {k}": {"groups": n, "per_group": k} for n, k in ((2, 4), (2, 16), (1, 32))},
        "paper": {
            "matching": "overlap",
            "optimizer": "rmsprop",
            "schedule": "constant",
            "learning_rate": 1e-3,
            "ema": 0.0,
            "augment": False,
            "groups": 2,
            "per_group": 15,
        },
    }
    for name, changes in ways.items():
        maps = partial(study.by_counts, model, **changes)
        given = {key: value for key, value in changes.items() if key in ("count", "shift")}
        each = study.measure_net(name, seeds, maps, **given)
        found |= {f"{key} {study.side}": value for key, value in each.items()}
    return found


if __name__ == "__main__":
    main()
