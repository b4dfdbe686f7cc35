"""New samples from old ones: styles of two mixed at a layer, and neighbors of one.

Style mixing as in Karras et al. 2019 ("A Style-Based Generator Architecture for Generative Adversarial
Networks", section 3.1): layers before a crossover take the style of one sample, the others that of another.
Coarse layers hold layout, fine ones stain and texture.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from napari_histogan.config import MixSamplesConfig
from napari_histogan.errors import ConfigError, Stopped
from napari_histogan.inference.sampling import (
    SAMPLES,
    Samples,
    check_generator,
    draw_latents,
    open_or_create,
    rebuild,
    styles,
)
from napari_histogan.models.device import resolve
from napari_histogan.models.stylegan2 import Generator
from napari_histogan.progress import Reporter

_BATCH = 16
_DOMAIN = 9


def crossovers(first: NDArray[np.float32], second: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return every mix of two samples.

    Parameters
    ----------
    first, second
        (L, w_dim) styles of the two samples, one row per layer.

    Returns
    -------
    NDArray[np.float32]
        (2 (L - 1), L, w_dim): first ``first`` coarse and ``second`` fine, crossover after layer 1 to L - 1;
        then the other way round.
    """
    layers = np.arange(len(first))
    coarse = np.array([layers < k for k in range(1, len(first))])[:, :, None]
    mixed = [np.where(coarse, first, second), np.where(coarse, second, first)]
    return np.concatenate(mixed).astype(np.float32)


def neighbors(
    first: NDArray[np.float32], others: NDArray[np.float32], strength: float
) -> NDArray[np.float32]:
    """Return samples like one: its styles moved by ``strength`` (0..1) towards others, (n, L, w_dim)."""
    return (first[None] + strength * (others - first[None])).astype(np.float32)


def mixed_styles(
    generator: Generator, samples: Samples, config: MixSamplesConfig
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return styles (n, L, w_dim) and noise seeds (n,) of the samples that a config describes.

    Mixes of a pair keep the noise of the sample that gives the layout; neighbors keep that of the first.

    Raises
    ------
    ConfigError
        If the set has no such sample, or a sample is to be mixed with itself.
    """
    count = len(samples.w)
    wrong = [i for i in (config.first, config.second) if i is not None and i >= count]
    if wrong or config.first == config.second:
        raise ConfigError(
            f"samples {config.first} and {config.second} of {count} were to be mixed",
            f"two different samples, 0 to {count - 1}",
            "choose two samples of the gallery",
        )
    first = samples.w[config.first]
    seed = samples.noise_seed[config.first]
    if config.second is None:
        device = next(generator.parameters()).device
        z, _ = draw_latents(config.seed, range(config.count), generator.spec.z_dim, _DOMAIN)
        truncation = float(cast(float, samples.attributes.get("truncation", 1.0)))
        others = styles(generator, z, truncation, device).cpu().numpy()
        return neighbors(first, others, config.strength), np.full(config.count, seed)
    mixed = crossovers(first, samples.w[config.second])
    seeds = np.repeat([seed, samples.noise_seed[config.second]], len(mixed) // 2)
    return mixed, seeds


def mix_samples(
    generator: Generator,
    samples: Samples,
    config: MixSamplesConfig,
    reporter: Reporter,
    *,
    generator_hash: str = "",
) -> Path:
    """Store mixes or neighbors as samples, in ``run_dir/samples``.

    Parameters
    ----------
    generator
        That the samples were drawn from.
    samples
        The set that the config's numbers mean.
    config, reporter
        Of the stage.
    generator_hash
        Kept with the samples.

    Returns
    -------
    Path
        The folder that holds ``samples.zarr``.

    Raises
    ------
    ConfigError
        See :func:`mixed_styles`.
    Stopped
        If a stop was asked for.
    """
    check_generator(generator)
    compute = resolve(config)
    generator = generator.to(compute.device).eval()
    w, seeds = mixed_styles(generator, samples, config)
    side, n = generator.spec.img_resolution, len(w)
    folder = reporter.run_dir / "samples"
    kept = {k: samples.attributes.get(k, 1.0) for k in ("truncation", "mpp")}
    attributes = {**kept, "generator_hash": generator_hash, "seed": config.seed}
    arrays = {
        "w": (w.shape, np.float32),
        "noise_seed": ((n,), np.int64),
        "image": ((n, side, side, 3), np.uint8),
    }
    group: Any = open_or_create(folder / SAMPLES, attributes, arrays)
    group["w"][:], group["noise_seed"][:] = w, seeds
    for start in range(0, n, _BATCH):
        if reporter.should_stop():
            raise Stopped(f"stopped after {start} of {n} samples")
        reporter.progress(start, n, "images", "Mixing samples")
        part = slice(start, start + _BATCH)
        group["image"][part] = rebuild(generator, w[part], seeds[part])
    group.attrs["done"] = n
    reporter.progress(n, n, "images", "Mixing samples")
    return folder
