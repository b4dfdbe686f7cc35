"""A patch classifier, and a study of annotation effort: ``python examples/pictures_with_masks.py FOLDER``.

Both read folders of pictures with masks, which are cut from the demo's slide and its outlines here. Numbers
are tiny; leave them out for the defaults.
"""

import sys
from pathlib import Path

from every_stage import main as make_project
from PIL import Image

from napari_histogan import config as c
from napari_histogan.demo import REFERENCE, SLIDE
from napari_histogan.geometry import Region
from napari_histogan.labels.classes import ClassTable
from napari_histogan.labels.interchange import read_annotations
from napari_histogan.labels.outlines import rasterize
from napari_histogan.pipeline import STAGE_FUNCTIONS
from napari_histogan.progress import QuietReporter
from napari_histogan.project.store import Project
from napari_histogan.slides.reader import open_slide


def cut(folder: Path, classes: ClassTable, top: int, count: int) -> Path:
    """Write pictures of 128 px and their masks, as they lie side by side on the slide."""
    outlines = read_annotations(REFERENCE)
    (folder / "images").mkdir(parents=True)
    (folder / "masks").mkdir()
    with open_slide(SLIDE) as slide:
        for k in range(count):
            region = Region(top, 300 + 160 * k, 128, 128)
            mask = rasterize(outlines, region, 1.0, classes)
            Image.fromarray(slide.read(region)).save(folder / "images" / f"{k}.png")
            Image.fromarray(mask).save(folder / "masks" / f"{k}.png")
    return folder


def main(folder: Path) -> None:
    project = make_project(folder / "project")
    train = cut(folder / "train", project.classes, 1100, 8)
    test = cut(folder / "test", project.classes, 1400, 3)
    few = {"patch_px": 32, "width": 4, "noise": 8, "epochs": 1, "patches": 64, "clahe": False}
    run(project, c.TrainPatchGanConfig(data=train, mpp=0.5, centers="pixels", **few))
    run(project, c.PredictPatchMapConfig(stride=8, region_um=(500.0, 500.0, 128.0, 128.0)))
    arms = {"painted": 2, "control": 3, "control_plus": 6, "seeds": 1}
    few = {"pairs": 32, "steps": 3, "width": 4, "batch": 4, "bootstrap": 20, "picture_steps": 3}
    run(project, c.LabelEfficiencyConfig(annotated=train, test=test, picture_mpp=0.5, **arms, **few))


def run(project: Project, config: c.StageConfig) -> None:
    print(STAGE_FUNCTIONS[config.stage](project, config, QuietReporter()).summary)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
