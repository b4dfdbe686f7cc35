"""The demo's report: what was painted, what was made of it, and how good it is on the slide."""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from PIL import Image

from napari_histogan import __version__
from napari_histogan.evaluation.figures import panels_in_rows, sample_sheet, slide_overlay
from napari_histogan.evaluation.report import Cell, Figure, Section, Table, interval, write_report
from napari_histogan.labels.classes import ClassTable
from napari_histogan.labels.interchange import read_annotations
from napari_histogan.project.artifacts import Artifact
from napari_histogan.project.store import Project
from napari_histogan.slides.reader import open_slide
from napari_histogan.slides.zarr_pyramid import open_pyramid

SHOWN = 12
SLIDE_PX = 1100


@dataclass(frozen=True)
class Row:
    """One net of the comparison.

    Parameters
    ----------
    title
        How the report calls it.
    segmenter, heatmap, evaluation
        Its artifacts.
    """

    title: str
    segmenter: Artifact
    heatmap: Artifact
    evaluation: Artifact


def write_demo_report(
    project: Project,
    samples: Artifact,
    classifier: Artifact,
    dataset: Artifact,
    rows: Sequence[Row],
    reference: Path,
) -> Path:
    """Write ``report/report.html`` and its figures into the project; returns the HTML file.

    Parameters
    ----------
    project
        The finished demo.
    samples, classifier
        The samples that were painted, and what was learned from them.
    dataset
        The synthetic pairs.
    rows
        The nets; the first one's heatmap is shown large.
    reference
        GeoJSON with the outlines drawn by eye.
    """
    classes = project.classes
    folder = project.root / "report"
    folder.mkdir(exist_ok=True)
    sections = [
        Section("Painted samples", [_painted_text(project, samples), _painted(project, samples, classes)]),
        Section(
            "Labeled by the generator's own features",
            [
                _synthetic_text(dataset),
                _uncertainty(project, samples, classifier),
                *_synthetic(dataset, classes),
            ],
        ),
        Section("How good is it on the slide?", [compare_nets(rows, classes), _explain()]),
        Section("The slide", _slides(project, rows, reference)),
        Section("How it was made", [_family(project, rows)]),
    ]
    lead = (
        f"napari-histogan {__version__}, {date.today().isoformat()}, {platform.machine()}, "
        f"Python {platform.python_version()}. Every step was an ordinary job of this project: {project.root}"
    )
    return write_report(folder / "report.html", "HistoGAN demo", sections, lead)


def _painted_text(project: Project, samples: Artifact) -> str:
    painted = project.painted(samples)
    pixels = sum(np.count_nonzero(_mask(project, samples, index)) for index in painted)
    return (
        f"The generator was trained on this slide without any label. {len(painted)} of its samples were "
        f"painted by looking at them, {pixels:,} pixels in all; unpainted pixels count as unlabeled."
    )


def _painted(project: Project, samples: Artifact, classes: ClassTable) -> Figure:
    chosen = project.painted(samples)[:SHOWN]
    images = np.asarray(zarr.open_group(samples.path / "samples.zarr", mode="r")["image"])[chosen]
    masks = np.stack([_mask(project, samples, i) for i in chosen])
    titles = [f"sample {i}" for i in chosen]
    sheet = sample_sheet(images, masks, None, classes, titles, columns=4)
    return Figure("painted-samples", sheet, "Samples of the generator, and what was painted on them.")


def _mask(project: Project, samples: Artifact, index: int) -> NDArray[np.uint8]:
    mask = project.load_mask(samples, index)
    return np.zeros((1, 1), np.uint8) if mask is None else mask


