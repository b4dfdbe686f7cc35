"""What a patch classifier sees of a picture: a color or a stain, with or without equalized contrast."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from skimage.exposure import equalize_adapthist

from napari_histogan.errors import ConfigError, SlideError
from napari_histogan.geometry import Region
from napari_histogan.slides.reader import LevelInfo, SlideReader
from napari_histogan.slides.stain import H_AND_E, H_DAB, FloatArray, separate
from napari_histogan.slides.tile_cache import UInt8Array

_STAINS: dict[str, tuple[FloatArray, int]] = {
    "hematoxylin": (H_AND_E, 0),
    "eosin": (H_AND_E, 1),
    "dab": (H_DAB, 1),
}
_COLORS = {"red": 0, "green": 1, "blue": 2}
CHANNELS = ("green", "red", "blue", "gray", "rgb", *_STAINS)
"""What can be chosen; vessels of the retina show best in green (paper 004)."""

MAX_EQUALIZED_PX = 64_000_000
"""Contrast is equalized over a whole picture in memory; larger ones are refused."""


@dataclass(frozen=True, slots=True)
class Preparation:
    """How pixels become what the classifier sees.

    Attributes
    ----------
    channel
        One of :data:`CHANNELS`.  A stain is the gray that it alone would have, by color deconvolution.
    clahe
        Equalize the contrast locally (CLAHE), over the whole picture.
    clip_limit
        Of CLAHE, 0..1: the larger, the more contrast.
    """

    channel: str = "green"
    clahe: bool = True
    clip_limit: float = 0.01

    def __post_init__(self) -> None:
        """Refuse channels that there are not."""
        if self.channel not in CHANNELS:
            raise ConfigError(f"the channel {self.channel!r} was asked for", f"one of {', '.join(CHANNELS)}")

    @property
    def channels(self) -> int:
        """Number of channels that come out."""
        return 3 if self.channel == "rgb" else 1

    def __call__(self, pixels: UInt8Array) -> UInt8Array:
        """Return ``(H, W, C) uint8`` of a whole picture ``(H, W, 3) uint8``.

        Raises
        ------
        SlideError
            If the contrast is to be equalized, and the picture is larger than :data:`MAX_EQUALIZED_PX`.
        """
        chosen = self.choose(pixels)
        if not self.clahe:
            return chosen
        _require_equalizable(*pixels.shape[:2])
        planes = [
            equalize_adapthist(plane, clip_limit=self.clip_limit) for plane in chosen.transpose(2, 0, 1)
        ]
        return np.asarray(np.rint(255 * np.stack(planes, axis=-1)), np.uint8)

    def choose(self, pixels: UInt8Array) -> UInt8Array:
        """Return the chosen channel alone, ``(..., C) uint8``, of pixels ``(..., 3) uint8``."""
        if self.channel == "rgb":
            return pixels
        if self.channel in _COLORS:
            number = _COLORS[self.channel]
            return pixels[..., number : number + 1]
        if self.channel == "gray":
            weighted = pixels.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)
            return np.asarray(np.rint(weighted), np.uint8)[..., None]
        stains, number = _STAINS[self.channel]
        amount = separate(pixels, stains)[..., number]
        return np.asarray(np.rint(np.clip(255 * 10.0**-amount, 0, 255)), np.uint8)[..., None]


class PreparedReader(SlideReader):
    """A slide as a patch classifier sees it, at one resolution; beyond the rim its edge goes on.

    Without CLAHE pixels are read and converted when they are asked for.  With CLAHE the whole slide is
    prepared first, in memory.  One channel comes out three times, as readers give RGB.

    Parameters
    ----------
    source
        The slide; not closed here.
    preparation
        What to make of it.
    mpp
        Resolution of the result, um/px.

    Raises
    ------
    SlideError
        If contrast is to be equalized and the slide is larger than :data:`MAX_EQUALIZED_PX` at ``mpp``, or
        much coarser than ``mpp``.
    """

    def __init__(self, source: SlideReader, preparation: Preparation, mpp: float) -> None:
        source.check_resolution(mpp)
        size = source.size_at(mpp)
        super().__init__(source.path, [LevelInfo(size, 1.0)], mpp, mpp)
        self._source, self._preparation = source, preparation
        self._whole: UInt8Array | None = None
        if preparation.clahe:
            _require_equalizable(*size.shape)
            self._whole = preparation(source.read_at(Region(0, 0, *size.shape), mpp))

    def read(self, region: Region, level: int = 0) -> UInt8Array:
        """Return a region, ``(H, W, 3) uint8``; what lies outside repeats the nearest pixel of the edge."""
        inside = region.clipped(self.size)
        if not inside.height or not inside.width:
            return super().read(region, level)
        top, left = inside.y - region.y, inside.x - region.x
        bottom, right = region.y_end - inside.y_end, region.x_end - inside.x_end
        pixels = self._read_inside(inside, level)
        return np.pad(pixels, ((top, bottom), (left, right), (0, 0)), mode="edge")

    def _read_inside(self, region: Region, level: int) -> UInt8Array:
        if self._whole is not None:
            pixels = self._whole[region.slices]
        else:
            pixels = self._preparation.choose(self._source.read_at(region, self.mpp))
        return np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels.copy()

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        """Pickle as source, preparation, and resolution."""
        return type(self), (self._source, self._preparation, self.mpp)


def field_of_view(pixels: UInt8Array, least: int = 25) -> npt.NDArray[np.bool_]:
    """Return where a picture of the retina shows any, ``(H, W) bool``: the largest piece that is not black.

    Parameters
    ----------
    pixels
        ``(H, W, 3) uint8``.
    least
        Brightness of the brightest color from which on a pixel is not black, 0..255.
    """
    bright = ndimage.binary_opening(pixels.max(axis=2) >= least, iterations=2)
    pieces, count = ndimage.label(bright)
    if not count:
        return np.zeros(bright.shape, bool)
    largest = 1 + int(np.argmax(np.bincount(pieces.ravel())[1:]))
    return np.asarray(ndimage.binary_fill_holes(pieces == largest), bool)


def _require_equalizable(height: int, width: int) -> None:
    if height * width > MAX_EQUALIZED_PX:
        raise SlideError(
            f"{height:,} x {width:,} pixels are too many to equalize the contrast of",
            f"at most {MAX_EQUALIZED_PX:,}",
            "take a coarser resolution, or train without clahe",
        )
