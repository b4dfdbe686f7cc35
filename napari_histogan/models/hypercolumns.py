"""Hypercolumns, the per-pixel features of DatasetGAN (section 3.1), without ever building them.

A hypercolumn is what a pixel's position reads in all feature maps of the generator once they
are upsampled to the size of the image.  Built as such it takes 1.2 GiB for one 256 px image
and 20 GiB for one of 1024 px.  Two facts make that unnecessary:

* Upsampling and a linear layer commute, W up(f) = up(W f).  :class:`HypercolumnProjection`
  multiplies every *native* map by its slice of the classifier's first layer and upsamples
  the result.
* A bilinear surface is straight between the centers of its native pixels.  On the grid of pixel
  *corners* of the next finer level all coarser kinks fall on grid points, so the running sum can be
  refined by two, level by level, without error.  (On the grid of centers, where networks usually
  upsample by two, repeating it is only close to upsampling straight to the image.)

Training reads few pixels, so :func:`gather_hypercolumns` takes just those, from at most four native
neighbors each.

Frames: maps are (N, C, r, r); r and the image side R are powers of two; all upsampling has the
geometry of ``align_corners=False``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from napari_histogan.errors import ModelError

from .stylegan2 import FeatureMap

Interpolation = Literal["bilinear", "nearest"]


class Channel(NamedTuple):
    """One feature map of a layout: its name, native side in pixels, and number of channels."""

    name: str
    resolution: int
    channels: int


@dataclass(frozen=True)
class FeatureLayout:
    """Which feature maps, in which order, make up a hypercolumn.

    Attributes
    ----------
    maps
        From coarse to fine.
    size
        Side R of the image in pixels.
    """

    maps: tuple[Channel, ...]
    size: int

    def __post_init__(self) -> None:
        """Refuse maps that two-fold upsampling cannot bring to the size of the image."""
        if not self.maps:
            raise ModelError("there is no feature map", "at least one", "ask for more blocks")
        for name, r, _ in self.maps:
            factor = self.size // r if r else 0
            if r * factor != self.size or factor & (factor - 1):
                raise ModelError(
                    f"feature map {name} has {r} px, the image {self.size} px",
                    "an image larger by a power of two, or of the same size",
                )
        if [m.resolution for m in self.maps] != sorted(m.resolution for m in self.maps):
            raise ModelError("the feature maps are not in order", "coarse to fine")

    @property
    def channels(self) -> int:
        """Length of a hypercolumn."""
        return sum(m.channels for m in self.maps)

    @property
    def resolutions(self) -> tuple[int, ...]:
        """Native sides, each once, from coarse to fine."""
        return tuple(sorted({m.resolution for m in self.maps}))

    def level_channels(self, resolution: int) -> int:
        """Return how many channels have this native side; they are neighbors in the hypercolumn."""
        return sum(m.channels for m in self.maps if m.resolution == resolution)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types."""
        return {"size": self.size, "maps": [list(m) for m in self.maps]}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> FeatureLayout:
        """Build from :meth:`to_dict`'s result."""
        maps = tuple(Channel(str(n), int(r), int(c)) for n, r, c in values["maps"])
        return cls(maps, int(values["size"]))


def select_blocks(maps: Sequence[FeatureMap], blocks: int = 0) -> list[FeatureMap]:
    """Return the maps of the last ``blocks`` resolutions (HDGAN takes 5); 0 takes all.

    Raises
    ------
    ModelError
        If the generator has fewer blocks.
    """
    sides = sorted({m.block_resolution for m in maps})
    if blocks > len(sides):
        raise ModelError(
            f"the last {blocks} blocks were asked for, the generator has {len(sides)}",
            "at most as many as there are",
            "lower the number of blocks; 0 takes all",
        )
    wanted = set(sides[-blocks:]) if blocks else set(sides)
    return [m for m in maps if m.block_resolution in wanted]


