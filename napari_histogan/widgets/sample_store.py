"""Samples as the dock reads them: pictures by index, a few chunks at a time in memory."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from napari_histogan.errors import ProjectDamaged, StorageError
from napari_histogan.slides.stored_arrays import StoredGroup

STORE_NAME = "samples.zarr"
_CHUNKS_KEPT = 6


class SampleStore:
    """Reads the pictures of a samples artifact.

    Parameters
    ----------
    path
        The artifact's folder, which holds ``samples.zarr``.
    chunks_kept
        Chunks of pictures that stay in memory; a chunk holds 64.

    Raises
    ------
    ProjectDamaged
        If the store is missing or is not readable.
    """

    def __init__(self, path: Path, chunks_kept: int = _CHUNKS_KEPT) -> None:
        self.path = path
        self._chunks_kept = chunks_kept
        try:
            group = StoredGroup(path / STORE_NAME, ["image"])
            self.real = _real(group)
            """Samples that stand for real patches, and how well each was reproduced, dB."""
        except StorageError as error:
            raise ProjectDamaged(
                f"the samples in {path} cannot be read: {error}",
                f"a store {STORE_NAME} with the array image",
                "draw new samples, or restore the folder from a backup",
            ) from error
        self._image = group["image"]
        if len(self._image.shape) != 4 or self._image.dtype != np.uint8:
            raise ProjectDamaged(f"{path / STORE_NAME}/image is no row of pictures", "", "draw new samples")
        self._chunk = self._image.chunks[0]
        self._kept: OrderedDict[int, NDArray[np.uint8]] = OrderedDict()
        self.mpp = _number(group.attrs.get("mpp"), 1.0)

    def __len__(self) -> int:
        """Return how many samples there are."""
        return int(self._image.shape[0])

    @property
    def resolution(self) -> int:
        """Side of a sample in pixels."""
        return int(self._image.shape[1])

    def image(self, index: int) -> NDArray[np.uint8]:
        """Return one sample, ``(R, R, 3)`` uint8.

        Raises
        ------
        IndexError
            If there is no such sample.
        StorageError
            If its chunk cannot be decoded.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"there are samples 0 to {len(self) - 1}, not {index}")
        chunk = index // self._chunk
        if chunk not in self._kept:
            start = chunk * self._chunk
            self._kept[chunk] = np.asarray(self._image[start : start + self._chunk], np.uint8)
            if len(self._kept) > self._chunks_kept:
                self._kept.popitem(last=False)
        self._kept.move_to_end(chunk)
        return self._kept[chunk][index - chunk * self._chunk]


def _real(group: StoredGroup) -> dict[int, float]:
    """Return the numbers of the real patches and their dB; sets of drawn samples have none."""
    marks, psnr = group.whole("real"), group.whole("psnr")
    if marks is None or psnr is None or marks.shape != psnr.shape:
        return {}
    found = np.flatnonzero(marks)
    return dict(zip(found.tolist(), psnr.astype(np.float64)[found].tolist(), strict=True))


def _number(value: object, default: float) -> float:
    return float(value) if isinstance(value, int | float) else default
