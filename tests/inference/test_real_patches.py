"""Contracts of sets of real patches: stored exactly, judged, resumed, and read beside older sets."""

import numpy as np
import pytest
import torch
import zarr
from PIL import Image

from napari_histogan.config import InvertPatchesConfig, SampleImagesConfig
from napari_histogan.errors import ModelError, Stopped
from napari_histogan.inference.real_patches import (
    SHEET,
    invert_patches,
    quality,
    structural_similarity,
)
from napari_histogan.inference.sampling import SAMPLES, load_samples, rebuild, sample, to_uint8
from napari_histogan.models.noise import maps_of_rows, noise_maps, noise_rows, row_length
from napari_histogan.models.stylegan2 import Generator, GeneratorSpec
from napari_histogan.progress import QuietReporter

ARRAYS = ("w", "noise_seed", "image", "real", "noise", "original", "psnr", "ssim")


@pytest.fixture(scope="module")
def generator():
    torch.manual_seed(3)
    torch.set_num_threads(1)
    spec = GeneratorSpec(16, 0, 16, 16, mapping_layers=2, channel_base=256, channel_max=16)
    made = Generator(spec).eval().requires_grad_(False)
    for name, value in made.named_parameters():
        if name.endswith("noise_strength"):
            value.fill_(0.1)
    return made


@pytest.fixture(scope="module")
def patches():
    y, x = np.mgrid[0:16, 0:16]
    shapes = [np.stack([8 * x + 40, 8 * y + 40, 9 * (x + k) + 20], axis=2) for k in range(3)]
    return np.stack(shapes).astype(np.uint8)


def config(**values):
    return InvertPatchesConfig(
        **{"steps": 6, "drawn": 3, "batch": 2, "candidates": 8, "threads": 1, **values}
    )


def run(generator, patches, folder, settings=None, stop_when=None):
    reporter = QuietReporter(folder, stop_when=stop_when)
    settings = settings or config()
    return invert_patches(generator, lambda k: patches[k], len(patches), settings, reporter), reporter


def painted_again(generator, stored, index):
    noise = stored.noise_maps(generator.spec, [index])
    return to_uint8(generator.synthesis(torch.from_numpy(stored.w[[index]]), noise=noise))[0]


def test_real_and_drawn_samples_are_rebuilt_exactly_from_the_store(generator, patches, tmp_path):
    folder, _ = run(generator, patches, tmp_path)
    stored = load_samples(folder)
    assert stored.real.tolist() == [True] * 3 + [False] * 3
    assert (stored.w.dtype, stored.noise_seed.dtype, stored.image.dtype) == ("float32", "int64", "uint8")
    for index in range(3):
        np.testing.assert_array_equal(painted_again(generator, stored, index), stored.image[index])
    np.testing.assert_allclose(painted_again(generator, stored, 4).astype(int), stored.image[4], atol=1)
    # Fitted noise is what makes the real ones; the seed alone paints something else.
    by_seed = rebuild(generator, stored.w[:3], stored.noise_seed[:3])
    assert not np.array_equal(by_seed, stored.image[:3])
    np.testing.assert_array_equal(rebuild(generator, stored.w[3:], stored.noise_seed[3:]), stored.image[3:])
    group = zarr.open_group(str(folder / SAMPLES), mode="r")
    np.testing.assert_array_equal(group["original"][:3], patches)
    assert not group["original"][3:].any()
    assert not group["noise"][3:].any()


def test_quality_is_stored_summed_up_and_shown(generator, patches, tmp_path):
    folder, reporter = run(generator, patches, tmp_path, config(poor_psnr=99.0))
    group = zarr.open_group(str(folder / SAMPLES), mode="r")
    error = np.square(group["image"][:3].astype(float) - patches).mean(axis=(1, 2, 3))
    np.testing.assert_allclose(group["psnr"][:3], 10 * np.log10(255**2 / error), rtol=1e-5)
    assert np.isnan(group["psnr"][3:]).all()
    assert np.isnan(group["ssim"][3:]).all()
    told = quality(folder)
    assert (told["count"], told["real"]) == (6, 3)
    assert told["psnr_worst"] == pytest.approx(group["psnr"][:3].min(), abs=0.01)
    with Image.open(folder / SHEET) as sheet:
        pixels = np.asarray(sheet)
    np.testing.assert_array_equal(pixels[2:18, 2:18], patches[0])
    np.testing.assert_array_equal(pixels[2:18, 18:34], group["image"][0])
    warned = [e["message"] for e in reporter.events if e["kind"] == "warning"]
    assert len(warned) == 1
    assert warned[0].startswith("3 of 3 patches were reproduced poorly, below 99 dB: #0")
    content, quiet = run(generator, patches, tmp_path / "content", config(poor_psnr=0.0))
    assert not [e for e in quiet.events if e["kind"] == "warning"]
    assert content.is_dir()


