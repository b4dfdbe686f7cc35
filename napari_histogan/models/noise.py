"""Fixed noise of a sample: maps that follow from one number."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
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
    sides = [2**k for k in range(2, spec.img_resolution.bit_length())]
    layers = [r for r in sides for _ in range(1 if r == 4 else 2)]
    total = sum(r * r for r in layers)
    drawn = np.empty((len(noise_seeds), total), np.float32)
    for row, seed in zip(drawn, noise_seeds, strict=True):
        np.random.Generator(np.random.Philox(key=int(seed))).standard_normal(dtype=np.float32, out=row)
    parts = torch.split(torch.from_numpy(drawn), [r * r for r in layers], dim=1)
    maps = [p.reshape(-1, 1, r, r) for p, r in zip(parts, layers, strict=True)]
    return maps if device is None else [m.to(device) for m in maps]
