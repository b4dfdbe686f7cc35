"""The data-set factory: images from the generator, masks from its own features (DatasetGAN, section 3.3).

On disk a data set is a folder with one zarr group, ``pairs.zarr``:

==================  =======================  ========================================================
array               shape, type              meaning
==================  =======================  ========================================================
``images``          ``(N, R, R, 3) uint8``   RGB
``masks``           ``(N, R, R) uint8``      1 to K: class of the largest mean probability
``w``               ``(N, num_ws, w_dim)``   styles, float32
``noise_seed``      ``(N,) int64``           see :func:`~napari_histogan.models.noise.noise_maps`
``uncertainty``     ``(N,) float32``         see :func:`~napari_histogan.models.uncertainty.image_uncertainty`
``class_fraction``  ``(N, K) float32``       share of the pixels of each class
``kept``            ``(N,) bool``            False for the share that was dropped
==================  =======================  ========================================================

The class of the largest *mean* probability differs from the published vote (each net's class, then the most
frequent) where nets are torn: the mean weighs how sure each is.
"""

from __future__ import annotations

import csv
import json
import math
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import cv2
import numpy as np
import torch
import zarr
from numpy.typing import NDArray

from napari_histogan.config import SynthesizeDatasetConfig
from napari_histogan.errors import ModelError, Stopped, StorageError
from napari_histogan.labels.classes import ClassTable
from napari_histogan.models.device import resolve
from napari_histogan.models.noise import noise_maps
from napari_histogan.models.pixel_classifier import PixelClassifier, PixelPredictor
from napari_histogan.models.stylegan2 import Generator
from napari_histogan.models.uncertainty import image_uncertainty
from napari_histogan.progress import Reporter

from .sampling import check_generator, draw_latents, styles, to_uint8

PAIRS = "pairs.zarr"
STATE = "progress.json"
SHEET = "contact_sheet.png"
LATENT_DOMAIN = 1
"""Keeps these latents apart from those of browsed samples with the same seed."""

IMAGES_PER_CHUNK = 16
SHARD_BYTES = 2**28
_PHASE = "Making pairs"

Batch = dict[str, NDArray[Any]]


def synthesize_dataset(
    generator: Generator,
    classifier: PixelClassifier,
    config: SynthesizeDatasetConfig,
    reporter: Reporter,
    *,
    generator_hash: str = "",
    mpp: float = 1.0,
    out: Path | None = None,
) -> tuple[Path, dict[str, float | int]]:
    """Make image and mask pairs, and mark the most uncertain share of them as dropped.

    So many more pairs are drawn that ``config.count`` are left.  The same config gives the same data set,
    wherever it was interrupted: pair i is a function of the seed and i.

    Parameters
    ----------
    generator, classifier
        That fit together.
    config
        Of the stage.
    reporter
        Told about the progress; hears stops.
    generator_hash
        Of the generator, compared with the classifier's.
    mpp
        Microns per pixel of the images.
    out
        Folder to write to, or to go on in; ``run_dir/dataset`` if not given.

    Returns
    -------
    tuple[Path, dict[str, float | int]]
        The folder, and figures for display.

    Raises
    ------
    ModelError
        If generator and classifier do not fit.
    Stopped
        If a stop was asked for; shards that are written stay.
    StorageError
        If the disk refuses.
    """
    check_generator(generator)
    classifier.check_generator(generator_hash)
    compute = resolve(config)
    generator, classifier = generator.to(compute.device).eval(), classifier.to(compute.device).eval()
    resolution = generator.spec.img_resolution
    _check_size(classifier, resolution)
    predictor = PixelPredictor(classifier, compute.dtype)
    total = math.ceil(round(config.count / (1 - config.drop_uncertain), 6))
    shard = shard_size(config.shard, total, resolution)
    folder = out or reporter.run_dir / "dataset"
    mark = {
        "config": json.loads(config.model_dump_json(exclude={"device", "threads"})),
        "generator_hash": generator_hash,
        "mpp": mpp,
        "shard": shard,
        "classes": list(classifier.spec.classes),
    }
    started = time.monotonic()
    try:
        group, done = _open_or_create(folder, mark, total, shard, generator, classifier)
        begun_at = done
        while done < total:
            last = min(done + shard, total)
            batches: list[Batch] = []
            for first in range(done, last, config.batch):
                if reporter.should_stop():
                    raise Stopped(f"stopped after {done} of {total} pairs")
                reporter.progress(first, total, "pairs", _PHASE)
                indices = range(first, min(first + config.batch, last))
                batches.append(make_pairs(generator, predictor, config, indices, compute.dtype))
            for name in batches[0]:
                group[name][done:last] = np.concatenate([b[name] for b in batches])
            done = last
            _write_json(folder / STATE, {**mark, "done": done})
            reporter.metric(done, pairs_per_second=(done - begun_at) / (time.monotonic() - started))
        kept = keep_certain(group["uncertainty"][:], config.count)
        group["kept"][:] = kept
        write_contact_sheet(folder)
    except OSError as error:
        if isinstance(error, StorageError):
            raise
        raise StorageError(
            f"the data set in {folder} could not be written ({error})",
            "a writable folder with free space",
            "free some space and resume; the shards that are written stay",
        ) from error
    reporter.progress(total, total, "pairs", _PHASE)
    reporter.preview("contact sheet", folder / SHEET)
    return folder, _summary(group, classifier)


