from __future__ import annotations

import math

import pytest
import torch

from napari_histogan.training.losses import cross_entropy_loss, segmentation_loss, soft_dice_loss


def logits_of(masks: torch.Tensor, certainty: float) -> torch.Tensor:
    """Logits of 3 classes that favor the mask's class."""
    one_hot = torch.nn.functional.one_hot((masks - 1).clamp(min=0), 3).movedim(-1, 1)
    return certainty * one_hot.float()


@pytest.fixture
def masks() -> torch.Tensor:
    return torch.randint(0, 4, (2, 8, 8), generator=torch.Generator().manual_seed(0))


def test_cross_entropy_by_hand() -> None:
    logits = torch.tensor([0.0, 2.0]).view(1, 2, 1, 1).expand(1, 2, 1, 3)
    masks = torch.tensor([[[1, 2, 0]]])
    first, second = math.log(1 + math.exp(2)), math.log(1 + math.exp(-2))
    assert float(cross_entropy_loss(logits, masks)) == pytest.approx((first + second) / 2)


def test_dice_by_hand() -> None:
    logits = torch.zeros(1, 2, 1, 4)
    masks = torch.tensor([[[1, 1, 1, 2]]])
    # p = 1/2 everywhere: class 1 shares 1.5 of 3 + 2, class 2 shares 0.5 of 1 + 2; one pixel smooths.
    expected = 1 - ((2 * 1.5 + 1) / 6 + (2 * 0.5 + 1) / 4) / 2
    assert float(soft_dice_loss(logits, masks)) == pytest.approx(expected)


@pytest.mark.parametrize("kind", ["cross_entropy", "cross_entropy+dice"])
def test_unlabelled_pixels_have_no_say(masks: torch.Tensor, kind: str) -> None:
    logits = torch.randn(2, 3, 8, 8, requires_grad=True)
    loss = segmentation_loss(logits, masks, kind)  # type: ignore[arg-type]
    loss.backward()
    assert logits.grad is not None
    outside = (masks == 0)[:, None].expand_as(logits)
    assert not logits.grad[outside].any()
    assert logits.grad[~outside].any()
    changed = torch.where(outside, torch.full_like(logits, 50.0), logits)
    torch.testing.assert_close(segmentation_loss(changed, masks, kind), loss)  # type: ignore[arg-type]


def test_the_right_answer_costs_nothing_and_the_wrong_one_much(masks: torch.Tensor) -> None:
    right = float(segmentation_loss(logits_of(masks, 30.0), masks))
    wrong = float(segmentation_loss(logits_of(masks % 3 + 1, 30.0), masks))
    assert right == pytest.approx(0, abs=1e-4)
    assert wrong > 10


def test_a_batch_without_labels_has_no_loss() -> None:
    logits = torch.randn(1, 3, 4, 4, requires_grad=True)
    loss = segmentation_loss(logits, torch.zeros(1, 4, 4, dtype=torch.long))
    loss.backward()
    assert loss.item() == 0
    assert logits.grad is not None
    assert not logits.grad.any()


def test_dice_leaves_absent_classes_alone(masks: torch.Tensor) -> None:
    one = torch.ones_like(masks)
    assert float(soft_dice_loss(logits_of(one, 30.0), one)) == pytest.approx(0, abs=1e-4)


def test_bfloat16_logits_are_scored_in_float32(masks: torch.Tensor) -> None:
    loss = segmentation_loss(torch.randn(2, 3, 8, 8).bfloat16(), masks.to(torch.uint8))
    assert loss.dtype == torch.float32
