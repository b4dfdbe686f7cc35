"""Small slides with labels: pale tissue everywhere, and dark spots on the malign ones."""

from __future__ import annotations

from functools import partial

import numpy as np
from PIL import Image

from napari_histogan.config.weak_labels import TrainWeaklyConfig
from napari_histogan.geometry import Region
from napari_histogan.inference.slide_maps import write_slide_map
from napari_histogan.models.device import resolve
from napari_histogan.slides.reader import open_slide
from napari_histogan.slides.tissue import TissueMask
from napari_histogan.training.weak_maps import WeakSlide

SIDE = 256
SPOT = Region(32, 64, 160, 160)
"""Where malign slides are malign."""

QUICK = {
    "steps": 8,
    "pretrain_steps": 0,
    "mpp": 1.0,
    "patch_px": 32,
    "batch": 4,
    "buffer": 12,
    "patches_per_visit": 2,
    "width": 2,
    "depth": 2,
    "map_tile_px": 128,
    "threads": 1,
    "precision": "float32",
}


def quick(**values) -> TrainWeaklyConfig:
    return TrainWeaklyConfig(**{**QUICK, **values})


def picture(malign: bool, seed: int, spot: Region = SPOT) -> np.ndarray:
    rng = np.random.default_rng(seed)
    pixels = rng.normal((220, 170, 200), 12, (SIDE, SIDE, 3))
    if malign:
        pixels[spot.slices] -= (130, 110, 60)
    return pixels.clip(0, 255).astype(np.uint8)


def make_slides(folder, labels=(True, True, False, False), held_out=()) -> list[WeakSlide]:
    folder.mkdir(parents=True, exist_ok=True)
    slides = []
    for number, malign in enumerate(labels):
        path = folder / f"slide{number}.png"
        Image.fromarray(picture(bool(malign), number)).save(path)
        tissue = TissueMask(np.ones((SIDE // 8, SIDE // 8), bool), 8.0)
        slides.append(WeakSlide(path.stem, open_slide(path, 1.0), malign, tissue, number in held_out))
    return slides


def mapping(config: TrainWeaklyConfig):
    compute = resolve(config)
    make = partial(
        write_slide_map,
        mpp=config.mpp,
        class_names=("benign", "malign"),
        compute=compute,
        tile_px=config.map_tile_px,
    )

    def map_slide(net, slide, out, reporter):
        make(net, slide.reader, slide.tissue, out, reporter)

    return map_slide
