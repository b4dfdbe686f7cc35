"""What GAN training starts from: fresh networks, or another generator's, also at a larger size."""

import numpy as np
import pytest
import torch

from napari_histogan.config import TrainGanConfig
from napari_histogan.errors import ConfigError
from napari_histogan.models.stylegan2 import Discriminator, DiscriminatorSpec, Generator, GeneratorSpec
from napari_histogan.models.stylegan2_ops import setup_filter, upsample2d
from napari_histogan.training.gan_networks import build_networks

CONFIG = TrainGanConfig(batch=8, z_dim=8, w_dim=8, channel_base=128, channel_max=8)


def networks(resolution=16, **values):
    torch.manual_seed(1)
    sizes = {"img_resolution": resolution, "channel_base": 128, "channel_max": 8}
    generator = Generator(GeneratorSpec(z_dim=8, w_dim=8, mapping_layers=2, **{"c_dim": 0} | sizes | values))
    return generator.eval(), Discriminator(DiscriminatorSpec(**sizes)).eval()


def test_the_same_size_starts_with_all_weights():
    G, D = networks()
    start = build_networks(16, CONFIG, G, D)
    assert start.fresh_generator == start.fresh_discriminator == ()
    for ours, theirs in ((start.generator, G), (start.discriminator, D)):
        assert all(torch.equal(v, theirs.state_dict()[k]) for k, v in ours.state_dict().items())
    alone = build_networks(16, CONFIG, G)
    assert alone.fresh_generator == ()
    assert len(alone.fresh_discriminator) == len(list(alone.discriminator.parameters()))


def test_a_larger_generator_begins_with_the_enlarged_picture():
    G, D = networks()
    start = build_networks(64, CONFIG, G, D)
    assert {name.split(".")[1] for name in start.fresh_generator} == {"b32", "b64"}
    assert {name.split(".")[0] for name in start.fresh_discriminator} >= {"b32", "b64"}
    assert torch.equal(start.discriminator.b8.conv0.weight, D.b8.conv0.weight)
    z = torch.randn(3, 8)
    taps = setup_filter((1.0, 3.0, 3.0, 1.0))
    with torch.no_grad():
        small = G(z, noise_mode="none")
        large = start.generator.eval()(z, noise_mode="none")
        assert torch.allclose(large, upsample2d(upsample2d(small, taps), taps), atol=1e-5)
    large = start.generator.train()(z)
    large.square().mean().backward()
    assert start.generator.synthesis.b64.torgb.weight.grad.abs().max() > 0  # new blocks do learn


@pytest.mark.parametrize(
    ("patch_px", "values", "found"),
    [
        (8, {}, "paints 16 px with 3 colors and 0 labels, the patches have 8 px"),
        (16, {"img_channels": 1}, "paints 16 px with 1 colors"),
        (16, {"c_dim": 2}, "2 labels"),
        (256, {}, "channel_base 128, which leaves no channel at 256 px"),
        (48, {}, "the patches have 48 px.*a power of two"),
    ],
)
def test_generators_that_do_not_fit_are_refused(patch_px, values, found):
    with pytest.raises(ConfigError, match=found):
        build_networks(patch_px, CONFIG, networks(**values)[0])


def test_a_discriminator_of_another_size_is_refused():
    with pytest.raises(ConfigError, match=r"judges 32 px with 3 colors and 0 labels.*16 px as its generator"):
        build_networks(32, CONFIG, networks(16)[0], networks(32)[1])


@pytest.mark.parametrize("patch_px", [48, 100, 4, 0])
def test_patches_must_have_a_power_of_two(patch_px):
    with pytest.raises(ConfigError, match=f"the patches have {patch_px} px"):
        build_networks(patch_px, CONFIG)


@pytest.mark.parametrize("patch_px", [32, 4096])
def test_every_size_can_be_built(patch_px):
    config = CONFIG.model_copy(update={"channel_base": 4096, "channel_max": 4, "batch": 4})
    start = build_networks(patch_px, config)
    assert start.generator.spec.img_resolution == patch_px
    if patch_px == 32:
        assert start.discriminator(start.generator(torch.randn(4, 8))).shape == (4, 1)
    assert np.isfinite(start.generator.synthesis.b4.const.detach()).all()
