"""Make the projects that the pictures of block labels and slide labels are taken of, by the real stages.

Usage: python docs/make_example_projects.py FOLDER [--idc FOLDER] [--steps 300]

FOLDER/blocks: the slide that ships, its outlines of epidermis averaged over blocks of 60 um and sorted into
ten bins; the blocks' shares, which a person would estimate, are those of the outlines.  FOLDER/patches:
the slide as a picture, with two dozen dabs of paint taken from these outlines.  FOLDER/slides (with
--idc): ten patients of `idc_breast` as slides (mosaics of their patches); who has a tumor patch is malign.

Citation of the latter: Cruz-Roa et al., SPIE Medical Imaging 2014, doi 10.1117/12.2043872.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from scipy.ndimage import distance_transform_edt, uniform_filter

from napari_histogan import config as c
from napari_histogan.config.block_labels import TEN_BINS
from napari_histogan.geometry import Region
from napari_histogan.jobs.runner import start_job
from napari_histogan.labels.block_labels import bin_names, binned, block_means
from napari_histogan.labels.classes import ClassTable
from napari_histogan.labels.interchange import read_annotations
from napari_histogan.labels.outlines import rasterize
from napari_histogan.project.artifacts import Artifact
from napari_histogan.project.calibrations import take_sheet
from napari_histogan.project.painted_pictures import keep_picture, picture_in
from napari_histogan.project.slide_labels import set_slide_labels
from napari_histogan.project.store import Project
from napari_histogan.slides.reader import open_slide

DEMO = Path(__file__).parents[1] / "napari_histogan" / "demo_data"
MPP, SIDE = 2.0, 30
CLASS = "epidermis"
PATIENTS = 10
STROKES, BRUSH, GLASS = 12, 4, 190


def main() -> int:
    """Make the projects; returns 0."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--idc", type=Path)
    parser.add_argument("--steps", type=int, default=300)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    make_blocks(options.folder, options.steps)
    make_patches(options.folder, options.steps)
    if options.idc is not None:
        make_slides(options.folder, options.idc, options.steps)
    return 0


def run(project: Project, config: c.StageConfig) -> Artifact:
    """Run a stage as a job and return what it made."""
    job = start_job(project.root, config)
    while (status := job.status()).state in ("queued", "running"):
        time.sleep(0.3)
    if status.state != "done":
        raise SystemExit(f"{config.stage} {status.state}: {job.tail_log(20)}")
    return project.artifacts(config.result)[-1]


def make_blocks(folder: Path, steps: int) -> None:
    """Make the project of the blocks: imported, estimated, trained on, and run over the slide."""
    project = Project.create(folder / "blocks", "Skin, from blocks", ClassTable.from_names([CLASS, "other"]))
    run(project, c.AddSlidesConfig(paths=(DEMO / "CMU-1-Small-Region.svs",)))
    entry = project.slides()[0]
    outlines = [a for a in read_annotations(DEMO / "reference.geojson") if a.class_name == CLASS]
    height, width = (round(side * entry.mpp / MPP) for side in (entry.size.height, entry.size.width))
    table = ClassTable.from_names([CLASS])
    mask = rasterize(outlines, Region(0, 0, height, width), MPP / entry.mpp, table) == 1
    shares = block_means(mask.astype(np.float64), SIDE)
    names, labels = bin_names(TEN_BINS), binned(100 * shares, TEN_BINS)
    lines = [f"{row},{column},{names[z]}" for (row, column), z in np.ndenumerate(labels)]
    path = folder / "blocks.csv"
    path.write_text("\n".join(["row,column,label", *lines]) + "\n", encoding="utf-8")
    made = run(project, c.ImportBlockLabelsConfig(path=path, block_um=SIDE * MPP))
    header, *asked = (made.path / "to_estimate.csv").read_text(encoding="utf-8").splitlines()
    filled = [header]
    for line in asked:
        row, column, label, *_ = line.split(",")
        share = shares[int(row), int(column)]
        filled.append(f"{row},{column},{label},{share:.4f},{1 - share:.4f}")
    sheet = folder / "filled.csv"
    sheet.write_text("\n".join(filled) + "\n", encoding="utf-8")
    take_sheet(project, made, sheet)
    small = {"block_px": SIDE, "width": 8, "threads": 1, "leave_out_rare": True}
    run(project, c.TrainSuperResolutionConfig(steps=steps, **small))
    run(project, c.PredictHeatmapConfig(threads=1))


def make_patches(folder: Path, steps: int) -> None:
    """Make the project of the painted picture: strokes from the outlines, learned from and mapped."""
    table = ClassTable.from_names([CLASS, "other"])
    project = Project.create(folder / "patches", "Skin, from few strokes", table)
    with open_slide(DEMO / "CMU-1-Small-Region.svs") as slide:
        size, mpp = slide.size_at(MPP), slide.mpp
        pixels = slide.read_at(Region(0, 0, *size.shape), MPP)
    outlines = [a for a in read_annotations(DEMO / "reference.geojson") if a.class_name == CLASS]
    inside = rasterize(outlines, Region(0, 0, *size.shape), MPP / mpp, ClassTable.from_names([CLASS])) == 1
    tissue = uniform_filter(pixels.min(axis=2), 15) < GLASS
    rng, painted = np.random.default_rng(1), Image.new("L", size.shape[::-1])
    for number, place in enumerate((inside, tissue & ~inside), 1):
        depth = distance_transform_edt(place)
        for y, x in rng.permutation(np.argwhere(depth > BRUSH))[:STROKES].tolist():
            ImageDraw.Draw(painted).ellipse((x - BRUSH, y - BRUSH, x + BRUSH, y + BRUSH), fill=number)
    mask = np.asarray(painted)
    data = keep_picture(project, "skin", pixels, mask)
    run(project, c.AddSlidesConfig(paths=(picture_in(data),), mpp=MPP))
    patches = 2 * int(np.bincount(mask.ravel(), minlength=3)[1:].min())
    small = {"patch_px": 32, "width": 16, "threads": 1, "channel": "rgb", "clahe": False}
    values = {"patches": patches, "epochs": max(1, steps // (patches // 64)), "preview_every": 50, **small}
    run(project, c.TrainPatchGanConfig(data=data, mpp=MPP, centers="pixels", **values))
    run(project, c.PredictPatchMapConfig(stride=2, threads=1))


def make_slides(folder: Path, idc: Path, steps: int) -> None:
    """Make the project of the slide labels: labeled, trained on, and scored."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
    from weak_supervision import read_patients

    files, labels = [], {}
    patients = read_patients(idc)
    kinds = [[p for p in patients if p.malign.any() == kind] for kind in (False, True)]
    for patient in [p for kind in kinds for p in kind[: PATIENTS // 2]]:
        files.append(folder / f"patient {patient.name}.png")
        Image.fromarray(patient.mosaic()).save(files[-1])
        labels[files[-1].stem] = "malign" if patient.malign.any() else "benign"
    table = ClassTable.from_names(["benign", "malign"])
    project = Project.create(folder / "slides", "Breast, from slide labels", table)
    run(project, c.AddSlidesConfig(paths=tuple(files), mpp=4.0))
    set_slide_labels(project, labels)
    small = {"patch_px": 48, "width": 4, "depth": 3, "map_tile_px": 256, "threads": 1, "buffer": 48}
    run(
        project,
        c.TrainWeaklyConfig(
            steps=steps, pretrain_steps=steps // 4, mpp=4.0, gamma=0.6, holdout_share=0.4, **small
        ),
    )


if __name__ == "__main__":
    sys.exit(main())
