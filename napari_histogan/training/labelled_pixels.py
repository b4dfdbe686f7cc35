"""Painted pixels and their hypercolumns: what the pixel classifier learns from."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_histogan.errors import LabelError, ModelError, Stopped
from napari_histogan.labels.classes import ClassTable
from napari_histogan.models.device import Compute
from napari_histogan.models.hypercolumns import (
    FeatureLayout,
    FeatureStatistics,
    Interpolation,
    gather_level,
    iterate_levels,
    layout_of,
    level_moments,
    select_blocks,
)
from napari_histogan.models.noise import maps_of_rows, noise_maps, row_length
from napari_histogan.models.picture_bytes import as_bytes
from napari_histogan.models.stylegan2 import FeatureMap, Generator, GeneratorSpec
from napari_histogan.progress import Reporter

from .feature_cache import FeatureCache, Moments

_GATHER = 8192
"""Pixels read at a time; bounds what is held beside the result."""


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
        (n, R, R) uint8: 0 unlabeled, 1 to K classes.
    noise
        (n, P) float32, rows of :func:`~napari_histogan.models.noise.noise_rows` for samples whose noise was
        fitted; None where it follows from the seeds.
    """

    w: NDArray[np.float32]
    noise_seed: NDArray[np.int64]
    masks: NDArray[np.uint8]
    noise: NDArray[np.float32] | None = None

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(self.masks)

    def subset(self, chosen: NDArray[Any]) -> PaintedSamples:
        """Return the samples that an index array or a mask of booleans picks."""
        noise = None if self.noise is None else self.noise[chosen]
        return PaintedSamples(self.w[chosen], self.noise_seed[chosen], self.masks[chosen], noise)

    def key(self, index: int) -> str:
        """Name a sample by what it is made from: its styles and its noise."""
        noise = self.noise_seed[index] if self.noise is None else self.noise[index]
        return hashlib.sha256(self.w[index].tobytes() + noise.tobytes()).hexdigest()[:32]

    def check(self, spec: GeneratorSpec, classes: ClassTable) -> list[str]:
        """Refuse what cannot be learned from.

        Returns
        -------
        list[str]
            Warnings: classes that are painted nowhere, or in one image only.

        Raises
        ------
        LabelError
            If masks have the wrong size or values, or fewer than two classes are painted.
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
        if self.noise is not None and self.noise.shape != (n, row_length(spec)):
            raise ModelError(
                f"the fitted noise has shape {self.noise.shape}",
                f"({n}, {row_length(spec)})",
                "use the generator that the noise was fitted for",
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
        if np.count_nonzero(images) < 2:
            only = classes.names[int(images.argmax())]
            raise LabelError(
                f"all that is painted is {only}", "two classes or more, to tell apart", "paint another class"
            )
        nowhere = [
            f"no pixel is painted as {info.name}, so it will not be found; paint it in two samples or more"
            for info in classes
            if not images[info.index - 1]
        ]
        return nowhere + [
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
    cache: FeatureCache | None = None,
) -> LabelledPixels:
    """Rebuild the painted samples and read the features of their painted pixels.

    One image is rebuilt at a time, and one level of its maps is laid out at a time, so memory holds the
    native maps of one image and the pixels taken.

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
    cache
        Where native maps of samples are kept between rounds; None rebuilds them.

    Raises
    ------
    ModelError
        If a feature is not finite.
    Stopped
        If a stop was asked for.
    """
    if not len(samples):
        raise LabelError("there is no painted sample", "one or more", "paint some samples")
    generator = generator.to(compute.device).eval()
    chosen = [choose_pixels(mask, pixels_per_image, seed + i) for i, mask in enumerate(samples.masks)]
    flat = torch.from_numpy(np.concatenate(chosen))
    image = torch.repeat_interleave(torch.tensor([len(c) for c in chosen]))
    label = torch.from_numpy(samples.masks.reshape(len(samples), -1))[image, flat].long() - 1
    size, device = generator.spec.img_resolution, compute.device
    pixels: Tensor | None = None
    statistics: FeatureStatistics | None = None
    done = 0
    for i, own in enumerate(chosen):
        if reporter.should_stop():
            raise Stopped(f"stopped after rebuilding {i} of {len(samples)} painted samples")
        reporter.progress(i, len(samples), "images", "Rebuilding the painted samples")
        layout, levels = sample_levels(generator, samples, i, device, blocks, cache)
        if statistics is None or pixels is None:
            statistics = FeatureStatistics(layout)
            pixels = torch.empty(len(flat), layout.channels, dtype=compute.dtype, device=device)
        at = [
            t.to(device) for t in (flat[done : done + len(own)] // size, flat[done : done + len(own)] % size)
        ]
        start = 0
        for r, level, moments in levels:
            statistics.add(r, *moments)
            columns = pixels[done : done + len(own), start : start + level.shape[-1]]
            for a in range(0, len(own), _GATHER):
                y, x = at[0][a : a + _GATHER], at[1][a : a + _GATHER]
                gather_level(level, r, torch.zeros_like(y), y, x, size, mode, columns[a : a + _GATHER])
            start += level.shape[-1]
        done += len(own)
    if statistics is None or pixels is None:
        raise LabelError("there is no painted sample", "one or more", "paint some samples")
    mean, std = statistics.mean(), statistics.std()
    if not bool(torch.isfinite(mean).all() and torch.isfinite(std).all()):
        raise ModelError(
            "the generator's features hold NaN or infinity",
            "numbers",
            "its weights are damaged: train it again",
        )
    return LabelledPixels(
        pixels, label.to(device), image.to(device), statistics.layout, mean.to(device), std.to(device)
    )


def sample_levels(
    generator: Generator,
    samples: PaintedSamples,
    index: int,
    device: torch.device,
    blocks: int = 0,
    cache: FeatureCache | None = None,
) -> tuple[FeatureLayout, Iterator[tuple[int, Tensor, Moments]]]:
    """Return the feature levels of one sample: from the cache, or made and then kept there.

    Returns
    -------
    tuple
        The layout, and an iterator of side r, level (1, r, r, C_r) float32, and its moments.
    """
    key = samples.key(index)
    stored = cache.load(key) if cache is not None else None
    if stored is not None:
        return stored.layout, stored.levels(device)
    maps = sample_maps(generator, samples, index, device, blocks)
    layout = layout_of(maps, generator.spec.img_resolution)
    made = ((r, level, level_moments(level)) for r, level in iterate_levels(maps, layout, torch.float32))
    return layout, made if cache is None else cache.keep(key, layout, made)


def sample_maps(
    generator: Generator, samples: PaintedSamples, index: int, device: torch.device, blocks: int = 0
) -> list[FeatureMap]:
    """Rebuild one sample; return its feature maps of the last ``blocks`` blocks (0: all)."""
    return select_blocks(_rebuilt(generator, samples, index, device)[1], blocks)


def rebuilt_pictures(
    generator: Generator, samples: PaintedSamples, device: torch.device
) -> NDArray[np.uint8]:
    """Rebuild all samples; return their pictures (n, R, R, 3) uint8."""
    made = [as_bytes(_rebuilt(generator, samples, i, device)[0]) for i in range(len(samples))]
    return torch.cat(made).permute(0, 2, 3, 1).cpu().numpy()


@torch.no_grad()
def _rebuilt(
    generator: Generator, samples: PaintedSamples, index: int, device: torch.device
) -> tuple[Tensor, list[FeatureMap]]:
    """Make one sample again: its picture, and all feature maps."""
    w = torch.from_numpy(samples.w[index : index + 1]).to(device)
    if samples.noise is None:
        noise = noise_maps(generator.spec, [int(samples.noise_seed[index])], device)
    else:
        noise = maps_of_rows(generator.spec, samples.noise[index : index + 1], device)
    return generator.synthesis.features(w, noise=noise)


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
