"""OME-NGFF metadata: where the levels of a pyramid are, and how large their pixels."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf, prod
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.errors import BaseZarrError

from napari_histogan.errors import DAMAGE, SlideUnreadable

_UM_PER_UNIT = {"nanometer": 1e-3, "micrometer": 1.0, "millimeter": 1e3, "centimeter": 1e4, "meter": 1e6}
_LARGEST_CHUNK_BYTES = 1 << 30
_MOST_CHANNELS = 65_536


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
            _check_array(group[dataset["path"]], len(multiscale["axes"]))
        scale_um(multiscale)
    except (BaseZarrError, *DAMAGE) as error:
        raise SlideUnreadable(
            f"{path.name} is no OME-Zarr picture ({type(error).__name__}: {error})",
            "a folder with OME-NGFF 0.4 or 0.5 multiscales metadata",
            "convert the slide with bioformats2raw or another OME-Zarr writer",
        ) from error
    return group, multiscale


def _check_array(array: Any, axes: int) -> None:
    """Raise ``ValueError`` for an array that is no picture, or one chunk of which is absurdly large."""
    if array.ndim != axes or not all(array.shape) or array.dtype.kind not in "biuf":
        raise ValueError(f"{array.path} has shape {array.shape} and type {array.dtype}")
    if (chunk := prod(array.chunks) * array.dtype.itemsize) > _LARGEST_CHUNK_BYTES:
        raise ValueError(f"a chunk of {array.path} has {chunk:,} bytes")


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
    mean = float(sum(found) / len(found)) if found else None
    return mean if mean and 0 < mean < inf else None


def channel_names(group: Any, count: int) -> tuple[str, ...]:
    """Return what the metadata calls the channels; their numbers if it does not say so of each.

    Raises
    ------
    SlideUnreadable
        If there are absurdly many.
    """
    if count > _MOST_CHANNELS:
        raise SlideUnreadable(
            f"{count:,} channels are claimed", f"at most {_MOST_CHANNELS:,}", "copy it again"
        )
    try:
        described = (group.attrs.get("ome") or group.attrs)["omero"]["channels"]
        labels = tuple(str(channel.get("label", k)) for k, channel in enumerate(described))
    except DAMAGE:
        labels = ()
    return labels if len(labels) == count else tuple(str(k) for k in range(count))


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
