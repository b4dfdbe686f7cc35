"""Pictures of a generator as bytes."""

from __future__ import annotations

import torch
from torch import Tensor


def as_bytes(pictures: Tensor) -> Tensor:
    """Round a generator's pictures, nominally -1 to 1, to uint8 of the same shape: round((x + 1) 127.5)."""
    return pictures.float().add(1).mul_(127.5).round_().clamp_(0, 255).to(torch.uint8)
