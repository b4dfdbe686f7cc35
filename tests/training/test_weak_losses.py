"""The losses of slide labels: limits, values by hand, gradients, and float32 at the ends."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from napari_histogan.errors import ModelError
from napari_histogan.labels.beta import bernoulli_loss
from napari_histogan.training.weak_losses import l_beta, pool_logits, slide_label_losses

ONE_HOT = torch.tensor([[0.0, 1.0]])


def of_q(q: float, beta_1: float) -> float:
    log_q = torch.tensor([[1 - q, q]]).log()
    return float(l_beta(ONE_HOT, log_q, (0.0, beta_1)))


def test_values_by_hand():
    assert of_q(0.25, 1.0) == pytest.approx(0.75)
    assert of_q(0.25, 0.5) == pytest.approx((1 - 0.5) / 0.5)
    assert of_q(0.25, 0.0) == pytest.approx(-math.log(0.25))


def test_it_goes_over_into_cross_entropy_without_a_step():
    wanted = of_q(0.2, 0.0)
    for beta in (1e-30, 1e-9, 1e-7, 0.999e-6, 1.001e-6, 1e-5):
        assert of_q(0.2, beta) == pytest.approx(wanted, rel=max(1e-6, beta))


@pytest.mark.parametrize("beta", [0.0, 1e-7, 0.3, 1.0])
def test_float32_is_finite_at_both_ends_with_its_gradient(beta):
    logits = torch.tensor([[0.0, 300.0], [300.0, 0.0], [0.0, 0.0]], requires_grad=True)
    loss = l_beta(ONE_HOT.expand(3, 2), logits.log_softmax(dim=1), (beta, beta))
    loss.sum().backward()
    assert torch.isfinite(loss).all()
    assert torch.isfinite(logits.grad).all()
    assert float(loss[0].detach()) == pytest.approx(0, abs=1e-6)
    zero = l_beta(ONE_HOT, torch.tensor([[0.0, float("-inf")]]), (beta, beta))
    assert torch.isfinite(zero).all()


def test_soft_labels_are_those_of_the_calculator():
    q = np.linspace(0.05, 0.95, 7)
    log_q = torch.from_numpy(np.stack([1 - q, q], axis=1)).log()
    p = torch.tensor([[0.7, 0.3]], dtype=torch.float64).expand(7, 2)
    for beta in ((0.0, 1.0), (0.4, 0.6), (0.0, 0.0)):
        np.testing.assert_allclose(l_beta(p, log_q, beta), bernoulli_loss(0.3, q, beta), rtol=1e-12)


def test_gradients():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 2, 3, 4, dtype=torch.float64, generator=generator, requires_grad=True)
    valid = torch.rand(2, 3, 4, generator=generator) > 0.3
    p = torch.tensor([[0.0, 1.0], [0.6, 0.4]], dtype=torch.float64)
    for beta, eta in (((0.0, 1.0), 50), ((0.0, 0.61), 100), ((1e-8, 0.2), 1)):

        def loss(values, beta=beta, eta=eta):
            return l_beta(p, pool_logits(values, valid, eta).log_softmax(dim=1), beta)

        assert torch.autograd.gradcheck(loss, (logits,))


def test_pooling_takes_the_highest_valid_pixels():
    benign = torch.tensor([[1.0, 2.0, 3.0, 100.0, 6.0]])
    malign = torch.tensor([[4.0, 1.0, 3.0, 900.0, 2.0]])
    logits = torch.stack((benign, malign), dim=1)[:, :, None]
    valid = torch.tensor([[[True, True, True, False, True]]])
    assert pool_logits(logits, valid, 50).tolist() == [[3.0, 3.5]]
    assert pool_logits(logits, valid, 1e-6).tolist() == [[3.0, 4.0]]
    assert pool_logits(logits, valid, 100).tolist() == [[3.0, 2.5]]


def test_each_patch_keeps_its_own_share():
    logits = torch.zeros(2, 2, 1, 4)
    logits[:, 1, 0] = torch.tensor([1.0, 2.0, 3.0, 4.0])
    valid = torch.tensor([[[True] * 4], [[True, True, False, False]]])
    assert pool_logits(logits, valid, 50)[:, 1].tolist() == [3.5, 2.0]


def test_nothing_valid_and_no_share_are_refused():
    logits = torch.zeros(1, 2, 2, 2)
    with pytest.raises(ModelError, match="no valid pixel"):
        pool_logits(logits, torch.zeros(1, 2, 2, dtype=torch.bool), 50)
    with pytest.raises(ModelError, match="at most 100"):
        pool_logits(logits, torch.ones(1, 2, 2, dtype=torch.bool), 0)


def test_a_wrong_patch_pulls_less_with_beta_1_of_1():
    logits = torch.zeros(1, 2, 2, 2)
    logits[:, 0] = 4.0
    pulls = []
    for beta_1 in (0.0, 1.0):
        x = logits.clone().requires_grad_()
        valid = torch.ones(1, 2, 2, dtype=torch.bool)
        slide_label_losses(x, valid, torch.tensor([1]), (0.0, beta_1), 50).sum().backward()
        pulls.append(float(x.grad.abs().sum()))
    assert pulls[1] < 0.05 * pulls[0]
