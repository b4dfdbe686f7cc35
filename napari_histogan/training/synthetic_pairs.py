"""Pairs on disk as an ordinary torch data set, for training loops that are not of this package."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from .datasets import ZarrPairs

PAIRS = "pairs.zarr"


class SyntheticPairs(Dataset[tuple[Tensor, Tensor]]):
    """The kept pairs of a data set, one by one.

    Workers of a ``DataLoader`` open the files themselves; nothing but the path goes to them.

    Parameters
    ----------
    path
        Folder of a data set, such as ``project/datasets/0003``, or its ``pairs.zarr``.
    transform
        Called with image and mask, returns them changed, before images become numbers of 0 to 1.
    as_float
        Whether images are float32 of 0 to 1; uint8 of 0 to 255 otherwise.

    Raises
    ------
    LabelError
        If there are no pairs, or none is kept.
    """

    def __init__(
        self,
        path: str | Path,
        transform: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] | None = None,
        as_float: bool = True,
    ) -> None:
        path = Path(path)
        self.path = path if path.suffix == ".zarr" else path / PAIRS
        self._transform, self._as_float = transform, as_float
        self._pairs: ZarrPairs | None = self._open()
        self._count = len(self._pairs)

    def __len__(self) -> int:
        """Return the number of kept pairs."""
        return self._count

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """Return image (3, R, R) and mask (R, R) int64: classes 1 to K, 0 is unlabeled.

        Raises
        ------
        IndexError
            If there is no such pair.
        """
        if not -self._count <= index < self._count:
            raise IndexError(f"pair {index} of {self._count}")
        if self._pairs is None:
            self._pairs = self._open()
        images, masks = self._pairs.batch([index % self._count])
        image, mask = (
            torch.from_numpy(images[0]).permute(2, 0, 1).contiguous(),
            torch.from_numpy(masks[0]).long(),
        )
        if self._transform is not None:
            image, mask = self._transform(image, mask)
        return (image.float() / 255 if self._as_float else image), mask

    def __getstate__(self) -> dict[str, Any]:
        """Leave open files behind."""
        return {**self.__dict__, "_pairs": None}

    def _open(self) -> ZarrPairs:
        # Read one by one: each worker would hold all pairs otherwise.
        return ZarrPairs(self.path, mpp=1.0, cache_bytes=0)
