"""Layers as pictures and masks: which layers can be learned from, what they show, and at what resolution."""

from __future__ import annotations

from typing import Any

import numpy as np
from napari.layers import Image, Labels
from numpy.typing import NDArray

from napari_histogan.errors import LabelError
from napari_histogan.project.painted_pictures import MAX_PX
from napari_histogan.slides.pixels import to_rgb
from napari_histogan.widgets.kept_layers import rests

_MICRONS = {"um": 1.0, "micrometer": 1.0, "mm": 1e3, "millimeter": 1e3, "nm": 1e-3, "nanometer": 1e-3}


def is_picture(layer: Any) -> bool:
    """Whether a layer is one flat picture: gray or color, a plane and not a stack, and no map of ours."""
    flat = isinstance(layer, Image) and layer.ndim == 2 and not rests(layer)
    return flat and not layer.colormap.name.startswith("heat ")


def is_paint(layer: Any) -> bool:
    """Whether a layer holds flat labels."""
    return isinstance(layer, Labels) and layer.ndim == 2 and not rests(layer)


def size_of(layer: Any) -> tuple[int, int]:
    """Return height and width of a picture's finest level in px."""
    height, width = (layer.data[0] if layer.multiscale else layer.data).shape[:2]
    return int(height), int(width)


def pixels_of(layer: Any) -> NDArray[np.uint8]:
    """Return what a picture's layer shows, ``(H, W, 3) uint8``.

    Colors are taken as they are, and so are gray values of 8 bits; other gray values as the layer's contrast
    limits show them.

    Raises
    ------
    LabelError
        If the picture is larger than :data:`.MAX_PX`.
    SlideUnreadable
        If the pixels are no gray and no colors.
    """
    height, width = size_of(layer)
    if height * width > MAX_PX:
        raise LabelError(
            f"{layer.name} has {height:,} x {width:,} pixels",
            f"at most {MAX_PX:,}",
            "crop it around what is painted, or open a coarser level",
        )
    pixels = np.asarray(layer.data[0] if layer.multiscale else layer.data)
    if not layer.rgb and pixels.dtype != np.uint8:
        low, high = layer.contrast_limits
        shown = (pixels.astype(np.float32) - low) / max(high - low, 1e-12)
        pixels = np.rint(255 * np.clip(np.nan_to_num(shown), 0, 1)).astype(np.uint8)
    return np.ascontiguousarray(to_rgb(pixels, layer.name))


def paint_over(labels: Any, picture: Any) -> NDArray[np.uint8]:
    """Return the labels at the pixels of a picture ``(H, W) uint8``, wherever the two layers lie.

    Raises
    ------
    LabelError
        If one of the layers is turned or sheared against the other, or a label is above 255.
    """
    for layer in (labels, picture):
        turned = not np.allclose(layer.rotate, np.eye(2)) or not np.allclose(layer.shear, 0)
        if turned or not np.allclose(layer.affine.linear_matrix, np.eye(2)):
            raise LabelError(
                f"the layer {layer.name} is turned", "layers that are not", "reset its transform"
            )
    values = np.asarray(labels.data)
    if values.size and (values.max() > 255 or values.min() < 0):
        raise LabelError(
            f"the labels reach from {values.min()} to {values.max()}", "classes 1 to 255, 0 for unlabeled"
        )
    places, inside = [], []
    for axis, count in enumerate(size_of(picture)):
        world = picture.translate[axis] + picture.scale[axis] * np.arange(count)
        world = world + picture.affine.translate[axis] - labels.affine.translate[axis]
        place = np.rint((world - labels.translate[axis]) / labels.scale[axis]).astype(np.int64)
        inside.append((place >= 0) & (place < values.shape[axis]))
        places.append(np.clip(place, 0, values.shape[axis] - 1))
    found = values[np.ix_(*places)] * (inside[0][:, None] & inside[1])
    return found.astype(np.uint8)


def resolution_of(layer: Any) -> float | None:
    """Return the um/px that a layer states by its units; None if they are no lengths."""
    factors = [_MICRONS.get(f"{unit:~}".replace("µ", "u")) for unit in layer.units]
    factor = factors[-1] or _MICRONS.get(str(layer.units[-1]))
    return float(layer.scale[-1] * factor) if factor else None
