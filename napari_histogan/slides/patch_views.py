"""Patches as places in pictures: gathered a batch at a time, never kept as copies."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from napari_histogan.errors import SlideTooSmall, SlideUnreadable
from napari_histogan.slides.tile_cache import UInt8Array


class PatchViews:
    """Square patches around places in pictures; beyond the rim the edge of the picture goes on.

    The middle of a patch of S px is its pixel ``S // 2``.

    Parameters
    ----------
    pictures
        ``(H, W, C) uint8`` each, all of the same C; kept once, with a rim of S px.
    patch_px
        Side S of a patch.

    Raises
    ------
    SlideTooSmall
        If a picture is smaller than a patch.
    SlideUnreadable
        If pictures differ in their number of channels, or there is none.
    """

    def __init__(self, pictures: Sequence[UInt8Array], patch_px: int) -> None:
        counts = sorted({picture.shape[2] for picture in pictures})
        if len(counts) != 1:
            raise SlideUnreadable(
                f"the pictures have {' and '.join(map(str, counts)) or 'no'} channels",
                "one number of channels in all of them",
                "leave pictures out, or convert them",
            )
        for number, picture in enumerate(pictures):
            if min(picture.shape[:2]) < patch_px:
                raise SlideTooSmall(
                    f"picture {number} (counted from 0) has {picture.shape[0]} x {picture.shape[1]} pixels",
                    f"at least {patch_px} a side, the size of a patch",
                    "choose smaller patches, or leave the picture out",
                )
        half = patch_px // 2
        rim = ((half, half), (half, half), (0, 0))
        self.patch_px, self.channels = patch_px, counts[0]
        self._padded = [np.pad(p, rim, mode="edge").transpose(2, 0, 1).copy() for p in pictures]

    def __len__(self) -> int:
        """Return the number of pictures."""
        return len(self._padded)

    @property
    def nbytes(self) -> int:
        """Bytes held, whatever the number of patches."""
        return sum(picture.nbytes for picture in self._padded)

    def padded(self, number: int) -> UInt8Array:
        """Return a picture with its rim, ``(C, H + S, W + S) uint8``; not to be changed."""
        return self._padded[number]

    def gather(self, places: npt.NDArray[np.int64]) -> UInt8Array:
        """Return patches ``(n, C, S, S) uint8`` around places ``(n, 3)``: number of the picture, y, and x."""
        side = self.patch_px
        out = np.empty((len(places), self.channels, side, side), np.uint8)
        for patch, (number, y, x) in zip(out, places.tolist(), strict=True):
            patch[:] = self._padded[number][:, y : y + side, x : x + side]
        return out
