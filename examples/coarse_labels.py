"""Nets from labels of blocks, and of slides: ``python examples/coarse_labels.py FOLDER``.

The slides are drawn here: dark discs on light ground. Numbers are tiny; leave them out for the defaults.
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image

from napari_histogan import config as c
from napari_histogan.labels.block_labels import BlockLabels
from napari_histogan.labels.classes import ClassTable
from napari_histogan.pipeline import STAGE_FUNCTIONS
from napari_histogan.progress import QuietReporter
from napari_histogan.project.calibrations import Calibration
from napari_histogan.project.store import Project

BLOCK = 16


def draw(path: Path, seed: int, discs: int) -> np.ndarray:
    """Write a slide of 128 px; return each block's share of disc."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:128, :128]
    mask = np.zeros((128, 128), bool)
    for cy, cx, radius in rng.uniform((0, 0, 8), (128, 128, 20), (discs, 3)):
        mask |= np.hypot(y - cy, x - cx) < radius
    pixels = np.where(mask[..., None], [110, 70, 150], [225, 175, 205]) + rng.normal(0, 12, (128, 128, 3))
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path)
    return mask.reshape(8, BLOCK, 8, BLOCK).mean(axis=(1, 3))


def main(folder: Path) -> None:
    project = Project.create(folder, classes=ClassTable.from_names(["disc", "ground"]))
    names = {"slide0": 12, "slide1": 0, "slide2": 12, "slide3": 0}  # how many discs on each
    shares, *_ = [draw(folder / f"{name}.png", k, discs) for k, (name, discs) in enumerate(names.items())]
    run = lambda config: STAGE_FUNCTIONS[config.stage](project, config, QuietReporter())  # noqa: E731
    run(c.AddSlidesConfig(paths=tuple(folder / f"{name}.png" for name in names), mpp=2.5))

    lines = [f"{y},{x},{'much' if share > 0.3 else 'little'}" for (y, x), share in np.ndenumerate(shares)]
    (folder / "blocks.csv").write_text("\n".join(["row,column,label", *lines]))
    blocks = run(c.ImportBlockLabelsConfig(slide="slide0", path=folder / "blocks.csv", block_um=BLOCK * 2.5))
    labels, said = BlockLabels.load(blocks.path), Calibration(project, blocks)
    for z, value in enumerate(labels.values):
        for y, x in labels.places(z)[:6].tolist():  # a person estimates a few blocks of each label
            said.estimate(y, x, value, {"disc": float(shares[y, x]), "ground": 1 - float(shares[y, x])})
    few = {"block_px": BLOCK, "context_px": 2, "groups": 2, "per_group": 3}
    print(run(c.TrainSuperResolutionConfig(steps=4, width=4, depth=1, **few)).summary)

    lines = [f"{name},{'malign' if discs else 'benign'}" for name, discs in names.items()]
    (folder / "labels.csv").write_text("\n".join(["slide,label", *lines]))
    few = {"patch_px": 32, "batch": 2, "buffer": 4, "mpp": 2.5, "map_tile_px": 128, "pretrain_steps": 1}
    print(run(c.TrainWeaklyConfig(labels=folder / "labels.csv", steps=2, width=2, depth=2, **few)).summary)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
