"""What one sees of a GAN in training: a grid of samples, and figures that tell how it does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from napari_histogan.metrics import frechet_distance, kernel_distance, sliced_wasserstein
from napari_histogan.models.inception import load_inception
from napari_histogan.models.noise import noise_maps
from napari_histogan.models.picture_bytes import as_bytes
from napari_histogan.models.stylegan2 import Generator
from napari_histogan.progress import Reporter
from napari_histogan.slides.patches import PatchSource

PREVIEW_GRID = (4, 8)
REFERENCE_PATCHES = 256
COLLAPSED = 0.3
"""Below this share of the spread of real patches, samples are all alike."""

Pictures = NDArray[np.uint8]


class GanPreview:
    """Fixed latents and noise shown at every tick, and how far these samples are from real patches.

    Parameters
    ----------
    patches
        Where real patches come from; its position is left as it is.
    average
        The generator to watch.
    batch
        Samples made at once.
    seed
        Seed of latents and noise.
    dtype
        What the convolutions are computed in.
    reporter
        Hears of pictures and warnings; ``previews/`` of its run folder takes the pictures.
    inception
        File with the weights of Inception; None does without FID and KID.

    Raises
    ------
    ModelError
        If the file is not that of Inception.
    """

    def __init__(
        self,
        patches: PatchSource,
        average: Generator,
        *,
        batch: int,
        seed: int,
        dtype: torch.dtype,
        reporter: Reporter,
        inception: Path | None = None,
    ) -> None:
        self._inception = None if inception is None else load_inception(inception)
        self._average, self._batch, self._dtype, self._reporter = average, batch, dtype, reporter
        position = patches.state_dict()
        self._real = patches.next_batch(REFERENCE_PATCHES)
        patches.load_state_dict(position)
        if self._inception is not None:
            self._inception.to(next(average.parameters()).device)
            self._real_features = self._inception.features(self._real)
        chance = torch.Generator().manual_seed(seed)
        self._z = torch.randn(REFERENCE_PATCHES, average.spec.z_dim, generator=chance)
        self._alike = False
        self._folder = reporter.run_dir / "previews"
        self._folder.mkdir(parents=True, exist_ok=True)

    @torch.no_grad()
    def show(self, images: int) -> dict[str, float]:
        """Write the grid of samples and measure them; warn where they are all alike."""
        samples = self._samples()
        rows, columns = PREVIEW_GRID
        path = self._folder / f"samples-{images // 1000:06d}.png"
        _grid(samples[: rows * columns], columns).save(path)
        self._reporter.preview("samples", path)
        spread = float(samples.std(axis=0).mean() / max(self._real.std(axis=0).mean(), 1e-6))
        alike, self._alike = self._alike, spread < COLLAPSED
        if self._alike and not alike:
            self._reporter.warn(
                f"The samples differ only {spread:.0%} as much as real patches: training may have collapsed. "
                "A larger r1_gamma or a smaller learning_rate helps."
            )
        figures = {"sliced_wasserstein": sliced_wasserstein(self._real, samples), "spread": spread}
        if self._inception is not None:
            features = self._inception.features(samples)
            figures["fid"] = frechet_distance(self._real_features, features)
            figures["kid"] = kernel_distance(self._real_features, features)[0]
        return figures

    def _samples(self) -> Pictures:
        """Synthesize every latent with noise of its own, which is how samples are drawn later."""
        device = next(self._average.parameters()).device
        parts = []
        for first in range(0, REFERENCE_PATCHES, self._batch):
            z = self._z[first : first + self._batch].to(device)
            noise = noise_maps(self._average.spec, range(first, first + len(z)), device)
            images = self._average.synthesis(self._average.mapping(z), noise=noise, dtype=self._dtype)
            parts.append(as_bytes(images))
        return torch.cat(parts).permute(0, 2, 3, 1).cpu().numpy()


def _grid(pictures: Pictures, columns: int) -> Image.Image:
    n, size = pictures.shape[:2]
    rows = pictures.reshape(n // columns, columns, size, size, 3).transpose(0, 2, 1, 3, 4)
    return Image.fromarray(np.ascontiguousarray(rows.reshape(n // columns * size, columns * size, 3)))
