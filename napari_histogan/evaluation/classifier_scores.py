"""How sure the figures of a pixel classifier are: intervals over its held-out painted images."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_histogan import metrics

from .significance import Figure, Interval, bootstrap

PLAN_FILE = "classifier.json"
_FIGURES: dict[str, Figure] = {
    "pixel_accuracy": metrics.pixel_accuracy,
    "class_accuracy": metrics.recall,
    "dice": metrics.dice,
    "iou": metrics.iou,
    "mean_dice": lambda m: _mean(metrics.dice(m)),
    "mean_iou": lambda m: _mean(metrics.iou(m)),
}


def score_classifier(folder: Path, resamples: int = 1000, seed: int = 0) -> dict[str, str | float | int]:
    """Add 95 % intervals to the figures in a classifier's JSON file.

    Images are resampled, not pixels: pixels of one image are alike, and images are what more painting adds.

    Parameters
    ----------
    folder
        With ``classifier.json``, whose ``validation`` and ``test`` hold a confusion matrix per image
        (:class:`~napari_histogan.training.classifier_judgement.Judgment`); each gains ``intervals``, by
        figure, and by class name for figures of classes: value, low, and high; null where there is no
        figure.
    resamples
        Draws of the images with replacement.
    seed
        Of the draws.

    Returns
    -------
    dict[str, str | float | int]
        The figures of the test images, or else of the validation images, in words for display.
    """
    path = folder / PLAN_FILE
    plan = json.loads(path.read_text(encoding="utf-8"))
    names = [str(entry["name"]) for entry in plan["spec"]["classes"]]
    shown: dict[str, str | float | int] = {}
    for part in ("validation", "test"):
        found = plan.get(part)
        if not found:
            continue
        # Row and column 0 are unlabeled, see napari_histogan.metrics.
        counts = np.pad(np.array(found["confusions"], np.int64), ((0, 0), (1, 0), (1, 0)))
        intervals = {key: bootstrap(counts, figure, resamples, seed) for key, figure in _FIGURES.items()}
        found["intervals"] = {key: _named(values, names) for key, values in intervals.items()}
        shown = {"judged on": f"{len(counts)} {part} images"}
        shown |= {key.replace("_", " "): _words(intervals[key][0]) for key in ("pixel_accuracy", "mean_iou")}
        shown |= {f"dice of {n}": _words(i) for n, i in zip(names, intervals["dice"], strict=True)}
        accuracies = zip(names, intervals["class_accuracy"], strict=True)
        shown |= {f"accuracy of {n}": _words(i) for n, i in accuracies}
        shown["most confused"] = _most_confused(counts.sum(axis=0)[1:, 1:], names)
    path.write_text(json.dumps(plan, indent=1, allow_nan=False), encoding="utf-8")
    return shown


def _mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the mean over the classes that have a figure, ``(..., K)`` to ``(...)``; NaN if none has."""
    there = np.isfinite(values)
    total = np.where(there, values, 0).sum(axis=-1)
    count = there.sum(axis=-1)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _named(values: list[Interval], names: list[str]) -> Any:
    """Return an interval, or one by each class name, as JSON values."""
    found = [[v if math.isfinite(v) else None for v in (i.value, i.low, i.high)] for i in values]
    return found[0] if len(found) == 1 else dict(zip(names, found, strict=True))


def _words(interval: Interval) -> str:
    """Say a figure and its interval."""
    if not math.isfinite(interval.value):
        return "not painted there"
    return f"{interval.value:.3f} ({interval.low:.3f} to {interval.high:.3f})"


def _most_confused(matrix: NDArray[np.int64], names: list[str]) -> str:
    """Say which class is most often taken for which, as a share of its pixels; (K, K) counts."""
    share = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    np.fill_diagonal(share, 0)
    truth, taken = np.unravel_index(int(share.argmax()), share.shape)
    if share[truth, taken] == 0:
        return "nothing"
    return f"{share[truth, taken]:.0%} of {names[truth]} taken for {names[taken]}"
