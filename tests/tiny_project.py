"""A whole project in seconds: the real stages, with a random 32 px generator."""

from __future__ import annotations

from pathlib import Path

import numpy as np

SIDE = 32
SAMPLES = 24


def make_tiny_project(root: Path, slide: Path):
    """Make a project with a slide, a generator, samples, three masks, a net, and a heatmap."""
    from napari_histogan import config as c

    project = make_painted_project(root, slide)
    _run(project, c.TrainPixelClassifierConfig(members=2, epochs=3))
    _run(project, c.SynthesizeDatasetConfig(count=32))
    _run(project, c.TrainSegmenterConfig(steps=4, width=4, depth=2, batch=4))
    _run(project, c.PredictHeatmapConfig())
    return project


def _run(project, config):
    from napari_histogan.pipeline import STAGE_FUNCTIONS
    from napari_histogan.progress import QuietReporter

    return STAGE_FUNCTIONS[config.stage](project, config, QuietReporter())


def make_painted_project(root: Path, slide: Path):
    """Make a project with a slide, planned patches, a generator, samples, and three masks."""
    import torch

    from napari_histogan import config as c
    from napari_histogan.labels.classes import ClassTable
    from napari_histogan.models.generator_file import save_generator
    from napari_histogan.models.stylegan2 import Generator, GeneratorSpec
    from napari_histogan.project.store import Project
    from napari_histogan.widgets.sample_store import SampleStore

    torch.manual_seed(0)
    spec = GeneratorSpec(
        z_dim=32,
        c_dim=0,
        w_dim=32,
        img_resolution=SIDE,
        mapping_layers=2,
        channel_base=512,
        channel_max=32,
    )
    source = root.parent / f"{root.name}-generator"
    source.mkdir(parents=True)
    save_generator(source / "generator.safetensors", Generator(spec).eval(), {"mpp": 1.0})
    project = Project.create(root, "Tiny", ClassTable.from_names(["epidermis", "dermis", "glass"]))

    _run(project, c.AddSlidesConfig(paths=(slide,)))
    _run(project, c.ExtractPatchesConfig(patch_px=SIDE, mpp=1.0))
    _run(project, c.ImportGanConfig(path=source))
    samples = _run(project, c.SampleImagesConfig(count=SAMPLES))
    store = SampleStore(samples.path)
    for index in range(3):
        brightness = store.image(index).mean(axis=2)
        classes = 1 + np.digitize(brightness, np.quantile(brightness, [0.33, 0.66]))
        mask = np.zeros((SIDE, SIDE), np.uint8)
        mask[4:28, 4:28] = classes[4:28, 4:28]
        project.save_mask(samples, index, mask)
    return project
