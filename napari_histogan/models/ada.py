"""Adaptive discriminator augmentation: pictures changed at random, without the changes leaking into samples.

Karras et al. 2020, "Training Generative Adversarial Networks with Limited Data", appendix B. Sixteen changes
are drawn for each picture, each with probability p. Moves and turns become one matrix and one resampling,
changes of color another matrix. Everything is linear in the pictures (noise aside), so that gradients of
gradients, which R1 takes through the augmentation, cost no more than the pictures themselves.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from napari_histogan.errors import ModelError
from napari_histogan.models.ada_sampling import FILTER_REACH, band_matrices, sample, shrink, upsample

BLIT = ("xflip", "rotate90", "xint")
GEOMETRY = ("scale", "rotate", "aniso", "xfrac")
COLOR = ("brightness", "contrast", "lumaflip", "hue", "saturation")
OPERATIONS = (*BLIT, *GEOMETRY, *COLOR, "imgfilter", "noise", "cutout")
PRESETS: dict[str, tuple[str, ...]] = {
    "blit": BLIT,
    "geom": GEOMETRY,
    "color": COLOR,
    "filter": ("imgfilter",),
    "noise": ("noise",),
    "cutout": ("cutout",),
    "bg": BLIT + GEOMETRY,
    "bgc": BLIT + GEOMETRY + COLOR,
    "bgcf": (*BLIT, *GEOMETRY, *COLOR, "imgfilter"),
    "bgcfn": (*BLIT, *GEOMETRY, *COLOR, "imgfilter", "noise"),
    "bgcfnc": OPERATIONS,
}

SHIFT_WHOLE, SHIFT_STD = 0.125, 0.125
SCALE_STD = ANISO_STD = 0.2
BRIGHTNESS_STD, CONTRAST_STD, SATURATION_STD = 0.2, 0.5, 1.0
BAND_STD, NOISE_STD, CUTOUT_SIDE = 1.0, 0.1, 0.5
BAND_POWER = (10 / 13, 1 / 13, 1 / 13, 1 / 13)
"""Expected power of natural pictures in each octave; keeps the brightness of filtered ones."""


class AugmentPipe:
    """The augmentations of a preset, applied with a probability that the caller controls.

    Parameters
    ----------
    preset
        A key of `PRESETS`, or names out of `OPERATIONS`.

    Raises
    ------
    ModelError
        If a name is unknown.
    """

    def __init__(self, preset: str | Sequence[str] = "bgc") -> None:
        names = PRESETS.get(preset, (preset,)) if isinstance(preset, str) else tuple(preset)
        if unknown := set(names) - set(OPERATIONS):
            raise ModelError(
                f"there is no augmentation {', '.join(sorted(unknown))}",
                f"one of {', '.join(PRESETS)}, or some of {', '.join(OPERATIONS)}",
            )
        self.operations = frozenset(names)

    def __call__(
        self,
        images: Tensor,
        p: float,
        generator: torch.Generator | None = None,
        share: tuple[int, int] = (0, 1),
    ) -> Tensor:
        """Augment each picture by operations drawn with probability `p`.

        Parameters
        ----------
        images
            (N, C, H, W), floating point, about [-1, 1]; colors change for C = 3 and C = 1.
        p
            Probability of each operation; above 1 acts as 1.
        generator
            Source of chance, on the CPU; None takes torch's own.
        share
            (index, count): `images` are every count-th of a larger batch from number index on, and get what
            they would get within it.

        Returns
        -------
        Tensor
            As `images`, in the same dtype; twice differentiable in them.
        """
        return self._apply(images, _Chance(len(images), p, generator, share))

    def at_percentile(self, images: Tensor, percentile: float) -> Tensor:
        """Apply every operation with the parameter that stands at `percentile` of (0, 1); for tests."""
        return self._apply(images, _Fixed(len(images), percentile))

    def _apply(self, images: Tensor, chance: _Chance) -> Tensor:
        if images.ndim != 4 or not images.is_floating_point() or min(images.shape[2:]) < 2:
            raise ModelError(
                f"pictures to augment have shape {tuple(images.shape)} and type {images.dtype}",
                "(N, C, H, W) floating point, at least 2 px high and wide",
            )
        out = images if images.dtype == torch.float64 else images.to(torch.float32)
        _, channels, height, width = images.shape
        inverse = self._geometry(chance, height, width)
        if inverse is not None:
            out = warp(out, inverse)
        colors = self._colors(chance) if channels in (1, 3) else None
        if colors is not None:
            out = _recolor(out, colors)
        if "imgfilter" in self.operations:
            out = _filter_bands(out, _band_gains(chance))
        if "noise" in self.operations:
            out = _add_noise(out, chance)
        if "cutout" in self.operations:
            out = out * _cutout_mask(chance, height, width).to(out)
        return out.to(images.dtype)

    def _geometry(self, chance: _Chance, height: int, width: int) -> Tensor | None:
        """Return matrices (N, 3, 3) from output to input pixels around the center, None if all are one."""
        on = self.operations
        inverse = _eye(chance.count, 3)
        if "xflip" in on:
            flip = chance.gate(chance.integer(2), 0)
            inverse = inverse @ _scaling(1 - 2 * flip, torch.ones_like(flip))
        if "rotate90" in on:
            inverse = inverse @ _rotation(math.pi / 2 * chance.gate(chance.integer(4), 0))
        if "xint" in on:
            x, y = chance.gate(chance.uniform(SHIFT_WHOLE, 2), 0)
            inverse = inverse @ _shift(-(x * width).round(), -(y * height).round())
        if "scale" in on:
            scale = 2 ** chance.gate(chance.normal(SCALE_STD), 0)
            inverse = inverse @ _scaling(1 / scale, 1 / scale)
        if "rotate" in on:
            inverse = inverse @ _rotation(chance.gate_rotation(chance.uniform(math.pi)))
        if "aniso" in on:
            scale = 2 ** chance.gate(chance.normal(ANISO_STD), 0)
            inverse = inverse @ _scaling(1 / scale, scale)
        if "rotate" in on:
            inverse = inverse @ _rotation(chance.gate_rotation(chance.uniform(math.pi), second=True))
        if "xfrac" in on:
            x, y = chance.gate(chance.normal(SHIFT_STD, 2), 0)
            inverse = inverse @ _shift(-x * width, -y * height)
        return None if torch.equal(inverse, _eye(chance.count, 3)) else inverse

    def _colors(self, chance: _Chance) -> Tensor | None:
        """Return matrices (N, 4, 4) of homogeneous colors, None if nothing changes them."""
        on = self.operations
        colors, one = _eye(chance.count, 4), torch.eye(4, dtype=torch.float64)
        luma = torch.tensor([1.0, 1.0, 1.0, 0.0], dtype=torch.float64) / math.sqrt(3)
        gray = torch.outer(luma, luma)
        if "brightness" in on:
            colors = colors.clone()
            colors[:, :3, 3] += chance.gate(chance.normal(BRIGHTNESS_STD), 0)[:, None]
        if "contrast" in on:
            gain = 2 ** chance.gate(chance.normal(CONTRAST_STD), 0)
            colors = torch.cat([colors[:, :3] * _stack(gain), colors[:, 3:]], dim=1)
        if "lumaflip" in on:
            flip = chance.gate(chance.integer(2), 0)
            colors = (one - 2 * gray * _stack(flip)) @ colors
        if "hue" in on:
            colors = _hue_rotation(chance.gate(chance.uniform(math.pi), 0)) @ colors
        if "saturation" in on:
            gain = 2 ** chance.gate(chance.normal(SATURATION_STD), 0)
            colors = (gray + (one - gray) * _stack(gain)) @ colors
        return None if torch.equal(colors, _eye(chance.count, 4)) else colors


class _Chance:
    """Parameters drawn for `count` pictures, on the CPU, so that one seed gives the same on every device."""

    def __init__(
        self, count: int, p: float, generator: torch.Generator | None, share: tuple[int, int] = (0, 1)
    ) -> None:
        self.count, self._p, self._generator = count, p, generator
        self._total, self._mine = count * share[1], slice(share[0], None, share[1])

    def integer(self, below: int) -> Tensor:
        return (self._uniform() * below).floor()

    def uniform(self, reach: float, axes: int = 0) -> Tensor:
        """Within [-reach, reach]: (N,), or (axes, N)."""
        return (self._uniform(axes) * 2 - 1) * reach

    def normal(self, std: float, axes: int = 0) -> Tensor:
        shape = (axes, self._total) if axes else (self._total,)
        return torch.randn(shape, generator=self._generator, dtype=torch.float64)[..., self._mine] * std

    def spread(self, std: float) -> Tensor:
        """Half-normal (N,)."""
        return self.normal(std).abs()

    def place(self) -> Tensor:
        """Within [0, 1]: (2, N)."""
        return self._uniform(2)

    def gate(self, value: Tensor, otherwise: float) -> Tensor:
        """Replace the value where the operation is not active; the same pictures for all rows."""
        return self._where(value, otherwise, self._p)

    def gate_rotation(self, angle: Tensor, second: bool = False) -> Tensor:
        """Gate one of two rotations so that any rotation at all has probability p."""
        return self._where(angle, 0.0, 1 - math.sqrt(min(max(1 - self._p, 0.0), 1.0)))

    def grain(self, like: Tensor) -> Tensor:
        """Unit-normal noise shaped as `like`."""
        shape = (self._total, *like.shape[1:])
        return torch.randn(shape, generator=self._generator, dtype=torch.float32)[self._mine].to(like)

    def _where(self, value: Tensor, otherwise: float, p: float) -> Tensor:
        return torch.where(self._uniform() < p, value, torch.full_like(value, otherwise))

    def _uniform(self, axes: int = 0) -> Tensor:
        shape = (axes, self._total) if axes else (self._total,)
        return torch.rand(shape, generator=self._generator, dtype=torch.float64)[..., self._mine]


class _Fixed(_Chance):
    """Every draw replaced by what stands at one percentile, every operation active but the second rotation.

    Reference pictures were made so; as there, normal draws miss the factor sqrt 2 of a true quantile.
    """

    def __init__(self, count: int, percentile: float) -> None:
        super().__init__(count, 1.0, None)
        self._q = torch.tensor(percentile, dtype=torch.float64)

    def normal(self, std: float, axes: int = 0) -> Tensor:
        return torch.erfinv(2 * self._uniform(axes) - 1) * std

    def spread(self, std: float) -> Tensor:
        return torch.erfinv(self._uniform()) * std

    def gate(self, value: Tensor, otherwise: float) -> Tensor:
        return value

    def gate_rotation(self, angle: Tensor, second: bool = False) -> Tensor:
        return angle * 0 if second else angle

    def _uniform(self, axes: int = 0) -> Tensor:
        return self._q.expand((axes, self.count) if axes else (self.count,))


# Geometry ---------------------------------------------------------------------------------------------------


def warp(images: Tensor, inverse: Tensor) -> Tensor:
    """Resample pictures through matrices, without aliasing (appendix B.1).

    Parameters
    ----------
    images
        (N, C, H, W) float32 or float64.
    inverse
        (N, 3, 3) float64 on the CPU, from output to input pixels, the origin in the center.

    Returns
    -------
    Tensor
        As `images`; what lies outside is mirrored.
    """
    _, _, height, width = images.shape
    (left, right), (top, bottom) = _margins(inverse, height, width)
    big = upsample(upsample(images, -1, left, right), -2, top, bottom)
    out_h, out_w = 2 * (height + 2 * FILTER_REACH), 2 * (width + 2 * FILTER_REACH)

    shift = _shift(torch.tensor([(left - right) / 2]), torch.tensor([(top - bottom) / 2]))
    half = torch.tensor([0.5], dtype=torch.float64)
    twice, center = _scaling(4 * half, 4 * half), _shift(-half, -half)
    matrix = center @ twice @ shift @ inverse @ _scaling(half, half) @ _shift(half, half)
    unit = _scaling(4 * half / big.shape[3], 4 * half / big.shape[2])
    matrix = unit @ matrix @ _scaling(half * out_w, half * out_h)
    size = [len(images), 1, out_h, out_w]
    grid = F.affine_grid(matrix[:, :2].to(images), size, align_corners=False)
    return shrink(shrink(sample(big, grid), -1), -2)


def _margins(inverse: Tensor, height: int, width: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return how many pixels ((left, right), (top, bottom)) the batch needs around its pictures."""
    x, y = (width - 1) / 2, (height - 1) / 2
    corners = torch.tensor([[-x, -y, 1], [x, -y, 1], [x, y, 1], [-x, y, 1]], dtype=torch.float64)
    seen = inverse @ corners.t()
    out = []
    for axis, reach in enumerate((x, y)):
        needed = (-seen[:, axis].min().item(), seen[:, axis].max().item())
        # A hair less, so that rounding adds no pixel.
        pads = [math.ceil(far - reach + 2 * FILTER_REACH - 1e-6) for far in needed]
        before, after = (min(max(pad, 0), round(2 * reach)) for pad in pads)
        out.append((before, after))
    return out[0], out[1]