def _check_size(classifier: PixelClassifier, resolution: int) -> None:
    """Refuse a classifier of images of another size."""
    if classifier.spec.layout.size != resolution:
        raise ModelError(
            f"the classifier reads features of {classifier.spec.layout.size} px images, "
            f"the generator makes {resolution} px",
            "the generator that the classifier was trained on",
            "choose them together",
        )


@torch.inference_mode()
def make_pairs(
    generator: Generator,
    predictor: PixelPredictor,
    config: SynthesizeDatasetConfig,
    indices: range,
    dtype: torch.dtype,
) -> Batch:
    """Make the pairs with these numbers; arrays as in the table on top, without ``kept``."""
    device = next(generator.parameters()).device
    z, noise_seed = draw_latents(config.seed, indices, generator.spec.z_dim, LATENT_DOMAIN)
    w = styles(generator, z, config.truncation, device)
    noise = noise_maps(generator.spec, noise_seed.tolist(), device)
    images, maps = generator.synthesis.features(w, noise=noise, dtype=dtype)
    labels, _, uncertainty = predictor(maps, probabilities=False)
    masks = labels.cpu().numpy()
    k = predictor.spec.num_classes
    counts = np.stack([np.bincount(m.ravel(), minlength=k + 1)[1:] for m in masks])
    return {
        "images": to_uint8(images),
        "masks": masks,
        "w": w.cpu().numpy(),
        "noise_seed": noise_seed,
        "uncertainty": image_uncertainty(uncertainty).cpu().numpy(),
        "class_fraction": (counts / masks[0].size).astype(np.float32),
    }


def keep_certain(uncertainty: NDArray[np.float32], count: int) -> NDArray[np.bool_]:
    """Mark the ``count`` least uncertain pairs; of equals the first."""
    kept = np.zeros(len(uncertainty), np.bool_)
    kept[np.argsort(uncertainty, kind="stable")[:count]] = True
    return kept


def shard_size(wanted: int, total: int, size: int) -> int:
    """Return pairs per shard: a multiple of the chunk, and small enough to be held in memory."""
    most = max(SHARD_BYTES // (size * size * 4), 1)
    chunk = min(IMAGES_PER_CHUNK, most, total)
    return max(min(wanted, most, total) // chunk, 1) * chunk


def _open_or_create(
    folder: Path,
    mark: dict[str, Any],
    total: int,
    shard: int,
    generator: Generator,
    classifier: PixelClassifier,
) -> tuple[Any, int]:
    """Open a data set that was begun in the same way, or begin; returns the group and the pairs done."""
    state = folder / STATE
    if state.exists():
        found = json.loads(state.read_text(encoding="utf-8"))
        if {k: v for k, v in found.items() if k != "done"} != mark:
            raise StorageError(
                f"{folder} holds a data set that was begun with another config or model",
                "an empty folder, or one begun in the same way",
                "delete the folder, or choose another",
            )
        return zarr.open_group(str(folder / PAIRS), mode="r+"), int(found["done"])
    folder.mkdir(parents=True, exist_ok=True)
    spec, k = generator.spec, classifier.spec.num_classes
    size = spec.img_resolution
    group = zarr.open_group(str(folder / PAIRS), mode="w", zarr_format=3)
    chunk = math.gcd(shard, IMAGES_PER_CHUNK)
    shapes: dict[str, tuple[tuple[int, ...], Any]] = {
        "images": ((size, size, 3), np.uint8),
        "masks": ((size, size), np.uint8),
    }
    small: dict[str, tuple[tuple[int, ...], Any]] = {
        "w": ((spec.num_ws, spec.w_dim), np.float32),
        "noise_seed": ((), np.int64),
        "uncertainty": ((), np.float32),
        "class_fraction": ((k,), np.float32),
        "kept": ((), np.bool_),
    }
    for name, (shape, dtype) in shapes.items():
        group.create_array(
            name, shape=(total, *shape), chunks=(chunk, *shape), shards=(shard, *shape), dtype=dtype
        )
    for name, (shape, dtype) in small.items():
        group.create_array(name, shape=(total, *shape), chunks=(shard, *shape), dtype=dtype)
    group.attrs.update(
        {"mpp": mark["mpp"], "classes": mark["classes"], "generator_hash": mark["generator_hash"]}
    )
    _write_json(state, {**mark, "done": 0})
    return group, 0


def _summary(group: Any, classifier: PixelClassifier) -> dict[str, float | int]:
    kept = group["kept"][:]
    fractions, uncertainty = group["class_fraction"][:][kept], group["uncertainty"][:]
    names = [str(row["name"]) for row in classifier.spec.classes]
    summary: dict[str, float | int] = {
        "pairs": int(kept.sum()),
        "drawn": len(kept),
        "mean_uncertainty": float(uncertainty[kept].mean()),
    }
    return summary | {f"share_{n}": float(f) for n, f in zip(names, fractions.mean(axis=0), strict=True)}


def _write_json(path: Path, values: dict[str, Any]) -> None:
    """Write beside and rename, so that the file is whole at any time."""
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(values), encoding="utf-8")
    os.replace(temporary, path)


def write_contact_sheet(folder: Path, columns: int = 8, rows: int = 4, side: int = 128) -> Path:
    """Draw kept pairs above dropped ones, with the outlines of the masks in the classes' colors.

    Kept pairs are spread evenly over the data set; dropped ones are the most uncertain.

    Returns
    -------
    Path
        The PNG in the folder.
    """
    group = cast(Any, zarr.open_group(str(folder / PAIRS), mode="r"))
    colors = ClassTable.from_dicts(cast(Any, group.attrs["classes"])).color_lut()
    kept, uncertainty = group["kept"][:], group["uncertainty"][:]
    some = np.flatnonzero(kept)
    spread = some[np.linspace(0, len(some) - 1, min(columns * rows, len(some))).astype(int)]
    dropped = np.flatnonzero(~kept)
    worst = dropped[np.argsort(-uncertainty[dropped], kind="stable")][: columns * rows]
    parts = []
    for title, chosen in (("kept", spread), ("dropped for being uncertain", worst)):
        if len(chosen):
            tiles = [_tile(group["images"][i], group["masks"][i], colors, side) for i in np.sort(chosen)]
            parts.append(_sheet(tiles, columns, title))
    path = folder / SHEET
    sheet = np.concatenate(parts)
    if not cv2.imwrite(str(path), cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR)):
        raise StorageError(f"{path} could not be written", "a writable folder with free space")
    return path


