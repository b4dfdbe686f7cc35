"""Find the styles and the noise that make the generator paint a given patch.

A real patch becomes something that can be painted and used like a sample (Karras et al. 2020, "Analyzing and
Improving the Image Quality of StyleGAN", appendix D, in the extended space w+ of one style for every layer).
Compared are the pixels at several scales, and the features of the generator's own discriminator where there
is one: it has learned what matters in this tissue, and nothing needs to be downloaded.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd import backward

from napari_histogan.errors import ConfigError, ModelError, Stopped
from napari_histogan.inference.sampling import check_generator, draw_latents, styles, to_uint8
from napari_histogan.models.noise import noise_maps
from napari_histogan.models.stylegan2 import Discriminator, Generator
from napari_histogan.progress import Reporter

PIXEL_SCALES = 4
START_PX = 16
NEIGHBORS = ((0, 1), (1, 0), (1, 1), (1, -1))
PHASE = "Searching the patches in the generator"
_DOMAIN = 7


@dataclass(frozen=True)
class InversionPlan:
    """How to search.

    Attributes
    ----------
    steps
        Steps of Adam.
    learning_rate
        Largest step, in standard deviations of w.
    candidates
        Random samples of which the most similar is the start.
    feature_weight
        Weight of the discriminator's features against the pixels.
    style_weight
        Weight of the distance of w from the mean; a larger one keeps the picture typical.
    fit_noise
        Whether to fit the noise too. If not, it is that of `noise_seed`, and w and the seed are a sample
        like any other.
    noise_after
        Share of the steps after which the noise is fitted too.
    noise_weight
        Weight that keeps fitted noise from drawing the picture.
    noise_seed
        Of the noise at the start.
    seed
        Of the candidates.
    """

    steps: int = 300
    learning_rate: float = 0.1
    candidates: int = 256
    feature_weight: float = 0.1
    style_weight: float = 1e-4
    fit_noise: bool = True
    noise_after: float = 0.5
    noise_weight: float = 1e-3
    noise_seed: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what cannot be searched."""
        if self.steps < 1 or self.candidates < 2 or self.learning_rate <= 0:
            raise ConfigError(
                f"the plan has {self.steps} steps of {self.learning_rate}, {self.candidates} candidates",
                "at least 1 step above 0, and 2 candidates",
            )


class Inversion(NamedTuple):
    """Patches as the generator paints them.

    Attributes
    ----------
    w
        (n, num_ws, w_dim) float32.
    noise
        For every convolution (n, 1, r, r) float32, as `synthesis` takes it.
    image
        (n, R, R, 3) uint8, what these paint.
    psnr
        (n,) peak signal-to-noise ratio against the patches, dB.
    """

    w: NDArray[np.float32]
    noise: list[NDArray[np.float32]]
    image: NDArray[np.uint8]
    psnr: NDArray[np.float64]


def invert(
    generator: Generator,
    patches: NDArray[np.uint8],
    plan: InversionPlan | None = None,
    *,
    discriminator: Discriminator | None = None,
    reporter: Reporter | None = None,
    part_of: tuple[int, int] | None = None,
) -> Inversion:
    """Search styles and noise that paint given patches.

    Parameters
    ----------
    generator
        In evaluation mode.
    patches
        (n, R, R, 3) uint8, at the generator's size and resolution; searched together.
    plan
        How to search.
    discriminator
        The generator's opponent, for a comparison beyond pixels.
    reporter
        Told about the progress.
    part_of
        How many patches were searched before these, and how many there are in all, for the progress.

    Returns
    -------
    Inversion
        The result of the last step.

    Raises
    ------
    ModelError
        If patches and networks do not fit together.
    Stopped
        If a stop was asked for; nothing is kept.
    """
    plan = plan or InversionPlan()
    _check(generator, patches, discriminator)
    device = next(generator.parameters()).device
    target = torch.from_numpy(patches).to(device).permute(0, 3, 1, 2).to(torch.float32) / 127.5 - 1
    start, center, spread = _start(generator, target, plan)
    shift = torch.zeros_like(start, requires_grad=True)
    first_noise = noise_maps(generator.spec, [plan.noise_seed], device)
    noise = [m.repeat(len(target), 1, 1, 1) for m in first_noise]
    optimizer = torch.optim.Adam([{"params": [shift]}, {"params": noise}], betas=(0.9, 0.99))
    compare = _Comparison(target, discriminator, plan.feature_weight)

    for step in range(plan.steps):
        done = step / plan.steps
        optimizer.param_groups[0]["lr"] = plan.learning_rate * _pace(done)
        # Noise would draw the picture if it might; styles come first.
        free = plan.fit_noise and done >= plan.noise_after
        optimizer.param_groups[1]["lr"] = plan.learning_rate * _pace(done) if free else 0.0
        for values in noise:
            values.requires_grad_(free)
        w = start + shift * spread
        loss = compare(generator.synthesis(w, noise=noise))
        loss = loss + plan.style_weight * ((w - center) / spread).square().mean(dim=(1, 2))
        if free:
            loss = loss + plan.noise_weight * _structure(noise)
        optimizer.zero_grad(set_to_none=True)
        backward(loss.sum(), inputs=[shift, *noise] if free else [shift])
        optimizer.step()
        if free:
            _normalize(noise)
        if reporter is not None:
            before, count = part_of or (0, len(target))
            made = before * plan.steps + (step + 1) * len(target)
            reporter.progress(made, count * plan.steps, "steps", PHASE)
            if reporter.should_stop() and step + 1 < plan.steps:
                raise Stopped(f"stopped after {step + 1} of {plan.steps} steps")
    return _result(generator, (start + shift * spread).detach(), noise, patches)


