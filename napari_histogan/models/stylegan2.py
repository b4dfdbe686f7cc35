"""StyleGAN2: the networks, their plans, and how they are stored.

The parts are in `stylegan2_generator`, `stylegan2_discriminator`, `stylegan2_spec`, and `generator_file`.
"""

from napari_histogan.models.generator_file import (
    generator_info,
    load_discriminator,
    load_generator,
    save_discriminator,
    save_generator,
)
from napari_histogan.models.stylegan2_discriminator import Discriminator
from napari_histogan.models.stylegan2_generator import FeatureMap, Generator, NoiseMode
from napari_histogan.models.stylegan2_spec import DiscriminatorSpec, GeneratorSpec

__all__ = [
    "Discriminator",
    "DiscriminatorSpec",
    "FeatureMap",
    "Generator",
    "GeneratorSpec",
    "NoiseMode",
    "generator_info",
    "load_discriminator",
    "load_generator",
    "save_discriminator",
    "save_generator",
]
