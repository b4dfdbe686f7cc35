"""Draw samples from a generator, kept as styles and noise seeds so that they can be rebuilt exactly.

On disk a set of samples is a folder with one zarr group, ``samples.zarr``:

==============  ================================  =====================================================
array           shape, type                       meaning
==============  ================================  =====================================================
``w``           ``(n, num_ws, w_dim) float32``    styles after truncation
``noise_seed``  ``(n,) int64``                    see :func:`~napari_histogan.models.noise.noise_maps`
``image``       ``(n, R, R, 3) uint8``            64 images to a chunk
==============  ================================  =====================================================

with the attributes ``truncation``, ``generator_hash``, ``mpp``, ``seed``, and ``done`` (images written).

Sets that hold real patches (:mod:`~napari_histogan.inference.real_patches`) have more arrays; sets without
them read as sets that hold none:

==============  ================================  =====================================================
``real``        ``(n,) bool``                     whether a sample stands for a real patch
``noise``       ``(n, P) float32``                fitted noise of the real ones, a row as in
                                                  :func:`~napari_histogan.models.noise.noise_rows`, 0 for
                                                  the others; absent if no noise was fitted, and then
                                                  ``noise_seed`` holds for all
``original``    ``(n, R, R, 3) uint8``            the patch that a real one stands for, 0 for the others
``psnr``        ``(n,) float32``                  how well it was reproduced, dB; NaN for the others
``ssim``        ``(n,) float32``                  structural similarity to it, -1 to 1; NaN likewise
==============  ================================  =====================================================
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch
import zarr
from numpy.typing import NDArray
from torch import Tensor

from napari_histogan.config import SampleImagesConfig
from napari_histogan.errors import ModelError, Stopped, StorageError
from napari_histogan.models.device import resolve
from napari_histogan.models.noise import maps_of_rows, noise_maps, noise_rows
from napari_histogan.models.picture_bytes import as_bytes
from napari_histogan.models.stylegan2 import Generator, GeneratorSpec
from napari_histogan.progress import Reporter
from napari_histogan.slides.stored_arrays import StoredGroup

SAMPLES = "samples.zarr"
IMAGES_PER_CHUNK = 64
_ONE_ROW = ("noise", "original")
"""Arrays of which most rows are empty where few samples are real; empty chunks are not stored."""
_PHASE = "Drawing samples"

__all__ = [
    "Samples",
    "draw_latents",
    "load_samples",
    "noise_maps",
    "open_or_create",
    "rebuild",
    "sample",
    "styles",
    "to_uint8",
]


class Samples(NamedTuple):
    """Samples on disk.

    Attributes
    ----------
    w
        (n, num_ws, w_dim) float32.
    noise_seed
        (n,) int64.
    image
        (n, R, R, 3) uint8, on disk: read what is needed.
    attributes
        ``truncation``, ``generator_hash``, ``mpp``, ``seed``.
    real
        (n,) bool: whether a sample stands for a real patch.
    noise
        (n, P) float32 on disk with the fitted noise of the real ones, or None if none was fitted.
    """

    w: NDArray[np.float32]
    noise_seed: NDArray[np.int64]
    image: Any
    attributes: dict[str, Any]
    real: NDArray[np.bool_]
    noise: Any = None

    def noise_rows(self, spec: GeneratorSpec, indices: Sequence[int]) -> NDArray[np.float32]:
        """Return the noise of samples, (N, P) float32: fitted where there is one, else that of the seed."""
        rows = noise_rows(spec, [int(self.noise_seed[i]) for i in indices])
        if self.noise is not None:
            for row, index in zip(rows, indices, strict=True):
                if self.real[index]:
                    row[:] = self.noise[index]
        return rows

    def noise_maps(
        self, spec: GeneratorSpec, indices: Sequence[int], device: torch.device | None = None
    ) -> list[Tensor]:
        """Return the noise of samples as the generator adds it, see :func:`~.models.noise.noise_maps`."""
        return maps_of_rows(spec, self.noise_rows(spec, indices), device)


def draw_latents(
    seed: int, indices: Sequence[int], z_dim: int, domain: int = 0
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return the latents and noise seeds of samples, as a pure function of seed and index.

    Parameters
    ----------
    seed
        Of the whole set.
    indices
        Numbers of the samples in the set; which others are drawn with them does not matter.
    z_dim
        Length of a latent.
    domain
        Keeps sets of different purpose apart that have the same seed.

    Returns
    -------
    tuple[NDArray[np.float32], NDArray[np.int64]]
        (n, z_dim) unit normal, and (n,) 0 to 2^63 - 1.
    """
    z = np.empty((len(indices), z_dim), np.float32)
    noise_seed = np.empty(len(indices), np.int64)
    for row, index in enumerate(indices):
        bits = np.random.Philox(np.random.SeedSequence((seed, domain, int(index))))
        rng = np.random.Generator(bits)
        rng.standard_normal(dtype=np.float32, out=z[row])
        noise_seed[row] = rng.integers(0, 2**63 - 1)
    return z, noise_seed


