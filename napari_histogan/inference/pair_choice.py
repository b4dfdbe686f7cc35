"""Which synthetic pairs to keep: the certain ones, and of these such that classes get the share they should.

The published way drops the most uncertain tenth (DatasetGAN, section 3.3) and takes classes as they come.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linprog
from scipy.sparse import coo_array, csr_array, hstack, identity

CLOSE_ENOUGH = 0.05
"""A class may fall short of its wanted share by this share of it."""


class Choice(NamedTuple):
    """Pairs that are kept.

    Attributes
    ----------
    kept
        (N,) bool.
    certain
        Pairs that are certain enough to be chosen from.
    shares
        (K,) mean share of the pixels of each class in the kept pairs, 0 to 1.
    short
        Numbers 0 to K - 1 of the classes that do not get their wanted share.
    """

    kept: NDArray[np.bool_]
    certain: int
    shares: NDArray[np.float64]
    short: list[int]


def wanted_shares(
    balance: str, class_shares: tuple[float, ...], num_classes: int
) -> NDArray[np.float64] | None:
    """Return what share each class should have, (K,) with sum 1; None takes classes as they come."""
    if balance == "equal":
        return np.full(num_classes, 1 / num_classes)
    if class_shares:
        shares = np.asarray(class_shares, np.float64)
        return np.asarray(shares / shares.sum(), np.float64)
    return None


def keep_certain(uncertainty: NDArray[np.float32], count: int) -> NDArray[np.bool_]:
    """Mark the ``count`` least uncertain pairs; of equals the first."""
    kept = np.zeros(len(uncertainty), np.bool_)
    kept[np.argsort(uncertainty, kind="stable")[:count]] = True
    return kept


def choose_pairs(
    uncertainty: NDArray[np.float32],
    fractions: NDArray[np.float32],
    count: int,
    drop: float,
    wanted: NDArray[np.float64] | None,
) -> Choice:
    """Choose ``count`` pairs.

    Parameters
    ----------
    uncertainty
        (N,) of each pair.
    fractions
        (N, K) share of the pixels of each class in each pair.
    count
        Pairs to keep.
    drop
        Share of the pairs that is dropped for being the most uncertain, whatever they show.
    wanted
        (K,) wanted shares, sum 1; None keeps the least uncertain pairs.

    Returns
    -------
    Choice
        The same for the same arguments.
    """
    if wanted is None:
        kept = keep_certain(uncertainty, count)
        return Choice(kept, count, fractions[kept].mean(axis=0, dtype=np.float64), [])
    certain = max(count, math.floor(len(uncertainty) * (1 - drop) + 1e-6))
    pool = np.flatnonzero(keep_certain(uncertainty, certain))
    kept = np.zeros(len(uncertainty), np.bool_)
    kept[pool[_closest(fractions[pool].astype(np.float64), count, wanted)]] = True
    shares = fractions[kept].mean(axis=0, dtype=np.float64)
    short = np.flatnonzero(shares < wanted * (1 - CLOSE_ENOUGH))
    return Choice(kept, certain, shares, [int(k) for k in short])


def _closest(fractions: NDArray[np.float64], count: int, wanted: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return ``count`` rows of (N, K) whose mean falls short of (K,) as little as can be.

    A linear program: x in [0, 1] for each row, s >= 0 for each class; sum of x = count,
    s_k >= wanted_k - mean_k, least sum of s_k / wanted_k.  At most K + 1 of its x are not 0 or 1.  Of rows
    that serve as well the first are taken, for the order of drawing means nothing.
    """
    n = len(fractions)
    asked = np.flatnonzero(wanted > 0)
    order = np.arange(n) / n * (1e-3 / count)
    cost = np.concatenate([order, 1 / wanted[asked]])
    below = hstack([csr_array(-fractions[:, asked].T / count), -identity(len(asked))], format="csr")
    ones = coo_array((np.ones(n), (np.zeros(n, np.int64), np.arange(n))), shape=(1, n + len(asked)))
    solve: Any = linprog  # its stubs know no sparse matrices
    found = solve(cost, below, -wanted[asked], ones, [count], (0.0, 1.0), method="highs")
    x = found.x[:n] if found.x is not None else np.linspace(1, 0, n)
    return np.argsort(-np.round(np.asarray(x, np.float64), 9), kind="stable")[:count]
