"""Contracts of inversion: finds what the generator paints, comes near what it does not, remains a sample."""

import numpy as np
import pytest
import torch

from napari_histogan.errors import ConfigError, ModelError, Stopped
from napari_histogan.geometry import Region
from napari_histogan.inference.inversion import Inversion, InversionPlan, invert, psnr
from napari_histogan.inference.sampling import rebuild, styles, to_uint8
from napari_histogan.models.stylegan2 import (
    Discriminator,
    DiscriminatorSpec,
    Generator,
    GeneratorSpec,
    load_generator,
)
from napari_histogan.progress import QuietReporter
from napari_histogan.slides.reader import open_slide


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def generator():
    torch.manual_seed(3)
    spec = GeneratorSpec(16, 0, 16, 16, mapping_layers=2, channel_base=256, channel_max=16)
    made = Generator(spec).eval().requires_grad_(False)
    for name, value in made.named_parameters():
        if name.endswith("noise_strength"):
            value.fill_(0.1)
        elif "torgb.weight" in name:
            value.mul_(0.3)
    return made


@pytest.fixture(scope="module")
def own(generator):
    """Samples of the generator: styles and noise seed 0, and the pictures."""
    z = np.random.default_rng(0).standard_normal((2, 16), dtype=np.float32)
    w = styles(generator, z, 0.8, torch.device("cpu")).numpy()
    return rebuild(generator, w, [0, 0])


def plain(image: np.ndarray) -> np.ndarray:
    return np.broadcast_to(image.mean(axis=(1, 2), keepdims=True).astype(np.uint8), image.shape)


def test_a_sample_of_the_generator_is_recovered(generator, own):
    found = invert(generator, own, InversionPlan(steps=150, fit_noise=False))
    assert found.psnr.min() > 30
    assert found.psnr.min() > psnr(plain(own), own).max() + 8
    np.testing.assert_array_equal(found.psnr, psnr(found.image, own))


def test_without_fitted_noise_styles_and_seed_are_a_sample_like_any_other(generator, own):
    plan = InversionPlan(steps=5, fit_noise=False, noise_seed=77)
    found = invert(generator, own, plan)
    assert found.w.shape == (2, generator.spec.num_ws, 16)
    np.testing.assert_array_equal(rebuild(generator, found.w, [77, 77]), found.image)


def test_styles_and_noise_paint_the_picture_again(generator, own):
    found = invert(generator, own, InversionPlan(steps=12))
    noise = [torch.from_numpy(m) for m in found.noise]
    again = to_uint8(generator.synthesis(torch.from_numpy(found.w), noise=noise))
    np.testing.assert_array_equal(again, found.image)
    assert [m.shape for m in found.noise] == [(2, 1, r, r) for r in (4, 8, 8, 16, 16)]
    for values in found.noise:
        np.testing.assert_allclose(values.mean(axis=(2, 3)), 0, atol=1e-5)
        np.testing.assert_allclose(values.std(axis=(2, 3)), 1, atol=1e-4)


def test_fitted_noise_comes_nearer_and_stays_noise(generator, own):
    rng = np.random.default_rng(4)
    grain = np.clip(own.astype(int) + rng.integers(-25, 26, (2, 16, 16, 1)), 0, 255).astype(np.uint8)
    without = invert(generator, grain, InversionPlan(steps=80, fit_noise=False))
    fitted = invert(generator, grain, InversionPlan(steps=80))
    assert (fitted.psnr > without.psnr + 0.5).all()
    free = invert(generator, grain, InversionPlan(steps=80, noise_weight=0.0))
    assert neighbors_agree(fitted) < neighbors_agree(free)


def neighbors_agree(found: Inversion) -> float:
    finest = found.noise[-1]
    return float(
        np.mean([np.square((finest * np.roll(finest, 1, axis)).mean(axis=(2, 3))) for axis in (2, 3)])
    )


def test_the_discriminator_has_a_say(generator, own):
    torch.manual_seed(5)
    spec = DiscriminatorSpec(16, channel_base=256, channel_max=16)
    discriminator = Discriminator(spec).eval().requires_grad_(False)
    plan = InversionPlan(steps=60, fit_noise=False, feature_weight=1.0)
    judged = invert(generator, own, plan, discriminator=discriminator)
    unjudged = invert(generator, own, plan)
    assert not np.array_equal(judged.w, unjudged.w)
    assert judged.psnr.min() > psnr(plain(own), own).max() + 3


def test_the_same_plan_finds_the_same(generator, own):
    plan = InversionPlan(steps=5)
    first, again = invert(generator, own, plan), invert(generator, own, plan)
    assert np.array_equal(first.w, again.w)
    # A patch does not depend on those that are searched with it.
    np.testing.assert_allclose(invert(generator, own[:1], plan).w, first.w[:1], atol=1e-4)


def test_the_generator_is_left_as_it_was(generator, own):
    before = {name: value.clone() for name, value in generator.state_dict().items()}
    generator.requires_grad_(True)
    invert(generator, own, InversionPlan(steps=3))
    generator.requires_grad_(False)
    assert all(torch.equal(value, before[name]) for name, value in generator.state_dict().items())
    assert all(p.grad is None for p in generator.parameters())


def test_a_real_patch_comes_out_alike(demo_slide):
    folder = demo_slide.parent / "generator"
    if not folder.exists():
        pytest.skip("the demo generator is absent")
    demo = load_generator(folder)
    side, mpp = demo.spec.img_resolution, 1.0
    with open_slide(demo_slide) as slide:
        scale = round(mpp / slide.mpp)
        whole = slide.read(Region(1152, 896, side * scale, side * scale))
    patch = whole.reshape(side, scale, side, scale, 3).mean(axis=(1, 3)).astype(np.uint8)[None]
    found = invert(demo, patch, InversionPlan(steps=200))
    assert found.psnr[0] > psnr(plain(patch), patch)[0] + 3
    assert found.psnr[0] > 17


def test_progress_is_told_and_stops_are_heard(generator, own, tmp_path):
    reporter = QuietReporter(tmp_path)
    invert(generator, own, InversionPlan(steps=4), reporter=reporter)
    told = [e for e in reporter.events if e["kind"] == "progress"]
    assert told[-1]["done"] == told[-1]["total"] == 4 * len(own)
    with pytest.raises(Stopped, match="1 of 4"):
        invert(
            generator, own, InversionPlan(steps=4), reporter=QuietReporter(tmp_path, stop_when=lambda: True)
        )


def test_what_does_not_fit_is_refused(generator, own):
    with pytest.raises(ModelError, match=r"\(n, 16, 16, 3\)"):
        invert(generator, own[:, :8])
    with pytest.raises(ModelError, match="uint8"):
        invert(generator, own.astype(np.float32))
    judge = Discriminator(DiscriminatorSpec(32, channel_base=64, channel_max=8))
    with pytest.raises(ModelError, match="32 px"):
        invert(generator, own, discriminator=judge)
    with pytest.raises(ConfigError, match="0 steps"):
        InversionPlan(steps=0)


def test_psnr_of_known_differences():
    black = np.zeros((2, 4, 4, 3), np.uint8)
    other = black.copy()
    other[1] = 255
    assert psnr(black, other).tolist() == [float("inf"), 0.0]