@torch.inference_mode()
def styles(generator: Generator, z: NDArray[np.float32], truncation: float, device: torch.device) -> Tensor:
    """Map latents (n, z_dim) to styles (n, num_ws, w_dim) float32 on a device."""
    w: Tensor = generator.mapping(torch.from_numpy(z).to(device), truncation_psi=truncation)
    return w


def to_uint8(images: Tensor) -> NDArray[np.uint8]:
    """Turn pictures (n, 3, R, R), nominally -1 to 1, into (n, R, R, 3) uint8: round((x + 1) 127.5)."""
    return as_bytes(images).permute(0, 2, 3, 1).contiguous().cpu().numpy()


@torch.inference_mode()
def rebuild(
    generator: Generator,
    w: NDArray[np.float32],
    noise_seed: Sequence[int] | NDArray[np.int64],
    dtype: torch.dtype = torch.float32,
) -> NDArray[np.uint8]:
    """Make the images of stored samples again.

    Parameters
    ----------
    generator
        In evaluation mode.
    w
        (n, num_ws, w_dim).
    noise_seed
        (n,).
    dtype
        Stored samples are made in float32.

    Returns
    -------
    NDArray[np.uint8]
        (n, R, R, 3).
    """
    device = next(generator.parameters()).device
    noise = noise_maps(generator.spec, [int(s) for s in noise_seed], device)
    return to_uint8(generator.synthesis(torch.from_numpy(w).to(device), noise=noise, dtype=dtype))


def sample(
    generator: Generator,
    config: SampleImagesConfig,
    reporter: Reporter,
    *,
    generator_hash: str = "",
    mpp: float = 1.0,
    batch: int = 16,
) -> Path:
    """Draw samples into ``run_dir/samples/samples.zarr``; a stopped run goes on after the last chunk.

    Parameters
    ----------
    generator
        What draws.
    config
        Of the stage.
    reporter
        Told about the progress.
    generator_hash
        Kept with the samples.
    mpp
        Microns per pixel of the images.
    batch
        Images per pass.

    Returns
    -------
    Path
        The folder that holds ``samples.zarr``.

    Raises
    ------
    ModelError
        If the generator does not make RGB images, or makes NaN.
    Stopped
        If a stop was asked for.
    StorageError
        If the disk refuses.
    """
    check_generator(generator)
    compute = resolve(config)
    generator = generator.to(compute.device).eval()
    spec, n = generator.spec, config.count
    folder = reporter.run_dir / "samples"
    attributes = {
        "truncation": config.truncation,
        "generator_hash": generator_hash,
        "mpp": mpp,
        "seed": config.seed,
    }
    size = spec.img_resolution
    arrays = {
        "w": ((n, spec.num_ws, spec.w_dim), np.float32),
        "noise_seed": ((n,), np.int64),
        "image": ((n, size, size, 3), np.uint8),
    }
    try:
        group = open_or_create(folder / SAMPLES, attributes, arrays)
        for first in range(rows_done(group), n, IMAGES_PER_CHUNK):
            last = min(first + IMAGES_PER_CHUNK, n)
            reporter.progress(first, n, "images", _PHASE)
            z, noise_seed = draw_latents(config.seed, range(first, last), spec.z_dim)
            w = styles(generator, z, config.truncation, compute.device).cpu().numpy()
            cuts = [slice(a, a + batch) for a in range(0, last - first, batch)]
            image = np.concatenate([rebuild(generator, w[c], noise_seed[c]) for c in cuts])
            values = {"w": w, "noise_seed": noise_seed, "image": image}
            for name, value in values.items():
                cast(Any, group)[name][first:last] = value
            group.attrs["done"] = last
            if last < n and reporter.should_stop():
                raise Stopped(f"stopped after {last} of {n} samples")
    except OSError as error:
        raise StorageError(
            f"the samples in {folder} could not be written ({error})",
            "a writable folder with free space",
            "free some space and resume",
        ) from error
    reporter.progress(n, n, "images", _PHASE)
    return folder