def _tile(
    image: NDArray[np.uint8], mask: NDArray[np.uint8], colors: NDArray[np.uint8], side: int
) -> NDArray[np.uint8]:
    """Scale one pair to a tile with outlines, (side + 4, side + 4, 3) uint8."""
    tile = cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA)
    large = cv2.resize(mask, (side, side), interpolation=cv2.INTER_NEAREST)
    edge = cv2.dilate(large, np.ones((3, 3), np.uint8)) != cv2.erode(large, np.ones((3, 3), np.uint8))
    tile[edge] = colors[large[edge]]
    return np.pad(tile, ((2, 2), (2, 2), (0, 0)), constant_values=255)


def _sheet(tiles: list[NDArray[np.uint8]], columns: int, title: str) -> NDArray[np.uint8]:
    """Lay tiles out in rows under a title."""
    side = tiles[0].shape[0]
    rows = -(-len(tiles) // columns)
    sheet = np.full((28 + rows * side, columns * side, 3), 255, np.uint8)
    cv2.putText(sheet, title, (6, 20), cv2.FONT_HERSHEY_SIMPLEX, 0.6, (0, 0, 0), 1, cv2.LINE_AA)
    for i, tile in enumerate(tiles):
        y, x = 28 + i // columns * side, i % columns * side
        sheet[y : y + side, x : x + side] = tile
    return sheet


def export_png(folder: Path, target: Path) -> int:
    """Write the kept pairs as PNG files with a table, for other programs.

    Parameters
    ----------
    folder
        Of the data set.
    target
        Gets ``images/000000.png``, ``masks/000000.png`` (values 1 to K) and ``pairs.csv``.

    Returns
    -------
    int
        Pairs written.
    """
    group = cast(Any, zarr.open_group(str(folder / PAIRS), mode="r"))
    names = [row["name"] for row in cast(Any, group.attrs["classes"])]
    for kind in ("images", "masks"):
        (target / kind).mkdir(parents=True, exist_ok=True)
    kept, seeds = np.flatnonzero(group["kept"][:]), group["noise_seed"][:]
    uncertainty, fractions = group["uncertainty"][:], group["class_fraction"][:]
    with (target / "pairs.csv").open("w", newline="", encoding="utf-8") as handle:
        table = csv.writer(handle)
        table.writerow(["image", "mask", "index", "noise_seed", "uncertainty", *names])
        for i, image, mask in _read(group, kept):
            name = f"{i:06d}.png"
            cv2.imwrite(str(target / "images" / name), cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
            cv2.imwrite(str(target / "masks" / name), mask)
            shares = [f"{f:.4f}" for f in fractions[i]]
            table.writerow([f"images/{name}", f"masks/{name}", i, seeds[i], f"{uncertainty[i]:.5f}", *shares])
    return len(kept)


def _read(group: Any, rows: NDArray[np.int64]) -> Iterator[tuple[int, NDArray[np.uint8], NDArray[np.uint8]]]:
    """Read pairs shard by shard; yields index, image, mask."""
    shard = group["images"].shards[0]
    for first in range(0, group["images"].shape[0], shard):
        here = rows[(rows >= first) & (rows < first + shard)]
        images, masks = group["images"][first : first + shard], group["masks"][first : first + shard]
        for i in here:
            yield int(i), images[i - first], masks[i - first]
