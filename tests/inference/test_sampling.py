from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import zarr

from napari_histogan.config import SampleImagesConfig
from napari_histogan.errors import ModelError, Stopped, StorageError
from napari_histogan.inference.sampling import (
    draw_latents,
    load_samples,
    rebuild,
    sample,
    to_uint8,
)
from napari_histogan.models.stylegan2 import Generator, GeneratorSpec
from napari_histogan.progress import QuietReporter


@pytest.fixture(scope="module")
def generator() -> Generator:
    torch.manual_seed(0)
    spec = GeneratorSpec(z_dim=16, c_dim=0, w_dim=16, img_resolution=16, channel_base=256, channel_max=16)
    net = Generator(spec).eval()
    for module in net.modules():
        if hasattr(module, "noise_strength"):
            module.noise_strength.data.fill_(0.3)
    return net


def config(**fields: Any) -> SampleImagesConfig:
    return SampleImagesConfig(**{"count": 150, "threads": 1, "seed": 4, **fields})


def test_samples_are_stored_and_can_be_rebuilt(generator: Generator, tmp_path: Path) -> None:
    folder = sample(generator, config(), QuietReporter(tmp_path), generator_hash="h", mpp=0.5)
    stored = load_samples(folder)
    assert stored.image.shape == (150, 16, 16, 3)
    assert stored.image.chunks[0] == 64
    assert stored.attributes["truncation"] == 0.7
    assert (stored.attributes["generator_hash"], stored.attributes["mpp"]) == ("h", 0.5)
    again = rebuild(generator, stored.w[16:32], stored.noise_seed[16:32])
    np.testing.assert_array_equal(again, stored.image[16:32])
    one = rebuild(generator, stored.w[70:71], stored.noise_seed[70:71])
    assert np.abs(one.astype(int) - stored.image[70:71]).max() <= 1  # another batch size may round otherwise
    other_noise = rebuild(generator, stored.w[16:32], stored.noise_seed[:16])
    assert not np.array_equal(other_noise, again)


def test_a_stopped_run_goes_on_to_the_same_samples(generator: Generator, tmp_path: Path) -> None:
    whole = load_samples(sample(generator, config(), QuietReporter(tmp_path / "whole")))
    with pytest.raises(Stopped, match="after 64 of 150"):
        sample(generator, config(), QuietReporter(tmp_path / "parts", stop_when=lambda: True))
    with pytest.raises(StorageError, match="64 of 150"):
        load_samples(tmp_path / "parts" / "samples")
    parts = load_samples(sample(generator, config(), QuietReporter(tmp_path / "parts")))
    np.testing.assert_array_equal(parts.w, whole.w)
    np.testing.assert_array_equal(parts.image[:], whole.image[:])


def test_another_config_begins_anew(generator: Generator, tmp_path: Path) -> None:
    first = load_samples(sample(generator, config(), QuietReporter(tmp_path))).w
    second = load_samples(sample(generator, config(seed=5), QuietReporter(tmp_path))).w
    assert not np.array_equal(first, second)


def test_more_samples_begin_with_the_same(generator: Generator, tmp_path: Path) -> None:
    few = load_samples(sample(generator, config(count=32), QuietReporter(tmp_path / "few")))
    many = load_samples(sample(generator, config(count=64), QuietReporter(tmp_path / "many")))
    np.testing.assert_array_equal(few.noise_seed, many.noise_seed[:32])
    np.testing.assert_allclose(few.w, many.w[:32], rtol=1e-5, atol=1e-6)


def test_truncation_makes_styles_more_alike(generator: Generator, tmp_path: Path) -> None:
    spread = [
        load_samples(
            sample(generator, config(count=64, truncation=t), QuietReporter(tmp_path / str(t)))
        ).w.std()
        for t in (0.2, 1.0)
    ]
    assert spread[0] < 0.5 * spread[1]


def test_latents_follow_from_seed_and_index_alone() -> None:
    z, seeds = draw_latents(3, range(10), 16)
    one_z, one_seed = draw_latents(3, [7], 16)
    np.testing.assert_array_equal(z[7:8], one_z)
    assert seeds[7] == one_seed[0]
    assert not np.array_equal(draw_latents(3, range(10), 16, domain=1)[0], z)
    assert len(set(seeds.tolist())) == 10
    assert seeds.min() >= 0


def test_gray_levels() -> None:
    x = torch.tensor([-3.0, -1.0, 0.0, 1.0, 1.5]).view(1, 1, 1, 5).expand(1, 3, 1, 5)
    assert to_uint8(x)[0, 0, :, 0].tolist() == [0, 0, 128, 255, 255]


def test_what_cannot_be_sampled_is_refused(tmp_path: Path) -> None:
    spec = GeneratorSpec(16, 0, 16, 16, img_channels=1, channel_base=256, channel_max=16)
    with pytest.raises(ModelError, match="1 colors"):
        sample(Generator(spec), config(), QuietReporter(tmp_path))
    broken = Generator(GeneratorSpec(16, 0, 16, 16, channel_base=256, channel_max=16))
    broken.synthesis.b8.conv1.bias.data[0] = float("inf")
    with pytest.raises(ModelError, match=r"synthesis\.b8\.conv1\.bias"):
        sample(broken, config(), QuietReporter(tmp_path))
    with pytest.raises(StorageError, match="cannot be read"):
        load_samples(tmp_path / "nowhere")


def test_a_damaged_store_is_refused(generator: Generator, tmp_path: Path) -> None:
    folder = sample(generator, config(count=8), QuietReporter(tmp_path))
    del zarr.open_group(str(folder / "samples.zarr"), mode="r+")["w"]
    with pytest.raises(StorageError, match="restore the folder"):
        load_samples(folder)
