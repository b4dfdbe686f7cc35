"""How sure a figure is: bootstrap over blocks, and Welch's t-test between runs of two methods.

Neighboring pixels are alike, so resampling pixels would give intervals that are far too
narrow.  Blocks of tissue, patches, or slides are resampled instead.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Figure = Callable[[NDArray[Any]], NDArray[np.float64]]
"""Maps counts ``(..., a, b)`` to figures ``(...)`` or ``(..., K)``; see :mod:`napari_histogan.metrics`."""

_RESAMPLES_AT_ONCE = 200


@dataclass(frozen=True, slots=True)
class Interval:
    """A figure and its confidence interval.

    Attributes
    ----------
    value
        Of all blocks together.
    low, high
        Ends of the interval; NaN if there was nothing to resample.
    """

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Welch:
    """Welch's t-test of two sets of runs.

    Attributes
    ----------
    difference
        Mean of the first less mean of the second.
    low, high
        Ends of the difference's 95 % interval.
    p
        How likely so large a difference would be if the means were the same (two-sided).
    """

    difference: float
    low: float
    high: float
    p: float


def welch(first: Sequence[float], second: Sequence[float]) -> Welch:
    """Compare the means of independent runs, such as AUCs over seeds, without assuming equal variances.

    Raises
    ------
    ValueError
        If there are fewer than two runs of either.

    Reference: B. L. Welch: "The generalization of Student's problem when several different population
    variances are involved", Biometrika 34 (1947).
    """
    if min(len(first), len(second)) < 2:
        raise ValueError(f"{len(first)} and {len(second)} runs have no variance: each needs two or more")
    found = stats.ttest_ind(first, second, equal_var=False)
    interval = found.confidence_interval(0.95)
    difference = float(np.mean(first) - np.mean(second))
    return Welch(difference, float(interval.low), float(interval.high), float(found.pvalue))


def bootstrap(
    blocks: NDArray[Any], figure: Figure, resamples: int = 1000, seed: int = 0, level: float = 0.95
) -> list[Interval]:
    """Return a figure of the sum of all blocks, with percentile intervals.

    Parameters
    ----------
    blocks
        ``(B, a, b)`` counts, one confusion matrix a block.
    figure
        Function of summed counts; one number, or K of them.
    resamples
        Draws of B blocks with replacement; 0 leaves the interval out (NaN).
    seed
        Of the draws.
    level
        Share of the resamples inside the interval.

    Returns
    -------
    list of Interval
        One for each number of the figure.

    Reference: B. Efron, R. J. Tibshirani: "An introduction to the bootstrap", 1993, chapter 13.
    """
    value = np.atleast_1d(figure(blocks.sum(axis=0)))
    drawn = _resampled(len(blocks), resamples, seed, lambda weights: figure(_weighted_sum(weights, blocks)))
    return _intervals(value, drawn, level)


def bootstrap_difference(
    first: NDArray[Any],
    second: NDArray[Any],
    figure: Figure,
    resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> list[Interval]:
    """Return ``figure(first) - figure(second)`` with intervals; block b is the same tissue in both.

    The same blocks are drawn for both (paired), which takes out how hard a block is.  An
    interval that does not hold 0 tells the two apart.  Parameters as in :func:`bootstrap`.

    Raises
    ------
    ValueError
        If the two have not the same blocks.
    """
    if first.shape != second.shape:
        raise ValueError(f"the predictions have counts {first.shape} and {second.shape}, not the same blocks")

    def difference(weights: NDArray[np.float64]) -> NDArray[np.float64]:
        return figure(_weighted_sum(weights, first)) - figure(_weighted_sum(weights, second))

    value = np.atleast_1d(figure(first.sum(axis=0)) - figure(second.sum(axis=0)))
    return _intervals(value, _resampled(len(first), resamples, seed, difference), level)


def _weighted_sum(weights: NDArray[np.float64], blocks: NDArray[Any]) -> NDArray[np.float64]:
    """Return ``(R, a, b)``: for each row of weights ``(R, B)``, the blocks ``(B, a, b)`` so often."""
    flat = weights @ blocks.reshape(len(blocks), -1).astype(np.float64)
    return flat.reshape(len(weights), *blocks.shape[1:])


def _resampled(
    count: int, resamples: int, seed: int, figure: Callable[[NDArray[np.float64]], NDArray[np.float64]]
) -> NDArray[np.float64] | None:
    """Return the figures of the resamples, ``(R, K)``; None if there is nothing to resample."""
    if not resamples or not count:
        return None
    rng = np.random.default_rng(seed)
    parts = []
    for start in range(0, resamples, _RESAMPLES_AT_ONCE):
        n = min(_RESAMPLES_AT_ONCE, resamples - start)
        weights = rng.multinomial(count, np.full(count, 1 / count), size=n).astype(np.float64)
        parts.append(figure(weights).reshape(n, -1))
    return np.concatenate(parts)


def _intervals(value: NDArray[np.float64], drawn: NDArray[np.float64] | None, level: float) -> list[Interval]:
    """Return the percentile interval of each column; resamples without a figure (NaN) do not count."""
    tail = (1 - level) / 2
    intervals = []
    for k, middle in enumerate(value):
        column = drawn[:, k][np.isfinite(drawn[:, k])] if drawn is not None else np.empty(0)
        low, high = np.quantile(column, [tail, 1 - tail]) if len(column) else (np.nan, np.nan)
        intervals.append(Interval(float(middle), float(low), float(high)))
    return intervals
