"""The patch classifier sees exactly its patch, and all patches at once are each patch alone."""

from __future__ import annotations

import pytest
import torch

from napari_histogan.errors import ConfigError
from napari_histogan.models.patch_gan import PATCH_SIDES, PatchClassifier, PatchGenerator, PatchNetShape


def shape(**values) -> PatchNetShape:
    return PatchNetShape(
        **{"patch_px": 32, "channels": 1, "num_classes": 2, "fake": True, "width": 3, **values}
    )


@pytest.mark.parametrize("patch_px", PATCH_SIDES)
@pytest.mark.parametrize("channels", [1, 3, 5])
def test_both_networks_fit_each_other_at_every_size(patch_px, channels):
    sizes = shape(patch_px=patch_px, channels=channels, num_classes=3)
    painted = PatchGenerator(sizes, noise=300)(torch.randn(2, 300))
    assert painted.shape == (2, channels, patch_px, patch_px)
    assert painted.abs().max() <= 1
    assert PatchClassifier(sizes)(painted).shape == (2, 4)
    plain = PatchClassifier(shape(patch_px=patch_px, channels=channels, num_classes=3, fake=False))
    assert plain(painted).shape == (2, 3)


@pytest.mark.parametrize("normalization", ["channel", "instance"])
@pytest.mark.parametrize("patch_px", PATCH_SIDES)
def test_every_pixel_of_the_patch_counts(patch_px, normalization):
    torch.manual_seed(0)
    net = PatchClassifier(shape(patch_px=patch_px, normalization=normalization))
    patch = torch.randn(1, 1, patch_px, patch_px, requires_grad=True)
    (seen,) = torch.autograd.grad(net(patch)[0, 0], patch)
    assert (seen[0, 0] != 0).float().mean() > 0.99
    assert (seen[0, 0, [0, -1]] != 0).any()
    assert (seen[0, 0, :, [0, -1]] != 0).any()


@pytest.mark.parametrize("patch_px", PATCH_SIDES)
def test_all_patches_at_once_are_each_patch_alone(patch_px):
    torch.manual_seed(1)
    net = PatchClassifier(shape(patch_px=patch_px, channels=2)).double()
    for norm in net.norms:
        torch.nn.init.normal_(norm.weight, 1, 0.3)
        torch.nn.init.normal_(norm.bias, 0, 0.3)
    picture = torch.randn(1, 2, patch_px + 9, patch_px + 18, dtype=torch.double)
    with torch.inference_mode():
        for stride in net.shape.strides:
            found = net.dense(picture, stride)
            cut = picture.unfold(2, patch_px, stride).unfold(3, patch_px, stride)
            rows, columns = cut.shape[2:4]
            alone = net(cut[0].permute(1, 2, 0, 3, 4).reshape(-1, 2, patch_px, patch_px))
            assert found.shape == (1, 3, rows, columns)
            torch.testing.assert_close(found[0].flatten(1).T, alone, rtol=1e-9, atol=1e-9)


def test_instance_normalization_cannot_be_computed_at_once():
    net = PatchClassifier(shape(normalization="instance"))
    with pytest.raises(ConfigError, match="instance"):
        net.dense(torch.randn(1, 1, 40, 40))
    with pytest.raises(ConfigError, match="1, 2, 4, 8 px"):
        PatchClassifier(shape()).dense(torch.randn(1, 1, 40, 40), 3)


def test_the_conditional_generator_paints_another_patch_for_another_class():
    torch.manual_seed(0)
    generator = PatchGenerator(shape(), noise=4, conditional=True)
    noise = torch.randn(1, 4)
    first, second = (generator(noise, torch.tensor([k])) for k in (0, 1))
    assert (first - second).abs().max() > 1e-4
    with pytest.raises(ValueError, match="classes"):
        generator(noise)


@pytest.mark.parametrize("patch_px", [31, 33, 48, 0, 256])
def test_other_sizes_are_refused_with_those_that_there_are(patch_px):
    with pytest.raises(ConfigError, match=r"32, 64, 128") as error:
        shape(patch_px=patch_px)
    assert str(patch_px) in str(error.value)
    with pytest.raises(ConfigError, match="2 classes"):
        shape(num_classes=1)
