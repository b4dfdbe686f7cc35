"""Contracts of the augmentation: reference pictures, identities, probabilities, second derivatives."""

import math

import numpy as np
import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from napari_histogan.errors import ModelError
from napari_histogan.models.ada import OPERATIONS, PRESETS, AugmentPipe, warp
from napari_histogan.models.ada_sampling import filter_bank, lowpass, sample, shrink, upsample


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def golden(shared):
    path = shared / "reference" / "golden" / "ada.npz"
    if not path.exists():
        pytest.skip(f"{path.name} is absent")
    with np.load(path) as arrays:
        return dict(arrays)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def smooth_pictures(n: int = 2, channels: int = 3, size: int = 32) -> torch.Tensor:
    coarse = torch.randn(n, channels, 5, 5, generator=seeded(n))
    return torch.nn.functional.interpolate(coarse, size=(size, size), mode="bicubic", align_corners=True)


def test_every_operation_and_preset_gives_the_reference_pictures(golden):
    cases = [key for key in golden if "@" in key]
    assert len(cases) > 35
    for key in cases:
        name, percentile = key.split("@")
        gray = name.startswith("grey_")
        x = torch.from_numpy(golden["grey_x" if gray else "x"][: len(golden[key])])
        y = AugmentPipe(name.removeprefix("grey_")).at_percentile(x, float(percentile)).numpy()
        error = np.abs(y - golden[key])
        assert error.max() < 1e-2, key
        assert (error > 1e-4).mean() < 1e-3, key


def test_without_probability_pictures_stay_as_the_reference_leaves_them(golden):
    x = torch.from_numpy(golden["x"])
    assert np.abs(AugmentPipe()(x, 0.0).numpy() - golden["bgc_p0"]).max() < 1e-4


def test_filters_are_the_reference_filters(golden):
    np.testing.assert_allclose(lowpass().numpy(), golden["Hz_geom"], atol=1e-7)
    np.testing.assert_allclose(filter_bank().numpy(), golden["Hz_fbank"], atol=1e-9)


@pytest.mark.parametrize("preset", [*PRESETS, *OPERATIONS])
def test_zero_probability_is_the_identity(preset):
    x = smooth_pictures()
    torch.testing.assert_close(AugmentPipe(preset)(x, 0.0, seeded()), x, atol=1e-6, rtol=0)


def test_resampling_with_the_identity_changes_nothing_but_rounding():
    x = torch.randn(2, 3, 17, 24, generator=seeded())
    y = warp(x, torch.eye(3, dtype=torch.float64).expand(2, 3, 3))
    torch.testing.assert_close(y, x, atol=1e-5, rtol=0)


def test_a_whole_shift_moves_pixels_and_mirrors_the_border():
    x = torch.randn(1, 3, 20, 20, generator=seeded())
    inverse = torch.eye(3, dtype=torch.float64)[None].clone()
    inverse[0, 0, 2] = 3.0
    y = warp(x, inverse)
    torch.testing.assert_close(y[..., :17], x[..., 3:], atol=1e-5, rtol=0)
    torch.testing.assert_close(y[..., 17:], x[..., [18, 17, 16]], atol=1e-5, rtol=0)


def test_flips_and_quarter_turns_give_the_eight_orientations():
    # The filter is not symmetric, so turned pictures come back exact only where they are smooth.
    along = torch.linspace(0, 3, 32)
    x = (torch.sin(along)[:, None] + torch.cos(0.7 * along))[None, None]
    turned = [torch.rot90(t, k, (2, 3)) for t in (x, x.flip(3)) for k in range(4)]
    y = AugmentPipe(("xflip", "rotate90"))(x.expand(64, -1, -1, -1), 1.0, seeded())
    nearest = [min(range(8), key=lambda i: float((turned[i] - one).abs().max())) for one in y]
    assert set(nearest) == set(range(8))
    for one, index in zip(y, nearest, strict=True):
        torch.testing.assert_close(one, turned[index][0], atol=0.04, rtol=0)


def test_as_many_pictures_change_as_the_probability_says():
    x = smooth_pictures(1, size=8).expand(4000, -1, -1, -1)
    for p in (0.25, 0.8):
        changed = (AugmentPipe("brightness")(x, p, seeded()) != x).flatten(1).any(dim=1).float().mean()
        assert abs(changed.item() - p) < 3 * math.sqrt(p * (1 - p) / 4000)
    # Two rotations together act with probability p.
    x = torch.randn(600, 1, 8, 8, generator=seeded(3))
    turned = (AugmentPipe("rotate")(x, 0.4, seeded()) - x).abs().flatten(1).amax(dim=1) > 1e-3
    assert abs(turned.float().mean().item() - 0.4) < 3 * math.sqrt(0.24 / 600)


