"""What is said of slides that are not stored as RGB."""

import numpy as np
import pytest
import tifffile
from PIL import Image

from napari_histogan.slides.stored_colors import conversion

PIXELS = np.zeros((40, 40, 4), np.uint8)


@pytest.mark.parametrize(
    ("mode", "name", "said"),
    [
        ("RGB", "a.png", ""),
        ("RGB", "a.jpg", ""),
        ("L", "a.png", "gray;"),
        ("1", "a.png", "gray;"),
        ("LA", "a.png", "gray with transparency"),
        ("RGBA", "a.png", "RGB with transparency"),
        ("P", "a.png", "palette"),
        ("CMYK", "a.jpg", "printing colors"),
    ],
)
def test_pictures(tmp_path, mode, name, said):
    Image.new(mode, (40, 40)).save(tmp_path / name)
    found = conversion(tmp_path / name)
    assert said in found
    assert bool(said) == bool(found)


@pytest.mark.parametrize(
    ("shape", "said"), [((40, 40, 3), ""), ((40, 40), "gray;"), ((40, 40, 4), "RGB with transparency")]
)
def test_tiff(tmp_path, shape, said):
    kind = "minisblack" if len(shape) == 2 else "rgb"
    tifffile.imwrite(tmp_path / "a.tif", np.zeros(shape, np.uint8), photometric=kind)
    assert said in conversion(tmp_path / "a.tif")
    assert bool(said) == bool(conversion(tmp_path / "a.tif"))


def test_vendors_slides_are_rgb(demo_slide):
    assert conversion(demo_slide) == ""
