"""What JPEG takes away from a picture, on the device, without writing a file.

Reference: ITU-T T.81 (1992), annex A.3.3 (the cosine transform of blocks of 8 x 8) and
tables K.1 and K.2 (its quantization); qualities as libjpeg scales the tables.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

_LUMINANCE = [
    [16, 11, 10, 16, 24, 40, 51, 61],
    [12, 12, 14, 19, 26, 58, 60, 55],
    [14, 13, 16, 24, 40, 57, 69, 56],
    [14, 17, 22, 29, 51, 87, 80, 62],
    [18, 22, 37, 56, 68, 109, 103, 77],
    [24, 35, 55, 64, 81, 104, 113, 92],
    [49, 64, 78, 87, 103, 121, 120, 101],
    [72, 92, 95, 98, 112, 100, 103, 99],
]
_CHROMINANCE = [
    [17, 18, 24, 47, 99, 99, 99, 99],
    [18, 21, 26, 66, 99, 99, 99, 99],
    [24, 26, 56, 99, 99, 99, 99, 99],
    [47, 66, 99, 99, 99, 99, 99, 99],
    *[[99] * 8 for _ in range(4)],
]
_TO_YCC = [[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]]


def jpeg_like(pixels: Tensor, quality: Tensor) -> Tensor:
    """Return pictures as they come back from JPEG with full color resolution.

    Parameters
    ----------
    pixels
        ``(N, 3, H, W)`` float, 0..255.
    quality
        ``(N,)``, 1..100, on the same device.

    Returns
    -------
    Tensor
        ``(N, 3, H, W)`` float, 0..255.
    """
    n, _, height, width = pixels.shape
    device, dtype = pixels.device, pixels.dtype
    to_ycc = torch.tensor(_TO_YCC, device=device, dtype=dtype)
    x = torch.einsum("ij,njhw->nihw", to_ycc, pixels)
    x = x - torch.tensor([128.0, 0.0, 0.0], device=device, dtype=dtype).view(3, 1, 1)
    x = F.pad(x, (0, -width % 8, 0, -height % 8), mode="replicate")
    rows, columns = x.shape[2] // 8, x.shape[3] // 8
    transform = _cosines().to(device, dtype)
    blocks = x.view(n, 3, rows, 8, columns, 8)
    found = torch.einsum("ui,ncribj,vj->ncrubv", transform, blocks, transform)
    steps = _steps(quality.to(dtype))[:, :, None, :, None, :]
    found = (found / steps).round() * steps
    blocks = torch.einsum("ui,ncrubv,vj->ncribj", transform, found, transform)
    x = blocks.reshape(n, 3, rows * 8, columns * 8)[..., :height, :width]
    x = x + torch.tensor([128.0, 0.0, 0.0], device=device, dtype=dtype).view(3, 1, 1)
    return torch.einsum("ij,njhw->nihw", torch.linalg.inv(to_ycc), x).clamp(0, 255)


def _cosines() -> Tensor:
    """Return the orthonormal cosine transform of length 8, ``(8, 8)``; rows are frequencies."""
    place, frequency = torch.arange(8)[None] + 0.5, torch.arange(8)[:, None]
    rows = torch.cos(math.pi / 8 * place * frequency) / 2
    rows[0] /= math.sqrt(2)
    return rows


def _steps(quality: Tensor) -> Tensor:
    """Return the quantization ``(N, 3, 8, 8)`` of each quality."""
    tables = torch.tensor(
        [_LUMINANCE, _CHROMINANCE, _CHROMINANCE], device=quality.device, dtype=quality.dtype
    )
    scale = torch.where(quality < 50, 5000 / quality, 200 - 2 * quality)
    return ((tables * scale[:, None, None, None] + 50) / 100).floor().clamp(1, 255)
