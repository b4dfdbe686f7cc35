"""Labeled blocks as training data: pixels read when they are drawn, groups of one label for each step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from napari_histogan.errors import TrainingError
from napari_histogan.geometry import Region
from napari_histogan.slides.reader import SlideReader

UInt8 = NDArray[np.uint8]
Integers = NDArray[np.int64]

MOST_BYTES = 2**30
"""Blocks that were read are kept in memory up to this size."""


class BlockSource(Protocol):
    """Blocks with labels.

    Attributes
    ----------
    labels
        ``(B,) int64``: label value of each block, an index into the calibration table.
    mpp
        Microns per pixel.
    block_px, context_px
        Side of a block, and pixels around it that come along.
    """

    labels: Integers
    mpp: float
    block_px: int
    context_px: int

    def read(self, chosen: Integers) -> UInt8:
        """Return blocks with their context, ``(n, S, S, 3) uint8``, S = block_px + 2 context_px."""


@dataclass(frozen=True, eq=False)
class ArrayBlocks:
    """Blocks in memory; see :class:`BlockSource`."""

    images: UInt8
    labels: Integers
    mpp: float
    block_px: int
    context_px: int = 0

    def read(self, chosen: Integers) -> UInt8:
        """Return blocks with their context."""
        return self.images[chosen]


class SlideBlocks:
    """Blocks of slides; see :class:`BlockSource`.

    Parameters
    ----------
    slides
        Open slides.
    places
        For each slide row and column of its blocks, ``(n, 2)``.
    labels
        For each slide their label values, ``(n,)``.
    mpp
        Microns per pixel of the net.
    block_px, context_px
        In pixels of the net.
    """

    def __init__(
        self,
        slides: Sequence[SlideReader],
        places: Sequence[Integers],
        labels: Sequence[Integers],
        mpp: float,
        block_px: int,
        context_px: int,
    ) -> None:
        for slide in slides:
            slide.check_resolution(mpp)
        self._slides = list(slides)
        numbers = [np.full(len(p), n, np.int64) for n, p in enumerate(places)]
        self._where = np.column_stack([np.concatenate(numbers), np.concatenate(list(places))])
        self.labels: Integers = np.concatenate(list(labels)).astype(np.int64)
        self.mpp, self.block_px, self.context_px = mpp, block_px, context_px
        self._kept: dict[int, UInt8] = {}

    def read(self, chosen: Integers) -> UInt8:
        """Return blocks with their context; what lies outside of a slide is white."""
        return np.stack([self._block(int(index)) for index in chosen])

    def _block(self, index: int) -> UInt8:
        if index in self._kept:
            return self._kept[index]
        number, row, column = self._where[index].tolist()
        y, x = row * self.block_px, column * self.block_px
        region = Region(y, x, self.block_px, self.block_px).grown(self.context_px)
        pixels: UInt8 = self._slides[number].read_at(region, self.mpp)
        if (len(self._kept) + 1) * pixels.nbytes <= MOST_BYTES:
            self._kept[index] = pixels
        return pixels


class GroupSampler:
    """Draws groups of blocks of one label; a step's draw depends on the seed and its number alone.

    Parameters
    ----------
    labels
        ``(B,)`` label value of each block.
    per_group
        Blocks in a group; a value with fewer has its blocks drawn again.
    validation_share
        Share of each value's blocks that is held out, but never so many that fewer than two remain.
    seed
        Of everything random.

    Raises
    ------
    TrainingError
        If no value has the two blocks that a variance needs.
    """

    def __init__(self, labels: Integers, per_group: int, validation_share: float, seed: int) -> None:
        rng = np.random.default_rng([seed, 1])
        self._seed, self._per_group = seed, per_group
        self.training: dict[int, Integers] = {}
        self.held_out: dict[int, Integers] = {}
        least = min(2, per_group)
        for value in np.unique(labels).tolist():
            mine = rng.permutation(np.flatnonzero(labels == value)).astype(np.int64)
            kept = max(least, len(mine) - round(validation_share * len(mine)))
            if len(mine) >= least:
                self.training[value], self.held_out[value] = mine[:kept], mine[kept:]
        if not self.training:
            raise TrainingError(
                f"{len(labels)} blocks have {len(np.unique(labels))} label values, each its own",
                "two blocks of one label or more",
                "import more block labels, or sort them into fewer values",
            )
        counts = np.array([len(blocks) for blocks in self.training.values()], np.float64)
        self._odds = counts / counts.sum()

    @property
    def held_out_count(self) -> int:
        """How many blocks are held out."""
        return sum(map(len, self.held_out.values()))

    def draw(self, step: int, groups: int) -> tuple[Integers, Integers]:
        """Return blocks ``(groups, per_group)`` and label values ``(groups,)`` of a step.

        A value is drawn as often as it has blocks.
        """
        rng = np.random.default_rng([self._seed, 2, step])
        values = rng.choice(np.array(list(self.training)), size=groups, p=self._odds).astype(np.int64)
        rows = []
        for value in values.tolist():
            mine = self.training[value]
            again = len(mine) < self._per_group
            rows.append(rng.choice(mine, self._per_group, replace=again))
        return np.stack(rows), values