@torch.no_grad()
def _result(
    generator: Generator, w: Tensor, noise: Sequence[Tensor], patches: NDArray[np.uint8]
) -> Inversion:
    image = to_uint8(generator.synthesis(w, noise=noise))
    maps = [m.detach().cpu().numpy() for m in noise]
    return Inversion(w.cpu().numpy(), maps, image, psnr(image, patches))


def psnr(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return the peak signal-to-noise ratios (n,), dB, of pictures (n, ...) uint8; infinite where equal."""
    difference = np.asarray(first, np.float64) - np.asarray(second, np.float64)
    error = np.square(difference).reshape(len(difference), -1).mean(axis=1)
    with np.errstate(divide="ignore"):
        return np.asarray(10 * np.log10(255.0**2 / error))


def _check(generator: Generator, patches: NDArray[np.uint8], discriminator: Discriminator | None) -> None:
    check_generator(generator)
    side, spec = generator.spec.img_resolution, generator.spec
    if spec.c_dim:
        raise ModelError(f"the generator takes {spec.c_dim} labels", "a generator without labels")
    if patches.dtype != np.uint8 or patches.shape[1:] != (side, side, 3) or not len(patches):
        raise ModelError(
            f"the patches have shape {patches.shape} and type {patches.dtype}",
            f"(n, {side}, {side}, 3) uint8, the size that the generator paints",
            "cut them at its size and microns per pixel",
        )
    if discriminator is not None and discriminator.spec.img_resolution != side:
        raise ModelError(
            f"the discriminator judges {discriminator.spec.img_resolution} px, the generator has {side} px",
            "two networks that were trained together",
        )


@torch.no_grad()
def _start(generator: Generator, target: Tensor, plan: InversionPlan) -> tuple[Tensor, Tensor, Tensor]:
    """Return the styles (n, num_ws, w_dim) of the most similar samples, and mean and spread of w (w_dim,)."""
    z, _ = draw_latents(plan.seed, range(plan.candidates), generator.spec.z_dim, _DOMAIN)
    w = styles(generator, z, 1.0, target.device).clone()
    pictures = torch.cat([generator.synthesis(part, "none") for part in torch.split(w, 32)])
    pool = max(target.shape[2] // START_PX, 1)
    wanted, found = F.avg_pool2d(target, pool).flatten(1), F.avg_pool2d(pictures, pool).flatten(1)
    nearest = torch.cdist(wanted, found).argmin(dim=1)
    return w[nearest], w[:, 0].mean(dim=0), w[:, 0].std(dim=0).clamp_min(1e-6)


def _pace(done: float) -> float:
    """Rise during the first twentieth of the steps, fall along a cosine during the last half."""
    return min(done / 0.05 + 0.05, 1.0) * (0.5 - 0.5 * math.cos(math.pi * min((1 - done) / 0.5, 1.0)))


class _Comparison:
    """How far pictures are from their targets: pixels at several scales, and the discriminator's features."""

    def __init__(self, target: Tensor, discriminator: Discriminator | None, feature_weight: float) -> None:
        self._judge, self._weight = discriminator, feature_weight
        self._pixels = _scales(target)
        with torch.no_grad():
            self._features = [] if discriminator is None else _features(discriminator, target)

    def __call__(self, pictures: Tensor) -> Tensor:
        """Return the distance (n,) of pictures (n, 3, R, R)."""
        pairs = zip(_scales(pictures), self._pixels, strict=True)
        loss = torch.stack([(a - b).square().mean(dim=(1, 2, 3)) for a, b in pairs]).mean(dim=0)
        if self._judge is not None:
            pairs = zip(_features(self._judge, pictures), self._features, strict=True)
            far = [(a - b).square().mean(dim=(1, 2, 3)) for a, b in pairs]
            loss = loss + self._weight * torch.stack(far).mean(dim=0)
        return loss


def _scales(pictures: Tensor) -> list[Tensor]:
    """Return pictures (n, C, R, R) at full size and halved up to three times."""
    out = [pictures]
    while len(out) < PIXEL_SCALES and out[-1].shape[2] > 4:
        out.append(F.avg_pool2d(out[-1], 2))
    return out


def _features(discriminator: Discriminator, pictures: Tensor) -> list[Tensor]:
    """Return the output of each of the discriminator's blocks, scaled to unit length in each pixel."""
    x: Tensor | None = None
    rgb: Tensor | None = pictures
    out = []
    for resolution in discriminator.resolutions:
        x, rgb = getattr(discriminator, f"b{resolution}")(x, rgb, torch.float32)
        out.append(x * (x.square().mean(dim=1, keepdim=True) + 1e-8).rsqrt())
    return out


def _structure(noise: Sequence[Tensor]) -> Tensor:
    """Return how much neighbors in the noise agree (n,), at all scales down to 8 px; about 1 for white noise.

    Squared mean product of neighbors (appendix D of the paper), times the number of pixels.
    """
    terms = []
    for values in noise:
        scale = values
        while scale.shape[2] >= 8:
            for shift in NEIGHBORS:
                agreement = (scale * scale.roll(shift, dims=(2, 3))).mean(dim=(1, 2, 3))
                terms.append(agreement.square() * scale.shape[2] ** 2)
            scale = F.avg_pool2d(scale, 2) * 2
    return torch.stack(terms).mean(dim=0) if terms else noise[0].new_zeros(len(noise[0]))


@torch.no_grad()
def _normalize(noise: Sequence[Tensor]) -> None:
    """Bring each map back to mean 0 and variance 1."""
    for values in noise:
        values -= values.mean(dim=(2, 3), keepdim=True)
        values *= (values.square().mean(dim=(2, 3), keepdim=True) + 1e-12).rsqrt()