def _eye(count: int, size: int) -> Tensor:
    return torch.eye(size, dtype=torch.float64).expand(count, size, size)


def _matrix(rows: Sequence[Sequence[Tensor | float]], like: Tensor) -> Tensor:
    """Stack numbers and (N,) tensors to matrices (N, len(rows), len(rows))."""
    values = [value for row in rows for value in row]
    flat = [v.to(torch.float64) if isinstance(v, Tensor) else torch.full_like(like, v) for v in values]
    return torch.stack(flat, dim=1).reshape(-1, len(rows), len(rows))


def _shift(x: Tensor, y: Tensor) -> Tensor:
    like = x.to(torch.float64)
    return _matrix([[1.0, 0.0, x], [0.0, 1.0, y], [0.0, 0.0, 1.0]], like)


def _scaling(x: Tensor, y: Tensor) -> Tensor:
    return _matrix([[x, 0.0, 0.0], [0.0, y, 0.0], [0.0, 0.0, 1.0]], x)


def _rotation(angle: Tensor) -> Tensor:
    cos, sin = angle.cos(), angle.sin()
    return _matrix([[cos, -sin, 0.0], [sin, cos, 0.0], [0.0, 0.0, 1.0]], angle)


# Colors and the rest ----------------------------------------------------------------------------------------