@pytest.mark.parametrize("steps", [6, 8], ids=["between the groups", "in the second group"])
def test_a_stopped_run_goes_on_after_the_last_group_and_ends_the_same(generator, patches, tmp_path, steps):
    whole, _ = run(generator, patches, tmp_path / "whole")
    asked: list[int] = []

    def stop() -> bool:
        asked.append(1)
        return len(asked) > steps

    with pytest.raises(Stopped):
        run(generator, patches, tmp_path / "parts", stop_when=stop)
    begun = zarr.open_group(str(tmp_path / "parts" / "samples" / SAMPLES), mode="r")
    assert begun.attrs["done"] == 2
    read: list[int] = []

    def again(k: int) -> np.ndarray:
        read.append(k)
        return patches[k]

    parts = invert_patches(generator, again, 3, config(), QuietReporter(tmp_path / "parts"))
    assert read == [2]
    first, second = (zarr.open_group(str(f / SAMPLES), mode="r") for f in (whole, parts))
    for name in ARRAYS:
        np.testing.assert_array_equal(first[name][:], second[name][:])


def test_a_stop_while_drawing_keeps_the_patches(generator, patches, tmp_path):
    asked: list[int] = []

    def stop() -> bool:
        asked.append(1)
        return len(asked) > 6 + 1  # every step, and after the group of patches

    settings = config(batch=4, drawn=40)
    with pytest.raises(Stopped):
        run(generator, patches, tmp_path, settings, stop)
    folder, _ = run(generator, patches, tmp_path, settings)
    assert len(load_samples(folder).w) == 43


def test_without_fitted_noise_the_seed_says_it_all(generator, patches, tmp_path):
    folder, _ = run(generator, patches, tmp_path, config(fit_noise=False, seed=5))
    stored = load_samples(folder)
    assert stored.noise is None
    again = rebuild(generator, stored.w[:1], stored.noise_seed[:1])
    np.testing.assert_array_equal(again, stored.image[:1])


def test_sets_of_drawn_samples_read_as_sets_without_real_ones(generator, tmp_path):
    folder = sample(generator, SampleImagesConfig(count=5, threads=1), QuietReporter(tmp_path))
    assert "real" not in zarr.open_group(str(folder / SAMPLES), mode="r")
    stored = load_samples(folder)
    assert stored.noise is None
    assert not stored.real.any()
    assert len(stored.real) == 5
    maps = stored.noise_maps(generator.spec, [4, 1])
    wanted = noise_maps(generator.spec, stored.noise_seed[[4, 1]].tolist())
    assert all(torch.equal(a, b) for a, b in zip(maps, wanted, strict=True))


def test_noise_as_rows_is_the_noise_as_maps(generator):
    spec, seeds = generator.spec, [0, 7, 2**63 - 2]
    rows = noise_rows(spec, seeds)
    assert rows.shape == (3, row_length(spec))
    assert rows.dtype == np.float32
    assert row_length(spec) == 16 + 2 * 64 + 2 * 256
    for a, b in zip(maps_of_rows(spec, rows), noise_maps(spec, seeds), strict=True):
        assert torch.equal(a, b)


def test_pictures_of_another_type_or_size_are_refused(generator, patches, tmp_path):
    with pytest.raises(ModelError, match="float32"):
        run(generator, patches.astype(np.float32), tmp_path / "a")
    with pytest.raises(ModelError, match=r"16, 16, 3\) uint8"):
        run(generator, patches[:, :8], tmp_path / "b")


def test_places_are_read_or_refused():
    assert InvertPatchesConfig(places="12, 8.5; 3,4 ;").centers() == [(12.0, 8.5), (3.0, 4.0)]
    for places in ("12", "a, b", "1, 2, 3", "-1, 2", "nan, 2"):
        with pytest.raises(ValueError, match="place"):
            InvertPatchesConfig(places=places)
    with pytest.raises(ValueError, match="not both"):
        InvertPatchesConfig(places="1, 2", paths=("a.png",))


def test_structural_similarity_of_known_pictures():
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 256, (2, 24, 24, 3), dtype=np.uint8)
    noisy = np.clip(picture.astype(int) + rng.integers(-40, 41, picture.shape), 0, 255).astype(np.uint8)
    same = structural_similarity(picture, picture)
    np.testing.assert_allclose(same, 1.0)
    near, far = structural_similarity(picture, noisy), structural_similarity(picture, 255 - picture)
    assert (near < 1).all()
    assert (near > 0.5).all()
    assert (far < 0).all()
