"""OME-NGFF metadata: where the levels of a pyramid are, and how large their pixels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.errors import BaseZarrError

from napari_histogan.errors import SlideUnreadable

_UM_PER_UNIT = {"nanometer": 1e-3, "micrometer": 1.0, "millimeter": 1e3, "centimeter": 1e4, "meter": 1e6}


def open_multiscale(path: Path) -> tuple[Any, dict[str, Any]]:
    """Return the zarr group of a picture and its first entry of ``multiscales``.

    Raises
    ------
    SlideUnreadable
        The folder is no OME-Zarr (NGFF 0.4 or 0.5), or arrays are missing.
    """
    try:
        group: Any = zarr.open_group(path, mode="r")
        if "multiscales" not in group.attrs and "ome" not in group.attrs and "0" in group:
            group = group["0"]
        attributes = group.attrs.get("ome") or group.attrs
        multiscale = dict(attributes["multiscales"][0])
        if not multiscale["datasets"] or not {"y", "x"} <= {axis["name"] for axis in multiscale["axes"]}:
            raise KeyError("axes y and x")
        for dataset in multiscale["datasets"]:
            _ = group[dataset["path"]].shape
    except (BaseZarrError, KeyError, IndexError, TypeError, ValueError, AttributeError, OSError) as error:
        raise SlideUnreadable(
            f"{path.name} is no OME-Zarr picture ({type(error).__name__}: {error})",
            "a folder with OME-NGFF 0.4 or 0.5 multiscales metadata",
            "convert the slide with bioformats2raw or another OME-Zarr writer",
        ) from error
    return group, multiscale


def scale_um(multiscale: dict[str, Any]) -> float | None:
    """Return the mean of the x and y scale of level 0 in um/px."""
    found = []
    for k, axis in enumerate(multiscale["axes"]):
        factor = _UM_PER_UNIT.get(axis.get("unit", ""))
        if axis["name"] not in ("y", "x") or factor is None:
            continue
        value = factor
        for step in [
            *multiscale["datasets"][0].get("coordinateTransformations", []),
            *multiscale.get("coordinateTransformations", []),
        ]:
            value *= step["scale"][k] if step["type"] == "scale" else 1
        found.append(value)
    return float(sum(found) / len(found)) if found else None


def multiscale_attributes(
    name: str, channels: Sequence[str], mpp: float, count: int, dtype: np.dtype[Any]
) -> dict[str, Any]:
    """Return the attributes of a map ``(C, Y, X)`` whose levels are called 0, 1, 2 ... (NGFF 0.5).

    Parameters
    ----------
    name
        Name of the map.
    channels
        Names of the channels.
    mpp
        Micrometers per pixel of level 0.
    count
        Number of levels; each halves the one before.
    dtype
        Integers are shown from 0 to 100, others from 0 to 1.
    """
    datasets = [
        {
            "path": str(k),
            "coordinateTransformations": [
                {"type": "scale", "scale": [1.0, mpp * 2**k, mpp * 2**k]},
                # pixel centers of a coarser level lie between those of level 0
                {"type": "translation", "translation": [0.0, mpp * (2**k - 1) / 2, mpp * (2**k - 1) / 2]},
            ],
        }
        for k in range(count)
    ]
    axes = [{"name": "c", "type": "channel"}]
    axes += [{"name": n, "type": "space", "unit": "micrometer"} for n in "yx"]
    top = 100.0 if dtype.kind in "iu" else 1.0
    omero = [
        {
            "label": label,
            "color": "FFFFFF",
            "active": k == 0,
            "window": {"min": 0.0, "max": top, "start": 0.0, "end": top},
        }
        for k, label in enumerate(channels)
    ]
    multiscale = {"name": name, "axes": axes, "datasets": datasets}
    return {"ome": {"version": "0.5", "multiscales": [multiscale], "omero": {"channels": omero}}}