def _stack(values: Tensor) -> Tensor:
    return values[:, None, None]


def _hue_rotation(angle: Tensor) -> Tensor:
    """Rotations (N, 4, 4) of color space about its gray axis (Rodrigues' formula)."""
    cos, sin = angle.cos(), angle.sin() / math.sqrt(3)
    same = cos + (1 - cos) / 3
    plus, minus = (1 - cos) / 3 + sin, (1 - cos) / 3 - sin
    rows: list[list[Tensor | float]] = [
        [same, minus, plus, 0.0],
        [plus, same, minus, 0.0],
        [minus, plus, same, 0.0],
        [0.0, 0.0, 0.0, 1.0],
    ]
    return _matrix(rows, angle)


def _recolor(images: Tensor, colors: Tensor) -> Tensor:
    """Multiply the colors of each picture by its matrix; gray ones by the mean of its rows."""
    colors = colors[:, :3].to(images)
    gain, offset = colors[:, :, :3], colors[:, :, 3:]
    if images.shape[1] == 1:
        gain, offset = gain.sum(dim=2).mean(dim=1), offset.mean(dim=(1, 2))
        return images * gain[:, None, None, None] + offset[:, None, None, None]
    return torch.baddbmm(offset, gain, images.flatten(2)).reshape(images.shape)


