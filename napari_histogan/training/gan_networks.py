"""The networks that GAN training begins with: fresh ones, or those of another generator, also enlarged."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple, TypeVar

from torch import nn

from napari_histogan.config import TrainGanConfig
from napari_histogan.errors import ConfigError
from napari_histogan.models.stylegan2 import Discriminator, DiscriminatorSpec, Generator, GeneratorSpec

Network = TypeVar("Network", Generator, Discriminator)


class StartingNetworks(NamedTuple):
    """What training starts from.

    Attributes
    ----------
    generator, discriminator
        In float32 on the CPU.
    fresh_generator
        Names of the generator's parameters that start at random.
    fresh_discriminator
        Names of the discriminator's.
    """

    generator: Generator
    discriminator: Discriminator
    fresh_generator: tuple[str, ...]
    fresh_discriminator: tuple[str, ...]


def build_networks(
    patch_px: int,
    config: TrainGanConfig,
    init: Generator | None = None,
    init_discriminator: Discriminator | None = None,
) -> StartingNetworks:
    """Build the generator and discriminator of a config, with random weights or those of others.

    Blocks that the others have are copied by name and shape. At a larger resolution the new blocks of the
    generator add nothing to the picture at first, so that it begins with the old picture, enlarged.

    Parameters
    ----------
    patch_px
        Side of the patches in pixels.
    config
        Sizes, where nothing is given to start from; devices and micro_batch decide on groups of samples.
    init
        Generator to start from; the result has its sizes.
    init_discriminator
        Its opponent; None starts with a random one.

    Raises
    ------
    ConfigError
        If `init` cannot paint such patches, or the batch cannot be divided as asked.
    """
    group = _group_size(config)
    check_starting_point(patch_px, init, init_discriminator)
    if init is None:
        spec = GeneratorSpec(
            z_dim=config.z_dim,
            c_dim=0,
            w_dim=config.w_dim,
            img_resolution=patch_px,
            mapping_layers=config.mapping_layers,
            channel_base=config.channel_base,
            channel_max=config.channel_max,
        )
    else:
        spec = replace(init.spec, img_resolution=patch_px)
    judge = DiscriminatorSpec(
        img_resolution=patch_px,
        channel_base=spec.channel_base,
        channel_max=spec.channel_max,
        conv_clamp=spec.conv_clamp,
        mbstd_group_size=group,
    )
    if init_discriminator is not None:
        judge = replace(init_discriminator.spec, img_resolution=patch_px, mbstd_group_size=group)
    generator, discriminator = Generator(spec), Discriminator(judge)
    fresh_generator = _copy_shared(init, generator)
    fresh_discriminator = _copy_shared(init_discriminator, discriminator)
    if init is not None and spec.architecture == "skip":
        for resolution in generator.synthesis.resolutions:
            if resolution > init.spec.img_resolution:
                nn.init.zeros_(getattr(generator.synthesis, f"b{resolution}").torgb.weight)
    return StartingNetworks(generator, discriminator, fresh_generator, fresh_discriminator)


def check_starting_point(patch_px: int, init: Generator | None, opponent: Discriminator | None) -> None:
    """Raise ``ConfigError`` if patches of a size cannot be learned from there."""
    if patch_px < 8 or patch_px & (patch_px - 1):
        raise ConfigError(
            f"the patches have {patch_px} px", "a power of two of at least 8 px", "plan the patches again"
        )
    if init is not None:
        spec = init.spec
        if spec.img_resolution > patch_px or spec.img_channels != 3 or spec.c_dim:
            raise ConfigError(
                f"the generator to start from paints {spec.img_resolution} px with {spec.img_channels} "
                f"colors and {spec.c_dim} labels, the patches have {patch_px} px",
                "the size of the patches or a smaller one, 3 colors, no labels",
                "choose patches of its size or larger, or start from random weights",
            )
        if spec.channel_base < patch_px:
            raise ConfigError(
                f"the generator to start from has channel_base {spec.channel_base}, which leaves no channel "
                f"at {patch_px} px",
                f"channel_base of at least {patch_px}",
                "start from random weights",
            )
    if opponent is not None:
        judge = opponent.spec
        expected = init.spec.img_resolution if init is not None else patch_px
        if judge.img_resolution != expected or judge.img_channels != 3 or judge.c_dim:
            raise ConfigError(
                f"the discriminator to start from judges {judge.img_resolution} px with "
                f"{judge.img_channels} colors and {judge.c_dim} labels",
                f"{expected} px as its generator, 3 colors, no labels",
                "remove discriminator.safetensors from that generator's folder",
            )


def _group_size(config: TrainGanConfig) -> int:
    """Return how many samples the minibatch spread compares, which one process at a time must hold."""
    share, left = divmod(config.batch, config.devices)
    if left:
        raise ConfigError(
            f"batch {config.batch} cannot be divided among {config.devices} devices",
            "a multiple of devices",
            "change batch or devices",
        )
    if config.micro_batch and share % config.micro_batch:
        raise ConfigError(
            f"batch {config.batch} on {config.devices} devices, {share} on each, is no multiple of "
            f"micro_batch {config.micro_batch}",
            f"a divisor of {share}",
            "change batch or micro_batch",
        )
    part = config.micro_batch or share
    return next(g for g in (4, 3, 2, 1) if part % g == 0)


def _copy_shared(source: Network | None, target: Network) -> tuple[str, ...]:
    """Copy what has the same name and shape; return the names of the parameters that have no source."""
    fresh = [name for name, _ in target.named_parameters()]
    if source is None:
        return tuple(fresh)
    known, state = source.state_dict(), target.state_dict()
    shared = {k: v for k, v in known.items() if k in state and state[k].shape == v.shape}
    target.load_state_dict(shared, strict=False)
    return tuple(name for name in fresh if name not in shared)
