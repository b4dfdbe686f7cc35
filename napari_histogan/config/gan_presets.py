"""Sizes and rates of GAN training that suit a patch size and a number of slides, each with its reason."""

from __future__ import annotations

from typing import Any

from napari_histogan.config.generator import TrainGanConfig

SMALL_PX = 64
FEW_SLIDES = 10


def suggest(resolution: int, slides: int, devices: int = 1) -> dict[str, Any]:
    """Return fields of ``TrainGanConfig`` for a patch size and a number of slides.

    The numbers follow StyleGAN2-ADA's automatic settings (Karras et al. 2020, "Limited Data", appendix C)
    from 128 px on; up to 64 px the networks are narrower, so that a laptop trains them in an afternoon.

    Parameters
    ----------
    resolution
        Side of a patch in pixels, a power of two from 16 to 4096.
    slides
        Slides that patches come from.
    devices
        GPUs that share a batch.

    Returns
    -------
    dict[str, Any]
        - ``batch``: as many pictures as fit a GPU at this size, 4096 / resolution and at most 32, on each
          device; at least 4, which the minibatch spread compares, and at most 64 over all.
        - ``channel_base``, ``channel_max``: half the paper's width up to 256 px, its full width from 512 px
          on, where the finest layers would else have a few channels only; 4096 and 96 up to 64 px.
        - ``z_dim``, ``w_dim``: 512 as the paper; 128 is ample for the narrow networks.
        - ``mapping_layers``: 2, as the paper found better than 8 with little data; 4 for the narrow ones.
        - ``learning_rate``: 0.0025, below 1024 px; 0.002 from there on, where batches are small.
        - ``r1_gamma``: 0.0002 resolution^2 / batch, since R1 sums over pixels and a small batch is noisier;
          0.05 up to 64 px, twice that rule, for the narrow discriminator sees all it can in few pictures.
        - ``ema_kimg``: batch x 10 / 32, the same number of steps for every batch.
        - ``path_length_weight``: 2 from 256 px on; below it costs time and evens out little.
        - ``ada_kimg``: 100, or 500 as in the paper for more than ten slides, where D overfits late.
        - ``kimg``: 300 up to 64 px; from there on 1000 for few slides, and 5000 for many.
    """
    batch = max(devices * max(min(4096 // resolution, 32), 1), 4)
    batch = -(-min(batch, max(64, devices)) // devices) * devices
    many = slides > FEW_SLIDES
    values: dict[str, Any] = {
        "batch": batch,
        "ema_kimg": batch * 10 / 32,
        "ada_kimg": 500.0 if many else 100.0,
        "learning_rate": 0.002 if resolution >= 1024 else 0.0025,
    }
    if resolution <= SMALL_PX:
        return values | {"r1_gamma": 0.05}
    return values | {
        "kimg": 5000.0 if many else 1000.0,
        "z_dim": 512,
        "w_dim": 512,
        "mapping_layers": 2,
        "channel_base": 32768 if resolution >= 512 else 16384,
        "channel_max": 512,
        "r1_gamma": round(0.0002 * resolution**2 / batch, 4),
        "path_length_weight": 2.0 if resolution >= 256 else 0.0,
    }


def settle(config: TrainGanConfig, resolution: int, slides: int) -> TrainGanConfig:
    """Return a config with ``preset`` plain, in which `suggest` has chosen the fields left at their defaults.

    A config that is plain already is returned as it is, so that a saved one means what it says.
    """
    if config.preset == "plain":
        return config
    fields = type(config).model_fields
    chosen = {
        name: value
        for name, value in suggest(resolution, slides, config.devices).items()
        if getattr(config, name) == fields[name].default
    }
    if config.init:  # the sizes are those of the generator to start from
        for name in ("z_dim", "w_dim", "mapping_layers", "channel_base", "channel_max"):
            chosen.pop(name, None)
    if "batch" in chosen and config.micro_batch:
        chosen["batch"] = max(chosen["batch"] // config.micro_batch, 1) * config.micro_batch
    return type(config).model_validate({**config.model_dump(), **chosen, "preset": "plain"})
