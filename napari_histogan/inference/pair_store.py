"""A synthetic data set on disk: one sharded zarr group, and a note of the shards that are written.

A data set is a folder with the group ``pairs.zarr``:

==================  =======================  ========================================================
array               shape, type              meaning
==================  =======================  ========================================================
``images``          ``(N, R, R, 3) uint8``   RGB
``masks``           ``(N, R, R) uint8``      1 to K: class of the largest mean probability
``w``               ``(N, num_ws, w_dim)``   styles, float32
``noise_seed``      ``(N,) int64``           see :func:`~napari_histogan.models.noise.noise_maps`
``uncertainty``     ``(N,) float32``         see :func:`~napari_histogan.models.uncertainty.image_uncertainty`
``class_fraction``  ``(N, K) float32``       share of the pixels of each class
``kept``            ``(N,) bool``            False for pairs that were dropped
==================  =======================  ========================================================

with the attributes ``mpp``, ``classes``, ``generator_hash``, and ``certain`` (so many pairs are certain
enough; those of them that are not kept were not needed for the wanted shares of the classes).

A shard is a file of its own in every array.  So shards may be written in any order, by any process.
"""

from __future__ import annotations

import errno
import json
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import numpy as np
import zarr
from numpy.typing import NDArray

from napari_histogan.errors import StorageError
from napari_histogan.slides.stored_arrays import StoredGroup

PAIRS = "pairs.zarr"
STATE = "progress.json"
IMAGES_PER_CHUNK = 16
SHARD_BYTES = 2**28

Batch = dict[str, NDArray[Any]]


class PairStore:
    """A data set that is being made.

    Parameters
    ----------
    folder
        Of the data set; made if missing.
    mark
        JSON values that tell how the pairs are made; a folder that was begun with others is refused.
    shapes
        By array: shape of one pair's entry, and type.
    attributes
        Of the zarr group.
    shard
        Pairs per shard.

    Attributes
    ----------
    written
        Numbers of the shards that are on disk.

    Raises
    ------
    StorageError
        If the folder holds another data set, or cannot be written.
    """

    def __init__(
        self,
        folder: Path,
        mark: dict[str, Any],
        shapes: dict[str, tuple[tuple[int, ...], Any]],
        attributes: dict[str, Any],
        shard: int,
    ) -> None:
        self.folder, self.shard, self._mark = folder, shard, mark
        state = folder / STATE
        with storage_errors(folder):
            if state.exists():
                found = json.loads(state.read_text(encoding="utf-8"))
                if {k: v for k, v in found.items() if k != "written"} != mark:
                    raise StorageError(
                        f"{folder} holds a data set that was begun with another config or model",
                        "an empty folder, or one begun in the same way",
                        "delete the folder, or choose another",
                    )
                self.group: Any = zarr.open_group(str(folder / PAIRS), mode="r+")
                self.written = {int(number) for number in found["written"]}
                return
            folder.mkdir(parents=True, exist_ok=True)
            self.group = zarr.open_group(str(folder / PAIRS), mode="w", zarr_format=3)
            self.written = set()
            chunk = math.gcd(shard, IMAGES_PER_CHUNK)
            for name, (shape, dtype) in shapes.items():
                sharded: dict[str, Any] = {"chunks": (shard, *shape)}
                if name in ("images", "masks"):
                    sharded = {"chunks": (chunk, *shape), "shards": (shard, *shape)}
                self.group.create_array(name, shape=(0, *shape), dtype=dtype, **sharded)
            self.group.attrs.update(attributes)
            self._keep_state()

    def __len__(self) -> int:
        """Return the pairs that the arrays have room for."""
        return int(self.group["kept"].shape[0])

    def missing(self, total: int) -> list[range]:
        """Make room for ``total`` pairs, and return the pairs of each shard that is not written yet."""
        with storage_errors(self.folder):
            if len(self) < total:
                for name in sorted(self.group):
                    array = self.group[name]
                    array.resize((total, *array.shape[1:]))
        starts = range(0, total, self.shard)
        return [range(a, min(a + self.shard, total)) for a in starts if a // self.shard not in self.written]

    def note(self, pairs: range) -> None:
        """Remember that the shard of these pairs is on disk."""
        self.written.add(pairs.start // self.shard)
        self._keep_state()

    def keep(self, kept: NDArray[np.bool_], certain: int) -> None:
        """Store which pairs are kept, and how many are certain enough."""
        with storage_errors(self.folder):
            self.group["kept"][:] = kept
            self.group.attrs["certain"] = certain

    def _keep_state(self) -> None:
        """Write beside and rename, so that the file is whole at any time."""
        path = self.folder / STATE
        temporary = path.with_suffix(".tmp")
        with storage_errors(self.folder):
            values = {**self._mark, "written": sorted(self.written)}
            temporary.write_text(json.dumps(values), encoding="utf-8")
            os.replace(temporary, path)


def write_shard(folder: Path, pairs: range, batch: Batch) -> None:
    """Write one shard into a data set, from whatever process.

    Parameters
    ----------
    folder
        Of the data set.
    pairs
        Numbers of the shard's pairs.
    batch
        Arrays with one row for each pair.

    Raises
    ------
    StorageError
        If the disk is full or refuses.
    """
    with storage_errors(folder):
        group = cast(Any, zarr.open_group(str(folder / PAIRS), mode="r+"))
        for name, values in batch.items():
            group[name][pairs.start : pairs.stop] = values


def read_pairs(
    group: Any, rows: NDArray[np.int64]
) -> Iterator[tuple[int, NDArray[np.uint8], NDArray[np.uint8]]]:
    """Read pairs shard by shard; yields index, image (R, R, 3), and mask (R, R)."""
    shard = (group["images"].shards or group["images"].chunks)[0]
    for first in range(0, group["images"].shape[0], shard):
        here = rows[(rows >= first) & (rows < first + shard)]
        if not len(here):
            continue
        images, masks = group["images"][first : first + shard], group["masks"][first : first + shard]
        for i in here:
            yield int(i), images[i - first], masks[i - first]


def open_pairs(folder: Path) -> StoredGroup:
    """Open the group of a finished data set to read.

    Raises
    ------
    StorageError
        If there is none, or it is damaged.
    """
    path = folder if folder.suffix == ".zarr" else folder / PAIRS
    if not path.is_dir():
        raise StorageError(
            f"there is no data set in {folder}",
            f"a folder that holds {PAIRS}",
            "choose a result such as datasets/0001",
        )
    return StoredGroup(path, ("images", "masks"))


def shard_size(wanted: int, total: int, size: int) -> int:
    """Return pairs per shard: a multiple of the chunk, and small enough to be held in memory."""
    most = max(SHARD_BYTES // (size * size * 4), 1)
    chunk = min(IMAGES_PER_CHUNK, most, total)
    return max(min(wanted, most, total) // chunk, 1) * chunk


@contextmanager
def storage_errors(folder: Path) -> Iterator[None]:
    """Turn what the disk says into a ``StorageError`` in plain words."""
    try:
        yield
    except StorageError:
        raise
    except OSError as error:
        full = error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))
        raise StorageError(
            f"the disk of {folder} is full"
            if full
            else f"the data set in {folder} could not be written ({error})",
            "a writable folder with free space",
            "free some space and resume; the shards that are written stay",
        ) from error
