"""Random changes of images and masks for segmentation, on the device, a batch at a time.

Each image gets its own: mirror image, turn, scale, shift, amounts of stain, blur,
noise, and loss as by JPEG.  Masks follow the geometry by nearest neighbor; what comes in from outside the
picture is unlabeled.  All random numbers come from one CPU generator, so that a batch
is a function of its seed on every device.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from napari_histogan.slides.stain import H_AND_E
from napari_histogan.training.jpeg import jpeg_like


@dataclass(frozen=True, slots=True)
class AugmentStrength:
    """How strong each change is; 0 turns it off.

    Attributes
    ----------
    flip, turn, rotate
        Share of images that are mirrored, turned by a multiple of 90 degrees, and turned
        by any angle.
    scale
        Largest factor of size beyond 1, both ways (0.2: 0.83 to 1.2).
    shift
        Largest shift as a share of the side.
    stain
        Largest relative change of the amount of each stain.
    stain_offset
        Largest amount of each stain added or removed, in optical density (base 10).
    blur
        Share of images that are blurred.
    blur_px
        Largest standard deviation of the blur, pixels.
    noise
        Largest standard deviation of noise, on the scale 0..255.
    jpeg
        Share of images that lose detail as by JPEG.
    jpeg_quality
        Lowest quality of that, 1..100; the highest is 95.
    """

    flip: float = 0.5
    turn: float = 1.0
    rotate: float = 0.4
    scale: float = 0.2
    shift: float = 0.1
    stain: float = 0.2
    stain_offset: float = 0.03
    blur: float = 0.25
    blur_px: float = 1.0
    noise: float = 6.0
    jpeg: float = 0.25
    jpeg_quality: float = 40.0


def augment(
    pixels: Tensor, masks: Tensor, generator: torch.Generator, strength: AugmentStrength | None = None
) -> tuple[Tensor, Tensor]:
    """Change a batch at random.

    Parameters
    ----------
    pixels
        ``(N, 3, S, S)`` float, 0..255.
    masks
        ``(N, S, S)`` integers, 0 = unlabeled.
    generator
        On the CPU.
    strength
        The defaults if not given.

    Returns
    -------
    tuple of Tensor
        Pixels ``(N, 3, S, S)`` float32, 0..255, and masks ``(N, S, S)`` int64.
    """
    strength = strength or AugmentStrength()
    affine = _random_affine(len(pixels), strength, generator).to(pixels.device)
    pixels, masks = warp(pixels.float(), masks, affine)
    pixels = _jitter_stains(pixels, strength, generator)
    pixels = _blur(pixels, strength, generator)
    pixels = _add_noise(pixels, strength, generator).clamp(0, 255)
    return _compress(pixels, strength, generator), masks


def warp(pixels: Tensor, masks: Tensor, affine: Tensor) -> tuple[Tensor, Tensor]:
    """Apply one affine map to each image and its mask.

    Parameters
    ----------
    pixels, masks
        As in :func:`augment`; pixels are interpolated, and mirrored at the border.
    affine
        ``(N, 2, 3)``, from output to input coordinates, both -1..1 (x first).
    """
    grid = F.affine_grid(affine, list(pixels.shape), align_corners=False)
    warped = F.grid_sample(pixels, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
    values = masks[:, None].float()
    turned = F.grid_sample(values, grid, mode="nearest", padding_mode="zeros", align_corners=False)
    return warped, turned[:, 0].round().long()


def _random_affine(n: int, strength: AugmentStrength, generator: torch.Generator) -> Tensor:
    """Draw maps ``(N, 2, 3)`` of mirror, turn, scale, and shift."""
    u = torch.rand(n, 7, generator=generator)
    mirror = torch.where(u[:, 0] < strength.flip, -1.0, 1.0)
    quarter = torch.where(u[:, 1] < strength.turn, (u[:, 2] * 4).floor(), torch.zeros(n))
    free = torch.where(u[:, 3] < strength.rotate, u[:, 4] - 0.5, torch.zeros(n))
    angle = (quarter + free) * (math.pi / 2)
    draw = torch.rand(n, 3, generator=generator) * 2 - 1
    scale = (draw[:, 0] * math.log1p(strength.scale)).exp()
    cos, sin = angle.cos() / scale, angle.sin() / scale
    shift = draw[:, 1:] * (2 * strength.shift)
    rows = (mirror * cos, -mirror * sin, shift[:, 0], sin, cos, shift[:, 1])
    return torch.stack(rows, dim=1).view(n, 2, 3)


def _jitter_stains(pixels: Tensor, strength: AugmentStrength, generator: torch.Generator) -> Tensor:
    """Scale and shift each image's amounts of hematoxylin, eosin, and the residual.

    Amounts are densities times the inverse stain matrix, so the whole change is one
    3 x 3 matrix and one offset for each image.
    """
    if not strength.stain and not strength.stain_offset:
        return pixels
    n = len(pixels)
    stains = torch.from_numpy(H_AND_E)
    draw = torch.rand(n, 2, 3, generator=generator) * 2 - 1
    factor = torch.diag_embed(1 + draw[:, 0] * strength.stain)
    matrix = torch.from_numpy(np.linalg.inv(H_AND_E)) @ factor @ stains
    offset = draw[:, 1] * strength.stain_offset @ stains
    matrix, offset = matrix.to(pixels.device), offset.to(pixels.device)
    density = -torch.log10(pixels.clamp(min=1) / 255)
    changed = torch.einsum("ncij,ncd->ndij", density, matrix) + offset[:, :, None, None]
    return 255 * torch.pow(10.0, -changed)


def _blur(pixels: Tensor, strength: AugmentStrength, generator: torch.Generator) -> Tensor:
    """Blur some images by a Gaussian of 7 taps in each direction."""
    u = torch.rand(len(pixels), 2, generator=generator)
    chosen = torch.nonzero(u[:, 0] < strength.blur).flatten()
    if not len(chosen) or not strength.blur_px:
        return pixels
    sigma = (u[chosen, 1] * strength.blur_px).clamp(min=0.1)[:, None]
    taps = torch.exp(-0.5 * (torch.arange(-3, 4)[None] / sigma) ** 2)
    taps = (taps / taps.sum(dim=1, keepdim=True)).to(pixels.device).repeat_interleave(3, dim=0)
    chosen = chosen.to(pixels.device)
    images = pixels[chosen]
    height, width = images.shape[2:]
    flat = F.pad(images, (3, 3, 3, 3), mode="reflect").view(1, -1, height + 6, width + 6)
    flat = F.conv2d(flat, taps[:, None, :, None], groups=len(taps))
    flat = F.conv2d(flat, taps[:, None, None, :], groups=len(taps))
    return pixels.index_copy(0, chosen, flat.view_as(images))


def _add_noise(pixels: Tensor, strength: AugmentStrength, generator: torch.Generator) -> Tensor:
    """Add Gaussian noise of another strength to each image."""
    if not strength.noise:
        return pixels
    sigma = torch.rand(len(pixels), 1, 1, 1, generator=generator) * strength.noise
    noise = torch.randn(pixels.shape, generator=generator) * sigma
    return pixels + noise.to(pixels.device)


def _compress(pixels: Tensor, strength: AugmentStrength, generator: torch.Generator) -> Tensor:
    """Let some images lose detail as by JPEG, each by another quality."""
    if not strength.jpeg:
        return pixels
    u = torch.rand(len(pixels), 2, generator=generator)
    chosen = torch.nonzero(u[:, 0] < strength.jpeg).flatten()
    if not len(chosen):
        return pixels
    quality = strength.jpeg_quality + u[chosen, 1] * (95 - strength.jpeg_quality)
    chosen = chosen.to(pixels.device)
    return pixels.index_copy(0, chosen, jpeg_like(pixels[chosen], quality.to(pixels.device)))