def layout_of(maps: Sequence[FeatureMap], size: int) -> FeatureLayout:
    """Return the layout of feature maps of an image with side ``size`` in pixels."""
    return FeatureLayout(tuple(Channel(m.name, m.block_resolution, m.tensor.shape[1]) for m in maps), size)


def native_levels(maps: Sequence[FeatureMap], layout: FeatureLayout, dtype: torch.dtype) -> dict[int, Tensor]:
    """Join the maps of one native side.

    Returns
    -------
    dict[int, Tensor]
        By native side r, from coarse to fine: (N, r, r, C_r), contiguous.

    Raises
    ------
    ModelError
        If the maps are not those of the layout.
    """
    found = tuple(Channel(m.name, m.block_resolution, m.tensor.shape[1]) for m in maps)
    if found != layout.maps:
        raise ModelError(
            f"the feature maps are {[tuple(m) for m in found]}",
            f"{[tuple(m) for m in layout.maps]}",
            "use the generator that the classifier was trained on",
        )
    levels: dict[int, Tensor] = {}
    for r in layout.resolutions:
        parts = [m.tensor.permute(0, 2, 3, 1) for m in maps if m.block_resolution == r]
        joined = parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)
        levels[r] = joined.to(dtype).contiguous()
    return levels


def upsample_and_concatenate(
    maps: Sequence[FeatureMap], size: int, mode: Interpolation = "bilinear"
) -> Tensor:
    """Build hypercolumns the plain way of the published codes; the reference for tests and benchmarks.

    Returns
    -------
    Tensor
        (N, C, size, size) float32.
    """
    corners = {} if mode == "nearest" else {"align_corners": False}
    return torch.cat(
        [F.interpolate(m.tensor.float(), size=(size, size), mode=mode, **corners) for m in maps], dim=1
    )


class FeatureStatistics:
    """Mean and variance of every channel over native pixels, gathered batch by batch.

    Batches are merged with the formula of Chan et al. (1979) in float64, so that the order of
    magnitude of a channel does not matter.
    """

    def __init__(self, layout: FeatureLayout) -> None:
        self.layout = layout
        self._count = {r: 0 for r in layout.resolutions}
        self._mean = {r: torch.zeros(layout.level_channels(r), dtype=torch.float64) for r in layout.resolutions}
        self._square = {r: torch.zeros_like(m) for r, m in self._mean.items()}

    def update(self, maps: Sequence[FeatureMap]) -> None:
        """Count the maps of a batch, each tensor (N, C, r, r)."""
        for r, level in native_levels(maps, self.layout, torch.float32).items():
            flat = level.reshape(-1, level.shape[-1])
            n, before = flat.shape[0], self._count[r]
            var, mean = torch.var_mean(flat, dim=0, correction=0)
            mean, square = mean.double().cpu(), var.double().cpu() * n
            total = before + n
            delta = mean - self._mean[r]
            self._mean[r] = self._mean[r] + delta * (n / total)
            self._square[r] = self._square[r] + square + delta.square() * (before * n / total)
            self._count[r] = total

    def mean(self) -> Tensor:
        """Return the mean of every channel, (C,) float32."""
        return torch.cat([self._mean[r] for r in self.layout.resolutions]).float()

    def std(self) -> Tensor:
        """Return the standard deviation of every channel, (C,) float32; 1 where a channel is constant."""
        parts = [self._square[r] / max(self._count[r], 1) for r in self.layout.resolutions]
        std = torch.cat(parts).sqrt().float()
        return torch.where(std > 1e-6, std, torch.ones_like(std))


