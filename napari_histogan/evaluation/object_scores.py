"""Whether objects are found: object F1 as in the GlaS contest.

A predicted object is right if it covers more than half of the true object that it overlaps
most; a true object is found by one predicted object at most.  Pictures are added part by
part, and objects across the parts' borders are one object.

Reference: K. Sirinukunwattana et al.: "Gland segmentation in colon histology images: the
GlaS challenge contest", Med. Image Anal. 35 (2017), section 5.1.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.uint8]
Labels = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class ObjectScores:
    """Objects of one class.

    Attributes
    ----------
    hits, predicted, true
        Predicted objects that are right, and numbers of all objects.
    """

    hits: int
    predicted: int
    true: int

    @property
    def f1(self) -> float:
        """Return 2 hits / (predicted + true); NaN if there are no objects."""
        return float(object_f1(np.array([[self.hits, self.predicted, self.true]]))[0])


def object_f1(counts: NDArray[Any]) -> NDArray[np.float64]:
    """Return F1 of each class ``(..., K)`` from hits, predicted, and true objects ``(..., K, 3)``."""
    hits, total = np.asarray(counts[..., 0], np.float64), np.asarray(counts[..., 1:].sum(axis=-1), np.float64)
    return np.where(total > 0, 2 * hits / np.where(total > 0, total, 1), np.nan)


class ObjectMatcher:
    """Collects the objects of one class from the parts of a picture.

    Parts are the cells of a grid, added in any order; pixels that touch at an edge or a
    corner belong together.

    Parameters
    ----------
    class_index
        The class, 1..K.
    least_px
        Smaller objects are left out, on both sides.
    """

    def __init__(self, class_index: int, least_px: int = 0) -> None:
        self._class, self._least = class_index, least_px
        self._true, self._found = JoinedObjects(), JoinedObjects()
        self._shared: Counter[tuple[int, int]] = Counter()

    def add(self, truth: Mask, predicted: Mask, origin: tuple[int, int] = (0, 0)) -> None:
        """Add a part ``(H, W)`` whose first pixel lies at row and column ``origin``.

        Where the truth is 0 (unlabeled) there is no object.
        """
        true = self._true.add(truth == self._class, origin)
        found = self._found.add((predicted == self._class) & (truth > 0), origin)
        both = (true > 0) & (found > 0)
        pairs, counts = np.unique(np.stack([true[both], found[both]], axis=1), axis=0, return_counts=True)
        for (a, b), count in zip(pairs.tolist(), counts.tolist(), strict=True):
            self._shared[a, b] += count

    def scores(self) -> ObjectScores:
        """Return what was found of all parts so far."""
        hits, found, true = self._matched()
        return ObjectScores(len(hits), len(found), len(true))

    def by_block(self, side: int) -> dict[tuple[int, int], NDArray[np.int64]]:
        """Return hits, predicted, and true objects ``(3,)`` of the blocks that hold any, by row and column.

        An object belongs to the block of the upper left corner of its frame, a hit to that of the
        predicted object.

        Parameters
        ----------
        side
            Of a block in pixels.
        """
        blocks: dict[tuple[int, int], NDArray[np.int64]] = {}
        hits, found, true = self._matched()
        for column, (labels, objects) in enumerate(
            ((hits, self._found), (found, self._found), (true, self._true))
        ):
            corners = objects.corners()
            for label in labels:
                y, x = corners[label]
                blocks.setdefault((y // side, x // side), np.zeros(3, np.int64))[column] += 1
        return blocks

    def _matched(self) -> tuple[set[int], set[int], set[int]]:
        """Return the predicted objects that are right, all predicted ones, and all true ones."""
        true, found = self._true.areas(self._least), self._found.areas(self._least)
        shared: dict[int, Counter[int]] = {}
        for (a, b), count in self._shared.items():
            a, b = self._true.root(a), self._found.root(b)
            if a in true and b in found:
                shared.setdefault(b, Counter())[a] += count
        hits = set()
        for label, overlaps in shared.items():
            best, count = max(overlaps.items(), key=lambda item: (item[1], -item[0]))
            if 2 * count > true[best]:
                hits.add(label)  # no two can cover more than half of one object
        return hits, set(found), set(true)


class JoinedObjects:
    """Connected pixels of parts, joined where parts touch."""

    def __init__(self) -> None:
        self._parent = [0]
        self._area = [0]
        self._corner = [(0, 0)]
        self._rim: dict[tuple[int, int], int] = {}

    def root(self, label: int) -> int:
        """Return the least label of the object that a label belongs to; 0 is no object."""
        while self._parent[label] != label:
            self._parent[label] = self._parent[self._parent[label]]
            label = self._parent[label]
        return label

    def areas(self, least: int) -> dict[int, int]:
        """Return the pixels of each object of ``least`` or more."""
        total: Counter[int] = Counter()
        for label in range(1, len(self._parent)):
            total[self.root(label)] += self._area[label]
        return {label: area for label, area in total.items() if area >= least}

    def corners(self) -> dict[int, tuple[int, int]]:
        """Return the upper left corner of each object's frame, row before column."""
        found: dict[int, tuple[int, int]] = {}
        for label in range(1, len(self._parent)):
            root, (y, x) = self.root(label), self._corner[label]
            known = found.get(root, (y, x))
            found[root] = min(known[0], y), min(known[1], x)
        return found

    def add(self, inside: NDArray[np.bool_], origin: tuple[int, int]) -> Labels:
        """Return the labels of a part's pixels, 0 outside."""
        first = len(self._parent) - 1
        count, found, frames, _ = cv2.connectedComponentsWithStats(inside.astype(np.uint8), connectivity=8)
        tops, lefts = frames[1:, cv2.CC_STAT_TOP], frames[1:, cv2.CC_STAT_LEFT]
        self._corner += zip((tops + origin[0]).tolist(), (lefts + origin[1]).tolist(), strict=True)
        labels = np.where(found > 0, found.astype(np.int64) + first, 0)
        self._parent += range(first + 1, first + count)
        self._area += np.bincount(found.ravel(), minlength=count)[1:].tolist()
        height, width = inside.shape
        rim = np.zeros_like(inside)
        rim[[0, -1]] = rim[:, [0, -1]] = True
        rows, columns = np.nonzero(inside & rim)
        for y, x in zip(rows.tolist(), columns.tolist(), strict=True):
            place = origin[0] + y, origin[1] + x
            for near in _around(place, y, x, height, width):
                if (other := self._rim.get(near)) is not None:
                    self._join(other, int(labels[y, x]))
            self._rim[place] = int(labels[y, x])
        return labels

    def _join(self, a: int, b: int) -> None:
        a, b = self.root(a), self.root(b)
        self._parent[max(a, b)] = min(a, b)


def _around(place: tuple[int, int], y: int, x: int, height: int, width: int) -> list[tuple[int, int]]:
    """Return the neighbors of a rim pixel that lie in other parts."""
    return [
        (place[0] + dy, place[1] + dx)
        for dy in (-1, 0, 1)
        for dx in (-1, 0, 1)
        if not (0 <= y + dy < height and 0 <= x + dx < width)
    ]
