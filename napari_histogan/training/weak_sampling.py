"""From which slide, and from where on it, the next patch comes (paper 002, section 3.1.2).

A place is drawn with probability ``Q^alpha / sum Q^alpha`` over the tissue, Q being the slide's latest map;
malign and benign slides come equally often, benign ones in proportion to the sum of their map, which is
their error.  No slide is left unvisited for more than a number of epochs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_histogan.errors import TrainingError

_LEAST_PERCENT = 0.25
"""A map holds whole percents; 0 stands for less than half a percent, on average for this."""


class PlaceSampler:
    """Draws cells of a map; O(n) once, then O(log n) a draw.

    Parameters
    ----------
    percent
        ``(h, w) uint8`` malign probability, 0..100; None for a slide without a map: uniform.
    tissue
        ``(h, w) bool``; only these cells are drawn.
    alpha
        0 draws all tissue equally often; the larger, the more the map's heights count.

    Raises
    ------
    TrainingError
        If no cell is tissue, or map and tissue have different sizes.
    """

    def __init__(self, percent: NDArray[np.uint8] | None, tissue: NDArray[np.bool_], alpha: float) -> None:
        if percent is not None and percent.shape != tissue.shape:
            raise TrainingError(f"a map of {percent.shape} cells lies on tissue of {tissue.shape}")
        self.width = tissue.shape[1]
        self.cells = np.flatnonzero(tissue)
        if not len(self.cells):
            raise TrainingError("no cell of a map is tissue", "tissue on every slide")
        self.error = 0.0
        self._sums: NDArray[np.float64] | None = None
        if percent is None:
            return
        of_value = np.maximum(np.arange(256, dtype=np.float64), _LEAST_PERCENT) / 100
        values = percent.ravel()[self.cells]
        self.error = float(of_value[values].sum())
        if alpha:
            self._sums = np.cumsum((of_value**alpha)[values])

    def draw(self, count: int, rng: np.random.Generator) -> NDArray[np.int64]:
        """Return rows and columns of cells, ``(count, 2)``."""
        if self._sums is None:
            chosen = rng.integers(len(self.cells), size=count)
        else:
            chosen = np.searchsorted(self._sums, rng.random(count) * self._sums[-1], side="right")
            chosen = np.minimum(chosen, len(self.cells) - 1)
        flat = self.cells[chosen]
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
