"""Hypercolumns, the per-pixel features of DatasetGAN (section 3.1), without ever building them.

A hypercolumn is what a pixel's position reads in all feature maps of the generator once they are upsampled
to the size of the image.  Built as such it takes 1.2 GiB for one 256 px image and 20 GiB for one of
1024 px.  Neither use needs that:

* Labeling images begins with a linear layer, and a linear layer commutes with upsampling:
  :mod:`~napari_histogan.models.hypercolumn_projection`.
* Training reads few pixels; :func:`gather_hypercolumns` takes just those, from at most four native
  neighbors each.

Frames: maps are (N, C, r, r); r and the image side R are powers of two; all upsampling goes straight from r
to R with the geometry of ``align_corners=False``.
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
    return dict(iterate_levels(maps, layout, dtype))


def iterate_levels(
    maps: Sequence[FeatureMap], layout: FeatureLayout, dtype: torch.dtype
) -> Iterator[tuple[int, Tensor]]:
    """Yield the levels of :func:`native_levels` one by one, so that one joined copy is held at a time."""
    found = tuple(Channel(m.name, m.block_resolution, m.tensor.shape[1]) for m in maps)
    if found != layout.maps:
        raise ModelError(
            f"the feature maps are {[tuple(m) for m in found]}",
            f"{[tuple(m) for m in layout.maps]}",
            "use the generator that the classifier was trained on",
        )
    for r in layout.resolutions:
        parts = [m.tensor.permute(0, 2, 3, 1) for m in maps if m.block_resolution == r]
        joined = parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)
        yield r, joined.to(dtype).contiguous()


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
        self._count = dict.fromkeys(layout.resolutions, 0)
        self._mean = {
            r: torch.zeros(layout.level_channels(r), dtype=torch.float64) for r in layout.resolutions
        }
        self._square = {r: torch.zeros_like(m) for r, m in self._mean.items()}

    def update(self, maps: Sequence[FeatureMap]) -> None:
        """Count the maps of a batch, each tensor (N, C, r, r)."""
        for r, level in iterate_levels(maps, self.layout, torch.float32):
            self.add(r, *level_moments(level))

    def add(self, r: int, count: int, mean: Tensor, variance: Tensor) -> None:
        """Count the :func:`level_moments` of side ``r``."""
        before, total = self._count[r], self._count[r] + count
        delta = mean.double().cpu() - self._mean[r]
        square = variance.double().cpu() * count
        self._mean[r] = self._mean[r] + delta * (count / total)
        self._square[r] = self._square[r] + square + delta.square() * (before * count / total)
        self._count[r] = total

    def mean(self) -> Tensor:
        """Return the mean of every channel, (C,) float32."""
        return torch.cat([self._mean[r] for r in self.layout.resolutions]).float()

    def std(self) -> Tensor:
        """Return the standard deviation of every channel, (C,) float32; 1 where a channel is constant."""
        parts = [self._square[r] / max(self._count[r], 1) for r in self.layout.resolutions]
        std = torch.cat(parts).sqrt().float()
        return torch.where(std > 1e-6, std, torch.ones_like(std))


def level_moments(level: Tensor) -> tuple[int, Tensor, Tensor]:
    """Return count, mean (C,), and variance (C,) of a level (N, r, r, C) over its pixels."""
    flat = level.reshape(-1, level.shape[-1])
    variance, mean = torch.var_mean(flat, dim=0, correction=0)
    return len(flat), mean, variance


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
        gather_level(level, r, image, y, x, size, mode, out[:, start : start + level.shape[-1]])
        start += level.shape[-1]
    return out


def gather_level(
    level: Tensor,
    r: int,
    image: Tensor,
    y: Tensor,
    x: Tensor,
    size: int,
    mode: Interpolation,
    out: Tensor,
) -> None:
    """Read the part of :func:`gather_hypercolumns` that comes from one level into ``out``, (P, C_r)."""
    flat = level.reshape(-1, level.shape[-1])
    if r == size or mode == "nearest":
        step = size // r
        out.copy_(flat[(image * r + y // step) * r + x // step])
        return
    (y0, y1, fy), (x0, x1, fx) = _neighbors(y, r, size), _neighbors(x, r, size)
    rows0, rows1 = (image * r + y0) * r, (image * r + y1) * r
    where = torch.stack([rows0 + x0, rows0 + x1, rows1 + x0, rows1 + x1], dim=1)
    weight = torch.stack([(1 - fy) * (1 - fx), (1 - fy) * fx, fy * (1 - fx), fy * fx], dim=1)
    # A bag of four is one pass over memory; four lookups and three blends are seven.
    out.copy_(F.embedding_bag(where, flat, per_sample_weights=weight.to(flat.dtype), mode="sum"))


def _neighbors(position: Tensor, r: int, size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return the native pixels on both sides of image pixels and the weight of the second."""
    native = ((position.float() + 0.5) * (r / size) - 0.5).clamp(0, r - 1)
    low = native.floor()
    return low.long(), (low.long() + 1).clamp(max=r - 1), native - low