def gather_hypercolumns(
    levels: dict[int, Tensor],
    image: Tensor,
    y: Tensor,
    x: Tensor,
    size: int,
    mode: Interpolation = "bilinear",
) -> Tensor:
    """Read the hypercolumns of single pixels.

    Parameters
    ----------
    levels
        From :func:`native_levels`.
    image, y, x
        (P,) int64: which image, row, and column of the image.
    size
        Side R of the image in pixels.
    mode
        As for upsampling.

    Returns
    -------
    Tensor
        (P, C) in the levels' dtype.
    """
    dtype = next(iter(levels.values())).dtype
    out = torch.empty(len(image), sum(v.shape[-1] for v in levels.values()), dtype=dtype, device=y.device)
    start = 0
    for r, level in levels.items():
        part = out[:, start : start + level.shape[-1]]
        start += level.shape[-1]
        flat = level.reshape(-1, level.shape[-1])
        if r == size or mode == "nearest":
            step = size // r
            part.copy_(flat[(image * r + y // step) * r + x // step])
            continue
        (y0, y1, fy), (x0, x1, fx) = _neighbors(y, r, size), _neighbors(x, r, size)
        fy, fx = fy.to(dtype)[:, None], fx.to(dtype)[:, None]
        rows0, rows1 = (image * r + y0) * r, (image * r + y1) * r
        top = torch.lerp(flat[rows0 + x0], flat[rows0 + x1], fx)
        part.copy_(torch.lerp(top, torch.lerp(flat[rows1 + x0], flat[rows1 + x1], fx), fy))
    return out


def _neighbors(position: Tensor, r: int, size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return the native pixels on both sides of image pixels and the weight of the second."""
    native = ((position.float() + 0.5) * (r / size) - 0.5).clamp(0, r - 1)
    low = native.floor()
    return low.long(), (low.long() + 1).clamp(max=r - 1), native - low


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
        decides by ``dtype``.
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
    ) -> None:
        if weight.ndim != 2 or weight.shape[0] != layout.channels:
            raise ModelError(
                f"the first layer has weights {tuple(weight.shape)}", f"({layout.channels}, D) for these features"
            )
        self.layout, self.mode, self.dtype, self.width = layout, mode, dtype, weight.shape[1]
        scaled = (weight if std is None else weight / std[:, None]).to(dtype)
        shift = torch.zeros_like(bias) if mean is None else mean @ scaled.float()
        self.bias = (bias - shift).to(dtype)
        count = _levels_to_fuse(layout, dtype) if fuse is None else fuse
        self._coarse = layout.resolutions[: len(layout.resolutions) - count]
        self._fine = layout.resolutions[len(self._coarse) :]
        self._weight: dict[int, Tensor] = {}
        start = 0
        for r in self._coarse:
            self._weight[r] = scaled[start : start + layout.level_channels(r)].contiguous()
            start += layout.level_channels(r)
        self.fine_weight = scaled[start:].contiguous()

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
            From :func:`native_levels`, in this projection's dtype.
        band
            What to compute; the memory taken grows with the band only.

        Returns
        -------
        Tensor
            (P, D), pixels in the order image, row, column.
        """
        below = self.coarse(levels, band)
        fine = self.fine(levels, band)
        if fine is None:
            return self.bias.expand(0, -1) if below is None else below
        return torch.addmm(self.bias if below is None else below, fine, self.fine_weight)

    def fine(self, levels: dict[int, Tensor], band: Band) -> Tensor | None:
        """Upsample and join the fused levels; (P, C of these levels)."""
        parts = [self._upsampled(levels[r], r, band) for r in self._fine]
        if not parts:
            return None
        joined = parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)
        return joined.reshape(-1, joined.shape[-1])

    def coarse(self, levels: dict[int, Tensor], band: Band) -> Tensor | None:
        """Project the other levels, upsample, and sum, bias included; (P, D)."""
        if not self._coarse:
            return None
        summed = self._nearest(levels, band) if self.mode == "nearest" else self._bilinear(levels, band)
        return summed.reshape(-1, self.width)

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

    def _project(self, x: Tensor, r: int, first: bool) -> Tensor:
        """Multiply native maps (n, h, w, C_r) by their slice of the weights; (n, h, w, D)."""
        flat = x.reshape(-1, x.shape[-1])
        # The first level carries the bias: upsampling leaves a constant as it is.
        y = torch.addmm(self.bias, flat, self._weight[r]) if first else flat @ self._weight[r]
        return y.view(*x.shape[:3], self.width)

    def _nearest(self, levels: dict[int, Tensor], band: Band) -> Tensor:
        total: Tensor | None = None
        for r in self._coarse:
            step = self.layout.size // r
            low, high = band.top // step, -(-band.bottom // step)
            y = self._project(levels[r][band.first : band.last, low:high], r, first=total is None)
            y = y.repeat_interleave(step, 1).repeat_interleave(step, 2)
            y = y[:, band.top - low * step : band.bottom - low * step]
            total = y if total is None else total + y
        if total is None:
            raise ModelError("there is no coarse feature map")
        return total

    def _bilinear(self, levels: dict[int, Tensor], band: Band) -> Tensor:
        """Sum the upsampled levels; (n, rows, R, D).

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
                direct = self._direct(levels, band, r, first=total is None and native is None)
                native = direct if native is None else native + direct
                continue
            half = step // 2
            top, bottom = band.top // half, -(-band.bottom // half)
            # Center p, counted with one row repeated above the first, is grid point 2 p - 1.
            first, last = (top + 1) // 2, -(-(bottom + 1) // 2)
            x = levels[r][band.first : band.last, max(first - 1, 0) : last]
            x = _repeat_border(x, above=first == 0, below=last == r + 1)
            y = _midpoints(self._project(x, r, first=total is None))
            y = y[:, top - 2 * first + 1 : bottom - 2 * first + 2, 1:-1]
            if total is not None:
                refined = _midpoints(total)
                y = y + refined[:, top - 2 * start : bottom - 2 * start + 1]
            total, start, spacing = y, top, half
        if total is None:
            if native is None:
                raise ModelError("there is no coarse feature map")
            return native
        return self._to_pixels(total, start, spacing, band, native)

    def _direct(self, levels: dict[int, Tensor], band: Band, r: int, first: bool) -> Tensor:
        """Project a level of the image's own side, or half of it, and bring it to the image."""
        step = self.layout.size // r
        low = max((2 * band.top + 1 - step) // (2 * step), 0)
        high = min((2 * band.bottom - 1 - step) // (2 * step) + 1, r - 1) if step > 1 else band.bottom - 1
        y = self._project(levels[r][band.first : band.last, low : high + 1], r, first)
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
        return up if native is None else up + native


def _levels_to_fuse(layout: FeatureLayout, dtype: torch.dtype) -> int:
    """Return how many levels to upsample before the product; found by measuring (benchmarks)."""
    own = int(layout.resolutions[-1] == layout.size)
    if dtype == torch.float32:
        return own
    finest = [r for r in layout.resolutions if 2 * r >= layout.size]
    rest = sum(layout.level_channels(r) for r in layout.resolutions if r not in finest)
    return len(layout.resolutions) if rest <= 600 else len(finest)


def _resize(x: Tensor, factor: int) -> Tensor:
    """Upsample (n, h, w, D) by a factor, bilinear, with the geometry of pixels."""
    y = F.interpolate(x.permute(0, 3, 1, 2), scale_factor=factor, mode="bilinear", align_corners=False)
    return y.permute(0, 2, 3, 1)


def _midpoints(x: Tensor) -> Tensor:
    """Insert the mean between all neighbors: (n, h, w, D) becomes (n, 2 h - 1, 2 w - 1, D)."""
    size = (2 * x.shape[1] - 1, 2 * x.shape[2] - 1)
    y = F.interpolate(x.permute(0, 3, 1, 2), size=size, mode="bilinear", align_corners=True)
    return y.permute(0, 2, 3, 1)


def _repeat_border(x: Tensor, above: bool, below: bool) -> Tensor:
    """Repeat the outer columns of (n, h, w, C), and the first or last row where asked."""
    x = torch.cat([x[:, :, :1], x, x[:, :, -1:]], dim=2)
    rows = ([x[:, :1]] if above else []) + [x] + ([x[:, -1:]] if below else [])
    return torch.cat(rows, dim=1) if len(rows) > 1 else x
