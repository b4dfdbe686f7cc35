"""Count losses: the formulas against drawn masks, and what each matching is least at."""

from __future__ import annotations

import itertools

import pytest
import torch

from napari_histogan.errors import TrainingError
from napari_histogan.training.count_losses import (
    LEAST_SD,
    Moments,
    block_moments,
    count_loss,
    count_moments,
    mismatch,
)

MODELS = ("intra", "inter", "intra+inter")
MATCHINGS = ("overlap", "bhattacharyya", "kl")


def some_blocks(n: int, classes: int, side: int, seed: int) -> torch.Tensor:
    """Blocks whose shares differ from block to block, ``(n, K, S, S)``."""
    rng = torch.Generator().manual_seed(seed)
    shift = 1.5 * torch.randn(n, classes, 1, 1, generator=rng, dtype=torch.float64)
    return (shift + torch.randn(n, classes, side, side, generator=rng, dtype=torch.float64)).softmax(1)


def drawn_shares(probabilities: torch.Tensor, draws: int, seed: int) -> torch.Tensor:
    """Shares of each class in masks drawn pixel by pixel, ``(draws, n, K)``."""
    n, classes, height, width = probabilities.shape
    rows = probabilities.permute(0, 2, 3, 1).reshape(-1, classes)
    rng = torch.Generator().manual_seed(seed)
    drawn = torch.multinomial(rows, draws, replacement=True, generator=rng)
    masks = torch.nn.functional.one_hot(drawn, classes).double().reshape(n, height * width, draws, classes)
    return masks.mean(dim=1).permute(1, 0, 2)


def assert_moments(samples: torch.Tensor, mean: torch.Tensor, variance: torch.Tensor) -> None:
    """Samples ``(draws, ...)`` have this mean and variance, to 3 standard errors (3.7 if there are many)."""
    draws, wide = len(samples), 3.0 if samples[0].numel() <= 8 else 3.7
    assert ((samples.mean(0) - mean).abs() <= wide * (variance / draws).sqrt()).all()
    centered = samples - samples.mean(0)
    error = ((centered**4).mean(0) - centered.var(0) ** 2).div(draws).sqrt()
    assert ((samples.var(0) - variance).abs() <= wide * error).all()


@pytest.mark.parametrize("classes", [2, 4])
def test_intra_moments_are_those_of_drawn_masks(classes):
    blocks = some_blocks(3, classes, 6, seed=classes)
    mean, variance = block_moments(blocks)
    assert_moments(drawn_shares(blocks, 20_000, seed=1), mean, variance)


def test_intra_and_inter_add_up_to_the_variance_of_a_drawn_block_s_share():
    blocks = some_blocks(60, 3, 4, seed=5)
    shares = drawn_shares(blocks, 4000, seed=2)
    picked = torch.randint(60, (4000,), generator=torch.Generator().manual_seed(3))
    samples = shares[torch.arange(4000), picked]
    moments = count_moments(blocks[None], "intra+inter")
    inter = count_moments(blocks[None], "inter")
    # All 60 blocks are the population here, so its variance divides by n, not by n - 1.
    population = inter.variance * 59 / 60 + (moments.variance - inter.variance)
    assert_moments(samples, moments.mean[0, 0], population[0, 0])
    assert ((moments.variance - inter.variance) > 0.02 * moments.variance).any()


def test_small_groups_estimate_the_variance_without_bias():
    blocks = some_blocks(40, 2, 4, seed=7)
    groups = torch.randint(40, (20_000, 3), generator=torch.Generator().manual_seed(4))
    mean, within = block_moments(blocks)
    found = count_moments(blocks[groups], "intra+inter").variance[:, 0]
    truth = mean.var(0, correction=0) + within.mean(0)
    error = found.std(0) / len(groups) ** 0.5
    assert ((found.mean(0) - truth).abs() <= 3 * error).all()


@pytest.mark.parametrize("matching", ["bhattacharyya", "kl"])
def test_distances_are_zero_only_where_both_moments_agree(matching):
    eta, rho = torch.tensor(0.4, dtype=torch.float64), torch.tensor(0.1, dtype=torch.float64)
    at_target = mismatch(Moments(eta, rho**2), eta, rho, matching)
    assert abs(at_target) < 1e-12
    for mean, sd in itertools.product((0.35, 0.4, 0.45), (0.05, 0.1, 0.2)):
        found = mismatch(Moments(torch.tensor(mean), torch.tensor(sd) ** 2), eta, rho, matching)
        assert (found > 1e-3) == ((mean, sd) != (0.4, 0.1))


