"""Where the middles of labeled patches lie, and balanced sets of them (paper 004).

For thin structures: patches of the object on the skeleton of its mask, patches of the background outside of a
dilation of it.  For painted pixels: every pixel of a class.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.morphology import skeletonize

from napari_histogan.errors import LabelError

Places = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Centers:
    """Labeled places.

    Attributes
    ----------
    places
        ``(n, 3) int64``: number of the picture, y, and x of the middle pixel.
    classes
        ``(n,) int64``, 0 to K - 1.
    """

    places: Places
    classes: NDArray[np.int64]

    def __len__(self) -> int:
        """Return the number of places."""
        return len(self.places)


def object_mask(mask: NDArray[np.uint8], name: str) -> NDArray[np.bool_]:
    """Return where the object is in a mask of two values, of which the larger means the object.

    Raises
    ------
    LabelError
        If the mask is empty, or holds other than two values.
    """
    values = np.unique(mask)
    if len(values) == 1:
        raise LabelError(
            f"the mask of {name} holds only the value {values[0]}",
            "an object and a background",
            "draw the object, or leave the picture out",
        )
    if len(values) > 2 or values[0] != 0:
        listed = ", ".join(map(str, values[:8])) + (", ..." if len(values) > 8 else "")
        raise LabelError(
            f"the mask of {name} holds {len(values)} values ({listed})",
            "two values: 0 for the background, and one for the object",
            "save it as black and white, or set centers to pixels for a mask of classes",
        )
    return np.asarray(mask == values[1])


def skeleton_places(
    masks: Sequence[NDArray[np.bool_]], inside: Sequence[NDArray[np.bool_]], dilation_px: int
) -> list[Places]:
    """Return the places of two classes: on the skeletons of objects, and outside of their dilations.

    Parameters
    ----------
    masks
        ``(H, W) bool`` each, True on the object.
    inside
        ``(H, W) bool`` each: the field of view, or the tissue.
    dilation_px
        Radius in px by which objects grow before the rest is background.
    """
    lines = [skeletonize(m) & i for m, i in zip(masks, inside, strict=True)]
    # A distance is cheaper than a dilation by a large disk, and the same.
    reach = dilation_px if dilation_px > 0 else 0.5
    ground = [(ndimage.distance_transform_edt(~m) > reach) & i for m, i in zip(masks, inside, strict=True)]
    return [_numbered(lines), _numbered(ground)]


def pixel_places(
    masks: Sequence[NDArray[np.uint8]], inside: Sequence[NDArray[np.bool_]], num_classes: int
) -> list[Places]:
    """Return the places of K classes: every pixel of masks ``(H, W) uint8`` with 1 to K (0 is unlabeled).

    Raises
    ------
    LabelError
        If a mask holds another value.
    """
    most = max((int(mask.max(initial=0)) for mask in masks), default=0)
    if most > num_classes:
        raise LabelError(
            f"a mask holds the value {most}",
            f"0 for unlabeled, and 1 to {num_classes} for the classes",
            "add the class to the project, or set centers to skeleton for a mask of one object",
        )
    each = range(1, num_classes + 1)
    return [_numbered([(m == k) & i for m, i in zip(masks, inside, strict=True)]) for k in each]


def free_places(inside: Sequence[NDArray[np.bool_]], count: int, seed: int) -> Places:
    """Return random places ``(count, 3)`` inside fields of view, for patches without a label.

    Raises
    ------
    LabelError
        If there is no place inside.
    """
    sizes = np.array([int(i.sum()) for i in inside])
    if not sizes.sum():
        raise LabelError("no picture has a pixel inside its field of view", "a field of view")
    rng = np.random.default_rng(seed)
    drawn = np.sort(rng.integers(int(sizes.sum()), size=count))
    ends = np.cumsum(sizes)
    numbers = np.searchsorted(ends, drawn, side="right")
    places = np.empty((count, 3), np.int64)
    for number in np.unique(numbers):
        mine = numbers == number
        flat = np.flatnonzero(inside[number])[drawn[mine] - (ends[number] - sizes[number])]
        places[mine] = np.stack(
            [np.full(len(flat), number), *np.unravel_index(flat, inside[number].shape)], 1
        )
    return rng.permutation(places)


def balanced(places: Sequence[Places], names: Sequence[str], count: int, seed: int) -> Centers:
    """Draw a set in which all classes are equally frequent, without drawing a place twice.

    Parameters
    ----------
    places
        Of each class.
    names
        Of the classes.
    count
        Places in all; rounded down to equal shares.  0 takes as many as the scarcest class gives.
    seed
        A larger set of the same seed holds the smaller one.

    Raises
    ------
    LabelError
        If a class has fewer places than its share.
    """
    found = ", ".join(f"{name} {len(p):,}" for name, p in zip(names, places, strict=True))
    share = count // len(places) if count else min(map(len, places))
    scarce = [name for name, p in zip(names, places, strict=True) if len(p) < max(1, share)]
    if scarce:
        raise LabelError(
            f"the classes have so many places: {found}",
            f"at least {max(1, share):,} of each class, for {count:,} patches in all",
            "ask for fewer patches (0 takes as many as there are), or label more of " + ", ".join(scarce),
        )
    rngs = np.random.default_rng(seed).spawn(len(places))
    drawn = [p[rng.permutation(len(p))[:share]] for p, rng in zip(places, rngs, strict=True)]
    classes = np.repeat(np.arange(len(places)), share)
    return Centers(np.concatenate(drawn), classes.astype(np.int64))


def _numbered(marks: Sequence[NDArray[np.bool_]]) -> Places:
    """Return number, y, and x of all marked pixels."""
    parts = [np.argwhere(mark) for mark in marks]
    numbers = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
    return np.column_stack([numbers, np.concatenate(parts)]).astype(np.int64)