def check_generator(generator: Generator) -> None:
    """Refuse generators that make no RGB images or whose weights are damaged.

    Raises
    ------
    ModelError
        Saying which.
    """
    if generator.spec.img_channels != 3:
        raise ModelError(f"the generator makes images of {generator.spec.img_channels} colors", "3 (RGB)")
    for name, value in generator.state_dict().items():
        if not bool(torch.isfinite(value).all()):
            raise ModelError(
                f"{name} of the generator holds NaN or infinity",
                "numbers",
                "train it again, or choose an earlier generator",
            )


def open_or_create(
    path: Path, attributes: dict[str, Any], arrays: dict[str, tuple[tuple[int, ...], Any]]
) -> zarr.Group:
    """Open samples that were begun with the same attributes and shapes, or begin.

    Parameters
    ----------
    path
        Of the zarr group.
    attributes
        All but ``done``.
    arrays
        Shape and type by name; a chunk holds 64 rows, of ``noise`` and ``original`` one.
    """
    if (path / "zarr.json").exists():  # without it, a process was killed before it had begun
        group = zarr.open_group(str(path), mode="r+")
        known = {k: v for k, v in dict(group.attrs).items() if k != "done"}
        if known == attributes and all(
            k in group and cast(Any, group)[k].shape == s for k, (s, _) in arrays.items()
        ):
            return group
    group = zarr.open_group(str(path), mode="w", zarr_format=3)
    for name, (shape, dtype) in arrays.items():
        rows = 1 if name in _ONE_ROW else IMAGES_PER_CHUNK
        chunks = (min(rows, shape[0]), *shape[1:])
        group.create_array(name, shape=shape, chunks=chunks, dtype=dtype)
    group.attrs.update({**attributes, "done": 0})
    return group


def rows_done(group: zarr.Group) -> int:
    """Return how many samples are written; attributes are written one by one, and this one last."""
    return int(cast(int, group.attrs.get("done", 0)))


def load_samples(folder: Path) -> Samples:
    """Open a folder of samples.

    Raises
    ------
    StorageError
        If there are none, or they are incomplete.
    """
    group = StoredGroup(folder / SAMPLES, ("w", "noise_seed", "image"))
    w, noise_seed, image = group["w"][:], group["noise_seed"][:], group["image"]
    attributes = group.attrs
    marks, noise = group.whole("real"), group.get("noise")
    real = np.zeros(len(w), np.bool_) if marks is None else marks.astype(np.bool_)
    rows = {len(w), len(noise_seed), len(image), len(real), len(w) if noise is None else len(noise)}
    if w.ndim != 3 or len(image.shape) != 4 or len(rows) > 1:
        raise StorageError(
            f"the samples in {folder} have w {w.shape} and images {image.shape}",
            "w (n, layers, width) and images (n, side, side, 3)",
            "draw samples again, or restore the folder",
        )
    if attributes.get("done", len(w)) != len(w):
        raise StorageError(
            f"{folder} holds {attributes['done']} of {len(w)} samples", "all of them", "resume the run"
        )
    return Samples(w, noise_seed, image, attributes, real, noise)
