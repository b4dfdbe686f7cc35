"""How a slide stores its colors, where that is not plain RGB."""

from __future__ import annotations

from pathlib import Path

import tifffile
from PIL import Image

from napari_histogan.slides.reader import PICTURE_SUFFIXES, TIFF_SUFFIXES

_CONVERSIONS = {
    "gray": "gray; its three colors will all be the same",
    "gray with alpha": "gray with transparency, which is laid over white",
    "alpha": "RGB with transparency, which is laid over white",
    "palette": "a palette of colors, or printing colors",
}


def conversion(path: Path) -> str:
    """Say from what a readable slide is converted to RGB; "" for RGB, as all vendors' formats are."""
    suffix = Path(path).suffix.lower()
    if suffix in PICTURE_SUFFIXES:
        with Image.open(path) as picture:
            mode, sees_through = picture.mode, "transparency" in picture.info
        kinds = {"RGB": "", "YCbCr": "", "RGBA": "alpha", "LA": "gray with alpha", "1": "gray", "L": "gray"}
        kind = kinds.get(mode, "gray" if mode[0] in "IF" else "palette")
        return _CONVERSIONS.get("alpha" if sees_through and kind != "gray" else kind, "")
    if suffix in TIFF_SUFFIXES:
        with tifffile.TiffFile(path) as tiff:
            samples = tiff.pages.first.samplesperpixel
        return _CONVERSIONS.get({1: "gray", 2: "gray with alpha", 4: "alpha"}.get(samples, ""), "")
    return ""
