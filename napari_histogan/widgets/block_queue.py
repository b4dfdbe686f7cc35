"""Which blocks people estimate, in which order, and what their estimates amount to.  Knows no Qt."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from napari_histogan.labels.annotation import read_file
from napari_histogan.labels.block_labels import BlockLabels
from napari_histogan.labels.calibration import ENOUGH
from napari_histogan.project.artifacts import Artifact
from napari_histogan.project.calibrations import Calibration
from napari_histogan.project.store import Project

ASKED = 12
"""Blocks of a label value that are shown before the next value's turn comes; 10 are enough."""

_SHEET = "to_estimate.csv"
_SPARE = 12


@dataclass(frozen=True, slots=True)
class Block:
    """A block to look at: its row and column in the grid, and its label value."""

    row: int
    column: int
    label: str


@dataclass(frozen=True, slots=True)
class ValueRow:
    """What is known of one label value.

    Attributes
    ----------
    value
        Its name.
    blocks, estimated
        How many blocks there are, and how many of them were estimated.
    mean, deviation
        Of the estimated shares, one number 0..1 a class; empty while there are too few.
    """

    value: str
    blocks: int
    estimated: int
    mean: tuple[float, ...]
    deviation: tuple[float, ...]

    @property
    def is_enough(self) -> bool:
        """Whether mean and spread are known well enough: by ten blocks, or by all that there are."""
        return self.estimated >= min(ENOUGH, self.blocks) and self.estimated > 1


class BlockQueue:
    """The blocks of one set of labels in the order in which they are shown.

    First come those of ``to_estimate.csv``, so that the dock and the command line ask for the same blocks;
    then, for values that still want some, further ones at random.

    Parameters
    ----------
    project, artifact
        The set of block labels.

    Raises
    ------
    LabelError
        If the labels cannot be read.
    """

    def __init__(self, project: Project, artifact: Artifact) -> None:
        self.artifact = artifact
        self.labels = BlockLabels.load(artifact.path)
        self.slide = project.slide(str(artifact.summary["slide"]))
        self.classes = project.classes.names
        self._calibration = Calibration(project, artifact)
        height, width = self.slide.size.height, self.slide.size.width
        self._whole = self.labels.whole((height * self.slide.mpp, width * self.slide.mpp))
        self.blocks = self._ordered()

    def _ordered(self) -> list[Block]:
        """Return the sheet's blocks and some more, value by value."""
        rows = csv.DictReader(io.StringIO(read_file(self.artifact.path / _SHEET).decode("utf-8-sig")))
        sheet = [Block(int(row["row"]), int(row["column"]), row["label"]) for row in rows]
        rng = np.random.default_rng(self.artifact.number)
        found: list[Block] = []
        for z, value in enumerate(self.labels.values):
            first = [block for block in sheet if block.label == value]
            known = {(block.row, block.column) for block in first}
            others = rng.permutation(np.argwhere((self.labels.grid == z) & self._whole)).tolist()
            more = [Block(r, c, value) for r, c in others if (r, c) not in known]
            found += [*first, *more[:_SPARE]]
        return found

    def shares(self, block: Block) -> list[float] | None:
        """Return what was said of a block, a number 0..1 for each class; None if nothing was."""
        estimate = self._calibration.estimates().get((block.row, block.column))
        if estimate is None or set(estimate.shares) != set(self.classes):
            return None
        return [estimate.shares[name] for name in self.classes]

    def keep(self, block: Block, shares: Sequence[float]) -> None:
        """Write an estimate to disk; see :meth:`.Calibration.estimate` for what it raises."""
        named = dict(zip(self.classes, shares, strict=True))
        self._calibration.estimate(block.row, block.column, block.label, named)

    def take_back(self, block: Block) -> None:
        """Forget the estimate of a block; it stays in the file's history."""
        self._calibration.take_back(block.row, block.column)

    def rows(self) -> list[ValueRow]:
        """Return the table of label values as it stands now."""
        said = self._calibration.shares(self.classes)
        found = []
        for z, value in enumerate(self.labels.values):
            said_here = said.get(value, [])
            shares = np.array(said_here, np.float64).reshape(len(said_here), len(self.classes))
            mean = shares.mean(axis=0) if len(shares) else np.zeros(0)
            spread = shares.std(axis=0, ddof=1) if len(shares) > 1 else np.zeros(0)
            blocks = int(((self.labels.grid == z) & self._whole).sum())
            found.append(ValueRow(value, blocks, len(shares), tuple(mean.tolist()), tuple(spread.tolist())))
        return found

    def next_open(self, after: int = -1) -> int:
        """Return the position of the next block that wants an estimate, looked for from there on and around.

        Blocks of values that have :data:`ASKED` estimates are passed over.  -1 if there is none.
        """
        done = {(e.row, e.column) for e in self._calibration.estimates().values()}
        full = {row.value for row in self.rows() if row.estimated >= min(ASKED, row.blocks)}
        count = len(self.blocks)
        for step in range(1, count + 1):
            position = (after + step) % count
            block = self.blocks[position]
            if block.label not in full and (block.row, block.column) not in done:
                return position
        return -1

    def first_of(self, value: str) -> int:
        """Return where a value's first block without an estimate is, or its first block; -1 for none."""
        places = [n for n, block in enumerate(self.blocks) if block.label == value]
        return next((n for n in places if self.shares(self.blocks[n]) is None), places[0] if places else -1)

    def turn(self, position: int) -> tuple[int, int]:
        """Return the how many-th block of its value a position is, from 1, and how many are asked for."""
        value = self.blocks[position].label
        places = [n for n, block in enumerate(self.blocks) if block.label == value]
        return places.index(position) + 1, max(min(ASKED, len(places)), places.index(position) + 1)


def with_share(shares: Sequence[float], index: int, share: float) -> list[float]:
    """Return shares that sum to 1 after one of them was set; the others keep their proportions.

    Parameters
    ----------
    shares
        Of K classes, 0..1.
    index, share
        Which is set, and to what, 0..1.
    """
    if len(shares) == 1:
        return [1.0]
    left, others = 1 - share, sum(shares) - shares[index]
    even = left / (len(shares) - 1)
    out = [each * left / others if others > 0 else even for each in shares]
    out[index] = share
    return out
