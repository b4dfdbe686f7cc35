"""The main way from a slide to a corrected net, by functions: ``python examples/every_stage.py FOLDER``.

All numbers are tiny, so that it ends in a minute and its nets are no good; leave them out for the defaults.
"""

import sys
from pathlib import Path

import numpy as np

from napari_histogan import config as c
from napari_histogan.demo import GENERATOR, REFERENCE, SLIDE
from napari_histogan.geometry import Region
from napari_histogan.inference.sampling import load_samples
from napari_histogan.labels.classes import ClassTable
from napari_histogan.pipeline import STAGE_FUNCTIONS
from napari_histogan.progress import QuietReporter
from napari_histogan.project.corrections import Correction
from napari_histogan.project.store import Project

TINY_GAN = {"kimg": 0.016, "batch": 8, "z_dim": 16, "w_dim": 16, "channel_base": 256, "channel_max": 16}


def main(folder: Path) -> Project:
    classes = ClassTable.from_names(["epidermis", "dermis", "keratin", "glass"])
    project = Project.create(folder, classes=classes)

    def run(config):
        made = STAGE_FUNCTIONS[config.stage](project, config, QuietReporter())
        print(made.id, made.summary)
        return made

    run(c.AddSlidesConfig(paths=(SLIDE,)))
    run(c.ExtractPatchesConfig(patch_px=64, mpp=1.0))
    run(c.TrainGanConfig(**TINY_GAN))
    run(c.ImportGanConfig(path=GENERATOR))  # the newest from here on
    run(c.InvertPatchesConfig(count=1, steps=5))
    samples = run(c.SampleImagesConfig(count=12))
    run(c.MixSamplesConfig(samples=samples.id, first=3, second=8))
    for index, image in enumerate(load_samples(samples.path).image[:6]):
        brightness = image.mean(axis=2)  # people paint; here the brightness does
        mask = 1 + np.digitize(brightness, np.quantile(brightness, [0.25, 0.5, 0.75]))
        mask[12:] = 0  # a few strokes are enough; 0 is unlabeled
        project.save_mask(samples, index, mask.astype(np.uint8))
    run(c.TrainPixelClassifierConfig(samples=samples.id, members=2, epochs=2))
    run(c.SynthesizeDatasetConfig(count=32))
    net = run(c.TrainSegmenterConfig(steps=4, width=4, depth=2))
    run(c.PredictHeatmapConfig())
    run(c.DetectObjectsConfig(min_area_um2=500))
    run(c.EvaluateConfig(reference=REFERENCE, bootstrap=20))
    glass = np.full((64, 64), 4, np.uint8)  # a person says: all glass, here
    project.save_correction(Correction("corner", project.slide().name, Region(0, 0, 64, 64), 1.0, glass))
    run(c.MergeCorrectionsConfig(patch_px=64))
    run(c.TrainSegmenterConfig(steps=4, width=4, depth=2, init=net.id))
    return project


if __name__ == "__main__":
    main(Path(sys.argv[1]))
