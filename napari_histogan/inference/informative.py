"""What to paint next: the samples that teach most."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree


def rank_informative(
    uncertainty: NDArray[np.floating[Any]],
    features: NDArray[np.floating[Any]],
    k: int,
    painted: NDArray[np.floating[Any]] | None = None,
) -> NDArray[np.int64]:
    """Choose what to paint next: samples that the ensemble is unsure of, no two alike.

    Greedy: each choice is the most uncertain, where samples count less the closer they are to one that is
    chosen or painted already, if closer than a sample usually is to its nearest neighbor.  To count all
    distances would favor outliers, which teach less (``docs/benchmarks.md``, sample_selection).

    Parameters
    ----------
    uncertainty
        (n,) of each sample of the pool, >= 0; see
        :func:`~napari_histogan.models.uncertainty.image_uncertainty`.
    features
        (n, ...) what tells samples apart, such as their w.
    k
        How many to choose; at most n are.
    painted
        (p, ...) features of samples that are painted.

    Returns
    -------
    NDArray[np.int64]
        (min(k, n),) indices into the pool, the most informative first.
    """
    flat = np.asarray(features, np.float64).reshape(len(features), -1)
    others = np.empty(0) if painted is None else np.asarray(painted, np.float64)
    others = others.reshape(-1, flat.shape[1])
    scale = np.maximum(flat.std(axis=0), 1e-12)
    flat, others = flat / scale, others / scale
    distance = np.full(len(flat), np.inf)
    for other in others:
        distance = np.minimum(distance, np.linalg.norm(flat - other, axis=1))
    chosen: list[int] = []
    left = np.ones(len(flat), np.bool_)
    usual = _usual_distance(flat)
    for _ in range(min(k, len(flat))):
        reach = np.minimum(distance / usual, 1.0)
        score = np.where(left, np.asarray(uncertainty, np.float64) * reach, -1.0)
        best = int(score.argmax())
        chosen.append(best)
        left[best] = False
        distance = np.minimum(distance, np.linalg.norm(flat - flat[best], axis=1))
    return np.array(chosen, np.int64)


def _usual_distance(flat: NDArray[np.float64]) -> float:
    """Return the median distance of samples (n, d) to their nearest neighbor; of 500 of many."""
    some = flat[np.linspace(0, len(flat) - 1, min(len(flat), 500)).astype(int)]
    nearest = np.asarray(cKDTree(flat).query(some, k=2)[0])[:, 1]
    usual = float(np.median(nearest[np.isfinite(nearest)])) if len(flat) > 1 else 0.0
    return max(usual, 1e-12)
