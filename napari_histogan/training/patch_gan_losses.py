"""Losses of the patch classifier and its generator, in log space (paper 004).

Of K + 1 logits the last is FAKE.  With ``d`` the logarithm of the summed exponentials of the first K, less
the last logit, ``log p(fake) = -softplus(d)`` and ``log (1 - p(fake)) = -softplus(-d)``; neither probability
is ever formed, so that no loss becomes infinite and no gradient 0 where one of them rounds to 0 or 1.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def class_loss(logits: Tensor, classes: Tensor, num_classes: int) -> Tensor:
    """Return ``-log p(y | x, y < K + 1)`` (the paper's L_c), the mean over patches.

    Parameters
    ----------
    logits
        ``(N, K)`` or ``(N, K + 1)``; the logit of FAKE does not count.
    classes
        ``(N,)`` int64, 0 to K - 1.
    num_classes
        K.
    """
    return F.cross_entropy(_wide(logits[:, :num_classes]), classes)


def fake_loss(logits: Tensor) -> Tensor:
    """Return ``-log p(K + 1 | x)`` (L_adv) of patches that were painted, the mean; logits ``(N, K + 1)``."""
    return F.softplus(_real_less_fake(logits)).mean()


def real_loss(logits: Tensor) -> Tensor:
    """Return ``-log (1 - p(K + 1 | x))``, the mean; logits ``(N, K + 1)``.

    The generator minimizes it on what it painted (the paper's L_G); the classifier on real patches, with
    labels or without, which must not be called fake.
    """
    return F.softplus(-_real_less_fake(logits)).mean()


def _real_less_fake(logits: Tensor) -> Tensor:
    """Return ``log (1 - p(K + 1)) - log p(K + 1)``, ``(N,)``."""
    logits = _wide(logits)
    return torch.logsumexp(logits[:, :-1], dim=1) - logits[:, -1]


def _wide(logits: Tensor) -> Tensor:
    """Return logits of at least float32."""
    return logits.float() if logits.dtype in (torch.bfloat16, torch.float16) else logits
