"""From which slide, and from where on it, the next patch comes (paper 002, section 3.1.2).

A place is drawn with probability ``Q^alpha / sum Q^alpha`` over the tissue, Q being the slide's latest map,
or the rank that its values have among those of benign tissue (:func:`by_rank`).  Malign and benign slides
come equally often, benign ones in proportion to the sum of their map, which is their error.  No slide is left
unvisited for more than a number of epochs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_histogan.errors import TrainingError

_LEAST_PERCENT = 0.25
"""A map holds whole percents; 0 stands for less than half a percent, on average for this."""

_VALUES = 256
_OF_VALUE = np.maximum(np.arange(_VALUES, dtype=np.float64), _LEAST_PERCENT) / 100


def by_probability(alpha: float) -> NDArray[np.float64]:
    """Return how often a cell of each percent is drawn, ``(256,)``: ``Q^alpha``, as in paper 002."""
    return np.asarray(_OF_VALUE**alpha)


def by_rank(benign: NDArray[np.int64], alpha: float) -> NDArray[np.float64] | None:
    """Return how often a cell of each percent is drawn: its rank among benign tissue to the power of alpha.

    A net that learned from patches of which few are malign says nearly the same everywhere, and a power of
    its probability draws nearly evenly.  What tells malign from benign tissue then is which are highest.
    The rank of a percent is the share of benign tissue below it, and half of that at it.

    Parameters
    ----------
    benign
        ``(256,)`` number of cells (or their area) of each percent on the maps of benign slides.
    alpha
        0 draws evenly.

    Returns
    -------
    ndarray
        ``(256,) float64``; None if no benign slide has a map: evenly.
    """
    total = benign.sum()
    if not total:
        return None
    ranks = (np.cumsum(benign) - benign / 2) / total
    return np.asarray(np.maximum(ranks, 0.5 / total) ** alpha)


def told_apart(benign: NDArray[np.int64], malign: NDArray[np.int64]) -> float | None:
    """Return how often a place of a malign slide lies above one of a benign slide; ties count half.

    Slide labels alone tell it.  At 0.5 a net has learned nothing, below it has turned round; malign tissue on
    a share f of malign slides, told apart perfectly from the rest, makes it 0.5 + f / 2.

    Parameters
    ----------
    benign, malign
        ``(256,)`` number of cells (or their area) of each percent on the maps of benign and malign slides.

    Returns
    -------
    float
        0..1; None if one kind has no map.
    """
    if not benign.sum() or not malign.sum():
        return None
    ranks = (np.cumsum(benign) - benign / 2) / benign.sum()
    return float((malign * ranks).sum() / malign.sum())


class PlaceSampler:
    """Draws cells of a map; O(n) once, then O(log n) a draw, by weights that may change from draw to draw.

    Cells are kept in the order of their percents: a percent is drawn first, then one of its cells.

    Parameters
    ----------
    percent
        ``(h, w) uint8`` malign probability, 0..100; None for a slide without a map: always evenly.
    tissue
        ``(h, w) bool``; only these cells are drawn.

    Attributes
    ----------
    counts
        ``(256,) int64`` cells of tissue of each percent; all of percent 0 without a map.
    error
        Sum of the probabilities, 0 without a map.

    Raises
    ------
    TrainingError
        If no cell is tissue, or map and tissue have different sizes.
    """

    def __init__(self, percent: NDArray[np.uint8] | None, tissue: NDArray[np.bool_]) -> None:
        if percent is not None and percent.shape != tissue.shape:
            raise TrainingError(f"a map of {percent.shape} cells lies on tissue of {tissue.shape}")
        self.width = tissue.shape[1]
        self.cells = np.flatnonzero(tissue)
        if not len(self.cells):
            raise TrainingError("no cell of a map is tissue", "tissue on every slide")
        self.error, self.is_mapped = 0.0, percent is not None
        if percent is not None:
            values = percent.ravel()[self.cells]
            self.error = float(_OF_VALUE[values].sum())
            self.cells = self.cells[np.argsort(values, kind="stable")]
            self.counts = np.bincount(values, minlength=_VALUES)
        else:
            self.counts = np.bincount([0], [len(self.cells)], _VALUES).astype(np.int64)
        self._starts = np.cumsum(self.counts) - self.counts

    def draw(
        self, count: int, rng: np.random.Generator, weights: NDArray[np.float64] | None = None
    ) -> NDArray[np.int64]:
        """Return rows and columns of cells, ``(count, 2)``.

        Parameters
        ----------
        count, rng
            How many, and by which chance.
        weights
            ``(256,)``, positive: how often a cell of each percent is drawn; None draws evenly.
        """
        if weights is None or not self.is_mapped:
            flat = self.cells[rng.integers(len(self.cells), size=count)]
        else:
            sums = np.cumsum(self.counts * weights)
            values = np.searchsorted(sums, rng.random(count) * sums[-1], side="right")
            values = np.minimum(values, np.flatnonzero(self.counts)[-1])
            flat = self.cells[self._starts[values] + rng.integers(self.counts[values])]
        return np.stack([flat // self.width, flat % self.width], axis=1)


class SlideChooser:
    """Chooses slides, one visit at a time, and keeps count of visits.

    An epoch is as many visits as there are slides.  A slide whose last visit lies so far back that it
    (with others as late) could otherwise miss its date comes first: earliest date first.

    Parameters
    ----------
    malign
        Whether each slide is malign; both kinds are there.
    every_epochs
        Every slide is visited at least once in so many epochs.
    balanced
        Malign and benign equally often, and benign ones by their error; else all slides equally often.
    """

    def __init__(self, malign: Sequence[bool], every_epochs: int, balanced: bool = True) -> None:
        self.malign = np.asarray(malign, bool)
        self.errors = np.full(len(self.malign), np.nan)
        """Sum of each slide's map over its tissue; NaN before its first map."""
        self.visits = 0
        self._balanced = balanced
        self._every = every_epochs * len(self.malign)
        self._due = np.full(len(self.malign), self._every)

    def choose(self, rng: np.random.Generator) -> int:
        """Return the number of the next slide to visit."""
        order = np.argsort(self._due, kind="stable")
        late = (self._due[order] <= self.visits + 1 + np.arange(len(order))).any()
        slide = int(order[0]) if late else self._free_choice(rng)
        self.visits += 1
        self._due[slide] = self.visits + self._every
        return slide

    def _free_choice(self, rng: np.random.Generator) -> int:
        """Return a slide by chance."""
        if not self._balanced:
            return int(rng.integers(len(self.malign)))
        if rng.random() < 0.5:
            return int(rng.choice(np.flatnonzero(self.malign)))
        benign = np.flatnonzero(~self.malign)
        errors = self.errors[benign]
        known = np.isfinite(errors)
        usual = float(errors[known].mean()) if known.any() else 1.0
        weights = np.where(known, errors, usual)
        if weights.sum() <= 0:
            return int(rng.choice(benign))
        return int(rng.choice(benign, p=weights / weights.sum()))

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint keeps."""
        return {"visits": self.visits, "due": self._due.tolist(), "errors": self.errors.tolist()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.visits = int(state["visits"])
        self._due = np.asarray(state["due"], np.int64)
        self.errors = np.asarray(state["errors"], np.float64)
