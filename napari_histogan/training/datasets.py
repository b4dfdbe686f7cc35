"""Sources of image and mask pairs for segmentation.

On disk a source is one zarr group, ``pairs.zarr``:

========================  =======================  ===========================================
array                     shape, type              meaning
========================  =======================  ===========================================
``images``                ``(N, S, S, 3) uint8``   RGB
``masks``                 ``(N, S, S) uint8``      classes 1..K, 0 = unlabeled
``kept``                  ``(N,) bool``            pairs to learn from (optional: all)
``group``                 ``(N,) int64``           pairs of one region share it (optional)
========================  =======================  ===========================================

with the attribute ``mpp``.  Synthetic data sets hold more arrays, which training ignores.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
import zarr
from numpy.typing import NDArray

from napari_histogan.errors import LabelError, StorageError
from napari_histogan.slides.stored_arrays import StoredArray, StoredGroup

UInt8 = NDArray[np.uint8]
Integers = NDArray[np.int64]

_PAIRS_PER_CHUNK = 64
SAME_MPP = 0.02  # resolutions that differ by a smaller share are the same


class SegmentationSource(Protocol):
    """Pairs of images and masks of one size and resolution.

    Attributes
    ----------
    weight
        How often one of its pairs is drawn, relative to a pair of a source of weight 1.
    mpp
        Microns per pixel of the images.
    patch_px
        Side S of the images.
    groups
        ``(N,)``; pairs with the same number overlap or come from the same place, and are
        never split between training and validation.
    odds
        ``(N,) float64``, how often each pair is drawn relative to the source's others; None: all alike.
    """

    weight: float
    mpp: float
    patch_px: int
    groups: Integers
    odds: NDArray[np.float64] | None

    def __len__(self) -> int:
        """Return the number of pairs."""

    def batch(self, indices: Sequence[int] | Integers) -> tuple[UInt8, UInt8]:
        """Return images ``(n, S, S, 3)`` and masks ``(n, S, S)``, both uint8."""

    def class_counts(self) -> Integers:
        """Return how many pixels each mask value 0..255 has in all pairs, ``(256,)``."""


class ArrayPairs:
    """Pairs that are in memory; all are drawn alike.

    Parameters
    ----------
    images
        ``(N, S, S, 3) uint8``.
    masks
        ``(N, S, S) uint8``.
    mpp
        Microns per pixel.
    weight, groups
        See :class:`SegmentationSource`; without groups each pair is its own.

    Raises
    ------
    LabelError
        If the arrays do not fit together.
    """

    odds: NDArray[np.float64] | None = None

    def __init__(
        self, images: UInt8, masks: UInt8, mpp: float, weight: float = 1.0, groups: Integers | None = None
    ) -> None:
        check_pairs(images.shape, masks.shape, images.dtype, masks.dtype, "the pairs")
        self._images, self._masks = images, masks
        self.weight, self.mpp, self.patch_px = float(weight), float(mpp), int(images.shape[1])
        self.groups = np.arange(len(images)) if groups is None else np.asarray(groups, np.int64)

    def __len__(self) -> int:
        """Return the number of pairs."""
        return len(self._images)

    def batch(self, indices: Sequence[int] | Integers) -> tuple[UInt8, UInt8]:
        """Return images ``(n, S, S, 3)`` and masks ``(n, S, S)``."""
        chosen = np.asarray(indices, np.int64)
        return self._images[chosen], self._masks[chosen]

    def class_counts(self) -> Integers:
        """Return the pixels of each mask value, ``(256,)``."""
        return np.bincount(self._masks.ravel(), minlength=256).astype(np.int64)


class ZarrPairs:
    """Pairs on disk: a synthetic data set, or merged corrections.

    Only pairs that are marked as kept count.  Chunks that were read stay in memory up to
    ``cache_bytes``, because training draws pairs in random order.

    Parameters
    ----------
    path
        The group, usually ``.../pairs.zarr``.
    weight
        See :class:`SegmentationSource`.
    mpp
        Microns per pixel; None takes the group's attribute.
    cache_bytes
        Pairs are loaded whole if they fit in so much memory, and read one by one otherwise.

    Raises
    ------
    LabelError
        If the group lacks an array, its arrays do not fit together, no pair is kept, or
        the resolution is unknown.
    """

    odds: NDArray[np.float64] | None = None

    def __init__(
        self, path: Path, weight: float = 1.0, mpp: float | None = None, cache_bytes: int = 2**30
    ) -> None:
        group, self._images, self._masks = _open_pairs(path)
        self.path = group.path
        kept = group.whole("kept")
        self._rows = np.arange(self._images.shape[0]) if kept is None else np.flatnonzero(kept)
        if not len(self._rows):
            raise LabelError(
                f"{self.path} holds no pair to learn from ({self._images.shape[0]} were made, none kept)",
                "at least one pair",
                "make more pairs, or drop fewer of them for being uncertain",
            )
        stored = group.attrs.get("mpp") if mpp is None else mpp
        if not isinstance(stored, int | float):
            raise LabelError(f"{self.path} does not say its microns per pixel", "the attribute mpp")
        self.mpp, self.weight, self.patch_px = float(stored), float(weight), self._images.shape[1]
        groups = group.whole("group")
        self.groups = self._rows if groups is None else groups[self._rows].astype(np.int64)
        self._loaded: ArrayPairs | None = None
        self._fits = len(self._rows) * self.patch_px**2 * 4 <= cache_bytes

    def __len__(self) -> int:
        """Return the number of kept pairs."""
        return len(self._rows)

    def batch(self, indices: Sequence[int] | Integers) -> tuple[UInt8, UInt8]:
        """Return images ``(n, S, S, 3)`` and masks ``(n, S, S)`` of kept pairs."""
        if self._fits:
            return self._load().batch(indices)
        rows = self._rows[np.asarray(indices, np.int64)]
        return self._images.rows(rows), self._masks.rows(rows)

    def class_counts(self) -> Integers:
        """Return the pixels of each mask value in the kept pairs, ``(256,)``."""
        if self._fits:
            return self._load().class_counts()
        counts = np.zeros(256, np.int64)
        for start in range(0, len(self._rows), 16 * _PAIRS_PER_CHUNK):
            masks = self._masks.rows(self._rows[start : start + 16 * _PAIRS_PER_CHUNK])
            counts += np.bincount(masks.ravel(), minlength=256)
        return counts

    def _load(self) -> ArrayPairs:
        """Read all kept pairs once."""
        if self._loaded is None:
            images, masks = self._images[:][self._rows], self._masks[:][self._rows]
            self._loaded = ArrayPairs(images, masks, self.mpp, self.weight, self.groups)
        return self._loaded


class PairPool:
    """All sources together, split into training and held-out pairs.

    Parameters
    ----------
    sources
        At least one; of one patch size and resolution.
    validation_share
        Share of each source's groups that is held out; a source of one group has none.
    seed
        Of the split and of the draws.
    revisit_hard
        Share of the draws that follows the pairs' losses, 0..1; see :meth:`note_losses`.

    Raises
    ------
    LabelError
        If there are no sources, or they differ in size or resolution.
    """

    def __init__(
        self,
        sources: Sequence[SegmentationSource],
        validation_share: float,
        seed: int,
        revisit_hard: float = 0.0,
    ) -> None:
        if not sources or not any(source.weight > 0 for source in sources):
            raise LabelError(
                "there is no source of images and masks to train on",
                "a synthetic data set or merged corrections with a weight above 0",
                "make a data set first",
            )
        self.mpp, self.patch_px = sources[0].mpp, sources[0].patch_px
        for source in sources[1:]:
            if source.patch_px != self.patch_px or abs(source.mpp / self.mpp - 1) > SAME_MPP:
                raise LabelError(
                    f"the sources have patches of {self.patch_px} px at {self.mpp:g} um/px and of "
                    f"{source.patch_px} px at {source.mpp:g} um/px",
                    "one size and one resolution",
                    "merge the corrections at the data set's size and resolution",
                )
        self._sources, self._seed = tuple(sources), seed
        rng = np.random.default_rng([seed, 1])
        splits = [_split(source.groups, validation_share, rng) for source in sources]
        self._training = [training for training, _ in splits]
        self._held_out = [held_out for _, held_out in splits]
        shares = np.array([s.weight * len(t) for s, t in zip(sources, self._training, strict=True)])
        self._shares = shares / shares.sum()
        self._revisit = revisit_hard
        self._hardness = [np.ones(len(t)) for t in self._training]

    @property
    def held_out_count(self) -> int:
        """Number of pairs that are not trained on."""
        return sum(len(indices) for indices in self._held_out)

    def choose(self, step: int, count: int) -> Integers:
        """Return source and pair ``(count, 2)`` of a step's pairs, by source; the same for the same past."""
        rng = np.random.default_rng([self._seed, 2, step])
        drawn = []
        for number, (training, n) in enumerate(
            zip(self._training, rng.multinomial(count, self._shares), strict=True)
        ):
            odds = self._odds(number)
            places = rng.integers(len(training), size=n) if odds is None else rng.choice(len(odds), n, p=odds)
            drawn.append(np.stack([np.full(n, number), training[places]], axis=1))
        return np.concatenate(drawn)

    def read(self, chosen: Integers) -> tuple[UInt8, UInt8]:
        """Return images and masks of pairs as :meth:`choose` names them, in that order."""
        return self._gather([chosen[chosen[:, 0] == n, 1] for n in range(len(self._sources))])

    def draw(self, step: int, count: int) -> tuple[UInt8, UInt8]:
        """Return the ``count`` training pairs of a step."""
        return self.read(self.choose(step, count))

    def note_losses(self, chosen: Integers, losses: NDArray[np.float64]) -> None:
        """Remember the losses ``(n,)`` of pairs that were trained on; large ones are drawn more often.

        A pair that was never drawn counts as one of loss 1.  Does nothing unless hard pairs are revisited.
        """
        for number, training in enumerate(self._training if self._revisit else ()):
            mine = chosen[:, 0] == number
            places = np.searchsorted(training, chosen[mine, 1])
            self._hardness[number][places] = 0.5 * (self._hardness[number][places] + losses[mine])

    def state_dict(self) -> dict[str, Any]:
        """Return the losses that are remembered."""
        return {"hardness": [torch.from_numpy(h.copy()) for h in self._hardness] if self._revisit else []}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go back to :meth:`state_dict`."""
        for mine, stored in zip(self._hardness, state["hardness"], strict=False):
            mine[:] = stored.numpy()

    def _odds(self, number: int) -> NDArray[np.float64] | None:
        """Return the chances of a source's training pairs, or None if they are all alike."""
        given = self._sources[number].odds
        if (given is None and not self._revisit) or not len(self._training[number]):
            return None
        odds = np.ones(len(self._training[number])) if given is None else given[self._training[number]]
        if self._revisit:
            hardness = self._hardness[number]
            mean = max(float(odds @ hardness) / float(odds.sum()), 1e-12)
            odds = odds * ((1 - self._revisit) + self._revisit * hardness / mean)
        shares: NDArray[np.float64] = odds / odds.sum()
        return shares

    def held_out(self, most: int) -> tuple[UInt8, UInt8]:
        """Return at most ``most`` held-out pairs, spread evenly; training pairs if none are held out."""
        pairs = self._held_out if self.held_out_count else self._training
        total = sum(len(indices) for indices in pairs)
        wanted = [max(1, round(most * len(i) / total)) if len(i) else 0 for i in pairs]
        chosen = [i[:: max(1, math.ceil(len(i) / n))] if n else i for i, n in zip(pairs, wanted, strict=True)]
        return self._gather(chosen)

    def _gather(self, chosen: Sequence[Integers]) -> tuple[UInt8, UInt8]:
        """Read the chosen pairs of every source."""
        batches = [s.batch(i) for s, i in zip(self._sources, chosen, strict=True) if len(i)]
        return np.concatenate([b[0] for b in batches]), np.concatenate([b[1] for b in batches])


