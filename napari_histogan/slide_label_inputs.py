"""What the training on slide labels reads, and how its result is judged."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from napari_histogan.config.weak_labels import TrainWeaklyConfig
from napari_histogan.errors import ConfigError
from napari_histogan.evaluation.detection import (
    SlideDetections,
    detections_on,
    find_peaks,
    froc_curve,
    lesion_froc,
    lesion_map,
    roc_curve,
    slide_auc,
)
from napari_histogan.evaluation.plots import Axes, Curve, line_plot
from napari_histogan.geometry import Region
from napari_histogan.inference.slide_maps import write_slide_map
from napari_histogan.labels.beta import bernoulli_loss, toy_loss
from napari_histogan.labels.interchange import read_annotations
from napari_histogan.labels.outlines import paint
from napari_histogan.labels.slide_labels import BENIGN, MALIGN, UNKNOWN, read_slide_labels, require_both
from napari_histogan.models.device import Compute, resolve
from napari_histogan.progress import Reporter
from napari_histogan.project.slide_labels import slide_labels, slide_labels_path
from napari_histogan.project.store import Project
from napari_histogan.slides.shelf import SlideShelf
from napari_histogan.slides.tissue import tissue_mask
from napari_histogan.stage_inputs import open_entry
from napari_histogan.training.train_weakly import SCORES_FILE
from napari_histogan.training.weak_maps import MapSlide, WeakSlide, malign_percent
from napari_histogan.training.weak_schedule import beta_1_of

LOSS_PLOT, ROC_PLOT, FROC_PLOT = "loss.png", "roc.png", "froc.png"
_PEAK_UM = 75.0
_MOST_PEAK_CELLS = 4_000_000


def labeled_slides(
    project: Project, config: TrainWeaklyConfig, reporter: Reporter, held: ExitStack
) -> list[WeakSlide]:
    """Open the project's slides with their labels and their tissue; some of each kind are kept back.

    Raises
    ------
    LabelError, ConfigError, SlideError
        If labels, outlines, or a slide are not usable.
    """
    entries = project.slides()
    if config.labels is None:
        labels = slide_labels(project)
    else:
        labels = read_slide_labels(config.labels, [entry.name for entry in entries])
    kept_back = held_out(labels, config.holdout_share, config.seed)
    require_both({name: label for name, label in labels.items() if name not in kept_back})
    if config.lesions is not None:
        for name in kept_back:
            if labels[name] == MALIGN and not _outlines(config.lesions, name).is_file():
                raise ConfigError(
                    f"there are no outlines at {_outlines(config.lesions, name)}",
                    "one GeoJSON file for each malign slide that is kept back",
                    "add the file, or leave lesions out",
                )
    known = {BENIGN: False, MALIGN: True, UNKNOWN: None}
    slides, shelf = [], held.enter_context(closing(SlideShelf()))
    for done, entry in enumerate(entries):
        reporter.progress(done, len(entries), "slides", "Finding the tissue")
        reader = shelf.keep(open_entry(entry))
        tissue = tissue_mask(reader)
        slides.append(
            WeakSlide(entry.name, reader, known[labels[entry.name]], tissue, entry.name in kept_back)
        )
    return slides


def labels_file(project: Project, config: TrainWeaklyConfig) -> Path:
    """Return the file that the labels come from."""
    return config.labels if config.labels is not None else slide_labels_path(project)


def held_out(labels: Mapping[str, str], share: float, seed: int) -> set[str]:
    """Return the slides that are kept back: a share of each kind, rounded to the nearest number."""
    rng = np.random.default_rng(seed)
    names: set[str] = set()
    for kind in (BENIGN, MALIGN):
        of_kind = sorted(name for name, label in labels.items() if label == kind)
        names |= set(rng.permutation(of_kind)[: round(share * len(of_kind))].tolist())
    return names


def slide_mapper(config: TrainWeaklyConfig) -> MapSlide:
    """Return what makes the map of a slide: on the second GPU if there is one, else where it is trained."""
    compute = resolve(config)
    if compute.device.type == "cuda" and torch.cuda.device_count() > 1:
        compute = replace(compute, device=torch.device("cuda", 1))
    return _SlideMapper(config, compute)


class _SlideMapper:
    """Makes maps by the tiling engine."""

    def __init__(self, config: TrainWeaklyConfig, compute: Compute) -> None:
        self._config, self._compute = config, compute

    def __call__(self, net: Any, slide: WeakSlide, out: Path, reporter: Reporter) -> None:
        """Write the map of a slide."""
        write_slide_map(
            net,
            slide.reader,
            slide.tissue,
            out,
            reporter,
            mpp=self._config.mpp,
            class_names=(BENIGN, MALIGN),
            compute=self._compute,
            tile_px=self._config.map_tile_px,
        )


def show_loss(config: TrainWeaklyConfig, reporter: Reporter) -> float:
    """Draw what the chosen beta_1 means, as in the paper's figure 1, and return it.

    The upper picture is the loss over the malign probability q of malign and of benign pixels; the lower,
    where gamma is given, the toy model's loss, whose minimum is the accepted probability.
    """
    beta = (config.beta_0, beta_1_of(config))
    q = np.linspace(0.002, 0.998, 499)
    curves = [
        Curve("malign pixels", q.tolist(), bernoulli_loss(1.0, q, beta).tolist()),
        Curve("benign pixels", q.tolist(), bernoulli_loss(0.0, q, beta).tolist()),
    ]
    title = f"malign probability (beta_1 = {beta[1]:.3g})"
    pictures = [line_plot(curves, Axes(title, "loss", y_range=(0, 5)))]
    if config.gamma is not None:
        toy = toy_loss(q, config.gamma, beta)
        label = f"malign probability of benign tissue (gamma = {config.gamma:g})"
        pictures.append(line_plot([Curve("toy model", q.tolist(), toy.tolist())], Axes(label, "loss")))
    path = reporter.run_dir / "previews" / LOSS_PLOT
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet = np.concatenate([np.asarray(picture) for picture in pictures])
    Image.fromarray(sheet).save(path)
    reporter.preview("loss", path)
    return beta[1]


def judge(
    slides: list[WeakSlide], folder: Path, config: TrainWeaklyConfig, reporter: Reporter
) -> dict[str, float]:
    """Score the slides that were kept back: ROC of the slides, and FROC of the lesions if outlines are given.

    Parameters
    ----------
    slides
        As they were trained on and kept back.
    folder
        The result of the training, with ``slides.json``; the plots are added to it.
    config, reporter
        Of the training; maps lie below ``reporter.run_dir``.

    Returns
    -------
    dict[str, float]
        ``auc``, ``auc_low``, ``auc_high``, and ``froc`` likewise, as far as there is something to score.
    """
    rows = [row for row in json.loads((folder / SCORES_FILE).read_text(encoding="utf-8")) if row["held_out"]]
    malign = np.array([row["label"] == MALIGN for row in rows], bool)
    figures: dict[str, float] = {}
    if malign.any() and not malign.all():
        scores = np.array([row["score"] for row in rows], float)
        auc = slide_auc(malign, scores, config.bootstrap, config.seed)
        figures |= {"auc": auc.value, "auc_low": auc.low, "auc_high": auc.high}
        _plot(folder / ROC_PLOT, roc_curve(malign, scores), "share of benign slides", reporter)
    if config.lesions is not None and malign.any():
        by_name = {slide.name: slide for slide in slides}
        found = [
            _detections(
                by_name[row["slide"]],
                reporter.run_dir / row["map"],
                _outlines(config.lesions, row["slide"]) if row["label"] == MALIGN else None,
                config.mpp,
            )
            for row in rows
        ]
        if any(slide.lesion_count for slide in found):
            froc = lesion_froc(found, config.bootstrap, config.seed)
            figures |= {"froc": froc.value, "froc_low": froc.low, "froc_high": froc.high}
            _plot(folder / FROC_PLOT, froc_curve(found), "false positives per slide", reporter)
        else:
            reporter.warn("all lesions are isolated tumor cells: there is no FROC")
    return figures


def _detections(slide: WeakSlide, path: Path, outlines: Path | None, mpp: float) -> SlideDetections:
    """Return the peaks of a slide's map, laid over its lesions."""
    percent, cell_px = malign_percent(path, _MOST_PEAK_CELLS)
    cell_um = cell_px * mpp
    places, scores = find_peaks(percent.astype(np.float32) / np.float32(100), _PEAK_UM / cell_um)
    lesions: NDArray[np.int64] = np.zeros(percent.shape, np.int64)
    if outlines is not None:
        drawn = np.zeros(percent.shape, np.uint8)
        whole = Region(0, 0, *percent.shape)
        for annotation in read_annotations(outlines):
            paint(drawn, annotation.geometry, 1, whole, cell_um / slide.reader.mpp)
        lesions = lesion_map(drawn > 0, cell_um)
    return detections_on(places, scores, lesions)


def _plot(
    path: Path, points: tuple[NDArray[np.float64], NDArray[np.float64]], x_label: str, reporter: Reporter
) -> None:
    """Draw a curve of sensitivity."""
    curve = Curve(path.stem, points[0].tolist(), points[1].tolist())
    line_plot([curve], Axes(x_label, "sensitivity", y_range=(0, 1.02))).save(path)
    shown = reporter.run_dir / "previews" / path.name
    shown.parent.mkdir(parents=True, exist_ok=True)
    shown.write_bytes(path.read_bytes())
    reporter.preview(path.stem, shown)


def _outlines(folder: Path, name: str) -> Path:
    """Return where the outlines of a slide are."""
    return folder / f"{name}.geojson"
