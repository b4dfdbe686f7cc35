"""Train the picture nets of a pixel classifier, and ask held-out samples whether they help."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from napari_histogan import metrics
from napari_histogan.config import TrainPixelClassifierConfig, TrainSegmenterConfig
from napari_histogan.errors import CheckpointError
from napari_histogan.labels.classes import ClassTable
from napari_histogan.models.device import Compute
from napari_histogan.models.picture_nets import PICTURE_NETS, PictureNets, combine
from napari_histogan.models.pixel_classifier import PixelClassifier
from napari_histogan.models.segmenter import load_segmenter, load_segmenter_info
from napari_histogan.models.stylegan2 import Generator
from napari_histogan.progress import PartReporter, Reporter

from .classifier_judgement import held_out_predictions
from .datasets import ArrayPairs
from .image_split import ImageSplit, hold_out
from .labelled_pixels import PaintedSamples, rebuilt_pictures
from .train_segmenter import train_segmenter

LARGEST_PATCH = 256
"""Larger pictures are cut, so that a batch fits into memory; in px."""
HELD_OUT_SHARE = 0.25
"""From ``folds_below`` painted samples on, all nets leave out the same ones."""


def train_picture_nets(
    generator: Generator,
    samples: PaintedSamples,
    split: ImageSplit,
    classifier: PixelClassifier,
    classes: ClassTable,
    config: TrainPixelClassifierConfig,
    reporter: Reporter,
    compute: Compute,
    folder: Path,
) -> dict[str, Any]:
    """Train ``config.picture_nets`` nets on what painted samples look like, and keep them if they help.

    Each leaves out other samples.  Samples that some net and some member of the classifier did not learn from
    are labeled by the classifier alone and by both; if both have the better mean Dice, the nets are kept.

    Parameters
    ----------
    generator, samples, classes
        See :func:`~.train_pixel_classifier.train_pixel_classifier`.
    split
        What the classifier's members learned from.
    classifier
        Trained.
    config
        ``picture_nets`` is 2 or more.
    reporter
        Finished nets below ``run_dir`` are taken over; an unfinished one goes on.
    compute
        Device and precision of the judgment.
    folder
        Of the classifier; gets the folder ``picture_nets`` if they are kept.

    Returns
    -------
    dict[str, Any]
        ``mean_dice_features`` and ``mean_dice_both`` on ``held_out`` samples, and ``kept``.

    Raises
    ------
    Stopped
        If a stop was asked for; finished nets stay.
    """
    usable = samples.masks.copy()
    usable[split.tests] = 0
    learns = hold_out(
        usable,
        classes.num_classes,
        HELD_OUT_SHARE,
        config.picture_nets,
        config.seed,
        config.folds_below,
    )
    painted = usable.any(axis=(1, 2))
    done = reporter.run_dir / PICTURE_NETS
    _forget_other_data(done, samples, learns)
    pictures = rebuilt_pictures(generator, samples, compute.device)
    for number, mine in enumerate(learns):
        part = PartReporter(reporter, done / str(number), number, len(learns), "Picture nets")
        if not _finished(part.run_dir / "segmenter"):
            chosen = np.flatnonzero(mine & painted)
            pairs = _cut(pictures[chosen], samples.masks[chosen])
            train_segmenter([pairs], classes.num_classes, _net_config(config, number), part, None, classes)
    report = _judge(generator, samples, split, learns, pictures, classifier, reporter, compute, done)
    kept = folder / PICTURE_NETS
    shutil.rmtree(kept, ignore_errors=True)
    if report["kept"]:
        for number in range(len(learns)):
            shutil.copytree(done / str(number) / "segmenter", kept / str(number))
    return report


def _forget_other_data(done: Path, samples: PaintedSamples, learns: NDArray[np.bool_]) -> None:
    """Remove what a stopped run left if it learned from other samples than this one."""
    digest = hashlib.sha256(learns.tobytes() + samples.masks.tobytes() + samples.w.tobytes()).hexdigest()
    mark = done / "learns_from.txt"
    if not mark.exists() or mark.read_text(encoding="utf-8") != digest:
        shutil.rmtree(done, ignore_errors=True)
        done.mkdir(parents=True)
        mark.write_text(digest, encoding="utf-8")


def _finished(folder: Path) -> bool:
    """Whether a net was written to its end; its JSON file is written last."""
    try:
        load_segmenter_info(folder)
    except CheckpointError:
        return False
    return True


def _net_config(config: TrainPixelClassifierConfig, number: int) -> TrainSegmenterConfig:
    """Return how one net is trained."""
    return TrainSegmenterConfig(
        steps=config.picture_steps,
        depth=3,
        validation_share=0.0,
        validate_every=config.picture_steps,
        seed=config.seed + number,
        device=config.device,
        precision=config.precision,
        threads=config.threads,
    )


def _cut(pictures: NDArray[np.uint8], masks: NDArray[np.uint8]) -> ArrayPairs:
    """Return pictures and masks as pairs, cut into quarters while they are large."""
    while pictures.shape[1] > LARGEST_PATCH:
        half = pictures.shape[1] // 2
        parts = [
            (slice(None), y, x)
            for y in (slice(half), slice(half, None))
            for x in (slice(half), slice(half, None))
        ]
        pictures = np.concatenate([pictures[p] for p in parts])
        masks = np.concatenate([masks[p] for p in parts])
    painted = masks.any(axis=(1, 2))
    return ArrayPairs(pictures[painted], masks[painted], 1.0)


def _judge(
    generator: Generator,
    samples: PaintedSamples,
    split: ImageSplit,
    learns: NDArray[np.bool_],
    pictures: NDArray[np.uint8],
    classifier: PixelClassifier,
    reporter: Reporter,
    compute: Compute,
    done: Path,
) -> dict[str, Any]:
    """Compare the classifier alone with both views, on samples that neither learned from."""
    nets = [load_segmenter(done / str(number) / "segmenter")[0] for number in range(len(learns))]
    painted = samples.masks.any(axis=(1, 2))
    judges = np.where(split.tests, True, split.validates)
    both = np.logical_and(judges.any(axis=0) & ~learns.all(axis=0), painted)
    k = classifier.spec.num_classes
    alone, together = np.zeros((2, k + 1, k + 1), np.int64)
    parts = generator, samples, judges, both, classifier, compute, reporter
    for index, features in held_out_predictions(*parts, probabilities=True):
        others = [net for net, mine in zip(nets, learns[:, index], strict=True) if not mine]
        picture = torch.from_numpy(pictures[index]).permute(2, 0, 1)[None]
        mixed = combine(features, PictureNets(others, compute)(picture))
        for matrix, labels in ((alone, features.labels), (together, mixed.labels)):
            matrix += metrics.confusion_matrix(samples.masks[index], labels[0].cpu().numpy(), k)
    return _verdict(alone, together, int(both.sum()), reporter)


def _verdict(
    alone: NDArray[np.int64], together: NDArray[np.int64], held_out: int, reporter: Reporter
) -> dict[str, Any]:
    """Return the figures, and whether the nets are kept; say so if they are not."""
    if not held_out:
        reporter.warn("no painted sample can be held out, so nothing tells whether the picture nets help")
        return {"held_out": 0, "kept": True}
    features, both = (float(np.nanmean(metrics.dice(matrix))) for matrix in (alone, together))
    kept = both > features
    if not kept:
        reporter.warn(
            f"the picture nets do not help (mean Dice {both:.3f} with them, {features:.3f} without, on "
            f"{held_out} held-out samples), so they are left out"
        )
    return {"held_out": held_out, "mean_dice_features": features, "mean_dice_both": both, "kept": kept}