def _split(groups: Integers, share: float, rng: np.random.Generator) -> tuple[Integers, Integers]:
    """Return the indices of training and held-out pairs; no group is on both sides."""
    names = rng.permutation(np.unique(groups))
    held_out = names[: min(len(names) - 1, math.ceil(share * len(names)))] if share else names[:0]
    is_held_out = np.isin(groups, held_out)
    return np.flatnonzero(~is_held_out), np.flatnonzero(is_held_out)


def write_pairs(
    path: Path, images: UInt8, masks: UInt8, mpp: float, groups: Integers | None = None, **more: NDArray[Any]
) -> None:
    """Write pairs as a new zarr group that :class:`ZarrPairs` reads.

    Parameters
    ----------
    path
        The group to make; must not exist.
    images, masks
        ``(N, S, S, 3) uint8`` and ``(N, S, S) uint8``.
    mpp
        Microns per pixel.
    groups
        ``(N,)``, such as the number of the region that a patch was cut from; patches of one
        region overlap, and go to training or to validation together.
    more
        Other arrays with N rows, such as ``kept``.

    Raises
    ------
    LabelError
        If the arrays do not fit together.
    StorageError
        If there is something at ``path``, or it cannot be written.
    """
    check_pairs(images.shape, masks.shape, images.dtype, masks.dtype, "the pairs")
    path = Path(path)
    if path.exists():
        raise StorageError(f"there is something at {path} already", "a free path", "choose another path")
    arrays: dict[str, NDArray[Any]] = {"images": images, "masks": masks, **more}
    arrays |= {} if groups is None else {"group": np.asarray(groups, np.int64)}
    for name, array in arrays.items():
        if len(array) != len(images):
            raise LabelError(f"{name} has {len(array)} rows for {len(images)} images", "one row for each")
    try:
        group = zarr.open_group(path, mode="w-")
        for name, array in arrays.items():
            rows = min(_PAIRS_PER_CHUNK, len(array)) if array.ndim > 1 else len(array)
            stored = group.create_array(
                name, shape=array.shape, dtype=array.dtype, chunks=(max(1, rows), *array.shape[1:])
            )
            stored[...] = array
        group.attrs["mpp"] = float(mpp)
    except OSError as error:
        raise StorageError(f"{path} cannot be written: {error}", "", "check space and permission") from error


