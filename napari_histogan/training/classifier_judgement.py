"""How well a pixel classifier does on painted images that it did not learn from (HDGAN, table 1)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from napari_histogan import metrics
from napari_histogan.errors import Stopped
from napari_histogan.labels.classes import ClassTable
from napari_histogan.models.device import Compute
from napari_histogan.models.pixel_classifier import PixelClassifier, PixelPredictor, Prediction, members_of
from napari_histogan.models.stylegan2 import Generator
from napari_histogan.models.uncertainty import ensemble_statistics
from napari_histogan.progress import Reporter

from .feature_cache import FeatureCache
from .image_split import ImageSplit
from .labelled_pixels import PaintedSamples, sample_levels

_CHUNK = 16384


@dataclass(frozen=True)
class Judgment:
    """Confusion matrices of painted images, all their painted pixels counted.

    Attributes
    ----------
    validation
        By image number: (K + 1, K + 1) int64, of images that chose the best pass; where there are folds an
        image is judged by the members that did not learn from it.
    test
        The same of images that had no part in training at all.
    """

    validation: dict[int, NDArray[np.int64]]
    test: dict[int, NDArray[np.int64]]

    def to_dict(self, classes: ClassTable) -> dict[str, Any]:
        """Return JSON values: ``validation`` and ``test``, each empty where no image is."""
        return {"validation": _figures(self.validation, classes), "test": _figures(self.test, classes)}


def judge_images(
    generator: Generator,
    samples: PaintedSamples,
    split: ImageSplit,
    classifier: PixelClassifier,
    compute: Compute,
    reporter: Reporter,
    cache: FeatureCache | None = None,
) -> Judgment:
    """Label every image that some member did not learn from, and count against what is painted.

    Parameters
    ----------
    generator, samples
        See :func:`~.train_pixel_classifier.train_pixel_classifier`.
    split
        Who learned from what; test images are judged by the whole ensemble.
    classifier
        Trained.
    compute
        Device and dtype.
    reporter
        Told about the progress.
    cache
        Of feature maps.

    Raises
    ------
    Stopped
        If a stop was asked for.
    """
    painted = samples.masks.any(axis=(1, 2))
    judges = np.where(split.tests, True, split.validates)
    chosen = np.logical_and(judges.any(axis=0), painted)
    found: tuple[dict[int, NDArray[np.int64]], ...] = ({}, {})
    classes = classifier.spec.num_classes
    parts = generator, samples, judges, chosen, classifier, compute, reporter, cache
    for i, prediction in held_out_predictions(*parts):
        labels = prediction.labels[0].cpu().numpy()
        found[int(split.tests[i])][i] = metrics.confusion_matrix(samples.masks[i], labels, classes)
    return Judgment(*found)


def held_out_predictions(
    generator: Generator,
    samples: PaintedSamples,
    judges: NDArray[np.bool_],
    chosen: NDArray[np.bool_],
    classifier: PixelClassifier,
    compute: Compute,
    reporter: Reporter,
    cache: FeatureCache | None = None,
    *,
    probabilities: bool = False,
) -> Iterator[tuple[int, Prediction]]:
    """Label samples, each by the members that judge it.

    Parameters
    ----------
    generator, samples, classifier, compute, reporter, cache
        See :func:`judge_images`.
    judges
        (M, n): which members judge which sample.
    chosen
        (n,): which samples are labeled; each has a judge.
    probabilities
        Whether the predictions hold them.

    Yields
    ------
    tuple[int, Prediction]
        The sample's number, and what its judges say.

    Raises
    ------
    Stopped
        If a stop was asked for.
    """
    predictors: dict[bytes, PixelPredictor] = {}
    for done, i in enumerate(np.flatnonzero(chosen)):
        if reporter.should_stop():
            raise Stopped("stopped while judging held-out images")
        reporter.progress(done, int(chosen.sum()), "images", "Judging held-out images")
        pattern = judges[:, i]
        if pattern.tobytes() not in predictors:
            own = members_of(classifier, np.flatnonzero(pattern).tolist()).to(compute.device)
            predictors[pattern.tobytes()] = PixelPredictor(own, compute.dtype)
        blocks = len(classifier.spec.layout.resolutions)
        made = sample_levels(generator, samples, int(i), compute.device, blocks, cache)[1]
        levels = {r: level.to(compute.dtype) for r, level, _ in made}
        yield int(i), predictors[pattern.tobytes()].label_levels(levels, probabilities)


@torch.inference_mode()
def validate_members(
    net: PixelClassifier, x: Tensor, label: Tensor, held: Tensor, judges: Tensor, classes: ClassTable
) -> dict[str, Any]:
    """Judge held-out pixels by the members that never saw their image; quick enough for every pass.

    Parameters
    ----------
    net
        In training.
    x, label
        What the nets read, (P, D), and the right classes, (P,) 0 to K - 1.
    held
        (H,) pixels that some member does not learn from.
    judges
        (M, P): which members judge which pixel.
    classes
        K classes.

    Returns
    -------
    dict[str, Any]
        ``loss``: the mean of the classes' cross-entropies, so that a rare class counts; ``pixel_accuracy``,
        ``mean_iou``, ``mean_dice``, ``dice`` (by class name); empty if no pixel is held out.
    """
    if not len(held):
        return {}
    net.eval()
    k = classes.num_classes
    loss, count = torch.zeros(k, dtype=torch.float64), torch.zeros(k, dtype=torch.float64)
    matrix = np.zeros((k + 1, k + 1), np.int64)
    for piece in torch.split(held, _CHUNK):
        logits = net(x[piece])
        truth, judge = label[piece], judges[:, piece]
        own = F.cross_entropy(logits.flatten(0, 1), truth.repeat(len(logits)), reduction="none")
        own = own.view(len(logits), -1)
        loss.index_add_(0, truth.cpu(), (own * judge).sum(0).double().cpu())
        count.index_add_(0, truth.cpu(), judge.sum(0).double().cpu())
        for pattern in torch.unique(judge.t(), dim=0):
            here = (judge.t() == pattern).all(dim=1)
            mean, _ = ensemble_statistics(logits[pattern][:, here].transpose(1, 2))
            right, predicted = truth[here].cpu().numpy() + 1, mean.argmax(0).cpu().numpy() + 1
            matrix += metrics.confusion_matrix(right, predicted, k)
    seen = count > 0
    return {"loss": float((loss[seen] / count[seen]).mean()), **_summary(matrix, classes)}


def _figures(counts: dict[int, NDArray[np.int64]], classes: ClassTable) -> dict[str, Any]:
    """Return the figures of all images together, and the counts of each for resampling."""
    if not counts:
        return {}
    matrix = np.sum(list(counts.values()), axis=0)
    return {
        **_summary(matrix, classes),
        "images": list(counts),
        "confusions": [m[1:, 1:].tolist() for m in counts.values()],
    }


def _summary(matrix: NDArray[np.int64], classes: ClassTable) -> dict[str, Any]:
    dice, iou, accuracy = metrics.dice(matrix), metrics.iou(matrix), metrics.recall(matrix)
    return {
        "pixel_accuracy": float(metrics.pixel_accuracy(matrix)),
        "mean_iou": float(np.nanmean(iou)),
        "mean_dice": float(np.nanmean(dice)),
        "dice": _by_name(dice, classes),
        "class_accuracy": _by_name(accuracy, classes),
        "confusion": matrix[1:, 1:].tolist(),
    }


def _by_name(values: NDArray[np.float64], classes: ClassTable) -> dict[str, float]:
    return {n: float(v) for n, v in zip(classes.names, values, strict=True) if math.isfinite(v)}
