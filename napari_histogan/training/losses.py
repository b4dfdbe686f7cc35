"""Losses of segmentation; pixels whose mask is 0 (unlabeled) count in none of them."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

SegmentationLoss = Literal["cross_entropy", "cross_entropy+dice"]


def segmentation_loss(logits: Tensor, masks: Tensor, kind: SegmentationLoss = "cross_entropy+dice") -> Tensor:
    """Return the loss of a batch, a scalar in float32.

    Parameters
    ----------
    logits
        ``(N, K, H, W)``; channel k scores class k + 1.
    masks
        ``(N, H, W)``, integers 0..K; 0 is left out.
    kind
        Cross-entropy alone, or the sum of cross-entropy and :func:`soft_dice_loss`.
    """
    logits, masks = logits.float(), masks.long()
    loss = cross_entropy_loss(logits, masks)
    return loss + soft_dice_loss(logits, masks) if kind == "cross_entropy+dice" else loss


def cross_entropy_loss(logits: Tensor, masks: Tensor) -> Tensor:
    """Return the mean cross-entropy of the labeled pixels; 0 if there are none."""
    total = F.cross_entropy(logits, masks - 1, ignore_index=-1, reduction="sum")
    return total / (masks > 0).sum().clamp(min=1)


def losses_of_images(logits: Tensor, masks: Tensor) -> Tensor:
    """Return the mean cross-entropy of each image's labeled pixels, ``(N,)``; 0 if it has none."""
    each = F.cross_entropy(logits.float(), masks - 1, ignore_index=-1, reduction="none").sum(dim=(1, 2))
    return each / (masks > 0).sum(dim=(1, 2)).clamp(min=1)


def soft_dice_loss(logits: Tensor, masks: Tensor, smooth: float = 1.0) -> Tensor:
    """Return 1 - soft Dice, the mean over the classes that the batch's masks hold.

    Sums run over the whole batch, so that a class that fills a few pixels of one image
    does not swing the loss.  Classes absent from the batch are left to cross-entropy.

    Parameters
    ----------
    logits, masks
        As in :func:`segmentation_loss`.
    smooth
        Pixels added above and below the fraction line.

    References
    ----------
    F. Milletari, N. Navab, S.-A. Ahmadi: "V-Net", 3DV 2016, section 3; here with plain sums in the
    denominator.
    """
    labeled = masks > 0
    truth = F.one_hot((masks - 1).clamp(min=0), logits.shape[1]).movedim(-1, 1) * labeled[:, None]
    probabilities = logits.softmax(dim=1) * labeled[:, None]
    shared = (probabilities * truth).sum(dim=(0, 2, 3))
    size_truth, size_predicted = truth.sum(dim=(0, 2, 3)), probabilities.sum(dim=(0, 2, 3))
    dice = (2 * shared + smooth) / (size_truth + size_predicted + smooth)
    present = (size_truth > 0).to(dice.dtype)
    return ((1 - dice) * present).sum() / torch.clamp(present.sum(), min=1)
