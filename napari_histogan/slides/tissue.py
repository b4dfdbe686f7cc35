"""Where there is tissue on a slide."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from math import inf
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from napari_histogan.errors import DAMAGE, NoTissue, StorageError
from napari_histogan.geometry import Region, Size
from napari_histogan.slides.reader import SlideReader
from napari_histogan.slides.stain import optical_density
from napari_histogan.slides.tile_cache import UInt8Array

TISSUE_MPP = 8.0
"""Tissue is looked for at this resolution in um/px: a pixel is about a cell."""

MIN_PIECE_UM2 = 10_000.0
"""Pieces and holes smaller than this (0.1 mm a side) are dust and gaps, in um2."""

MIN_SHARE = 0.002
"""A slide with a smaller share of tissue counts as empty."""

_DARK = 60
_CHROMA_BOUNDS = (12.0, 40.0)
_DENSITY_BOUNDS = (0.06, 0.25)
_GLOW_BOUNDS = (0.7, 3.0)
_LEAST_GLOW = 3.0


@dataclass(frozen=True, eq=False)
class TissueMask:
    """Tissue at low resolution.

    Parameters
    ----------
    mask
        ``(h, w) bool``, True where there is tissue.
    mpp
        Micrometers per pixel of the mask.
    """

    mask: npt.NDArray[np.bool_]
    mpp: float

    @property
    def share(self) -> float:
        """Share of the slide that is tissue, 0 to 1."""
        return float(self.mask.mean())

    @property
    def area_um2(self) -> float:
        """Area of the tissue in square micrometers."""
        return float(self.mask.sum()) * self.mpp**2

    @property
    def size(self) -> Size:
        """Height and width in pixels of the mask."""
        return Size(*self.mask.shape)

    @cached_property
    def _sums(self) -> npt.NDArray[np.float64]:
        sums = np.zeros((self.mask.shape[0] + 1, self.mask.shape[1] + 1))
        sums[1:, 1:] = self.mask.cumsum(0, dtype=np.float64).cumsum(1)
        return sums

    def fraction(self, region: Region, mpp: float) -> float:
        """Return the share of a region that is tissue, 0 to 1.

        Parameters
        ----------
        region
            In pixels of ``mpp`` micrometers; outside of the slide there is no tissue.
        mpp
            Resolution that the region is counted in, um/px.
        """
        if not region.height or not region.width:
            return 0.0
        f = mpp / self.mpp
        y0, x0, y1, x1 = region.y * f, region.x * f, region.y_end * f, region.x_end * f
        covered = self._sum_to(y1, x1) - self._sum_to(y0, x1) - self._sum_to(y1, x0) + self._sum_to(y0, x0)
        return float(min(1.0, max(0.0, covered / ((y1 - y0) * (x1 - x0)))))

    def _sum_to(self, y: float, x: float) -> float:
        """Return the tissue above and left of a point; bilinear, so parts of pixels count."""
        h, w = self.mask.shape
        y, x = min(max(y, 0.0), float(h)), min(max(x, 0.0), float(w))
        i, j = min(int(y), h - 1), min(int(x), w - 1)
        a, b = y - i, x - j
        s = self._sums
        top = s[i, j] * (1 - b) + s[i, j + 1] * b
        return float(top * (1 - a) + (s[i + 1, j] * (1 - b) + s[i + 1, j + 1] * b) * a)

    def save(self, path: Path) -> None:
        """Write the mask to an ``.npz`` file, whole or not at all."""
        draft = path.with_name(f".{path.name}.{os.getpid()}.part")
        with draft.open("wb") as file:
            np.savez_compressed(
                file, bits=np.packbits(self.mask), shape=self.mask.shape, mpp=np.float64(self.mpp)
            )
        draft.replace(path)

    @classmethod
    def load(cls, path: Path) -> TissueMask:
        """Read a mask that :meth:`save` wrote.

        Raises
        ------
        StorageError
            If there is none, or it is damaged.
        """
        try:
            with np.load(path, allow_pickle=False) as data:
                h, w = (int(n) for n in data["shape"])
                bits, mpp = np.asarray(data["bits"], np.uint8), float(data["mpp"])
            if min(h, w) < 1 or not 8 * bits.size >= h * w or not 0 < mpp < inf:
                raise ValueError(f"{h} x {w} pixels of {mpp} um in {bits.size} bytes")
            return cls(np.unpackbits(bits, count=h * w).reshape(h, w).astype(bool), mpp)
        except DAMAGE as error:
            raise StorageError(
                f"the tissue mask {path} cannot be read ({error})",
                "a mask as this program writes it",
                "plan the patches again",
            ) from error


def tissue_mask(reader: SlideReader, mpp: float = TISSUE_MPP, min_share: float = MIN_SHARE) -> TissueMask:
    """Find the tissue on a slide.

    Bright slides: what is colored or dense.  The thresholds are Otsu's, kept within
    bounds, so that a slide full of tissue does not lose its paler half and an empty
    one does not gain its dust.  Dark slides (fluorescence): what glows.

    Parameters
    ----------
    reader
        A slide whose mpp is known.
    mpp
        Resolution of the mask in um/px; never finer than the slide.
    min_share
        Least share of tissue, 0 to 1.

    Raises
    ------
    NoTissue
        Less than ``min_share`` of the slide looks like tissue.
    SlideHasNoMpp
        The slide's resolution is not known.
    """
    mpp = max(mpp, reader.mpp)
    size = reader.size_at(mpp)
    pixels = reader.read_at(Region(0, 0, size.height, size.width), mpp)
    found = find_tissue(pixels, mpp)
    share = float(found.mean())
    if share < min_share:
        raise NoTissue(
            f"{reader.path.name} shows tissue on {share:.2%} of its area "
            f"(median gray {np.median(pixels):.0f} of 255)",
            f"at least {min_share:.2%}",
            "check that the slide was scanned in focus and is stained; leave it out if it is empty",
        )
    return TissueMask(found, mpp)


def find_tissue(pixels: UInt8Array, mpp: float) -> npt.NDArray[np.bool_]:
    """Mark tissue in a picture ``(h, w, 3) uint8`` of ``mpp`` um/px; returns ``(h, w) bool``."""
    smooth = ndimage.uniform_filter(pixels.astype(np.float32), size=(3, 3, 1))
    found = _glowing(smooth) if np.median(pixels) < _DARK else _stained(smooth)
    found = ndimage.binary_opening(ndimage.binary_closing(np.pad(found, 2, mode="edge"), iterations=2))
    least = max(2, round(MIN_PIECE_UM2 / mpp**2))
    found = _without_small(found[2:-2, 2:-2], least)
    return ~_without_small(~found, least)


def otsu(values: npt.NDArray[np.floating], low: float, high: float) -> float:
    """Return the threshold that separates two groups of values best, kept within bounds.

    Otsu, "A threshold selection method from gray-level histograms", 1979.
    """
    counts, edges = np.histogram(values, bins=256)
    centers = (edges[:-1] + edges[1:]) / 2
    below = counts.cumsum()
    above = below[-1] - below
    total = (counts * centers).cumsum()
    with np.errstate(divide="ignore", invalid="ignore"):
        between = below * above * (total / below - (total[-1] - total) / above) ** 2
    # Otsu's criterion is flat across an empty valley; its middle is the fairest cut.
    best = np.nan_to_num(between)
    threshold = float(edges[1:][best >= best.max() * (1 - 1e-9)].mean())
    return min(max(threshold, low), high)


def _stained(smooth: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]:
    chroma = smooth.max(-1) - smooth.min(-1)
    density = optical_density(smooth).mean(-1)
    seen = smooth.max(-1) > 10  # scanners fill what they did not see with black
    colored = chroma > otsu(chroma[seen], *_CHROMA_BOUNDS)
    dense = density > otsu(density[seen], *_DENSITY_BOUNDS)
    return np.asarray(seen & (colored | dense))


def _glowing(smooth: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]:
    # Glow spans decades, so groups are told apart on a logarithmic scale.
    glow = smooth.max(-1)
    floor = float(np.percentile(glow, 2))
    doublings = np.log2((1 + glow) / (1 + floor))
    threshold = (1 + floor) * 2 ** otsu(doublings, *_GLOW_BOUNDS) - 1
    return np.asarray(glow > max(threshold, floor + _LEAST_GLOW))


def _without_small(mask: npt.NDArray[np.bool_], least: int) -> npt.NDArray[np.bool_]:
    labels, _ = ndimage.label(mask)
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    return np.asarray(sizes >= least)[labels]
