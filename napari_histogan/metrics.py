"""Plain numeric metrics: numpy in, numbers out.

Segmentation metrics are functions of a confusion matrix ``M`` of shape
``(..., K + 1, K + 1)``: ``M[t, p]`` counts pixels of true class ``t`` that were predicted
as ``p``.  Class 0 is "unlabeled": row 0 is empty, because such pixels have no truth;
column 0 counts pixels without a prediction, which are errors.  Leading axes (slides,
blocks, resamples) are kept, so that a bootstrap is one call.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.int64]
Figures = NDArray[np.float64]


def confusion_matrix(
    truth: NDArray[Any], predicted: NDArray[Any], num_classes: int, ignore: NDArray[np.bool_] | None = None
) -> Counts:
    """Count pixels by true and predicted class.

    Parameters
    ----------
    truth, predicted
        Class indices 0..K of the same shape; true 0 is left out, predicted 0 is an error.
    num_classes
        K.
    ignore
        Pixels to leave out as well.

    Returns
    -------
    numpy.ndarray
        ``(K + 1, K + 1) int64``.

    Raises
    ------
    ValueError
        If the shapes differ or an index exceeds K.
    """
    if truth.shape != predicted.shape or (ignore is not None and ignore.shape != truth.shape):
        raise ValueError(f"truth has the shape {truth.shape}, the prediction {predicted.shape}")
    counted = truth > 0 if ignore is None else (truth > 0) & ~ignore
    t, p = truth[counted].astype(np.int64), predicted[counted].astype(np.int64)
    if t.size and (t.max() > num_classes or p.max() > num_classes or p.min() < 0):
        raise ValueError(f"class index {max(t.max(), p.max())} does not lie in 0..{num_classes}")
    side = num_classes + 1
    return np.bincount(t * side + p, minlength=side * side).reshape(side, side)


def dice(matrix: NDArray[Any]) -> Figures:
    """Return 2 TP / (2 TP + FP + FN) of classes 1..K, ``(..., K)``; NaN for a class that is nowhere."""
    hit, false, missed, _ = _per_class(matrix)
    return _ratio(2 * hit, 2 * hit + false + missed)


def iou(matrix: NDArray[Any]) -> Figures:
    """Return TP / (TP + FP + FN) of classes 1..K, ``(..., K)``; NaN for a class that is nowhere."""
    hit, false, missed, _ = _per_class(matrix)
    return _ratio(hit, hit + false + missed)


def precision(matrix: NDArray[Any]) -> Figures:
    """Return TP / (TP + FP) of classes 1..K, ``(..., K)``; NaN for a class never predicted."""
    hit, false, _, _ = _per_class(matrix)
    return _ratio(hit, hit + false)


def recall(matrix: NDArray[Any]) -> Figures:
    """Return TP / (TP + FN) of classes 1..K, ``(..., K)``; NaN for a class without truth."""
    hit, _, missed, _ = _per_class(matrix)
    return _ratio(hit, hit + missed)


def class_mcc(matrix: NDArray[Any]) -> Figures:
    """Return Matthews' correlation of each class against the rest, ``(..., K)``.

    0 where it is not defined, that is, where truth or prediction is all or nothing.
    """
    hit, false, missed, rest = _per_class(matrix)
    # Roots first: the product of four pixel counts of a slide exceeds float64's exact range.
    scale = np.sqrt(hit + false) * np.sqrt(hit + missed) * np.sqrt(rest + false) * np.sqrt(rest + missed)
    return np.nan_to_num(_ratio(hit * rest - false * missed, scale))


def multiclass_mcc(matrix: NDArray[Any]) -> Figures:
    """Return the multi-class correlation R_K, ``(...)``; -1..1, 1 is perfect, 0 is chance.

    Reference: J. Gorodkin: "Comparing two K-category assignments by a K-category
    correlation coefficient", Comput. Biol. Chem. 28 (2004), equation 8.  0 where truth or
    prediction is all of one class.
    """
    counts = np.asarray(matrix, np.float64)
    total = counts.sum(axis=(-2, -1))
    correct = np.trace(counts, axis1=-2, axis2=-1)
    truth, predicted = counts.sum(axis=-1), counts.sum(axis=-2)
    shared = correct * total - (truth * predicted).sum(axis=-1)
    spread_truth = total**2 - (truth**2).sum(axis=-1)
    spread_predicted = total**2 - (predicted**2).sum(axis=-1)
    return np.nan_to_num(_ratio(shared, np.sqrt(spread_truth) * np.sqrt(spread_predicted)))


def pixel_accuracy(matrix: NDArray[Any]) -> Figures:
    """Return the share of counted pixels that are right, ``(...)``; NaN if none was counted."""
    counts = np.asarray(matrix, np.float64)
    return _ratio(np.trace(counts, axis1=-2, axis2=-1), counts.sum(axis=(-2, -1)))


def _per_class(matrix: NDArray[Any]) -> tuple[Figures, Figures, Figures, Figures]:
    """Return true positives, false positives, false negatives, true negatives of classes 1..K."""
    counts = np.asarray(matrix, np.float64)
    hit = np.diagonal(counts, axis1=-2, axis2=-1)
    false = counts.sum(axis=-2) - hit
    missed = counts.sum(axis=-1) - hit
    rest = counts.sum(axis=(-2, -1))[..., None] - hit - false - missed
    return hit[..., 1:], false[..., 1:], missed[..., 1:], rest[..., 1:]


def _ratio(above: Figures, below: Figures) -> Figures:
    """Divide; NaN where the denominator is 0."""
    out: Figures = np.full(np.shape(below), np.nan)
    np.divide(above, below, out=out, where=np.asarray(below) != 0)
    return out


def sliced_wasserstein(
    first: NDArray[np.uint8], second: NDArray[np.uint8], *, seed: int = 0, directions: int = 128
) -> float:
    """Compare two sets of pictures by the distribution of their small details.

    Pictures are cut into 7 x 7 pieces at full, half, quarter, ... size; each size's pieces are projected on
    random directions, and the sorted projections compared (Karras et al. 2018, "Progressive Growing of GANs",
    section 5; here without normalization, so that wrong colors count).

    Parameters
    ----------
    first, second
        ``(N, S, S, C) uint8``, with the same N; S of 8 or more.
    seed
        Seed of places and directions; compare only figures of the same seed and N.
    directions
        Random directions.

    Returns
    -------
    float
        Mean distance over sizes and directions in gray levels; 0 for equal sets.

    Raises
    ------
    ValueError
        If the sets differ in shape.
    """
    if first.shape != second.shape:
        raise ValueError(f"sets of shapes {first.shape} and {second.shape} cannot be compared")
    rng = np.random.default_rng(seed)
    a, b = first.astype(np.float32), second.astype(np.float32)
    distances = []
    while a.shape[1] >= 8:
        places = rng.integers(0, a.shape[1] - 6, size=(8, 2))
        axes = rng.standard_normal((49 * a.shape[3], directions)).astype(np.float32)
        axes /= np.linalg.norm(axes, axis=0)
        projected = [np.sort(_pieces(x, places) @ axes, axis=0) for x in (a, b)]
        distances.append(np.abs(projected[0] - projected[1]).mean())
        a, b = (
            x.reshape(len(x), x.shape[1] // 2, 2, x.shape[2] // 2, 2, x.shape[3]).mean(axis=(2, 4))
            for x in (a, b)
        )
    return float(np.mean(distances))


def _pieces(x: NDArray[np.float32], places: NDArray[np.int64]) -> NDArray[np.float32]:
    """Cut 7 x 7 pieces at the same places out of every picture; ``(N * places, 49 C)``."""
    return np.concatenate([x[:, y : y + 7, z : z + 7].reshape(len(x), -1) for y, z in places])


def frechet_distance(first: NDArray[Any], second: NDArray[Any]) -> float:
    """Return the Frechet distance between normal distributions fitted to two sets of features.

    Heusel et al. 2017, equation 6: ``|m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2))``; FID with features of
    Inception. With ``C1 = A^T A`` and ``C2 = B^T B`` the trace of the root is the sum of the singular values
    of ``A B^T``, so no matrix root is taken, which fails for fewer samples than features.

    Parameters
    ----------
    first, second
        ``(N, D)`` and ``(M, D)``, with N and M of 2 or more.

    Raises
    ------
    ValueError
        If the sets have different features or fewer than 2 samples.
    """
    _check_features(first, second)
    a, b = np.asarray(first, np.float64), np.asarray(second, np.float64)
    roots = [_covariance_root(x) for x in (a, b)]
    spread = sum(float((root**2).sum()) for root in roots)
    shared = float(np.linalg.svd(roots[0] @ roots[1].T, compute_uv=False).sum())
    return max(float(((a.mean(0) - b.mean(0)) ** 2).sum()) + spread - 2 * shared, 0.0)


def kernel_distance(
    first: NDArray[Any], second: NDArray[Any], *, subsets: int = 50, subset_size: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """Return the squared maximum mean discrepancy of two sets of features, and its standard error.

    Binkowski et al. 2018, section 4, equation 4: unbiased, with the kernel ``(x . y / D + 1)^3``, as a mean
    over random subsets; KID with features of Inception. May be slightly negative.

    Parameters
    ----------
    first, second
        ``(N, D)`` and ``(M, D)``, with N and M of 2 or more.
    subsets, subset_size
        Number and size of the subsets, at most N and M; one where the subset is all of both.
    seed
        Seed of the subsets.

    Raises
    ------
    ValueError
        If the sets have different features or fewer than 2 samples.
    """
    _check_features(first, second)
    size = min(subset_size, len(first), len(second))
    count = 1 if size == len(first) == len(second) else subsets
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        x, y = (np.asarray(s[rng.choice(len(s), size, replace=False)], np.float64) for s in (first, second))
        xx, yy, xy = ((p @ q.T / x.shape[1] + 1) ** 3 for p, q in ((x, x), (y, y), (x, y)))
        within = (xx.sum() - np.trace(xx) + yy.sum() - np.trace(yy)) / (size * (size - 1))
        found.append(within - 2 * xy.mean())
    error = float(np.std(found, ddof=1) / np.sqrt(count)) if count > 1 else float("nan")
    return float(np.mean(found)), error


def _covariance_root(x: Figures) -> Figures:
    """Return some A, at most (D, D) or (N, D), with A^T A the covariance of x (N, D)."""
    a = (x - x.mean(axis=0)) / np.sqrt(len(x) - 1)
    return a if len(a) <= a.shape[1] else np.linalg.qr(a).R


def _check_features(first: NDArray[Any], second: NDArray[Any]) -> None:
    if first.ndim != 2 or second.ndim != 2 or first.shape[1] != second.shape[1]:
        raise ValueError(f"sets of shapes {first.shape} and {second.shape} cannot be compared")
    if min(len(first), len(second)) < 2:
        raise ValueError(f"sets of {len(first)} and {len(second)} samples are too small, at least 2 each")
