"""A synthetic data set as PNG files with a table, for other programs."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from napari_histogan.errors import StorageError

from .pair_store import open_pairs, read_pairs, storage_errors

TABLE = "pairs.csv"


def export_png(folder: Path, target: Path) -> int:
    """Write the kept pairs as PNG files with a table.

    Parameters
    ----------
    folder
        Of the data set.
    target
        A new or empty folder; gets ``images/000000.png``, ``masks/000000.png`` (values 1 to K),
        and ``pairs.csv``: files, number, noise seed, uncertainty, and the share of each class.

    Returns
    -------
    int
        Pairs written.

    Raises
    ------
    StorageError
        If there is no data set, ``target`` holds something, or the disk refuses.
    """
    group = open_pairs(folder)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise StorageError(
            f"there is something in {target} already", "a new or empty folder", "choose another"
        )
    with storage_errors(target):
        for kind in ("images", "masks"):
            (target / kind).mkdir(parents=True, exist_ok=True)
        return _write(group, target)


def _write(group: Any, target: Path) -> int:
    """Write files and table."""
    kept = group["kept"][:] if "kept" in group else np.ones(group["images"].shape[0], np.bool_)
    chosen = np.flatnonzero(kept)
    columns = {name: group[name][:] for name in ("noise_seed", "uncertainty") if name in group}
    names = [str(row["name"]) for row in cast(Any, group.attrs.get("classes", []))]
    fractions = group["class_fraction"][:] if "class_fraction" in group else np.empty((len(kept), 0))
    with (target / TABLE).open("w", newline="", encoding="utf-8") as handle:
        table = csv.writer(handle)
        table.writerow(["image", "mask", "index", *columns, *names[: fractions.shape[1]]])
        for i, image, mask in read_pairs(group, chosen):
            name = f"{i:06d}.png"
            _write_png(target / "images" / name, cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
            _write_png(target / "masks" / name, mask)
            values = [f"{v[i]:.5f}" if v.dtype.kind == "f" else v[i] for v in columns.values()]
            table.writerow(
                [f"images/{name}", f"masks/{name}", i, *values, *(f"{f:.4f}" for f in fractions[i])]
            )
    return len(chosen)


def _write_png(path: Path, picture: NDArray[np.uint8]) -> None:
    """Write a PNG; OpenCV's own writer says only "no" when the disk refuses."""
    packed, data = cv2.imencode(".png", picture)
    if not packed:
        raise OSError(f"{path.name} could not be packed")
    path.write_bytes(data.tobytes())
