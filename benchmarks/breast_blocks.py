"""Sharpen the real block labels of the breast slide of `idc_breast`; there is no finer truth to judge by.

The slide's blocks of 50 px (about 4 um/px) were called tumor or not by its annotators.  How much of a block
is tumor nobody said: the table is an assumption, given by ``--shares`` as mean and standard deviation of the
tumor share of blocks that were called so and of those that were not.  The figure shows slide, blocks, and the
net's tumor probability side by side; numbers say how well the net's mean over a block tells the two kinds of
held-out blocks apart, and how many pieces its mask has.

Citation: Cruz-Roa et al., SPIE Medical Imaging 2014, doi 10.1117/12.2043872.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import torch
from measuring import finish, machine
from numpy.typing import NDArray
from PIL import Image

from napari_histogan.config.block_labels import TrainSuperResolutionConfig
from napari_histogan.evaluation.detection import roc_auc
from napari_histogan.evaluation.masked import count_components
from napari_histogan.labels.calibration import CalibrationTable
from napari_histogan.models.segmenter import load_segmenter, pixels_to_input
from napari_histogan.progress import QuietReporter
from napari_histogan.training.block_sources import ArrayBlocks
from napari_histogan.training.train_super_resolution import train_super_resolution

SIDE, MPP, MISSING = 50, 4.0, 255
VALUES, CLASSES = ("not tumor", "tumor"), ("tumor", "other")
GOALS = {"AUC of held-out blocks": 0.8}
_COLORS = {0: (86, 180, 233), 1: (213, 94, 0)}


def blocks_of(picture: NDArray[np.uint8], places: NDArray[np.int64], context: int) -> NDArray[np.uint8]:
    """Return the blocks at rows and columns, with their context; white beyond the slide."""
    wide = np.pad(picture, ((context, context), (context, context), (0, 0)), constant_values=255)
    length = SIDE + 2 * context
    return np.stack([wide[r * SIDE : r * SIDE + length, c * SIDE : c * SIDE + length] for r, c in places])


def table_of_shares(shares: list[float]) -> CalibrationTable:
    """Return the table of assumed shares: mean and deviation of tumor blocks, then of the others."""
    (with_mean, with_sd), (without_mean, without_sd) = shares[:2], shares[2:]
    eta = np.array([[without_mean, 1 - without_mean], [with_mean, 1 - with_mean]])
    rho = np.array([[without_sd] * 2, [with_sd] * 2])
    return CalibrationTable(VALUES, CLASSES, eta, rho, np.zeros(2, np.int64))


def probability(folder: Path, picture: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return the tumor probability of every pixel."""
    net, _ = load_segmenter(folder)
    with torch.inference_mode():
        logits = net.eval()(pixels_to_input(torch.from_numpy(picture.copy()).permute(2, 0, 1)[None]))
    return logits.softmax(dim=1)[0, 0].double().numpy()


def draw(picture: NDArray[np.uint8], labels: NDArray[np.uint8], tumor: NDArray[np.float64]) -> Image.Image:
    """Return slide, blocks, and probability side by side, half as large."""
    large = np.kron(labels, np.ones((SIDE, SIDE), np.uint8))
    blocks, sharp = picture.astype(np.float64), picture.astype(np.float64)
    for value, color in _COLORS.items():
        blocks[large == value] = 0.5 * blocks[large == value] + 0.5 * np.array(color)
    weight = 0.75 * tumor[..., None] * (large != MISSING)[..., None]
    sharp = (1 - weight) * sharp + weight * np.array(_COLORS[1])
    gap = np.full((picture.shape[0], 24, 3), 255.0)
    sheet = np.concatenate([picture, gap, blocks, gap, sharp], axis=1)
    return Image.fromarray(sheet.round().clip(0, 255).astype(np.uint8)).reduce(2)


def measure(options: argparse.Namespace) -> None:
    """Train, draw, and print the last line."""
    print(machine(), flush=True)
    picture = np.asarray(Image.open(options.idc / "slide_14082.png").convert("RGB"))
    labels = np.asarray(Image.open(options.idc / "slide_14082_blocks.png"))
    places = np.argwhere(labels != MISSING).astype(np.int64)
    values = labels[tuple(places.T)].astype(np.int64)
    held = np.random.default_rng([options.seeds, 41]).random(len(values)) < 0.2
    given = {"width": options.width, "depth": options.depth, "context_px": options.context, "block_px": SIDE}
    config = TrainSuperResolutionConfig(
        steps=options.steps,
        threads=options.threads,
        matching=options.matching,
        groups=4,
        per_group=8,
        **given,
    )
    images = blocks_of(picture, places[~held], options.context)
    source = ArrayBlocks(images, values[~held], MPP, SIDE, options.context)
    table = table_of_shares(options.shares)
    folder = train_super_resolution(source, table, config, QuietReporter(Path(tempfile.mkdtemp())))
    tumor = probability(folder, picture)
    rows, columns = labels.shape
    cut = tumor[: rows * SIDE, : columns * SIDE].reshape(rows, SIDE, columns, SIDE)
    means, spread = cut.mean(axis=(1, 3)), cut.std(axis=(1, 3))
    scores = means[tuple(places[held].T)]
    known = np.kron(labels != MISSING, np.ones((SIDE, SIDE), bool))
    area = known.sum() * (MPP / 1000) ** 2
    figures = {
        "AUC of held-out blocks": roc_auc(values[held] == 1, scores),
        "mean share in tumor blocks": float(means[labels == 1].mean()),
        "mean share in other blocks": float(means[labels == 0].mean()),
        "deviation within tumor blocks": float(spread[labels == 1].mean()),
        "pieces per mm2": count_components((tumor > 0.5) & known) / area,
    }
    for name, value in figures.items():
        print(f"  {name:32s} {value:.3f}")
    if options.figure is not None:
        draw(picture, labels, tumor).save(options.figure)
        print(f"slide, blocks, and tumor probability: {options.figure}")
    met = all(figures[name] >= goal for name, goal in GOALS.items())
    finish("label_super_resolution", figures, GOALS, met)
