"""A scorer of blocks, whose word is the coarse label: it learns what whole blocks mostly are, and no more.

Paper 003 takes its block labels from a classifier of patches, whose probability of tumor is sorted into
ten bins.  So does this: two nets learn from one half of the training pictures each, block by block, whether
most of a block is gland, and score the blocks of the other half.  Blocks of test pictures get both's mean.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from napari_histogan.models.segmenter import pixels_to_input
from napari_histogan.models.unet import UNet
from napari_histogan.training.augment import AugmentStrength, augment
from napari_histogan.training.segmenter_state import one_cycle

_STAYS_IN_BLOCK = AugmentStrength(rotate=0.0, scale=0.0, shift=0.0)


class BlockScorer(nn.Module):
    """The encoder of a U-Net, the mean of its last features, and one logit."""

    def __init__(self, width: int, depth: int) -> None:
        super().__init__()
        self.encoders = UNet(2, width, depth).encoders
        self.head = nn.Linear(width * min(2**depth, 8), 1)

    def forward(self, pixels: Tensor) -> Tensor:
        """Return logits ``(N,)`` of blocks ``(N, 3, S, S)`` in -1..1."""
        x = self.encoders[0](pixels)
        for encoder in self.encoders[1:]:
            x = encoder(F.max_pool2d(x, 2))
        logits: Tensor = self.head(x.mean(dim=(2, 3)))[:, 0]
        return logits


def train_scorer(
    images: NDArray[np.uint8], shares: NDArray[np.float64], steps: int, seed: int, width: int = 8
) -> BlockScorer:
    """Learn whether most of a block ``(n, S, S, 3)`` is of the class, as its share ``(n,)`` tells."""
    torch.manual_seed(seed)
    net = BlockScorer(width, 3)
    optimizer = torch.optim.AdamW(net.parameters(), lr=4e-3, weight_decay=1e-3)
    rng, generator = np.random.default_rng([seed, 41]), torch.Generator().manual_seed(seed)
    for step in range(steps):
        chosen = rng.choice(len(images), 32, replace=False)
        pixels = torch.from_numpy(images[chosen]).permute(0, 3, 1, 2).float()
        unused = torch.zeros(len(pixels), *pixels.shape[2:], dtype=torch.long)
        pixels, _ = augment(pixels, unused, generator, _STAYS_IN_BLOCK)
        truth = torch.from_numpy(shares[chosen] > 0.5).float()
        loss = F.binary_cross_entropy_with_logits(net(pixels_to_input(pixels)), truth)
        optimizer.zero_grad()
        loss.backward()
        for group in optimizer.param_groups:
            group["lr"] = 4e-3 * one_cycle(step, steps)
        optimizer.step()
    return net.eval()


@torch.inference_mode()
def scores(net: BlockScorer, images: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return the probability ``(n,)`` that most of each block is of the class."""
    parts = [images[start : start + 64] for start in range(0, len(images), 64)]
    inputs = (pixels_to_input(torch.from_numpy(part).permute(0, 3, 1, 2)) for part in parts)
    return np.concatenate([net(x).sigmoid().double().numpy() for x in inputs])


def cross_scores(
    images: NDArray[np.uint8],
    shares: NDArray[np.float64],
    pictures: NDArray[np.int64],
    others: Sequence[NDArray[np.uint8]],
    steps: int,
    seed: int,
) -> tuple[NDArray[np.float64], list[NDArray[np.float64]]]:
    """Score blocks by the net that has not seen their pictures, and blocks of other pictures by both.

    Parameters
    ----------
    images, shares, pictures
        Blocks ``(n, S, S, 3)``, their shares of the class, and the numbers of their pictures, ``(n,)``.
    others
        Blocks of each other picture, ``(m, S, S, 3)``.
    steps, seed
        Of each of the two trainings.

    Returns
    -------
    tuple
        Scores 0..1 of the blocks ``(n,)``, and of each other picture's blocks ``(m,)``.
    """
    order = np.random.default_rng([seed, 43]).permutation(np.unique(pictures))
    first = np.isin(pictures, order[: len(order) // 2])
    found, said = np.empty(len(images)), []
    for fold, mine in enumerate((first, ~first)):
        net = train_scorer(images[mine], shares[mine], steps, 2 * seed + fold)
        found[~mine] = scores(net, images[~mine])
        said.append([scores(net, each) for each in others])
    return found, [(a + b) / 2 for a, b in zip(*said, strict=True)]
