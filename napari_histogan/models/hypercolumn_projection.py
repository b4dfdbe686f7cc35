"""A linear layer on hypercolumns, computed without building them.

Two facts make it fast and small:

* Upsampling and a linear layer commute, W up(f) = up(W f).  Every *native* map is multiplied by its slice of
  the weights, and the product is upsampled.
* A bilinear surface is straight between the centers of its native pixels.  On the grid of pixel *corners* of
  the next finer level all coarser kinks fall on grid points, so the running sum can be refined by two, level
  by level, without error.  (On the grid of centers, where networks usually upsample by two, repeating it is
  only close to upsampling straight to the image.)
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from napari_histogan.errors import ModelError

from .device import has_matrix_unit
from .hypercolumns import FeatureLayout, Interpolation


class Band(NamedTuple):
    """A part of a batch: images ``first`` to ``last``, rows ``top`` to ``bottom`` (ends exclusive)."""

    first: int
    last: int
    top: int
    bottom: int


class HypercolumnProjection:
    """A linear layer on hypercolumns, computed on the native maps and in bands.

    Parameters
    ----------
    layout
        The hypercolumn.
    weight
        (C, D) float32.
    bias
        (D,) float32.
    mean, std
        (C,) float32; channels are standardized by them.  Folded into weight and bias, so it costs nothing.
    mode
        How maps are upsampled.
    dtype
        What to multiply in: float32, or bfloat16 (sums are float32 inside a product, and are rounded
        between levels).  The folded bias is that of the rounded weights.
    fuse
        So many of the finest levels are upsampled *before* the product, in one product.  That costs
        multiplications and saves passes over D channels: a gain where products are nearly free.  None
        decides by ``dtype`` and the processor.
    piece
        So many of the D outputs are computed at a time, from the native maps to the end, so that all
        that lies between stays in the cache; None takes all.
    """

    def __init__(
        self,
        layout: FeatureLayout,
        weight: Tensor,
        bias: Tensor,
        mean: Tensor | None = None,
        std: Tensor | None = None,
        mode: Interpolation = "bilinear",
        dtype: torch.dtype = torch.float32,
        fuse: int | None = None,
        piece: int | None = None,
    ) -> None:
        if weight.ndim != 2 or weight.shape[0] != layout.channels:
            raise ModelError(
                f"the first layer has weights {tuple(weight.shape)}",
                f"({layout.channels}, D) for these features",
            )
        self.layout, self.mode, self.dtype, self.width = layout, mode, dtype, weight.shape[1]
        scaled = (weight if std is None else weight / std[:, None]).to(dtype)
        shift = torch.zeros_like(bias) if mean is None else mean @ scaled.float()
        step = self.width if piece is None else piece
        self._columns = [slice(a, min(a + step, self.width)) for a in range(0, self.width, step)]
        whole = (bias - shift).to(dtype)
        self._bias = [whole[columns].contiguous() for columns in self._columns]
        count = _levels_to_fuse(layout, dtype, weight.device) if fuse is None else fuse
        self._coarse = layout.resolutions[: len(layout.resolutions) - count]
        self._fine = layout.resolutions[len(self._coarse) :]
        self._weight: dict[int, list[Tensor]] = {}
        start = 0
        for r in self._coarse:
            rows = scaled[start : start + layout.level_channels(r)]
            self._weight[r] = [rows[:, columns].contiguous() for columns in self._columns]
            start += layout.level_channels(r)
        self._fine_weight = [scaled[start:, columns].t().contiguous() for columns in self._columns]
        self._joined: Tensor | None = None

    def bands(self, count: int, pixels: int) -> Iterator[Band]:
        """Cut ``count`` images into bands of about ``pixels`` pixels: whole images, or rows of one."""
        size = self.layout.size
        if size * size <= pixels:
            step = pixels // (size * size)
            for first in range(0, count, step):
                yield Band(first, min(first + step, count), 0, size)
            return
        rows = max(pixels // size, 1)
        for first in range(count):
            for top in range(0, size, rows):
                yield Band(first, first + 1, top, min(top + rows, size))

    def __call__(self, levels: dict[int, Tensor], band: Band) -> Tensor:
        """Project the hypercolumns of a band.

        Parameters
        ----------
        levels
            From :func:`~.hypercolumns.native_levels`, in this projection's dtype.
        band
            What to compute; the memory taken grows with the band only.

        Returns
        -------
        Tensor
            (P, D), pixels in the order image, row, column.
        """
        found = list(self.pieces(levels, band))
        return found[0] if len(found) == 1 else torch.cat(found, dim=1)

    def pieces(self, levels: dict[int, Tensor], band: Band) -> Iterator[Tensor]:
        """Project a band, ``piece`` of the D outputs at a time.

        Yields
        ------
        Tensor
            (P, piece), the last may be narrower.
        """
        fine = self.fine(levels, band)
        for part, weight in enumerate(self._fine_weight):
            below = self.coarse(levels, band, part)
            if below is None:
                yield F.linear(_present(fine), weight, self._bias[part])
                continue
            flat = below.reshape(-1, below.shape[-1])
            yield flat if fine is None else flat.addmm_(fine, weight.t())

    def fine(self, levels: dict[int, Tensor], band: Band) -> Tensor | None:
        """Upsample and join the fused levels; (P, C of these levels), valid until the next call."""
        parts = [self._upsampled(levels[r], r, band) for r in self._fine]
        if not parts:
            return None
        if len(parts) == 1:
            return parts[0].reshape(-1, parts[0].shape[-1])
        shape = (*parts[0].shape[:3], sum(part.shape[-1] for part in parts))
        # One buffer for all bands: fresh memory costs more than what is written into it.
        if self._joined is None or self._joined.shape != shape or self._joined.device != parts[0].device:
            self._joined = torch.empty(shape, dtype=self.dtype, device=parts[0].device)
        torch.cat(parts, dim=-1, out=self._joined)
        return self._joined.view(-1, shape[-1])

    def coarse(self, levels: dict[int, Tensor], band: Band, part: int) -> Tensor | None:
        """Project the other levels to a piece, upsample, and sum, bias included; (n, rows, R, piece)."""
        if not self._coarse:
            return None
        work = self._nearest if self.mode == "nearest" else self._bilinear
        return work(levels, band, part)

    def _upsampled(self, level: Tensor, r: int, band: Band) -> Tensor:
        """Upsample native maps (N, r, r, C) to the rows of a band, (n, rows, R, C)."""
        step = self.layout.size // r
        images = level[band.first : band.last]
        if step == 1:
            return images[:, band.top : band.bottom]
        if self.mode == "nearest":
            low, high = band.top // step, -(-band.bottom // step)
            rows = images[:, low:high].repeat_interleave(step, 1).repeat_interleave(step, 2)
            return rows[:, band.top - low * step : band.bottom - low * step]
        # Rows of centers around the band; the border repeats by itself where they end at an edge.
        low = max((2 * band.top + 1 - step) // (2 * step), 0)
        high = min((2 * band.bottom - 1 - step) // (2 * step) + 1, r - 1)
        up = _resize(images[:, low : high + 1], step)
        return up[:, band.top - low * step : band.bottom - low * step]

    def _project(self, x: Tensor, r: int, part: int, first: bool) -> Tensor:
        """Multiply native maps (n, h, w, C_r) by their slice of the weights; (n, h, w, piece)."""
        flat, weight = x.reshape(-1, x.shape[-1]), self._weight[r][part]
        # The first level carries the bias: upsampling leaves a constant as it is.
        y = torch.addmm(self._bias[part], flat, weight) if first else flat @ weight
        return y.view(*x.shape[:3], weight.shape[1])

    def _nearest(self, levels: dict[int, Tensor], band: Band, part: int) -> Tensor:
        total: Tensor | None = None
        for r in self._coarse:
            step = self.layout.size // r
            low, high = band.top // step, -(-band.bottom // step)
            y = self._project(levels[r][band.first : band.last, low:high], r, part, first=total is None)
            y = y.repeat_interleave(step, 1).repeat_interleave(step, 2)
            y = y[:, band.top - low * step : band.bottom - low * step]
            total = y if total is None else y.add_(total)
        return _present(total)

    def _bilinear(self, levels: dict[int, Tensor], band: Band, part: int) -> Tensor:
        """Sum the upsampled levels; (n, rows, R, piece).

        For a level whose pixels are s wide in the image the running sum lives on a grid with a point
        every s / 2, image edges included: that holds the centers of this level and, because a coarser
        pixel is at least 2 s wide, the kinks of all coarser ones.
        """
        size, start, spacing = self.layout.size, 0, 0
        total: Tensor | None = None
        native: Tensor | None = None
        for r in self._coarse:
            step = size // r
            if step <= 2:
                direct = self._direct(levels, band, r, part, first=total is None and native is None)
                native = direct if native is None else native + direct
                continue
            half = step // 2
            top, bottom = band.top // half, -(-band.bottom // half)
            # Center p, counted with one row repeated above the first, is grid point 2 p - 1.
            first, last = (top + 1) // 2, -(-(bottom + 1) // 2)
            x = levels[r][band.first : band.last, max(first - 1, 0) : last]
            x = _repeat_border(x, above=first == 0, below=last == r + 1)
            y = _midpoints(self._project(x, r, part, first=total is None))
            y = y[:, top - 2 * first + 1 : bottom - 2 * first + 2, 1:-1]
            if total is not None:
                refined = _midpoints(total)
                y = y.add_(refined[:, top - 2 * start : bottom - 2 * start + 1])
            total, start, spacing = y, top, half
        if total is None:
            return _present(native)
        return self._to_pixels(total, start, spacing, band, native)

    def _direct(self, levels: dict[int, Tensor], band: Band, r: int, part: int, first: bool) -> Tensor:
        """Project a level of the image's own side, or half of it, and bring it to the image."""
        step = self.layout.size // r
        low = max((2 * band.top + 1 - step) // (2 * step), 0)
        high = min((2 * band.bottom - 1 - step) // (2 * step) + 1, r - 1) if step > 1 else band.bottom - 1
        y = self._project(levels[r][band.first : band.last, low : high + 1], r, part, first)
        if step > 1:
            y = _resize(y, step)
        return y[:, band.top - low * step : band.bottom - low * step]

    def _to_pixels(
        self, total: Tensor, start: int, spacing: int, band: Band, native: Tensor | None
    ) -> Tensor:
        """Read the running sum (n, h, R / spacing + 1, D) at the pixels of the band, and add ``native``."""
        while spacing > 2:  # only if finer levels are fused or left out
            total, start, spacing = _midpoints(total), 2 * start, spacing // 2
        if spacing == 2:
            # Doubling with the geometry of pixels puts point j at (j - 1) + 1/2 of the image: exact,
            # for all pixels lie between grid points.
            top = band.top + 1 - 2 * start
            up = _resize(total, 2)[:, top : top + band.bottom - band.top, 1:-1]
        else:
            top = band.top - start
            rows = total[:, top : top + band.bottom - band.top + 1]
            up = 0.5 * (rows[:, :-1] + rows[:, 1:])
            up = 0.5 * (up[:, :, :-1] + up[:, :, 1:])
        return up if native is None else up.add_(native)


def _present(x: Tensor | None) -> Tensor:
    """Return a sum that has at least one term, for a layout has at least one level."""
    if x is None:
        raise ModelError("there is no feature map to project")
    return x


def _levels_to_fuse(layout: FeatureLayout, dtype: torch.dtype, device: torch.device) -> int:
    """Return how many levels to upsample before the product; found by measuring (benchmarks).

    The choice follows from the kind of processor alone: timing it here would make results differ from run
    to run in their rounding.
    """
    if dtype == torch.float32 or not has_matrix_unit(device):
        return int(layout.resolutions[-1] == layout.size)
    finest = [r for r in layout.resolutions if 2 * r >= layout.size]
    rest = sum(layout.level_channels(r) for r in layout.resolutions if r not in finest)
    return len(layout.resolutions) if rest <= 600 else len(finest)


def _resize(x: Tensor, factor: int) -> Tensor:
    """Upsample (n, h, w, D) by a factor, bilinear, with the geometry of pixels."""
    x = x.contiguous()  # torch's quick way for channels that come last takes nothing else
    y = F.interpolate(x.permute(0, 3, 1, 2), scale_factor=factor, mode="bilinear", align_corners=False)
    return y.permute(0, 2, 3, 1)


def _midpoints(x: Tensor) -> Tensor:
    """Insert the mean between all neighbors: (n, h, w, D) becomes (n, 2 h - 1, 2 w - 1, D)."""
    x, size = x.contiguous(), (2 * x.shape[1] - 1, 2 * x.shape[2] - 1)
    y = F.interpolate(x.permute(0, 3, 1, 2), size=size, mode="bilinear", align_corners=True)
    return y.permute(0, 2, 3, 1)


def _repeat_border(x: Tensor, above: bool, below: bool) -> Tensor:
    """Repeat the outer columns of (n, h, w, C), and the first or last row where asked."""
    x = torch.cat([x[:, :, :1], x, x[:, :, -1:]], dim=2)
    rows = ([x[:, :1]] if above else []) + [x] + ([x[:, -1:]] if below else [])
    return torch.cat(rows, dim=1) if len(rows) > 1 else x
