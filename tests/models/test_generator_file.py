"""Contracts of network files: what was saved comes back, and damage is named."""

import json

import pytest
import torch

from napari_histogan.errors import CheckpointError
from napari_histogan.models.generator_file import (
    generator_info,
    load_discriminator,
    load_generator,
    save_discriminator,
    save_generator,
)
from napari_histogan.models.stylegan2 import Generator, GeneratorSpec
from napari_histogan.models.stylegan2_discriminator import Discriminator, DiscriminatorSpec


@pytest.fixture
def network():
    torch.manual_seed(0)
    return Generator(GeneratorSpec(8, 0, 8, 16, mapping_layers=2, channel_base=128, channel_max=8)).eval()


@torch.no_grad()
def test_generator_comes_back_bit_for_bit(network, tmp_path):
    z = torch.randn(2, 8)
    save_generator(tmp_path / "generator.safetensors", network, {"mpp": 1.0})
    for path in (tmp_path, tmp_path / "generator.safetensors"):
        twin = load_generator(path)
        assert twin.spec == network.spec
        assert torch.equal(twin(z), network(z))
    assert generator_info(tmp_path) == {"mpp": 1.0}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["generator.json", "generator.safetensors"]


@torch.no_grad()
def test_half_storage_is_half_the_size_and_close(network, tmp_path):
    z = torch.randn(2, 8)
    save_generator(tmp_path / "full.safetensors", network)
    save_generator(tmp_path / "half.safetensors", network, half=True)
    sizes = [(tmp_path / f"{name}.safetensors").stat().st_size for name in ("half", "full")]
    assert sizes[0] < 0.75 * sizes[1]
    twin = load_generator(tmp_path / "half.safetensors")
    assert (twin(z) - network(z)).abs().max() < 1 / 127.5 * network(z).std() * 3


@torch.no_grad()
def test_discriminator_comes_back_bit_for_bit(tmp_path):
    critic = Discriminator(DiscriminatorSpec(16, channel_base=128, channel_max=8)).eval()
    save_discriminator(tmp_path / "discriminator.safetensors", critic)
    x = torch.randn(4, 3, 16, 16)
    assert torch.equal(load_discriminator(tmp_path / "discriminator.safetensors")(x), critic(x))


def test_missing_and_damaged_files_are_named(network, tmp_path):
    path = tmp_path / "generator.safetensors"
    with pytest.raises(CheckpointError, match=r"generator\.json"):
        load_generator(path)
    save_generator(path, network)
    with pytest.raises(CheckpointError, match="does not describe a discriminator"):
        load_discriminator(path)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_generator(path)
    path.with_suffix(".json").write_text("{")
    with pytest.raises(CheckpointError, match="damaged"):
        load_generator(path)


def test_weights_of_another_plan_are_refused(network, tmp_path):
    path = tmp_path / "generator.safetensors"
    save_generator(path, network)
    notes = path.with_suffix(".json")
    plan = json.loads(notes.read_text())
    plan["spec"]["channel_max"] = 4
    notes.write_text(json.dumps(plan))
    with pytest.raises(CheckpointError, match="do not fit"):
        load_generator(path)
    plan["format"] = 99
    notes.write_text(json.dumps(plan))
    with pytest.raises(CheckpointError, match="update napari-histogan"):
        load_generator(path)
