"""Projects with coarse labels alone: a slide of dark discs with labeled blocks, and slides with labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

SIDE, MPP = 16, 2.5
BLOCK_UM = SIDE * MPP


def discs(path: Path, rows: int = 8, columns: int = 10):
    """Write a slide of blocks with dark discs; returns each block's share of disc."""
    rng = np.random.default_rng(2)
    y, x = np.mgrid[: rows * SIDE, : columns * SIDE]
    mask = np.zeros(y.shape, bool)
    for _ in range(14):
        center = rng.uniform(0, y.shape[0]), rng.uniform(0, y.shape[1])
        mask |= (y - center[0]) ** 2 + (x - center[1]) ** 2 < rng.uniform(6, 18) ** 2
    picture = np.where(mask[..., None], [110, 70, 150], [225, 175, 205]) + rng.normal(0, 12, (*y.shape, 3))
    Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8)).save(path)
    return mask.reshape(rows, SIDE, columns, SIDE).mean(axis=(1, 3))


def blocks_csv(path: Path, shares) -> Path:
    """Write the blocks as low, middle, and high."""
    lines = ["row,column,label"]
    for (row, column), share in np.ndenumerate(shares):
        lines.append(f"{row},{column},{('low', 'middle', 'high')[int(share > 0.1) + int(share > 0.5)]}")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def slide_project(folder: Path, classes=("disc", "ground")):
    """Return a project with the slide of discs, and the blocks' shares."""
    from napari_histogan import config as c
    from napari_histogan.labels.classes import ClassTable
    from napari_histogan.pipeline import STAGE_FUNCTIONS
    from napari_histogan.progress import QuietReporter
    from napari_histogan.project.store import Project

    shares = discs(folder / "discs.png")
    project = Project.create(folder / "blocks", "Blocks", ClassTable.from_names(classes))
    config = c.AddSlidesConfig(paths=(folder / "discs.png",), mpp=MPP)
    STAGE_FUNCTIONS["add_slides"](project, config, QuietReporter())
    return project, shares


def block_project(folder: Path):
    """Return such a project with block labels, their artifact, and the shares."""
    from napari_histogan import config as c
    from napari_histogan.pipeline import STAGE_FUNCTIONS
    from napari_histogan.progress import QuietReporter

    project, shares = slide_project(folder)
    config = c.ImportBlockLabelsConfig(path=blocks_csv(folder / "blocks.csv", shares), block_um=BLOCK_UM)
    return project, STAGE_FUNCTIONS[config.stage](project, config, QuietReporter()), shares


def weak_project(folder: Path, side: int = 128):
    """Return a project of two benign and two malign slides; nothing says which is which."""
    from napari_histogan import config as c
    from napari_histogan.pipeline import STAGE_FUNCTIONS
    from napari_histogan.progress import QuietReporter
    from napari_histogan.project.store import Project

    rng = np.random.default_rng(0)
    files = []
    for name in ("b1", "b2", "m1", "m2"):
        pixels = rng.normal((200, 120, 170), 15, (side, side, 3)).clip(0, 255).astype(np.uint8)
        if name.startswith("m"):
            pixels[: side * 3 // 4, : side * 3 // 4] //= 2
        files.append(folder / f"{name}.png")
        Image.fromarray(pixels).save(files[-1])
    project = Project.create(folder / "weak", "Weak")
    config = c.AddSlidesConfig(paths=tuple(files), mpp=4.0)
    STAGE_FUNCTIONS["add_slides"](project, config, QuietReporter())
    return project