def test_overlap_is_the_log_of_the_integral_of_the_product_and_prefers_no_variance():
    eta, rho = torch.tensor(0.4, dtype=torch.float64), torch.tensor(0.1, dtype=torch.float64)
    m, v = torch.tensor(0.55, dtype=torch.float64), torch.tensor(0.03, dtype=torch.float64)
    x = torch.linspace(-3, 4, 200_001, dtype=torch.float64)
    floor = LEAST_SD**2
    first = torch.distributions.Normal(m, (v + floor).sqrt()).log_prob(x).exp()
    second = torch.distributions.Normal(eta, (rho**2 + floor).sqrt()).log_prob(x).exp()
    expected = -torch.trapezoid(first * second, x).log()
    assert mismatch(Moments(m, v), eta, rho, "overlap").item() == pytest.approx(expected.item(), rel=1e-6)
    assert mismatch(Moments(eta, 0 * v), eta, rho, "overlap") < mismatch(
        Moments(eta, rho**2), eta, rho, "overlap"
    )


def test_bhattacharyya_and_kl_are_their_integrals():
    eta, rho = torch.tensor(0.4, dtype=torch.float64), torch.tensor(0.1, dtype=torch.float64)
    m, v = torch.tensor(0.55, dtype=torch.float64), torch.tensor(0.03, dtype=torch.float64)
    x = torch.linspace(-3, 4, 200_001, dtype=torch.float64)
    floor = LEAST_SD**2
    log_p = torch.distributions.Normal(m, (v + floor).sqrt()).log_prob(x)
    log_q = torch.distributions.Normal(eta, (rho**2 + floor).sqrt()).log_prob(x)
    between = -torch.trapezoid((0.5 * (log_p + log_q)).exp(), x).log()
    divergence = torch.trapezoid(log_q.exp() * (log_q - log_p), x)
    assert mismatch(Moments(m, v), eta, rho, "bhattacharyya").item() == pytest.approx(
        between.item(), rel=1e-6
    )
    assert mismatch(Moments(m, v), eta, rho, "kl").item() == pytest.approx(divergence.item(), rel=1e-6)


@pytest.mark.parametrize(("model", "matching"), list(itertools.product(MODELS, MATCHINGS)))
def test_gradients_are_right(model, matching):
    rng = torch.Generator().manual_seed(9)
    logits = torch.randn(2, 3, 3, 2, 2, generator=rng, dtype=torch.float64, requires_grad=True)
    eta = torch.tensor([[0.2, 0.5, 0.3], [0.9, 0.1, 0.0]], dtype=torch.float64)
    rho = torch.tensor([[0.1, 0.1, 0.05], [0.03, 0.03, 0.02]], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: count_loss(x, eta, rho, model, matching), (logits,))


@pytest.mark.parametrize(("model", "matching"), list(itertools.product(MODELS, MATCHINGS)))
@pytest.mark.parametrize("size", [0.0, 40.0, 300.0])
def test_float32_stays_finite_where_the_net_is_sure_and_rho_is_zero(model, matching, size):
    logits = torch.zeros(1, 4, 2, 64, 64)
    logits[:, :, 0] = size
    logits.requires_grad_()
    loss = count_loss(logits, torch.tensor([[0.0, 1.0]]), torch.zeros(1, 2), model, matching)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(logits.grad).all()


def test_float32_agrees_with_float64():
    blocks = some_blocks(8, 3, 48, seed=2).log().reshape(2, 4, 3, 48, 48)
    eta, rho = torch.tensor([[0.2, 0.5, 0.3]] * 2), torch.tensor([[0.05, 0.05, 0.02]] * 2)
    for model, matching in itertools.product(MODELS, MATCHINGS):
        exact = count_loss(blocks, eta.double(), rho.double(), model, matching)
        assert count_loss(blocks.float(), eta, rho, model, matching).item() == pytest.approx(
            exact.item(), rel=2e-4, abs=1e-5
        )


def test_one_block_is_no_group_and_shapes_must_fit():
    with pytest.raises(TrainingError, match="at least 2 blocks of one label"):
        count_moments(torch.rand(1, 1, 2, 4, 4), "inter")
    with pytest.raises(TrainingError, match=r"\(G, K\)"):
        count_loss(torch.rand(1, 2, 2, 4, 4), torch.rand(1, 3), torch.rand(1, 3))
