"""A whole project in seconds: the real stages, with a random 32 px generator."""

from __future__ import annotations

from pathlib import Path

import numpy as np

SIDE = 32
SAMPLES = 24


def make_tiny_project(root: Path, slide: Path):
    """Make a project with a slide, a generator, samples, three masks, a net, and a heatmap."""
    import torch

    from napari_histogan import config as c
    from napari_histogan.labels.classes import ClassTable
    from napari_histogan.models.generator_file import save_generator
    from napari_histogan.models.stylegan2 import Generator, GeneratorSpec
    from napari_histogan.pipeline import STAGE_FUNCTIONS
    from napari_histogan.progress import QuietReporter
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

    def run(config):
        return STAGE_FUNCTIONS[config.stage](project, config, QuietReporter())

    run(c.AddSlidesConfig(paths=(slide,)))
    run(c.ExtractPatchesConfig(patch_px=SIDE, mpp=1.0))
    run(c.ImportGanConfig(path=source))
    samples = run(c.SampleImagesConfig(count=SAMPLES))
    store = SampleStore(samples.path)
    for index in range(3):
        brightness = store.image(index).mean(axis=2)
        classes = 1 + np.digitize(brightness, np.quantile(brightness, [0.33, 0.66]))
        mask = np.zeros((SIDE, SIDE), np.uint8)
        mask[4:28, 4:28] = classes[4:28, 4:28]
        project.save_mask(samples, index, mask)
    run(c.TrainPixelClassifierConfig(members=2, epochs=3))
    run(c.SynthesizeDatasetConfig(count=32))
    run(c.TrainSegmenterConfig(steps=4, width=4, depth=2, batch=4))
    run(c.PredictHeatmapConfig())
    return project