def _uncertainty(project: Project, samples: Artifact, classifier: Artifact, shown: int = 8) -> Figure:
    """Label some unpainted samples, and show where the members of the classifier disagree."""
    images, masks, doubt, chosen = label_samples(project, samples, classifier, most=64)
    order = np.argsort([np.sort(d.ravel())[-d.size // 10 :].mean() for d in doubt])
    pick = sorted(_spread(order, shown), key=lambda i: int(chosen[i]))
    titles = [f"sample {chosen[i]}" for i in pick]
    sheet = sample_sheet(images[pick], masks[pick], doubt[pick], project.classes, titles)
    caption = (
        "Samples that nobody painted, with the classes that the classifier gives them, and where its members "
        "disagree (Jensen-Shannon divergence): at borders, and where nothing like it was painted."
    )
    return Figure("uncertainty", sheet, caption)


def label_samples(
    project: Project, samples: Artifact, classifier: Artifact, most: int
) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.float32], NDArray[np.int64]]:
    """Label the first ``most`` unpainted samples.

    Returns
    -------
    tuple of numpy.ndarray
        Images ``(n, R, R, 3)`` uint8, classes ``(n, R, R)`` uint8, uncertainty ``(n, R, R)`` float32 in nats,
        and the samples' numbers ``(n,)``.
    """
    import torch  # only here: everything else that the demo does itself needs no networks

    from napari_histogan.inference.sampling import load_samples
    from napari_histogan.models.pixel_classifier import PixelPredictor, load_pixel_classifier
    from napari_histogan.models.stylegan2 import load_generator

    stored = load_samples(samples.path)
    chosen = np.setdiff1d(np.arange(len(stored.w)), project.painted(samples))[:most]
    source = next(parent.id for parent in samples.parents if parent.id.startswith("generators/"))
    generator = load_generator(project.find(source).path)
    predictor = PixelPredictor(load_pixel_classifier(classifier.path))
    masks, doubt = [], []
    with torch.inference_mode():
        for part in np.array_split(chosen, max(1, len(chosen) // 16)):
            noise = stored.noise_maps(generator.spec, part.tolist())
            _, maps = generator.synthesis.features(torch.from_numpy(stored.w[part]), noise=noise)
            prediction = predictor(maps, probabilities=False)
            masks.append(prediction.labels.numpy())
            doubt.append(prediction.uncertainty.numpy())
    return np.asarray(stored.image[:])[chosen], np.concatenate(masks), np.concatenate(doubt), chosen


def _synthetic_text(dataset: Artifact) -> str:
    return (
        f"{dataset.config['count']} new samples were labeled by the pixel "
        "classifier. Where its members disagree, the picture is uncertain; the most uncertain share "
        f"({dataset.config['drop_uncertain']:.0%}) was dropped."
    )


def _synthetic(dataset: Artifact, classes: ClassTable) -> list[Figure]:
    figures = []
    group: Any = zarr.open_group(dataset.path / "pairs.zarr", mode="r")
    kept = group["kept"][:].astype(bool)
    uncertainty = group["uncertainty"][:]
    order = np.argsort(uncertainty)
    groups = {
        "kept": ("synthetic-kept", "Kept pairs: picture and mask.", _spread(order[kept[order]], 8)),
        "dropped": ("synthetic-dropped", "Dropped: the most uncertain pairs.", order[~kept[order]][-4:]),
    }
    for name, caption, chosen in groups.values():
        if len(chosen):
            rows = sorted(int(i) for i in chosen)
            images, masks = group["images"].oindex[rows], group["masks"].oindex[rows]
            titles = [f"uncertainty {uncertainty[i]:.2f}" for i in rows]
            figures.append(Figure(name, sample_sheet(images, masks, None, classes, titles), caption))
    return figures


def _spread(values: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Pick ``count`` evenly spaced values."""
    picked: NDArray[np.int64] = values[np.linspace(0, len(values) - 1, min(count, len(values))).astype(int)]
    return picked


def compare_nets(rows: Sequence[Row], classes: ClassTable) -> Table:
    """Return the table of MCC and per-class Dice, one line a net."""
    cells: list[list[Cell]] = []
    for row in rows:
        scores = json.loads((row.evaluation.path / "evaluation.json").read_text(encoding="utf-8"))
        mcc = scores["overall"]["mcc"]
        dice = scores["per_class"]["dice"]
        shown = interval(mcc["value"], mcc["low"], mcc["high"])
        cells.append([row.title, shown, *(_number(d["value"]) for d in dice)])
    return Table(
        ["Net learned from", "MCC (95 % interval)", *(f"Dice {name}" for name in classes.names)],
        cells,
        "Compared with the reference outline of the whole slide; the outlined real patches are left out "
        "for all nets. Intervals: bootstrap over blocks of 128 um.",
    )


def _number(value: float | None) -> Cell:
    return float("nan") if value is None else value


def _explain() -> str:
    return (
        "All nets have the same architecture and saw only this slide; the generator saw its pixels, never "
        "the reference. One slide says how well this slide was segmented, not how other slides would be. "
        "The reference was drawn by eye on the screen, by one person who is not a pathologist."
    )


def _slides(project: Project, rows: Sequence[Row], reference: Path) -> list[str | Table | Figure]:
    entry = project.slides()[0]
    with open_slide(entry.path, entry.mpp) as slide:
        picture = slide.thumbnail(SLIDE_PX)
    downsample = entry.size.height / picture.shape[0]
    mpp = entry.mpp * downsample
    outlines = [a for a in read_annotations(reference) if a.class_name != "ignore"]
    best = slide_overlay(picture, project.classes, mpp, _probabilities(rows[0].heatmap), outlines, downsample)
    panels: list[tuple[str, Image.Image]] = [
        (row.title, slide_overlay(picture, project.classes, mpp, _probabilities(row.heatmap))) for row in rows
    ]
    return [
        Figure("slide", best, f"Tint: {rows[0].title}. Lines: the reference drawn by eye."),
        Figure("slide-all", panels_in_rows(panels, 3), "The three nets side by side."),
    ]


def _probabilities(heatmap: Artifact) -> NDArray[np.uint8]:
    levels = open_pyramid(heatmap.path / "heatmap.zarr").levels
    return np.asarray(levels[min(1, len(levels) - 1)][:])


def _family(project: Project, rows: Sequence[Row]) -> Table:
    made = project.artifacts()
    cells: list[list[Cell]] = [
        [a.id, a.stage.replace("_", "-"), ", ".join(p.id for p in a.parents) or "-", a.hash[:12]]
        for a in made
    ]
    return Table(["Result", "Stage", "Made from", "Content"], cells, f"{len(rows)} nets were compared.")
