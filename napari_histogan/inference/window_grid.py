"""Overlapping windows over a picture, and how their predictions are blended."""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil

import numpy as np
import torch
from torch import Tensor

from napari_histogan.geometry import Region, Size

Window = tuple[int, int]
"""Row and column of a window in its grid."""


class WindowGrid:
    """Overlapping windows over a picture, and their blending weights.

    Parameters
    ----------
    size
        The picture in pixels.
    tile_px
        Side of a window; rounded up to a multiple of ``stride_px``.
    overlap
        Share of a window that overlaps the next, 0..0.9; rounded up to a multiple of two
        strides.  At least two strides, so that there is something to blend.
    margin_px, stride_px
        Of the model.  If the overlap is more than twice the margin, predictions that lack
        context are never used, and the blended result equals that of one pass over the
        whole picture; if not, the outer quarter of the overlap is left out.
    """

    def __init__(self, size: Size, tile_px: int, overlap: float, margin_px: int, stride_px: int) -> None:
        self.overlap_px = max(1, ceil(overlap * tile_px / (2 * stride_px))) * 2 * stride_px
        self.tile_px = max(ceil(tile_px / stride_px) * stride_px, self.overlap_px + stride_px)
        self.step_px = self.tile_px - self.overlap_px
        self.rim_px = margin_px if 2 * margin_px < self.overlap_px else self.overlap_px // 4
        self.size = size
        self._weights = [self._axis_weights(length) for length in size.shape]

    @property
    def counts(self) -> tuple[int, int]:
        """Number of windows along y and x."""
        return len(self._weights[0]), len(self._weights[1])

    def window(self, row: int, column: int) -> Region:
        """Return what a window reads; the first row and column begin outside the picture."""
        first = -self.overlap_px // 2
        return Region(first + row * self.step_px, first + column * self.step_px, self.tile_px, self.tile_px)

    def support(self, row: int, column: int) -> Region:
        """Return the part of the picture that a window has a say in."""
        return self.window(row, column).grown(-self.rim_px).clipped(self.size)

    def weights(self, row: int, column: int) -> Tensor:
        """Return the window's blending weights, ``(tile, tile) float32``; they add up to 1 over windows."""
        return torch.outer(self._weights[0][row], self._weights[1][column])

    def over(self, region: Region) -> Iterator[tuple[int, int]]:
        """Yield row and column of the windows that have a say in a region of the picture."""
        rows, columns = (
            range(
                max(0, (start - (self.tile_px - self.overlap_px // 2 - self.rim_px)) // self.step_px + 1),
                min(count, (end - 1 + self.overlap_px // 2 - self.rim_px) // self.step_px + 1),
            )
            for start, end, count in (
                (region.y, region.y_end, self.counts[0]),
                (region.x, region.x_end, self.counts[1]),
            )
        )
        return ((row, column) for row in rows for column in columns)

    def _axis_weights(self, length: int) -> list[Tensor]:
        """Return the weights of each window along one axis."""
        half = self.overlap_px // 2
        count = max(1, ceil(length / self.step_px))
        position = np.arange(self.tile_px) + 0.5
        inward = np.minimum(position, self.tile_px - position)
        rise = np.clip((inward - self.rim_px) / (self.overlap_px - 2 * self.rim_px), 0, 1)
        shape = rise**2 * (3 - 2 * rise)  # r(t) + r(1 - t) = 1, and smooth at both ends
        total = np.zeros((count - 1) * self.step_px + self.tile_px)
        for k in range(count):
            total[k * self.step_px : k * self.step_px + self.tile_px] += shape
        weights = []
        for k in range(count):
            part = slice(k * self.step_px, k * self.step_px + self.tile_px)
            share = np.divide(shape, total[part], out=np.zeros_like(shape), where=total[part] > 0)
            place = np.arange(part.start, part.stop) - half
            share[(place < 0) | (place >= length)] = 0
            weights.append(torch.from_numpy(share.astype(np.float32)))
        return weights
