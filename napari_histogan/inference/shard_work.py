"""Make the pairs of one shard, in this process or as the task of a worker on another machine.

The class of the largest *mean* probability differs from the published vote (each net's class, then the most
frequent) where nets are torn: the mean weighs how sure each is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from napari_histogan.config import SynthesizeDatasetConfig
from napari_histogan.models.device import resolve
from napari_histogan.models.generator_file import load_generator
from napari_histogan.models.noise import noise_maps
from napari_histogan.models.picture_nets import load_picture_nets
from napari_histogan.models.pixel_classifier import load_pixel_classifier
from napari_histogan.models.stylegan2 import Generator
from napari_histogan.models.uncertainty import image_uncertainty

from .pair_labels import PairLabeler
from .pair_store import Batch, write_shard
from .sampling import draw_latents, styles, to_uint8

LATENT_DOMAIN = 1
"""Keeps these latents apart from those of browsed samples with the same seed."""


@dataclass(frozen=True)
class ShardTask:
    """What a worker needs to make one shard; models and pairs are files that it sees too.

    Attributes
    ----------
    models
        Folder with a generator and a classifier.
    folder
        Of the data set.
    config
        With a precision that is not left open, so that all workers compute alike.
    pairs
        Numbers of the shard's pairs.
    """

    models: Path
    folder: Path
    config: SynthesizeDatasetConfig
    pairs: range


def run_task(task: ShardTask) -> None:
    """Make a shard and write it."""
    generator, labeler = _load(task.models, task.config)
    write_shard(task.folder, task.pairs, make_shard(generator, labeler, task.config, task.pairs))


@lru_cache(maxsize=1)
def _load(models: Path, config: SynthesizeDatasetConfig) -> tuple[Generator, PairLabeler]:
    """Load the models once in a worker's life."""
    compute = resolve(config)
    generator = load_generator(models).to(compute.device).eval()
    classifier = load_pixel_classifier(models).to(compute.device).eval()
    return generator, PairLabeler(classifier, load_picture_nets(models), compute)


def make_shard(
    generator: Generator,
    labeler: PairLabeler,
    config: SynthesizeDatasetConfig,
    pairs: range,
    before: Callable[[int], None] | None = None,
) -> Batch:
    """Make the pairs of a shard, batch by batch; ``before`` is called with the first number of each."""
    batches: list[Batch] = []
    for first in range(pairs.start, pairs.stop, config.batch):
        if before is not None:
            before(first)
        indices = range(first, min(first + config.batch, pairs.stop))
        batches.append(make_pairs(generator, labeler, config, indices))
    return {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}


@torch.inference_mode()
def make_pairs(
    generator: Generator,
    labeler: PairLabeler,
    config: SynthesizeDatasetConfig,
    indices: range,
) -> Batch:
    """Make the pairs with these numbers; arrays as in :mod:`.pair_store`, without ``kept``."""
    device = next(generator.parameters()).device
    z, noise_seed = draw_latents(config.seed, indices, generator.spec.z_dim, LATENT_DOMAIN)
    w = styles(generator, z, config.truncation, device)
    noise = noise_maps(generator.spec, noise_seed.tolist(), device)
    images, maps = generator.synthesis.features(w, noise=noise, dtype=labeler.dtype)
    labels, _, uncertainty = labeler(images, maps)
    masks = labels.cpu().numpy()
    k = labeler.num_classes
    counts = np.stack([np.bincount(m.ravel(), minlength=k + 1)[1:] for m in masks])
    return {
        "images": to_uint8(images),
        "masks": masks,
        "w": w.cpu().numpy(),
        "noise_seed": noise_seed,
        "uncertainty": image_uncertainty(uncertainty).cpu().numpy(),
        "class_fraction": (counts / masks[0].size).astype(np.float32),
    }
