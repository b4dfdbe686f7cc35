"""Contracts of the GAN losses: formulas, and two training steps against golden arrays."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch

from napari_histogan.models.stylegan2 import Discriminator, DiscriminatorSpec, Generator, GeneratorSpec
from napari_histogan.training.gan_losses import (
    complete_gradients,
    discriminator_loss,
    ema_decay,
    generator_loss,
    lazy_adam,
    path_length_penalty,
    path_lengths,
    r1_penalty,
    update_ema,
)

GOLDEN = Path(__file__).parents[2] / ".." / "shared" / "reference" / "golden"
needs_golden = pytest.mark.skipif(not GOLDEN.exists(), reason="golden arrays are not beside the checkout")


def load(name):
    with np.load(GOLDEN / name) as arrays:
        return {k: torch.from_numpy(v) for k, v in arrays.items()}


def strip(data, prefix):
    return {k.removeprefix(prefix): v for k, v in data.items() if k.startswith(prefix)}


def assert_gradients(network, golden):
    for name, parameter in network.named_parameters():
        found = torch.zeros([]) if parameter.grad is None else parameter.grad.norm()
        torch.testing.assert_close(found, golden[name].float(), rtol=1e-3, atol=1e-6)


def test_losses_are_logistic():
    real, fake = torch.tensor([[2.0], [0.0]]), torch.tensor([[-1.0], [1.0]])
    assert generator_loss(fake) == pytest.approx(np.log1p(np.exp([1.0, -1.0])).mean())
    expected = np.log1p(np.exp([-1.0, 1.0])).mean() + np.log1p(np.exp([-2.0, 0.0])).mean()
    assert discriminator_loss(real, fake) == pytest.approx(expected)


def test_r1_of_a_linear_critic_is_its_squared_weight():
    weight = torch.randn(3 * 4 * 4, requires_grad=True)
    images = torch.randn(2, 3, 4, 4, requires_grad=True)
    penalty = r1_penalty(images.flatten(1) @ weight[:, None], images)
    torch.testing.assert_close(penalty, weight.square().sum().expand(2))
    penalty.sum().backward()
    torch.testing.assert_close(weight.grad, 4 * weight.detach())


def test_path_length_of_a_linear_generator():
    ws = torch.randn(2, 3, 5, requires_grad=True)
    noise = torch.ones(2, 1, 4, 4)
    images = ws.sum(dim=[1, 2])[:, None, None, None].expand(2, 1, 4, 4)
    lengths = path_lengths(images, ws, noise)
    torch.testing.assert_close(lengths, torch.full((2,), 16 / 4 * 5**0.5))
    penalty, mean = path_length_penalty(lengths, torch.zeros([]))
    assert mean == pytest.approx(0.01 * 4 * 5**0.5)
    torch.testing.assert_close(penalty, (lengths - mean).square())


@needs_golden
def test_path_length_gradients_match():
    data = load("pathlength32.npz")
    spec = GeneratorSpec(24, 0, 24, 32, mapping_layers=2, channel_base=512, channel_max=32)
    network = Generator(spec).train()
    network.load_state_dict(strip(data, "param."), strict=True)
    ws = network.mapping(data["z"])
    images = network.synthesis(ws, "const")
    lengths = path_lengths(images, ws, data["raw_noise"])
    penalty, mean = path_length_penalty(lengths, torch.zeros([]))
    torch.testing.assert_close(lengths, data["pl_lengths"], rtol=1e-4, atol=0)
    torch.testing.assert_close(mean, data["pl_mean_after_first"], rtol=1e-4, atol=0)
    torch.testing.assert_close(penalty, data["pl_penalty"], rtol=1e-4, atol=0)
    (2 * penalty).mean().backward()
    assert_gradients(network, strip(data, "gradnorm."))
    for name in ("synthesis.b16.conv0.weight", "mapping.fc0.weight"):
        golden = data[f"grad.{name}"]
        assert (network.get_parameter(name).grad - golden).abs().max() <= 1e-4 * golden.abs().max()


def test_ema_half_life_and_rampup():
    assert ema_decay(batch=100, images=0, ema_kimg=0.1, rampup=0) == pytest.approx(0.5)
    assert ema_decay(batch=100, images=1000, ema_kimg=10, rampup=0.1) == pytest.approx(0.5)
    assert ema_decay(batch=8, images=0, ema_kimg=5, rampup=0.05) == 0


def test_lazy_adam_corrects_step_and_decay():
    optimizer = lazy_adam(torch.nn.Linear(1, 1), 0.0025, 16)
    assert optimizer.defaults["lr"] == pytest.approx(0.0025 * 16 / 17)
    assert optimizer.defaults["betas"] == pytest.approx((0, 0.99 ** (16 / 17)))
    assert lazy_adam(torch.nn.Linear(1, 1), 0.0025, None).defaults["lr"] == 0.0025


def test_ema_averages_parameters_and_copies_buffers():
    average, network = torch.nn.BatchNorm1d(1), torch.nn.BatchNorm1d(1)
    with torch.no_grad():
        network.weight.fill_(3.0)
        network.running_mean.fill_(5.0)
    update_ema(average, network, 0.75)
    assert average.weight.item() == pytest.approx(1.5)
    assert average.running_mean.item() == 5.0


@needs_golden
@torch.backends.mkldnn.flags(
    enabled=False
)  # torch's own kernels: formulas are compared, not a library's rounding
def test_two_whole_iterations_match():
    data = load("trainstep16.npz")
    batch, gamma, pl_weight, images = int(data["batch"]), 5.0, 2.0, 0
    parameters = strip(data, "init.G.")
    layers = sum(k.startswith("mapping.fc") and k.endswith("weight") for k in parameters)
    spec = GeneratorSpec(
        16, 0, 16, 16, mapping_layers=layers, channel_base=256, channel_max=16, use_noise=False
    )
    G = Generator(spec).train()
    D = Discriminator(DiscriminatorSpec(16, channel_base=256, channel_max=16)).train()
    G.load_state_dict(parameters, strict=True)
    D.load_state_dict(strip(data, "init.D."), strict=True)
    average = copy.deepcopy(G).eval()
    adam_g, adam_d = lazy_adam(G, 0.0025, 4), lazy_adam(D, 0.0025, 16)
    mean = torch.zeros([])

    def step(optimizer, network, phase):
        complete_gradients(network)
        assert_gradients(network, strip(data, f"{phase}.gradnorm."))
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    for i in range(2):
        real, z = data[f"it{i}.real"], data[f"it{i}.z_all"].split(batch)
        D.requires_grad_(False)
        generator_loss(D(G.synthesis(G.mapping(z[0])))).backward()
        step(adam_g, G, f"it{i}.Gmain")
        if i % 4 == 0:
            ws = G.mapping(z[1][: batch // 2])
            fakes = G.synthesis(ws)
            penalty, mean = path_length_penalty(path_lengths(fakes, ws, data["randn_like_call0"]), mean)
            torch.testing.assert_close(penalty, data[f"it{i}.Greg.Loss/pl_penalty"], rtol=1e-3, atol=1e-6)
            (penalty.mean() * pl_weight * 4).backward()
            step(adam_g, G, f"it{i}.Greg")
        D.requires_grad_(True)
        with torch.no_grad():
            fakes = G.synthesis(G.mapping(z[2]))
        discriminator_loss(D(real), D(fakes)).backward()
        step(adam_d, D, f"it{i}.Dmain")
        if i % 16 == 0:
            leaf = real.clone().requires_grad_()
            (r1_penalty(D(leaf), leaf).mean() * gamma / 2 * 16).backward()
            step(adam_d, D, f"it{i}.Dreg")
        decay = ema_decay(batch, images, 5, 0.05)
        assert decay == pytest.approx(float(data[f"it{i}.ema_beta"]), abs=1e-9)
        torch.testing.assert_close(mean, data[f"it{i}.pl_mean"], rtol=1e-4, atol=0)
        update_ema(average, G, decay)
        images += batch

    for name, network in (("G", G), ("D", D), ("G_ema", average)):
        found = torch.cat([v.flatten() for v in network.state_dict().values()])
        golden = torch.cat([v.flatten() for v in strip(data, f"final.{name}.").values()])
        difference = (found - golden).abs()
        assert (difference > 2e-5).float().mean() < 1e-3
        assert difference.max() < 5e-3
