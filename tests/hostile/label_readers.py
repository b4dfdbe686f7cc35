"""Readers of what people say: tables, block labels, folders of pictures, settings, and a project's labels."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

SLIDES = ("a1", "a2", "m1")
VALUES, CLASSES = ("high", "low"), ("gland", "stroma")
SIDE, BLOCK = 96, 16.0
"""Side of the slide in pixels of 1 um, and of a block in um."""


def tables(folder: Path) -> list[Path]:
    """Write labels of slides, means and deviations, a sheet of estimates, and a stored table."""
    from napari_histogan.labels.calibration import read_calibration

    (folder / "slides.csv").write_text("slide,label\na1,benign\nm1,malign\n", encoding="utf-8")
    (folder / "given.csv").write_text(
        "label,class,mean,sd\nhigh,gland,0.8,0.1\nhigh,stroma,0.2,0.1\nlow,gland,0.1,0.05\nlow,stroma,0.9,0.05\n",
        encoding="utf-8",
    )
    rows = [
        f"{row},{k},{value},{share},{1 - share:.2f}" for row in range(3) for k, value, share in _estimates()
    ]
    text = "\ufeffrow,column,label,gland,stroma\n" + "\n".join(rows) + "\n4,1,low,,\n"
    (folder / "estimates.csv").write_text(text, encoding="utf-8")
    read_calibration(folder / "given.csv", VALUES, CLASSES).save(folder / "stored.json")
    return sorted(folder.iterdir())


def _estimates() -> list[tuple[int, str, float]]:
    return [(0, "high", 0.75), (1, "low", 0.25)]


def read_table(path: Path) -> None:
    """Read one of the tables, each as its stage does."""
    from napari_histogan.labels import calibration
    from napari_histogan.labels.slide_labels import read_slide_labels, require_both

    if path.name == "slides.csv":
        require_both(read_slide_labels(path, SLIDES))
    elif path.name == "stored.json":
        calibration.few(calibration.CalibrationTable.load(path))
    else:
        calibration.read_calibration(path, VALUES, CLASSES)
        if path.name == "estimates.csv":
            calibration.read_estimates(path, CLASSES)


def block_labels(folder: Path) -> list[Path]:
    """Write every form of block labels of one slide, beside the slide, and labels as they are stored."""
    from napari_histogan.geometry import Region, Size
    from napari_histogan.labels.block_labels import BlockLabels
    from napari_histogan.slides.zarr_pyramid import PyramidWriter

    count = int(SIDE / BLOCK)
    places = [(row, column) for row in range(count) for column in range(count)]
    named = [f"{row},{column},{VALUES[(row + column) % 2]}" for row, column in places]
    scored = [f"{column * BLOCK},{row * BLOCK},{(row * 17 + column) % 101}" for row, column in places[:-1]]
    (folder / "named.csv").write_text("\n".join(["row,column,label", *named]) + "\n", encoding="utf-8")
    (folder / "scored.csv").write_text("\n".join(["x_um,y_um,score", *scored]) + "\n", encoding="utf-8")
    squares = ",".join(_square(row, column) for row, column in places[:12])
    text = '{"type":"FeatureCollection","features":[' + squares + "]}"
    (folder / "tiles.geojson").write_text(text, encoding="utf-8")
    grid = np.add.outer(np.arange(count), np.arange(count)) % 3
    Image.fromarray(grid.astype(np.uint8)).save(folder / "grid.png")
    writer = PyramidWriter(folder / "map.zarr", Size(SIDE, SIDE), ["gland"], mpp=1.0, chunk=48)
    for y in (0, 48):
        for x in (0, 48):
            writer.write(Region(y, x, 48, 48), np.full((1, 48, 48), y + x // 2, np.uint8))
    writer.close()
    (folder / "kept").mkdir()
    BlockLabels(("0", "1", "2"), grid.astype(np.int16), BLOCK).save(folder / "kept")
    damaged = [path for path in folder.rglob("*") if path.is_file()]
    Image.new("RGB", (SIDE, SIDE), (200, 120, 170)).save(folder / "slide.png")
    return sorted(damaged)


def _square(row: int, column: int) -> str:
    top, left = row * BLOCK, column * BLOCK
    corners = [
        (left, top),
        (left + BLOCK, top),
        (left + BLOCK, top + BLOCK),
        (left, top + BLOCK),
        (left, top),
    ]
    ring = ",".join(f"[{x},{y}]" for x, y in corners)
    about = '{"classification":{"name":"' + VALUES[column % 2] + '"}}'
    outline = '{"type":"Polygon","coordinates":[[' + ring + "]]}"
    return '{"type":"Feature","geometry":' + outline + ',"properties":' + about + "}"


def read_block_labels(path: Path) -> None:
    """Read a file or map of labels onto the grid of its slide, as the import does."""
    from napari_histogan.block_inputs import block_labels_of
    from napari_histogan.config import ImportBlockLabelsConfig
    from napari_histogan.labels.block_labels import BlockLabels
    from napari_histogan.progress import QuietReporter
    from napari_histogan.slides.reader import open_slide

    root = next(parent for parent in path.parents if (parent / "slide.png").exists())
    if path.parent.name == "kept":
        BlockLabels.load(path.parent).counts()
        return
    source = root / "map.zarr" if (root / "map.zarr") in path.parents else path
    config = ImportBlockLabelsConfig(path=source, slide="slide", block_um=BLOCK)
    reporter: Any = QuietReporter(root / "run")
    unused: Any = None  # a project; a file needs none
    with open_slide(root / "slide.png", mpp=1.0) as slide:
        block_labels_of(unused, config, reporter, slide, "slide")[0].counts()


def picture_folder(folder: Path) -> list[Path]:
    """Write pictures with masks of the same names, as training takes them."""
    (folder / "data" / "images").mkdir(parents=True)
    (folder / "data" / "masks").mkdir()
    y, x = np.mgrid[:64, :64]
    picture = np.stack([x * 3, y * 3, x + y], axis=-1).astype(np.uint8)
    for name, suffix in (("one", "png"), ("two", "jpg")):
        Image.fromarray(picture).save(folder / "data" / "images" / f"{name}.{suffix}")
        Image.fromarray((x // 32 + y // 32).astype(np.uint8)).save(folder / "data" / "masks" / f"{name}.png")
    return sorted(path for path in folder.rglob("*") if path.is_file())


def read_picture_folder(path: Path) -> None:
    """Open the folder as a source of pairs, and draw one; then as a stream of patches."""
    from napari_histogan.labels.classes import ClassTable
    from napari_histogan.slides.patches import FolderPatches
    from napari_histogan.training.picture_folders import PictureFolder

    root = next(parent for parent in path.parents if parent.name == "data")
    source = PictureFolder(root, 1.0, ClassTable.from_names(list(CLASSES)), 32, 1.0)
    source.batch([0, len(source) - 1])
    with closing(FolderPatches(root / "images", 32, 0)) as patches:
        patches.next_batch(2)


def settings(folder: Path) -> list[Path]:
    """Write the settings of several stages as files that people edit."""
    from napari_histogan import config as c

    stages = (c.TrainGanConfig(), c.TrainSegmenterConfig(), c.SynthesizeDatasetConfig(count=10))
    for config in stages:
        (folder / f"{config.stage}.toml").write_text(c.dump_config(config), encoding="utf-8")
    return sorted(folder.iterdir())


def read_settings(path: Path) -> None:
    """Read a file of settings for the stage that it is named after."""
    from napari_histogan.config import STAGES, load_config

    load_config(STAGES[path.stem], path)


def human_work(folder: Path) -> list[Path]:
    """Write a project with masks and their history, corrections, estimates, labels of slides, and a draft."""
    from napari_histogan.config import SampleImagesConfig
    from napari_histogan.geometry import Region, Size
    from napari_histogan.labels.classes import ClassTable
    from napari_histogan.progress import QuietReporter
    from napari_histogan.project.calibrations import Calibration
    from napari_histogan.project.corrections import Correction
    from napari_histogan.project.frame_draft import save_draft
    from napari_histogan.project.painted_pictures import keep_picture
    from napari_histogan.project.slide_labels import set_slide_labels
    from napari_histogan.project.slide_list import SlideEntry
    from napari_histogan.project.store import Project

    project = Project.create(folder / "project", classes=ClassTable.from_names(list(CLASSES)))
    slide = folder / "slide.png"
    project.add_slide_entries([SlideEntry(name, slide, 1.0, Size(64, 64), "0" * 32) for name in SLIDES])
    with project.new_artifact("samples", SampleImagesConfig(), QuietReporter(folder / "run")) as draft:
        (draft.path / "x").write_text("samples")
    mask = (np.add.outer(np.arange(32), np.arange(32)) % 3).astype(np.uint8)
    for turn in range(3):
        project.save_mask(draft.result, 1, np.roll(mask, turn, axis=0))
    project.masks(draft.result).finish_history()
    place = Correction("edge", "a1", Region(0, 0, 32, 32), 1.0, mask)
    project.save_correction(place)
    save_draft(project.root, place)
    Calibration(project, "block_labels/0009").estimate(0, 1, "high", {"gland": 0.5, "stroma": 0.5})
    set_slide_labels(project, {"a1": "benign", "m1": "malign"})
    keep_picture(project, "photo", np.repeat(mask[..., None] * 80, 3, axis=2), mask)
    return sorted(path for path in (project.root).rglob("*") if path.is_file() and _is_work(path))


def _is_work(path: Path) -> bool:
    return {"labels", "drafts"} & {parent.name for parent in path.parents} != set()


def read_human_work(path: Path) -> None:
    """Read all of it; one damaged part must not hide the others by an error of another kind."""
    from napari_histogan.errors import HistoganError
    from napari_histogan.project.calibrations import Calibration
    from napari_histogan.project.frame_draft import load_draft
    from napari_histogan.project.painted_pictures import keep_picture
    from napari_histogan.project.slide_labels import slide_labels
    from napari_histogan.project.store import Project

    project = Project.open(next(parent for parent in path.parents if parent.name == "project"))
    masks, blank = project.masks("samples/0001"), np.zeros((8, 8, 3), np.uint8)
    refused: list[HistoganError] = []
    for look in (
        lambda: [masks.load(index) for index in masks.painted()],
        lambda: [masks.load_version(version) for version in masks.history(1)],
        lambda: project.corrections(),
        lambda: load_draft(project.root),
        lambda: Calibration(project, "block_labels/0009").estimates(),
        lambda: slide_labels(project),
        lambda: keep_picture(project, "photo", blank),
    ):
        try:
            look()
        except HistoganError as error:
            refused.append(error)
    if refused:
        raise refused[0]
