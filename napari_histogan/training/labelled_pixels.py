"""Painted pixels and their hypercolumns: what the pixel classifier learns from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_histogan.errors import LabelError, ModelError
from napari_histogan.labels.classes import ClassTable
from napari_histogan.models.device import Compute
from napari_histogan.models.hypercolumns import (
    FeatureLayout,
    FeatureStatistics,
    Interpolation,
    gather_hypercolumns,
    layout_of,
    native_levels,
    select_blocks,
)
from napari_histogan.models.noise import noise_maps
from napari_histogan.models.stylegan2 import Generator, GeneratorSpec
from napari_histogan.progress import Reporter


@dataclass(frozen=True)
class PaintedSamples:
    """Samples of a generator, and what people painted on them.

    Attributes
    ----------
    w
        (n, num_ws, w_dim) float32 styles.
    noise_seed
        (n,) int64.
    masks
        (n, R, R) uint8: 0 unlabelled, 1 to K classes.
    """

    w: NDArray[np.float32]
    noise_seed: NDArray[np.int64]
    masks: NDArray[np.uint8]

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(self.masks)

    def check(self, spec: GeneratorSpec, classes: ClassTable) -> list[str]:
        """Refuse what cannot be learned from.

        Returns
        -------
        list[str]
            Warnings: classes that are painted in one image only.

        Raises
        ------
        LabelError
            If masks have the wrong size or values, nothing is painted, or a class is painted nowhere.
        ModelError
            If the styles are not those of the generator.
        """
        side = spec.img_resolution
        if self.masks.ndim != 3 or self.masks.shape[1:] != (side, side) or self.masks.dtype != np.uint8:
            raise LabelError(
                f"the masks are {self.masks.dtype} of shape {self.masks.shape}",
                f"uint8 of shape (n, {side}, {side}): the size of the generator's images",
                "paint on samples of this generator",
            )
        n = len(self.masks)
        if self.w.shape != (n, spec.num_ws, spec.w_dim) or self.noise_seed.shape != (n,):
            raise ModelError(
                f"w has shape {self.w.shape} and the noise seeds {self.noise_seed.shape} for {n} masks",
                f"({n}, {spec.num_ws}, {spec.w_dim}) and ({n},)",
                "use the generator that made the samples",
            )
        if not np.isfinite(self.w).all():
            raise ModelError("w holds NaN or infinity", "numbers", "draw the samples again")
        for i, mask in enumerate(self.masks):
            classes.check_mask(mask, f"mask {i}")
        return self._check_coverage(classes)

    def _check_coverage(self, classes: ClassTable) -> list[str]:
        images = self.images_per_class(classes.num_classes)
        if not images.any():
            raise LabelError("no pixel is painted", "a few strokes of every class", "paint some samples")
        if len(classes) < 2:
            raise LabelError(
                f"there is {len(classes)} class", "two or more, to tell apart", "add a class for the rest"
            )
        nowhere = [info.name for info in classes if not images[info.index - 1]]
        if nowhere:
            raise LabelError(
                f"no pixel is painted as {', '.join(nowhere)}",
                "a few strokes of every class",
                "paint the class in two samples or more, or delete it from the project's classes",
            )
        return [
            f"{info.name} is painted in one image only, so how well it is recognized cannot be checked; "
            "paint it in another"
            for info in classes
            if images[info.index - 1] == 1 and len(self) > 1
        ]

    def images_per_class(self, num_classes: int) -> NDArray[np.int64]:
        """Return in how many images each class is painted, (K,)."""
        found = [np.bincount(m.ravel(), minlength=num_classes + 1)[1:] > 0 for m in self.masks]
        return np.sum(found, axis=0, dtype=np.int64) if found else np.zeros(num_classes, np.int64)


@dataclass(frozen=True)
class LabelledPixels:
    """Hypercolumns of painted pixels.

    Attributes
    ----------
    x
        (P, C) raw features, in the dtype that training computes in.
    label
        (P,) int64, 0 to K - 1: class minus 1.
    image
        (P,) int64: which sample.
    layout, mean, std
        Of the features; mean and std (C,) float32 over all native pixels of the painted samples.
    """

    x: Tensor
    label: Tensor
    image: Tensor
    layout: FeatureLayout
    mean: Tensor
    std: Tensor


def collect_pixels(
    generator: Generator,
    samples: PaintedSamples,
    compute: Compute,
    reporter: Reporter,
    *,
    blocks: int = 0,
    pixels_per_image: int = 4096,
    mode: Interpolation = "bilinear",
    seed: int = 0,
    batch: int = 8,
) -> LabelledPixels:
    """Rebuild the painted samples and read the features of their painted pixels.

    Parameters
    ----------
    generator
        In evaluation mode.
    samples
        Checked before.
    compute
        Device, and dtype of the features kept; the generator runs in float32.
    reporter
        Told about the progress.
    blocks
        Take the last n blocks only; 0 takes all.
    pixels_per_image
        At most so many painted pixels of an image are taken, as equally of its classes as there are pixels.
    mode
        How feature maps are upsampled.
    seed
        Of the choice of pixels.
    batch
        Images per pass.

    Raises
    ------
    ModelError
        If a feature is not finite.
    """
    size = generator.spec.img_resolution
    generator = generator.to(compute.device).eval()
    statistics: FeatureStatistics | None = None
    parts: list[Tensor] = []
    labels: list[Tensor] = []
    images: list[Tensor] = []
    for first in range(0, len(samples), batch):
        reporter.progress(first, len(samples), "images", "Rebuilding the painted samples")
        part = slice(first, first + batch)
        with torch.inference_mode():
            w = torch.from_numpy(samples.w[part]).to(compute.device)
            noise = noise_maps(generator.spec, samples.noise_seed[part].tolist(), compute.device)
            maps = select_blocks(generator.synthesis.features(w, noise=noise)[1], blocks)
            statistics = statistics or FeatureStatistics(layout_of(maps, size))
            statistics.update(maps)
            levels = native_levels(maps, statistics.layout, torch.float32)
            chosen = [
                choose_pixels(mask, pixels_per_image, seed + first + k)
                for k, mask in enumerate(samples.masks[part])
            ]
            image = torch.cat([torch.full((len(c),), k) for k, c in enumerate(chosen)])
            flat = torch.from_numpy(np.concatenate(chosen))
            y, x = flat // size, flat % size
            at = [t.to(compute.device) for t in (image, y, x)]
            parts.append(gather_hypercolumns(levels, at[0], at[1], at[2], size, mode).to(compute.dtype))
        labels.append(torch.from_numpy(samples.masks[part])[image, y, x].long() - 1)
        images.append(image + first)
    if statistics is None:
        raise LabelError("there is no painted sample", "one or more", "paint some samples")
    mean, std = statistics.mean(), statistics.std()
    if not bool(torch.isfinite(mean).all() and torch.isfinite(std).all()):
        raise ModelError(
            "the generator's features hold NaN or infinity",
            "numbers",
            "its weights are damaged: train it again",
        )
    kept = torch.cat(parts).clone()  # leave inference mode
    device = compute.device
    return LabelledPixels(
        kept,
        torch.cat(labels).to(device),
        torch.cat(images).to(device),
        statistics.layout,
        mean.to(device),
        std.to(device),
    )


def choose_pixels(mask: NDArray[np.uint8], most: int, seed: int) -> NDArray[np.int64]:
    """Choose at most ``most`` painted pixels of a mask (R, R), rare classes first.

    Every class gets an equal share; what a rare one leaves goes to the others.

    Returns
    -------
    NDArray[np.int64]
        Indices into the flat mask, ascending.
    """
    flat = mask.ravel()
    painted = np.flatnonzero(flat)
    if len(painted) <= most:
        return painted
    rng = np.random.default_rng(seed)
    by_class = sorted((painted[flat[painted] == k] for k in np.unique(flat[painted])), key=len)
    chosen: list[NDArray[np.int64]] = []
    left = most
    for i, group in enumerate(by_class):
        take = min(len(group), left // (len(by_class) - i))
        chosen.append(rng.choice(group, take, replace=False))
        left -= take
    return np.sort(np.concatenate(chosen))


def hold_out(
    masks: NDArray[np.uint8], num_classes: int, share: float, members: int, seed: int
) -> NDArray[np.bool_]:
    """Decide which member of the ensemble learns from which image.

    From eight painted images on, ``share`` of them are kept for validation by all members.  Below that
    every image is precious: the images are dealt into folds (each image its own while there are members
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

    Returns
    -------
    NDArray[np.bool_]
        (M, n): True where the member learns from the image.
    """
    shows = np.array([np.bincount(m.ravel(), minlength=num_classes + 1)[1:] > 0 for m in masks])
    painted = shows.any(axis=1)
    free = np.flatnonzero(painted & ~shows[:, shows.sum(axis=0) == 1].any(axis=1))
    order = np.random.default_rng(seed).permutation(free)
    learns = np.ones((members, len(masks)), np.bool_)
    if share == 0 or painted.sum() < 2 or not len(order):
        return learns
    if painted.sum() >= 8:
        wanted = max(round(share * painted.sum()), 1)
        for image in order:
            rest = learns[0].copy()
            rest[image] = False
            # Each class must stay in one learned image at least.
            if shows[rest].any(axis=0).all():
                learns[:, image] = False
            if (~learns[0]).sum() == wanted:
                break
        return learns
    folds = min(len(order), members)
    for position, image in enumerate(order):
        for member in range(position % folds, members, folds):
            rest = learns[member].copy()
            rest[image] = False
            if shows[rest].any(axis=0).all():
                learns[member, image] = False
    return learns
