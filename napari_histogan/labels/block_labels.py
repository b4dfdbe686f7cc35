"""A grid of coarse labels over a slide: how patch classifiers, and people in a hurry, describe tissue."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import ceil
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from napari_histogan.errors import DAMAGE, LabelError
from napari_histogan.labels.annotation import read_file, write_file

MISSING = -1
"""Grid value of a block without a label."""

MOST_VALUES = 100
"""More label values than this are positions or scores, not labels."""

GRID_FILE, INFO_FILE = "grid.npy", "blocks.json"
_FORMAT = 1


@dataclass(frozen=True, eq=False)
class BlockLabels:
    """Coarse labels of one slide.

    Parameters
    ----------
    values
        Names of the Z label values; they need not resemble the classes.
    grid
        ``(rows, columns) int16``: index into ``values``, or -1 where there is no label.  The first
        block's corner is the slide's top left corner.
    block_um
        Side of a block in um.

    Raises
    ------
    LabelError
        If the parts do not fit together, or no block has a label.
    """

    values: tuple[str, ...]
    grid: NDArray[np.int16]
    block_um: float

    def __post_init__(self) -> None:
        """Check that the parts fit together."""
        if not self.values or len(set(self.values)) != len(self.values) or len(self.values) > MOST_VALUES:
            raise LabelError(
                f"blocks have {len(self.values)} label values, {len(set(self.values))} of them different",
                f"1 to {MOST_VALUES} different names",
                "give scores in a column called score, to be binned",
            )
        if self.grid.ndim != 2 or self.grid.dtype != np.int16 or not self.block_um > 0:
            raise LabelError(
                f"the grid is {self.grid.dtype} of shape {self.grid.shape}, blocks of {self.block_um} um",
                "int16 of shape (rows, columns), and a positive size",
            )
        low, high = int(self.grid.min(initial=0)), int(self.grid.max(initial=MISSING))
        if low < MISSING or not 0 <= high < len(self.values):
            raise LabelError(
                "no block has a label" if high == MISSING else f"the grid holds {low} to {high}",
                f"label values 0 to {len(self.values) - 1}, or {MISSING} for none",
            )

    def counts(self) -> NDArray[np.int64]:
        """Return how many blocks each label value has, ``(Z,) int64``."""
        return np.bincount(self.grid[self.grid >= 0], minlength=len(self.values)).astype(np.int64)

    def places(self, value: int | None = None) -> NDArray[np.int64]:
        """Return row and column of the blocks of a label value, or of all labeled, ``(n, 2) int64``."""
        chosen = self.grid >= 0 if value is None else self.grid == value
        return np.argwhere(chosen).astype(np.int64)

    def whole(self, size_um: tuple[float, float]) -> NDArray[np.bool_]:
        """Return which blocks lie in a slide of this height and width as a whole, (rows, columns)."""
        rows, columns = (np.arange(1, n + 1) * self.block_um for n in self.grid.shape)
        slack = 0.01 * self.block_um
        return (rows <= size_um[0] + slack)[:, None] & (columns <= size_um[1] + slack)[None]

    def fitted(self, size_um: tuple[float, float], what: str, whole_grid: bool = False) -> BlockLabels:
        """Return the labels on a grid that covers a slide.

        Parameters
        ----------
        size_um
            Height and width of the slide.
        what
            Names the labels' file in messages.
        whole_grid
            The file holds every block, so its grid must be the slide's: as many blocks as fit,
            the last ones cut or left out.

        Raises
        ------
        LabelError
            If a labeled block lies outside of the slide, or the grid is not the slide's.
        """
        rows, columns = (ceil(side / self.block_um - 0.01) for side in size_um)
        found = self.grid.shape
        if whole_grid and not (rows - 1 <= found[0] <= rows and columns - 1 <= found[1] <= columns):
            raise LabelError(
                f"{what} has {found[0]} x {found[1]} blocks of {self.block_um:g} um",
                f"{rows} x {columns}: the slide is {size_um[0]:.0f} x {size_um[1]:.0f} um",
                "give the size of the blocks (block_um), or the slide that they belong to",
            )
        outside = self.grid[rows:, :] >= 0, self.grid[:, columns:] >= 0
        if any(part.any() for part in outside):
            row, column = next(p for p in self.places() if p[0] >= rows or p[1] >= columns)
            raise LabelError(
                f"{what}: the block in row {row}, column {column} lies outside of the slide",
                f"rows 0 to {rows - 1} and columns 0 to {columns - 1} of {self.block_um:g} um",
                "give the size of the blocks (block_um), or the slide that they belong to",
            )
        grid = np.full((rows, columns), MISSING, np.int16)
        inside = self.grid[:rows, :columns]
        grid[: inside.shape[0], : inside.shape[1]] = inside
        return BlockLabels(self.values, grid, self.block_um)

    def save(self, folder: Path) -> None:
        """Write ``grid.npy`` and ``blocks.json``; raises ``StorageError``."""
        data = io.BytesIO()
        np.save(data, self.grid, allow_pickle=False)
        write_file(folder / GRID_FILE, data.getvalue())
        text = json.dumps({"format": _FORMAT, "values": self.values, "block_um": self.block_um}, indent=1)
        write_file(folder / INFO_FILE, text.encode())

    @classmethod
    def load(cls, folder: Path) -> BlockLabels:
        """Read what :meth:`save` wrote.

        Raises
        ------
        LabelError
            If a file is missing or damaged.
        """
        info, grid = read_file(folder / INFO_FILE), read_file(folder / GRID_FILE)
        try:
            stored = json.loads(info)
            if stored["format"] != _FORMAT:
                raise ValueError(f"format {stored['format']}")
            array = np.load(io.BytesIO(grid), allow_pickle=False)
            return cls(tuple(map(str, stored["values"])), array, float(stored["block_um"]))
        except LabelError:
            raise
        except DAMAGE as error:
            raise LabelError(
                f"the block labels in {folder} cannot be read: {error}",
                f"{INFO_FILE} and {GRID_FILE} of this program",
                "import the block labels again",
            ) from error


def bin_names(edges: Sequence[float]) -> tuple[str, ...]:
    """Return the names of bins in percent, such as ``0-20 %``."""
    return tuple(f"{a:g}-{b:g} %" for a, b in pairwise(edges))


def binned(scores: NDArray[np.float64], edges: Sequence[float]) -> NDArray[np.int16]:
    """Return the bin of each score in percent, -1 where it is NaN or beyond the edges.

    A bin holds its lower edge; the last one holds both.
    """
    places = np.searchsorted(np.asarray(edges, np.float64), scores, side="right") - 1
    places = np.where(scores == edges[-1], len(edges) - 2, places)
    inside = np.isfinite(scores) & (places >= 0) & (places < len(edges) - 1)
    return np.where(inside, places, MISSING).astype(np.int16)


def block_means(picture: NDArray[np.float64], block_px: int) -> NDArray[np.float64]:
    """Return the means of whole blocks of ``(H, W)``; pixels beyond the last whole block are left out."""
    rows, columns = picture.shape[0] // block_px, picture.shape[1] // block_px
    inside = picture[: rows * block_px, : columns * block_px]
    means: NDArray[np.float64] = inside.reshape(rows, block_px, columns, block_px).mean(axis=(1, 3))
    return means
