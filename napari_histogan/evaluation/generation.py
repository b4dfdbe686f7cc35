"""How near a generator's samples are to real patches: sliced Wasserstein distance, FID, and KID."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from napari_histogan.errors import ModelError
from napari_histogan.metrics import frechet_distance, kernel_distance, sliced_wasserstein
from napari_histogan.models.inception import Inception
from napari_histogan.models.noise import noise_maps
from napari_histogan.models.picture_bytes import as_bytes
from napari_histogan.models.stylegan2 import Generator
from napari_histogan.slides.patches import PatchSource

Pictures = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class GenerationScores:
    """Distances between real patches and samples; smaller is better.

    Attributes
    ----------
    samples
        Pictures on each side; compare only scores of as many, since FID falls as they grow.
    sliced_wasserstein
        In gray levels, see :func:`~napari_histogan.metrics.sliced_wasserstein`.
    fid, kid, kid_error
        Distances in features of Inception, and the standard error of KID over subsets (NaN for a single
        one); None where no Inception network was at hand.
    """

    samples: int
    sliced_wasserstein: float
    fid: float | None = None
    kid: float | None = None
    kid_error: float | None = None

    def figures(self) -> dict[str, float]:
        """Return what was measured, by name."""
        return {name: value for name, value in asdict(self).items() if value is not None}


def compare_pictures(
    real: Pictures, samples: Pictures, inception: Inception | None = None
) -> GenerationScores:
    """Compare two sets of pictures.

    Parameters
    ----------
    real, samples
        ``(N, S, S, 3) uint8``, N of 2 or more.
    inception
        See :func:`~napari_histogan.models.inception.load_inception`; None leaves FID and KID out.
    """
    distance = sliced_wasserstein(real, samples)
    if inception is None:
        return GenerationScores(len(real), distance)
    features = [inception.features(pictures) for pictures in (real, samples)]
    fid = frechet_distance(*features)
    kid, error = kernel_distance(*features, subset_size=max(min(1000, len(real) // 2), 2))
    return GenerationScores(len(real), distance, fid, kid, error)


def evaluate_generator(
    generator: Generator,
    patches: PatchSource,
    count: int,
    *,
    inception: Inception | None = None,
    truncation: float = 1.0,
    batch: int = 16,
    seed: int = 0,
) -> GenerationScores:
    """Draw samples and compare them with the next patches of a source.

    Parameters
    ----------
    generator
        In evaluation mode.
    patches
        Real patches of the generator's size and resolution; its position moves on by ``count``.
    count
        Pictures on each side, 2 or more; papers take 10,000 to 50,000.
    inception
        None leaves FID and KID out.
    truncation
        1 is all that the generator knows, and what papers measure.
    batch
        Samples made at once.
    seed
        Seed of latents and noise.

    Raises
    ------
    ModelError
        If the patches are of another size than the samples.
    """
    size = generator.spec.img_resolution
    if patches.patch_px != size:
        raise ModelError(
            f"the patches have {patches.patch_px} px, the samples {size}", f"patches of {size} px"
        )
    samples = np.concatenate(list(_samples(generator, count, truncation, batch, seed)))
    return compare_pictures(patches.next_batch(count), samples, inception)


@torch.inference_mode()
def _samples(
    generator: Generator, count: int, truncation: float, batch: int, seed: int
) -> Iterator[Pictures]:
    device = next(generator.parameters()).device
    chance = torch.Generator().manual_seed(seed)
    for first in range(0, count, batch):
        n = min(batch, count - first)
        z = torch.randn(n, generator.spec.z_dim, generator=chance).to(device)
        noise = noise_maps(generator.spec, range(first, first + n), device)
        images = generator.synthesis(generator.mapping(z, truncation_psi=truncation), noise=noise)
        yield as_bytes(images).permute(0, 2, 3, 1).cpu().numpy()