def check_pairs(
    images: tuple[int, ...], masks: tuple[int, ...], image_type: Any, mask_type: Any, what: str
) -> None:
    """Raise ``LabelError`` unless shapes and types are those of N pairs, N at least 1."""
    fits = len(images) == 4 and images[0] > 0 and images[1] == images[2] and images[3] == 3
    if not fits or images[:3] != masks or image_type != np.uint8 or mask_type != np.uint8:
        raise LabelError(
            f"{what} have images {image_type} {images} and masks {mask_type} {masks}",
            "images (N, S, S, 3) uint8 and masks (N, S, S) uint8, N at least 1",
        )


def _open_pairs(path: Path) -> tuple[StoredGroup, StoredArray, StoredArray]:
    """Open a group and check its arrays."""
    try:
        group = StoredGroup(path, ("images", "masks"))
    except StorageError as error:
        raise LabelError(
            f"{path} is not a set of pairs: {error}",
            "a zarr group with the arrays images and masks",
            "make the data set, or merge the corrections, again",
        ) from error
    images, masks = group["images"], group["masks"]
    check_pairs(images.shape, masks.shape, images.dtype, masks.dtype, str(path))
    for name in ("kept", "group"):
        if name in group and group[name].shape != images.shape[:1]:
            raise LabelError(f"{path} has {name} {group[name].shape}", f"{images.shape[:1]}")
    return group, images, masks
