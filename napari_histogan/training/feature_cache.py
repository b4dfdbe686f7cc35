"""The generator's feature maps of painted samples, kept on disk between rounds of painting.

Rebuilding a sample is a pass of the generator: a second at 256 px, a minute at 4096 px on a laptop.  A cache
keeps its native maps instead, one zarr group a sample, each level one uncompressed chunk laid out pixel by
pixel.  Such a chunk is mapped into memory as it lies, so reading a few thousand painted pixels of a 4096 px
image touches those pages only.

==================  ==========================  ====================================================
array               shape, type                 meaning
==================  ==========================  ====================================================
``level<r>``        ``(1, r, r, C_r) float32``  feature maps of side r, joined
``moments<r>``      ``(2, C_r) float32``        mean and variance of each channel over the r x r pixels
==================  ==========================  ====================================================

The attribute ``layout`` names the maps.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import zarr
from numpy.typing import NDArray
from torch import Tensor

from napari_histogan.errors import StorageError
from napari_histogan.models.hypercolumns import FeatureLayout

Moments = tuple[int, Tensor, Tensor]
"""Count, mean (C,), and variance (C,) of the pixels of a level."""

Levels = Iterator[tuple[int, Tensor, Moments]]
"""Side r, level (1, r, r, C_r) float32, and its moments."""


@dataclass(frozen=True)
class StoredFeatures:
    """Features of one sample on disk.

    Attributes
    ----------
    folder
        Its zarr group.
    layout
        Of the maps that are there.
    """

    folder: Path
    layout: FeatureLayout

    def levels(self, device: torch.device) -> Levels:
        """Yield the levels, mapped from disk where ``device`` is the CPU."""
        group = cast(Any, zarr.open_group(str(self.folder), mode="r"))
        for r in self.layout.resolutions:
            shape = (1, r, r, self.layout.level_channels(r))
            # Copy on write: torch wants memory that may be written; nothing is.
            mapped = np.memmap(_chunk(self.folder, r), np.dtype("<f4"), mode="c", shape=shape)
            mean, variance = torch.from_numpy(group[f"moments{r}"][:])
            yield r, torch.from_numpy(mapped).to(device), (r * r, mean, variance)


class FeatureCache:
    """A folder with the features of samples of one generator.

    Parameters
    ----------
    folder
        Made when something is kept.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def load(self, key: str) -> StoredFeatures | None:
        """Return what is kept of a sample; None if nothing is, or not all of it."""
        folder = self.folder / key
        try:
            group = zarr.open_group(str(folder), mode="r")
            layout = FeatureLayout.from_dict(cast(Any, group.attrs["layout"]))
        except (OSError, KeyError, ValueError, TypeError):
            return None
        sizes = {r: 4 * r * r * layout.level_channels(r) for r in layout.resolutions}
        whole = all(
            _chunk(folder, r).is_file() and _chunk(folder, r).stat().st_size == n for r, n in sizes.items()
        )
        return StoredFeatures(folder, layout) if whole else None

    def keep(self, key: str, layout: FeatureLayout, levels: Levels) -> Levels:
        """Write the levels of a sample while they pass through; kept once all have.

        Raises
        ------
        StorageError
            If the disk refuses; what was written of this sample is removed.
        """
        folder = self.folder / key
        temporary = folder.with_name(f".{key}.tmp-{os.getpid()}")
        shutil.rmtree(temporary, ignore_errors=True)
        try:
            group = cast(Any, zarr.open_group(str(temporary), mode="w", zarr_format=3))
            group.attrs["layout"] = layout.to_dict()
            for r, level, moments in levels:
                _write(group, f"level{r}", level.cpu().numpy())
                _write(group, f"moments{r}", torch.stack([moments[1], moments[2]]).cpu().numpy())
                yield r, level, moments
            shutil.rmtree(folder, ignore_errors=True)
            os.replace(temporary, folder)
        except OSError as error:
            raise StorageError(
                f"the features of painted samples could not be kept in {self.folder} ({error})",
                "a writable folder with free space",
                "free some space, or train with feature_cache off",
            ) from error
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def _write(group: Any, name: str, values: NDArray[np.float32]) -> None:
    """Write an array as one chunk of plain bytes."""
    array = group.create_array(
        name,
        shape=values.shape,
        chunks=values.shape,
        dtype="<f4",
        compressors=None,
        config={"write_empty_chunks": True},
    )
    array[:] = values


def _chunk(folder: Path, r: int) -> Path:
    """Return the file that holds a level."""
    return folder / f"level{r}" / "c" / "0" / "0" / "0" / "0"
