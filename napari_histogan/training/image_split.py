"""Which painted images the members of an ensemble learn from, which check them, and which test the result."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_histogan.config import TrainPixelClassifierConfig

PAPER_SPLIT = (16, 4, 16)
"""Images to learn from, to validate with, and to test with (HDGAN, section V)."""


@dataclass(frozen=True)
class ImageSplit:
    """Who sees which of n painted images.

    Attributes
    ----------
    learns
        (M, n) True where the member learns from the image.
    tests
        (n,) True for images that neither training nor early stopping sees.
    """

    learns: NDArray[np.bool_]
    tests: NDArray[np.bool_]

    @property
    def validates(self) -> NDArray[np.bool_]:
        """(M, n): True where the member checks the image."""
        return ~self.learns & ~self.tests


def split_images(
    masks: NDArray[np.uint8], num_classes: int, config: TrainPixelClassifierConfig
) -> ImageSplit:
    """Divide painted images (n, R, R) as the config's ``split`` says.

    An image that alone shows some class is always learned from.
    """
    n = len(masks)
    if config.split == "auto":
        few = config.folds_below
        learns = hold_out(masks, num_classes, config.validation_share, config.members, config.seed, few)
        return ImageSplit(learns, np.zeros(n, np.bool_))
    shows = classes_shown(masks, num_classes)
    painted = int(shows.any(axis=1).sum())
    total = sum(PAPER_SPLIT)
    wanted = [max(round(painted * part / total), 1) if painted > 2 else 0 for part in PAPER_SPLIT[1:]]
    order = np.random.default_rng(config.seed).permutation(np.flatnonzero(shows.any(axis=1)))
    learned = np.ones(n, np.bool_)
    tests = _take(learned, shows, order, wanted[1])
    _take(learned, shows, order, wanted[0])
    learned[tests] = False
    return ImageSplit(np.repeat(learned[None], config.members, axis=0), tests)


def classes_shown(masks: NDArray[np.uint8], num_classes: int) -> NDArray[np.bool_]:
    """Return (n, K): which of the K classes each mask shows."""
    return np.array([np.bincount(m.ravel(), minlength=num_classes + 1)[1:] > 0 for m in masks])


def hold_out(
    masks: NDArray[np.uint8], num_classes: int, share: float, members: int, seed: int, folds_below: int = 8
) -> NDArray[np.bool_]:
    """Decide which member of the ensemble learns from which image.

    From ``folds_below`` painted images on, ``share`` of them are kept for validation by all members.  Below
    that every image is precious: the images are dealt into folds (each image its own while there are members
    enough), and member m leaves out fold m mod k, so that every image is checked by nets that never saw it,
    and the ensemble has seen all.  An image that alone shows some class is never held out.

    Parameters
    ----------
    masks
        (n, R, R) uint8.
    num_classes
        K.
    share
        0 to 1; 0 holds nothing out.
    members
        M.
    seed
        Of the choice.
    folds_below
        Fewer painted images are dealt into folds.

    Returns
    -------
    NDArray[np.bool_]
        (M, n): True where the member learns from the image.
    """
    shows = classes_shown(masks, num_classes)
    painted = shows.any(axis=1)
    free = np.flatnonzero(painted & ~shows[:, shows.sum(axis=0) == 1].any(axis=1))
    order = np.random.default_rng(seed).permutation(free)
    learns = np.ones((members, len(masks)), np.bool_)
    if share == 0 or painted.sum() < 2 or not len(order):
        return learns
    if painted.sum() >= folds_below:
        _take(learns[0], shows, order, max(round(share * painted.sum()), 1))
        learns[1:] = learns[0]
        return learns
    folds = min(len(order), members)
    for position in range(len(order)):
        for member in range(position % folds, members, folds):
            _take(learns[member], shows, order[[position]], 1)
    return learns


def _take(
    learned: NDArray[np.bool_], shows: NDArray[np.bool_], order: NDArray[np.int64], wanted: int
) -> NDArray[np.bool_]:
    """Take up to ``wanted`` images out of ``learned``, but no class's last one; return which."""
    taken, needed = np.zeros(len(learned), np.bool_), shows.any(axis=0)
    for image in order:
        rest = learned.copy()
        rest[image] = False
        if taken.sum() < wanted and learned[image] and (shows[rest].any(axis=0) >= needed).all():
            learned[image], taken[image] = False, True
    return taken