def _band_gains(chance: _Chance) -> Tensor:
    """Draw the gain (N, 4) of each octave; every draw alone keeps the expected power."""
    power = torch.tensor(BAND_POWER, dtype=torch.float64)
    gains = torch.ones(chance.count, 4, dtype=torch.float64)
    for band in range(4):
        drawn = torch.ones_like(gains)
        drawn[:, band] = 2 ** chance.gate(chance.normal(BAND_STD), 0)
        gains = gains * drawn / (drawn.square() @ power).sqrt()[:, None]
    return gains


def _filter_bands(images: Tensor, gains: Tensor) -> Tensor:
    """Amplify the octaves of each picture along both axes, mirrored at the border."""
    gains = gains.to(images)
    columns = torch.einsum("nb,bij->nij", gains, _bands(images.shape[3]).to(images))[:, None]
    rows = torch.einsum("nb,bij->nij", gains, _bands(images.shape[2]).to(images))[:, None]
    return rows @ images @ columns.transpose(2, 3)


@lru_cache(maxsize=8)
def _bands(size: int) -> Tensor:
    return band_matrices(size)


def _add_noise(images: Tensor, chance: _Chance) -> Tensor:
    sigma = chance.gate(chance.spread(NOISE_STD), 0).to(images)
    return images + chance.grain(images) * sigma[:, None, None, None]


def _cutout_mask(chance: _Chance, height: int, width: int) -> Tensor:
    """Return (N, 1, H, W), 0 inside a square (in shares of the picture) and 1 elsewhere."""
    side = chance.gate(torch.full([chance.count], CUTOUT_SIDE, dtype=torch.float64), 0)[:, None]
    x, y = chance.place()[:, :, None]
    across = (torch.arange(width) + 0.5) / width
    down = (torch.arange(height) + 0.5) / height
    outside_x, outside_y = (across - x).abs() >= side / 2, (down - y).abs() >= side / 2
    mask: Tensor = outside_x[:, None, :] | outside_y[:, :, None]
    return mask[:, None].to(torch.float64)
