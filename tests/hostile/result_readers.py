"""Readers of results that somebody else's project may hold: nets, samples, pairs, and plans of patches."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import numpy as np

NAMES = ("gland", "stroma")


def nets(folder: Path) -> list[Path]:
    """Write a pixel classifier, segmenters of two kinds, and a patch classifier, all tiny."""
    import torch

    from napari_histogan.labels.classes import ClassTable
    from napari_histogan.models.hypercolumns import layout_of
    from napari_histogan.models.patch_gan import PatchClassifier, PatchNetShape
    from napari_histogan.models.patch_gan_file import PatchClassifierInfo, save_patch_classifier
    from napari_histogan.models.pixel_classifier import (
        PixelClassifier,
        PixelClassifierSpec,
        save_pixel_classifier,
    )
    from napari_histogan.models.segmenter import NetShape, new_net, save_segmenter
    from napari_histogan.models.stylegan2 import Generator, GeneratorSpec

    torch.manual_seed(0)
    generator = Generator(GeneratorSpec(8, 0, 8, 16, mapping_layers=1, channel_base=64, channel_max=8)).eval()
    with torch.no_grad():
        maps = generator.synthesis.features(generator.mapping(torch.randn(1, 8)))[1]
    classes = tuple(ClassTable.from_names(list(NAMES)).to_dicts())
    spec = PixelClassifierSpec(layout_of(maps, 16), classes, "", 2, (8, 4))
    save_pixel_classifier(folder / "pixels", PixelClassifier(spec, seed=1))
    for kind in ("unet", "weak_unet"):
        (folder / kind).mkdir()
        save_segmenter(folder / kind, new_net(NetShape(kind, 2, 2), 2, 0), NAMES, mpp=1.0)
    shape = PatchNetShape(32, 1, 2, False, width=2)
    info = PatchClassifierInfo(shape, NAMES, 1.0, "red", False, 2.0)
    save_patch_classifier(folder / "patches", PatchClassifier(shape), info)
    return sorted(path for path in folder.rglob("*") if path.is_file())


def read_net(path: Path) -> None:
    """Load the net that a file belongs to."""
    from napari_histogan.models.patch_gan_file import load_patch_classifier
    from napari_histogan.models.pixel_classifier import load_pixel_classifier
    from napari_histogan.models.segmenter import load_segmenter

    load = {"pixels": load_pixel_classifier, "patches": load_patch_classifier}
    load.get(path.parent.name, load_segmenter)(path.parent)


def stores(folder: Path) -> list[Path]:
    """Write samples, synthetic pairs, merged pairs, and a plan of patches, as their stages do."""
    import torch
    from PIL import Image

    from napari_histogan.config import SampleImagesConfig
    from napari_histogan.inference.sampling import sample
    from napari_histogan.models.stylegan2 import Generator, GeneratorSpec
    from napari_histogan.progress import QuietReporter
    from napari_histogan.slides.patch_plan import plan_patches
    from napari_histogan.slides.reader import open_slide
    from napari_histogan.training.datasets import write_pairs

    torch.manual_seed(0)
    spec = GeneratorSpec(8, 0, 8, 16, mapping_layers=1, channel_base=64, channel_max=8)
    config = SampleImagesConfig(count=4, threads=1, device="cpu")
    made = sample(
        Generator(spec).eval(), config, QuietReporter(folder / "run"), generator_hash="0" * 64, mpp=1.0
    )
    made.rename(folder / "samples")
    rng = np.random.default_rng(0)
    images = rng.integers(0, 255, (4, 16, 16, 3), np.uint8)
    (folder / "pairs").mkdir()
    masks, groups = (images[..., 0] % 3).astype(np.uint8), np.arange(4)
    write_pairs(folder / "pairs" / "pairs.zarr", images, masks, mpp=1.0, groups=groups)
    (folder / "plan").mkdir()
    picture = np.full((128, 128, 3), (200, 120, 170), np.uint8) - images[0, 0, 0] % 20
    Image.fromarray(picture).save(folder / "slide.png")
    with open_slide(folder / "slide.png", mpp=2.0) as slide:
        plan_patches([slide], 32, 2.0, folder / "plan")
    whole = {path for part in ("samples", "pairs", "plan") for path in (folder / part).rglob("*")}
    return sorted(path for path in whole if path.is_file())


def read_store(path: Path) -> None:
    """Open what a file belongs to, and read some of it."""
    from napari_histogan.inference.pair_store import open_pairs, read_pairs
    from napari_histogan.inference.sampling import load_samples
    from napari_histogan.slides.patch_plan import PatchPlan
    from napari_histogan.slides.patches import PatchStream
    from napari_histogan.training.datasets import ZarrPairs

    names = ("samples", "pairs", "plan")
    root = next(parent for parent in path.parents if parent.name in names)
    if root.name == "samples":
        samples = load_samples(root)
        np.asarray(samples.image[:2])
    elif root.name == "pairs":
        pairs = ZarrPairs(root / "pairs.zarr")
        pairs.batch([0, len(pairs) - 1])
        pairs.class_counts()
        list(read_pairs(open_pairs(root), np.array([0, 1])))
    else:
        with closing(PatchStream(PatchPlan.load(root), seed=0, min_tissue=0.0)) as patches:
            patches.next_batch(2)
