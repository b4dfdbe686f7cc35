"""Fixed noise of a sample: maps that follow from one number, or that were fitted and are kept as a row."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .stylegan2 import GeneratorSpec


def noise_maps(
    spec: GeneratorSpec, noise_seeds: Sequence[int], device: torch.device | None = None
) -> list[Tensor]:
    """Return the noise that the generator adds, as a pure function of each sample's seed.

    The numbers come from numpy's counter-based Philox generator on the CPU, keyed by the seed and in float32:
    the same on every device, in every batch, and for every number of threads.  (Torch's own generators differ
    between devices and between vector instruction sets.)

    Parameters
    ----------
    spec
        Of the generator.
    noise_seeds
        (N,) one seed of 0 to 2^63 - 1 per sample.
    device
        Where the maps go; the CPU if not given.

    Returns
    -------
    list[Tensor]
        For every convolution in order (b4.conv1, b8.conv0, b8.conv1, ...): (N, 1, r, r) float32, unit normal.
    """
    return maps_of_rows(spec, noise_rows(spec, noise_seeds), device)


def noise_rows(spec: GeneratorSpec, noise_seeds: Sequence[int]) -> NDArray[np.float32]:
    """Return the noise of :func:`noise_maps` as one row of numbers per sample, (N, P) float32.

    P is the number of pixels of all maps; they follow each other in the order of the convolutions.
    """
    drawn = np.empty((len(noise_seeds), row_length(spec)), np.float32)
    for row, seed in zip(drawn, noise_seeds, strict=True):
        np.random.Generator(np.random.Philox(key=int(seed))).standard_normal(dtype=np.float32, out=row)
    return drawn


def maps_of_rows(
    spec: GeneratorSpec, rows: NDArray[np.float32], device: torch.device | None = None
) -> list[Tensor]:
    """Return rows of noise (N, P) float32 as the maps that the generator adds; see :func:`noise_maps`."""
    layers = _layers(spec)
    parts = torch.split(torch.from_numpy(rows), [r * r for r in layers], dim=1)
    maps = [p.reshape(-1, 1, r, r) for p, r in zip(parts, layers, strict=True)]
    return maps if device is None else [m.to(device) for m in maps]


def row_length(spec: GeneratorSpec) -> int:
    """Return P, the number of pixels of all noise maps of one sample."""
    return sum(r * r for r in _layers(spec))


def _layers(spec: GeneratorSpec) -> list[int]:
    """Return the side of each convolution's noise map."""
    sides = [2**k for k in range(2, spec.img_resolution.bit_length())]
    return [r for r in sides for _ in range(1 if r == 4 else 2)]
