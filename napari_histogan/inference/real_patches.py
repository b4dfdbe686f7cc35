"""A set of samples that stand for real patches: searched, judged, and stored so that they can be painted.

The store is that of :mod:`~napari_histogan.inference.sampling` with the arrays for real patches.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch
import zarr
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter

from napari_histogan.config import InvertPatchesConfig
from napari_histogan.errors import Stopped, StorageError
from napari_histogan.inference.inversion import Inversion, InversionPlan, invert, psnr
from napari_histogan.inference.sampling import (
    SAMPLES,
    check_generator,
    draw_latents,
    open_or_create,
    rebuild,
    rows_done,
    styles,
    to_uint8,
)
from napari_histogan.models.device import Compute, resolve
from napari_histogan.models.noise import row_length
from napari_histogan.models.stylegan2 import Discriminator, Generator
from napari_histogan.progress import Reporter

SHEET = "before_after.png"
_DRAWN_DOMAIN = 8
_DRAW_BATCH = 16
_SHEET_ROWS, _SHEET_PAIRS = 8, 4

ReadPatch = Callable[[int], NDArray[np.uint8]]
"""Gives the k-th real patch, (R, R, 3) uint8."""


class _Setting(NamedTuple):
    """What is the same for the whole set."""

    generator: Generator
    discriminator: Discriminator | None
    config: InvertPatchesConfig
    reporter: Reporter
    compute: Compute


def invert_patches(
    generator: Generator,
    read: ReadPatch,
    count: int,
    config: InvertPatchesConfig,
    reporter: Reporter,
    *,
    discriminator: Discriminator | None = None,
    generator_hash: str = "",
    mpp: float = 1.0,
) -> Path:
    """Find patches in a generator and draw samples beside them, into ``run_dir/samples``.

    A stopped run goes on after the last group of patches that was finished, and ends as if it had never been
    stopped.

    Parameters
    ----------
    generator
        To search in.
    read
        Gives the patches; asked again when a run goes on.
    count
        How many patches there are.
    config
        Of the stage; says nothing here about where patches come from.
    reporter
        Told about the progress, and of patches that are reproduced poorly.
    discriminator
        The generator's opponent, for a comparison beyond pixels.
    generator_hash
        Kept with the samples.
    mpp
        Microns per pixel of the patches and images.

    Returns
    -------
    Path
        The folder with ``samples.zarr`` and the contact sheet ``before_after.png``: patches and what the
        generator makes of them, side by side.

    Raises
    ------
    ModelError
        If patches and networks do not fit together.
    Stopped
        If a stop was asked for; finished groups are kept.
    StorageError
        If the disk refuses.
    """
    check_generator(generator)
    compute = resolve(config)
    generator = generator.to(compute.device).eval()
    if discriminator is not None:
        discriminator = discriminator.to(compute.device).eval()
    setting = _Setting(generator, discriminator, config, reporter, compute)
    folder = reporter.run_dir / "samples"
    attributes = {
        "truncation": config.truncation,
        "generator_hash": generator_hash,
        "mpp": mpp,
        "seed": config.seed,
        "real": count,
        "search": config.model_dump(mode="json", exclude={"device", "precision", "threads", "poor_psnr"}),
    }
    try:
        group = open_or_create(folder / SAMPLES, attributes, _arrays(generator, count, config))
        for first in range(rows_done(group), count, config.batch):
            _find(setting, group, read, first, count)
        for first in range(rows_done(group), count + config.drawn, _DRAW_BATCH):
            _draw(setting, group, first, count)
        _sheet(group, count).save(folder / SHEET)
    except OSError as error:
        raise StorageError(
            f"the samples in {folder} could not be written ({error})",
            "a writable folder with free space",
            "free some space and resume",
        ) from error
    _judge(cast(Any, group)["psnr"][:count], config.poor_psnr, reporter)
    return folder


def quality(folder: Path) -> dict[str, int | float]:
    """Return figures of a finished set for display: how many are real, and how near they are."""
    group = cast(Any, zarr.open_group(str(folder / SAMPLES), mode="r"))
    real, limit = group["real"][:], group.attrs["search"]
    near, alike = group["psnr"][:][real], group["ssim"][:][real]
    return {
        "count": len(real),
        "real": int(real.sum()),
        "truncation": limit["truncation"],
        "psnr_median": round(float(np.median(near)), 2),
        "psnr_worst": round(float(near.min()), 2),
        "ssim_median": round(float(np.median(alike)), 3),
    }


def structural_similarity(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return the structural similarity of pictures.

    Mean over pixels of Wang et al. 2004, equation 13, on gray values, with a Gaussian window of 1.5 pixels
    and the paper's constants 0.01 and 0.03.

    Parameters
    ----------
    first, second
        (n, H, W, 3) uint8.

    Returns
    -------
    NDArray[np.float64]
        (n,), -1 to 1; 1 where they are equal.
    """
    x, y = (np.asarray(p, np.float64).mean(axis=3) for p in (first, second))

    def blur(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(gaussian_filter(values, (0, 1.5, 1.5), truncate=3.5), np.float64)

    mean_x, mean_y = blur(x), blur(y)
    var_x, var_y = blur(x * x) - mean_x**2, blur(y * y) - mean_y**2
    both = blur(x * y) - mean_x * mean_y
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    light = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    return np.asarray((light * (2 * both + c2) / (var_x + var_y + c2)).mean(axis=(1, 2)))


def _arrays(
    generator: Generator, count: int, config: InvertPatchesConfig
) -> dict[str, tuple[tuple[int, ...], Any]]:
    """Return shape and type of the store's arrays."""
    spec, n = generator.spec, count + config.drawn
    picture = (n, spec.img_resolution, spec.img_resolution, 3)
    arrays: dict[str, tuple[tuple[int, ...], Any]] = {
        "w": ((n, spec.num_ws, spec.w_dim), np.float32),
        "noise_seed": ((n,), np.int64),
        "image": (picture, np.uint8),
        "real": ((n,), np.bool_),
        "original": (picture, np.uint8),
        "psnr": ((n,), np.float32),
        "ssim": ((n,), np.float32),
    }
    if config.fit_noise:
        arrays["noise"] = ((n, row_length(spec)), np.float32)
    return arrays


def _find(setting: _Setting, group: zarr.Group, read: ReadPatch, first: int, count: int) -> None:
    """Search one group of patches and store what was found."""
    config, last = setting.config, min(first + setting.config.batch, count)
    patches = np.stack([read(k) for k in range(first, last)])
    plan = InversionPlan(
        steps=config.steps,
        learning_rate=config.learning_rate,
        candidates=config.candidates,
        feature_weight=config.feature_weight,
        fit_noise=config.fit_noise,
        noise_weight=config.noise_weight,
        noise_seed=config.seed,
        seed=config.seed,
    )
    found = invert(
        setting.generator,
        patches,
        plan,
        discriminator=setting.discriminator,
        reporter=setting.reporter,
        part_of=(first, count),
    )
    image = _painted_singly(setting, found)
    values: dict[str, Any] = {
        "w": found.w,
        "noise_seed": plan.noise_seed,
        "image": image,
        "real": True,
        "original": patches,
        "psnr": psnr(image, patches),
        "ssim": structural_similarity(image, patches),
    }
    if config.fit_noise:
        values["noise"] = np.concatenate([m.reshape(len(m), -1) for m in found.noise], axis=1)
    _store(group, values, first, last)
    for k in range(last - first):
        setting.reporter.metric(first + k + 1, **{n: float(values[n][k]) for n in ("psnr", "ssim")})
    if setting.reporter.should_stop() and last < cast(Any, group)["w"].shape[0]:
        raise Stopped(f"stopped after {last} of {count} patches")


@torch.inference_mode()
def _painted_singly(setting: _Setting, found: Inversion) -> NDArray[np.uint8]:
    """Paint what was found one by one, as it is painted later; in groups, rounding may differ by a level."""
    device, pictures = setting.compute.device, []
    for k in range(len(found.w)):
        noise = [torch.from_numpy(m[k : k + 1]).to(device) for m in found.noise]
        w = torch.from_numpy(found.w[k : k + 1]).to(device)
        pictures.append(to_uint8(setting.generator.synthesis(w, noise=noise)))
    return np.concatenate(pictures)


def _draw(setting: _Setting, group: zarr.Group, first: int, count: int) -> None:
    """Draw some of the samples that lie beside the real ones."""
    config, spec = setting.config, setting.generator.spec
    last = min(first + _DRAW_BATCH, count + config.drawn)
    setting.reporter.progress(first - count, config.drawn, "images", "Drawing samples")
    z, seeds = draw_latents(config.seed, range(first - count, last - count), spec.z_dim, _DRAWN_DOMAIN)
    w = styles(setting.generator, z, config.truncation, setting.compute.device).cpu().numpy()
    image = rebuild(setting.generator, w, seeds)
    values = {"w": w, "noise_seed": seeds, "image": image, "psnr": np.nan, "ssim": np.nan}
    _store(group, values, first, last)
    if last < count + config.drawn and setting.reporter.should_stop():
        raise Stopped(f"stopped after {last - count} of {config.drawn} drawn samples")


def _store(group: zarr.Group, values: dict[str, Any], first: int, last: int) -> None:
    for name, value in values.items():
        cast(Any, group)[name][first:last] = value
    group.attrs["done"] = last


def _sheet(group: zarr.Group, count: int) -> Image.Image:
    """Lay out the first patches and what was found for them: pairs, four to a row."""
    shown = min(count, _SHEET_ROWS * _SHEET_PAIRS)
    before, after = (cast(Any, group)[name][:shown] for name in ("original", "image"))
    pairs = np.concatenate([before, after], axis=2)
    side, width = pairs.shape[1:3]
    columns = min(_SHEET_PAIRS, shown)
    gap = max(2, side // 16)
    rows = -(-shown // columns)
    sheet = Image.new("RGB", (columns * (width + gap) + gap, rows * (side + gap) + gap), "white")
    for number, pair in enumerate(pairs):
        at = divmod(number, columns)
        sheet.paste(Image.fromarray(pair), (gap + at[1] * (width + gap), gap + at[0] * (side + gap)))
    return sheet


def _judge(found: NDArray[np.float32], poor: float, reporter: Reporter) -> None:
    """Warn of patches that the generator cannot paint."""
    bad = np.flatnonzero(found < poor)
    if len(bad):
        listed = ", ".join(f"#{k} ({found[k]:.1f} dB)" for k in bad[:8]) + (" ..." if len(bad) > 8 else "")
        reporter.warn(
            f"{len(bad)} of {len(found)} patches were reproduced poorly, below {poor:g} dB: {listed}. Their "
            "features may not describe what the patch shows; search longer, or leave them unpainted"
        )
