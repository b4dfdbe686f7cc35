"""The losses are those of the probabilities, and hold where probabilities round off."""

from __future__ import annotations

import math

import torch
from torch.autograd import gradcheck

from napari_histogan.training.patch_gan_losses import class_loss, fake_loss, real_loss

K = 3


def test_the_losses_are_those_of_the_probabilities():
    torch.manual_seed(0)
    logits, classes = torch.randn(50, K + 1) * 2, torch.randint(0, K, (50,))
    p = logits.double().softmax(dim=1)
    conditional = p[torch.arange(50), classes] / (1 - p[:, K])
    torch.testing.assert_close(class_loss(logits, classes, K).double(), -conditional.log().mean())
    torch.testing.assert_close(fake_loss(logits).double(), -p[:, K].log().mean())
    torch.testing.assert_close(real_loss(logits).double(), -(1 - p[:, K]).log().mean())


def test_equal_logits_have_the_known_values():
    logits = torch.full((4, K + 1), 7.0)
    classes = torch.tensor([0, 1, 2, 0])
    assert math.isclose(class_loss(logits, classes, K).item(), math.log(K), rel_tol=1e-6)
    assert math.isclose(fake_loss(logits).item(), math.log(K + 1), rel_tol=1e-6)
    assert math.isclose(real_loss(logits).item(), math.log((K + 1) / K), rel_tol=1e-6)


def test_the_logit_of_fake_has_no_say_in_the_class():
    logits, classes = torch.randn(8, K + 1, requires_grad=True), torch.randint(0, K, (8,))
    (slope,) = torch.autograd.grad(class_loss(logits, classes, K), logits)
    assert torch.equal(slope[:, K], torch.zeros(8))
    assert torch.equal(class_loss(logits, classes, K), class_loss(logits[:, :K], classes, K))


def test_gradients_are_those_of_the_values():
    torch.manual_seed(0)
    logits = torch.randn(5, K + 1, dtype=torch.double, requires_grad=True)
    classes = torch.randint(0, K, (5,))
    assert gradcheck(lambda x: class_loss(x, classes, K), (logits,))
    assert gradcheck(fake_loss, (logits,))
    assert gradcheck(real_loss, (logits,))


def test_losses_and_gradients_stay_finite_where_probabilities_round_off():
    for sign in (1, -1):
        logits = torch.zeros(2, K + 1)
        logits[:, K] = sign * 200.0
        logits.requires_grad_()
        for loss, wrong in ((fake_loss, sign < 0), (real_loss, sign > 0)):
            value = loss(logits)
            (slope,) = torch.autograd.grad(value, logits)
            assert torch.isfinite(slope).all()
            # Where it is surely wrong, the loss is as large as the logit says and its slope is full.
            assert math.isclose(value.item(), 200, rel_tol=0.02) == wrong
            assert (slope.abs().max().item() > 0.4) == wrong
