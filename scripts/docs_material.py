"""Make what the pages' commands name, and do what a person does between them; for check_docs.py.

::

    python docs_material.py files FOLDER            slides, labels, outlines, pictures with masks
    python docs_material.py demo PROJECT            the demo with few steps
    python docs_material.py labeled PROJECT         a project from new to a small synthetic data set
    python docs_material.py paint PROJECT           six samples, by their brightness
    python docs_material.py outlines PROJECT        outlines.geojson in the project's classes
    python docs_material.py estimates PROJECT FILE  the newest sheet of block labels, filled in
    python docs_material.py correct PROJECT         one corrected region
"""

from __future__ import annotations

import csv
import shutil
import sys
from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

from napari_histogan import config as c
from napari_histogan.demo import CLASSES, GENERATOR, REFERENCE, SLIDE, DemoPlan, run_demo
from napari_histogan.geometry import Region
from napari_histogan.inference.sampling import load_samples
from napari_histogan.labels.annotation import Annotation
from napari_histogan.labels.interchange import read_annotations, write_annotations
from napari_histogan.pipeline import STAGE_FUNCTIONS
from napari_histogan.progress import QuietReporter
from napari_histogan.project.corrections import Correction
from napari_histogan.project.store import Project
from napari_histogan.slides.reader import open_slide

MPP = 0.5


def files(folder: Path) -> None:
    """Write all files that pages name."""
    shutil.copyfile(SLIDE, folder / "slide1.svs")
    shutil.copyfile(REFERENCE, folder / "outlines.geojson")
    (folder / "folder-of-slides").mkdir()
    labels = ["slide,label"]
    with open_slide(SLIDE) as slide:
        for k in range(6):
            pixels = slide.read(Region(800 + 300 * (k // 2), 300 + 700 * (k % 2), 900, 900))
            path = folder / "folder-of-slides" / f"slide{k + 1}.tif"
            per_cm = (1e4 / MPP, 1e4 / MPP)
            tifffile.imwrite(path, pixels, tile=(256, 256), resolution=per_cm, resolutionunit="CENTIMETER")
            labels.append(f"slide{k + 1},{'malign' if k % 2 else 'benign'}")
        for place, name in enumerate(("FOLDER", "DIR")):
            for kind in ("images", "masks"):
                (folder / name / kind).mkdir(parents=True)
            for k in range(6):
                pixels = slide.read(Region(1000 + 150 * place, 300 + 150 * k, 128, 128))
                write_pair(folder / name, str(k), pixels, binary=name == "FOLDER")
        Image.fromarray(slide.read(Region(1000, 600, 256, 256))).save(folder / "picture.png")
    (folder / "labels.csv").write_text("\n".join(labels) + "\n", encoding="utf-8")
    blocks = ["row,column,label"]
    blocks += [f"{y},{x},{('low', 'high')[(x + y) % 2]}" for y in range(6) for x in range(4)]
    (folder / "blocks.csv").write_text("\n".join(blocks) + "\n", encoding="utf-8")


def write_pair(folder: Path, name: str, pixels: NDArray[np.uint8], binary: bool) -> None:
    """Write a picture, and a mask by its brightness."""
    dark = pixels.mean(axis=2) < np.quantile(pixels.mean(axis=2), 0.3)
    mask = np.where(dark, 255, 0) if binary else np.where(dark, 1, 2)
    Image.fromarray(pixels).save(folder / "images" / f"{name}.png")
    Image.fromarray(mask.astype(np.uint8)).save(folder / "masks" / f"{name}.png")


def paint(root: Path) -> None:
    """Paint six samples of the newest set of drawn ones in bands of brightness, with every class."""
    project = Project.open(root)
    drawn = [a for a in project.artifacts("samples") if a.stage == "sample_images"][-1]
    cuts = np.linspace(0, 1, project.classes.num_classes + 1)[1:-1]
    for index, image in enumerate(load_samples(drawn.path).image[:6]):
        brightness = image.mean(axis=2)
        mask = 1 + np.digitize(brightness, np.quantile(brightness, cuts))
        project.save_mask(drawn, index, mask.astype(np.uint8))


def labeled(root: Path) -> None:
    """Make a project of the demo's slide and generator, up to the classifier and a few synthetic pairs."""
    project = Project.create(root, classes=CLASSES)
    before = (
        c.AddSlidesConfig(paths=(root.parent / "slide1.svs",)),
        c.ImportGanConfig(path=GENERATOR),
        c.SampleImagesConfig(count=12),
    )
    after = (
        c.TrainPixelClassifierConfig(members=2, epochs=2),
        c.SynthesizeDatasetConfig(count=48),
    )
    for config in before:
        STAGE_FUNCTIONS[config.stage](project, config, QuietReporter())
    paint(root)
    for config in after:
        STAGE_FUNCTIONS[config.stage](project, config, QuietReporter())


def outlines(root: Path) -> None:
    """Write the demo's outlines under the names of the project's classes."""
    names, known = Project.open(root).classes.names, list[str]()
    renamed = []
    for one in read_annotations(REFERENCE):
        if one.class_name not in known:
            known.append(one.class_name)
        name = names[known.index(one.class_name) % len(names)]
        renamed.append(Annotation(name, one.geometry))
    write_annotations(root.parent / "outlines.geojson", renamed)


def estimates(root: Path, target: Path) -> None:
    """Fill in the newest sheet: the first class has more of the blocks called high."""
    sheet = Project.open(root).artifacts("block_labels")[-1].path / "to_estimate.csv"
    with sheet.open(encoding="utf-8", newline="") as file:
        header, *rows = list(csv.reader(file))
    rest = len(header) - 4
    for number, row in enumerate(rows):
        share = (0.7 if row[2] == "high" else 0.1) + 0.02 * (number % 5)
        row[3:] = [f"{share:.2f}", f"{1 - share:.2f}", *["0"] * (rest - 1)]
    with target.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *rows])


def correct(root: Path) -> None:
    """Say that a corner is the last class."""
    project = Project.open(root)
    mask = np.full((128, 128), project.classes.num_classes, np.uint8)
    project.save_correction(Correction("corner", project.slide().name, Region(0, 0, 128, 128), 1.0, mask))


def demo(root: Path) -> None:
    """Run the demo with few steps."""
    run_demo(root, open_viewer=False, plan=DemoPlan(pairs=64, steps=6, transfer_steps=4, members=2, epochs=2))


if __name__ == "__main__":
    {f.__name__: f for f in (files, demo, labeled, paint, outlines, estimates, correct)}[sys.argv[1]](
        *map(Path, sys.argv[2:])
    )
