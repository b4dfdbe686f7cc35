"""Conversion of whatever a file holds to RGB with 8 bits."""

from __future__ import annotations

from typing import Any

import numpy as np

from napari_histogan.errors import SlideUnreadable
from napari_histogan.slides.tile_cache import UInt8Array


def to_rgb(pixels: np.ndarray[Any, Any], name: str) -> UInt8Array:
    """Convert pixels to ``(H, W, 3) uint8``.

    Parameters
    ----------
    pixels
        ``(H, W)`` or ``(H, W, C)`` with 1 (gray), 2 (gray, alpha), 3 (RGB), or 4
        (RGB, alpha) channels.  Booleans become black and white.  Unsigned integers
        with more than 8 bits are scaled by their full range (65,535 to 255), so the
        same value means the same gray on every slide.  Floats must lie in 0 to 1.
        Alpha is laid over white, as glass is.
    name
        Used in messages.

    Raises
    ------
    SlideUnreadable
        The channels or the type are none of these.
    """
    if pixels.ndim == 2:
        pixels = pixels[:, :, None]
    channels = pixels.shape[-1]
    if pixels.ndim != 3 or channels not in (1, 2, 3, 4):
        raise SlideUnreadable(
            f"{name} has pixels of shape {pixels.shape}",
            "1 to 4 channels: gray or RGB, with or without alpha",
            "export the slide as RGB",
        )
    values = _to_8_bit(pixels, name)
    if channels in (2, 4):
        alpha = values[..., -1:].astype(np.uint16)
        color = values[..., :-1].astype(np.uint16)
        values = ((color * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)
    if values.shape[-1] == 1:
        values = np.repeat(values, 3, axis=-1)
    return np.ascontiguousarray(values)


def turned(patch: UInt8Array, symmetry: int) -> UInt8Array:
    """Return a patch in one of the eight orientations of the square, 0 to 7; 0 changes nothing.

    Parameters
    ----------
    patch
        ``(S, S, 3) uint8``.
    symmetry
        Quarter turns, plus 4 for a mirror image.
    """
    # Moving whole pixels instead of single bytes halves the time.
    pixels = np.rot90(np.ascontiguousarray(patch).view("V3"), symmetry % 4)
    pixels = pixels[:, ::-1] if symmetry >= 4 else pixels
    return np.ascontiguousarray(pixels).view(np.uint8)


def _to_8_bit(pixels: np.ndarray[Any, Any], name: str) -> UInt8Array:
    kind = pixels.dtype.kind
    if pixels.dtype == np.uint8:
        return pixels
    if kind == "b":
        return np.where(pixels, np.uint8(255), np.uint8(0))
    if kind == "u":
        return np.asarray(pixels >> (8 * pixels.dtype.itemsize - 8), np.uint8)
    if kind == "f" and pixels.size and np.nanmin(pixels) >= 0 and np.nanmax(pixels) <= 1:
        return np.asarray(np.rint(np.nan_to_num(pixels) * 255), np.uint8)
    raise SlideUnreadable(
        f"{name} holds values of type {pixels.dtype} that are not colors",
        "unsigned integers, or floats between 0 and 1",
        "export the slide with 8 bits per channel",
    )
