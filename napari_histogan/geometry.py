"""Sizes, points, and regions with their units in their types.

Pixels are counted from the top left corner; ``y`` comes first, as in numpy.
A region is half open: it holds the pixels ``y0 <= y < y0 + height``.
Physical lengths are in micrometers (um), resolutions in micrometers per pixel (mpp).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil, floor


@dataclass(frozen=True, slots=True)
class Size:
    """Height and width in pixels."""

    height: int
    width: int

    def __post_init__(self) -> None:
        """Refuse negative sizes."""
        if self.height < 0 or self.width < 0:
            raise ValueError(f"a size cannot be negative: {self.height} x {self.width}")

    @property
    def shape(self) -> tuple[int, int]:
        """The numpy shape ``(height, width)``."""
        return self.height, self.width

    def scaled(self, factor: float) -> Size:
        """Return the size times ``factor``, rounded, at least one pixel a side."""
        return Size(max(1, round(self.height * factor)), max(1, round(self.width * factor)))


@dataclass(frozen=True, slots=True)
class Point:
    """A position in pixels; fractions are allowed."""

    y: float
    x: float


@dataclass(frozen=True, slots=True)
class Region:
    """A rectangle of whole pixels at one resolution level.

    Parameters
    ----------
    y, x
        Top left corner in pixels; may lie outside the picture.
    height, width
        Extent in pixels, at least 0.
    """

    y: int
    x: int
    height: int
    width: int

    def __post_init__(self) -> None:
        """Refuse negative extents."""
        if self.height < 0 or self.width < 0:
            raise ValueError(f"a region cannot have a negative extent: {self.height} x {self.width}")

    @property
    def size(self) -> Size:
        """Height and width in pixels."""
        return Size(self.height, self.width)

    @property
    def y_end(self) -> int:
        """First row below the region."""
        return self.y + self.height

    @property
    def x_end(self) -> int:
        """First column right of the region."""
        return self.x + self.width

    @property
    def center(self) -> Point:
        """Center of the region in pixels."""
        return Point(self.y + self.height / 2, self.x + self.width / 2)

    @property
    def slices(self) -> tuple[slice, slice]:
        """Numpy slices; only meaningful for regions inside the picture."""
        return slice(self.y, self.y_end), slice(self.x, self.x_end)

    def clipped(self, size: Size) -> Region:
        """Return the part of the region that lies inside a picture of ``size``."""
        y0, x0 = min(max(self.y, 0), size.height), min(max(self.x, 0), size.width)
        y1, x1 = min(max(self.y_end, y0), size.height), min(max(self.x_end, x0), size.width)
        return Region(y0, x0, y1 - y0, x1 - x0)

    def grown(self, margin: int) -> Region:
        """Return the region with ``margin`` pixels more on each side."""
        return Region(self.y - margin, self.x - margin, self.height + 2 * margin, self.width + 2 * margin)

    def intersects(self, other: Region) -> bool:
        """Whether the two regions share at least one pixel."""
        return self.y < other.y_end and other.y < self.y_end and self.x < other.x_end and other.x < self.x_end

    def contains(self, other: Region) -> bool:
        """Whether ``other`` lies wholly inside this region."""
        return (
            self.y <= other.y
            and self.x <= other.x
            and other.y_end <= self.y_end
            and other.x_end <= self.x_end
        )

    def scaled(self, factor: float) -> Region:
        """Return the smallest region of whole pixels that covers this one scaled by ``factor``."""
        y0, x0 = floor(self.y * factor), floor(self.x * factor)
        return Region(y0, x0, ceil(self.y_end * factor) - y0, ceil(self.x_end * factor) - x0)


def grid(size: Size, step: Size) -> Iterator[Region]:
    """Yield the regions of a regular grid over a picture, row by row.

    Parameters
    ----------
    size
        The picture in pixels.
    step
        The cell in pixels; cells at the right and bottom edge are cut off.
    """
    if step.height < 1 or step.width < 1:
        raise ValueError(f"a grid cell needs at least one pixel a side, got {step.height} x {step.width}")
    for y in range(0, size.height, step.height):
        for x in range(0, size.width, step.width):
            yield Region(y, x, step.height, step.width).clipped(size)


def pixels_to_um(pixels: float, mpp: float) -> float:
    """Convert a length in pixels at ``mpp`` microns per pixel to microns."""
    return pixels * mpp


def um_to_pixels(um: float, mpp: float) -> float:
    """Convert a length in microns to pixels at ``mpp`` microns per pixel."""
    return um / mpp