def test_the_same_seed_draws_the_same_and_another_seed_another():
    x, pipe = smooth_pictures(4), AugmentPipe("bgcfnc")
    first, again, other = pipe(x, 0.8, seeded(1)), pipe(x, 0.8, seeded(1)), pipe(x, 0.8, seeded(2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    torch.manual_seed(7)
    from_global = pipe(x, 0.8)
    torch.manual_seed(7)
    assert torch.equal(from_global, pipe(x, 0.8))


@pytest.mark.parametrize("operation", ["brightness", "contrast", "lumaflip", "hue", "saturation"])
def test_gray_pictures_stay_gray_and_color_changes_stay_in_place(operation):
    x = smooth_pictures(3, channels=1)
    y = AugmentPipe(operation)(x, 1.0, seeded(5))
    assert y.shape == x.shape
    # One gain and one offset per picture.
    for before, after in zip(x.flatten(1), y.flatten(1), strict=True):
        fit = torch.linalg.lstsq(torch.stack([before, torch.ones_like(before)], 1), after[:, None]).solution
        residual = after - before * fit[0] - fit[1]
        assert residual.abs().max() < 1e-4
    if operation in ("hue", "saturation"):
        torch.testing.assert_close(y, x, atol=1e-5, rtol=0)
    gray_rgb = smooth_pictures(2, channels=1).expand(-1, 3, -1, -1)
    out = AugmentPipe(operation)(gray_rgb, 1.0, seeded(5))
    torch.testing.assert_close(out[:, 0], out[:, 1], atol=1e-5, rtol=0)


def test_hue_keeps_brightness_and_length_of_colors():
    x = smooth_pictures(4)
    y = AugmentPipe("hue")(x, 1.0, seeded())
    torch.testing.assert_close(y.mean(dim=1), x.mean(dim=1), atol=1e-5, rtol=0)
    torch.testing.assert_close(y.norm(dim=1), x.norm(dim=1), atol=1e-5, rtol=0)
    assert (y - x).abs().max() > 0.1


def test_octaves_add_up_to_the_signal():
    total = filter_bank().sum(dim=0)
    middle = torch.zeros(43, dtype=torch.float64)
    middle[21] = 1
    torch.testing.assert_close(total, middle, atol=1e-12, rtol=0)
    # A constant picture is all in the lowest octave, so filtering only scales it.
    flat = torch.full((8, 3, 12, 40), 0.5)
    y = AugmentPipe("imgfilter")(flat, 1.0, seeded())
    assert y.flatten(1).std(dim=1).max() < 1e-5
    assert y.mean(dim=(1, 2, 3)).std() > 1e-3


def test_cutout_blanks_at_most_a_quarter_and_noise_has_its_size():
    x = torch.ones(500, 1, 16, 16)
    holes = (AugmentPipe("cutout")(x, 1.0, seeded()) == 0).float().mean(dim=(1, 2, 3))
    assert holes.max() <= 0.25
    assert 0.1 < holes.mean() < 0.25
    noise = AugmentPipe("noise")(torch.zeros(500, 1, 16, 16), 1.0, seeded())
    assert abs(noise.square().mean().sqrt().item() - 0.1) < 0.01


def test_gradients_flow_twice_through_the_whole_pipe():
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64, generator=seeded(), requires_grad=True)
    weights = torch.randn(2, 3, 8, 8, dtype=torch.float64, generator=seeded(1))

    def augmented(images):
        # Squared, so that the second derivative is not zero.
        return (AugmentPipe("bgcfnc")(images, 1.0, seeded(4)).square() * weights).sum()

    assert gradcheck(augmented, (x,), fast_mode=True)
    assert gradgradcheck(augmented, (x,), fast_mode=True)


def test_each_linear_map_has_its_derivatives():
    x = torch.randn(1, 2, 6, 7, dtype=torch.float64, generator=seeded(), requires_grad=True)
    grid = torch.rand(1, 5, 4, 2, dtype=torch.float64, generator=seeded(1)) * 2.4 - 1.2
    big = torch.randn(1, 1, 18, 16, dtype=torch.float64, generator=seeded(2), requires_grad=True)
    for function, value in (
        (lambda t: upsample(t, -1, 3, 5).square(), x),
        (lambda t: upsample(t, -2, 0, 2).square(), x),
        (lambda t: sample(t, grid).square(), x),
        (lambda t: shrink(t, -2).square(), big),
    ):
        assert gradcheck(function, (value,))
        assert gradgradcheck(function, (value,))


def test_large_pictures_skip_zeros_and_get_the_same_values():
    x = torch.randn(1, 1, 2, 600, generator=seeded(), dtype=torch.float64)
    whole = upsample(x, -1, 40, 50)
    part = upsample(x[..., :300], -1, 40, 0)
    torch.testing.assert_close(whole[..., :600], part[..., :600], atol=1e-12, rtol=0)
    turned = upsample(x.transpose(2, 3), -2, 40, 50)
    torch.testing.assert_close(turned.transpose(2, 3), whole, atol=1e-12, rtol=0)


def test_types_pass_through_and_other_channels_keep_their_colors():
    half = smooth_pictures().to(torch.bfloat16)
    y = AugmentPipe()(half, 1.0, seeded())
    assert y.dtype == torch.bfloat16
    precise = AugmentPipe()(half.to(torch.float32), 1.0, seeded())
    torch.testing.assert_close(y.to(torch.float32), precise, atol=0.05, rtol=0.01)
    five = smooth_pictures(2, channels=5)
    assert torch.equal(AugmentPipe("color")(five, 1.0, seeded()), five)


def test_unknown_names_and_wrong_pictures_are_refused():
    with pytest.raises(ModelError, match="sharpen"):
        AugmentPipe("sharpen")
    with pytest.raises(ModelError, match="uint8"):
        AugmentPipe()(torch.zeros(1, 3, 8, 8, dtype=torch.uint8), 0.5)
    with pytest.raises(ModelError, match="shape"):
        AugmentPipe()(torch.zeros(3, 8, 8), 0.5)
