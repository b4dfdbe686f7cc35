"""Plain pictures of every kind become RGB."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from napari_histogan.errors import SlideUnreadable
from napari_histogan.slides.picture import read_picture


@pytest.fixture
def rgb(pixels):
    return Image.fromarray(pixels[:120, :160])


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".webp"])
def test_lossless_formats(tmp_path, rgb, suffix):
    path = tmp_path / f"a{suffix}"
    rgb.save(path, lossless=True) if suffix == ".webp" else rgb.save(path)
    np.testing.assert_array_equal(read_picture(path), np.array(rgb))


@pytest.mark.parametrize("mode", ["P", "CMYK", "YCbCr"])
def test_other_colors(tmp_path, rgb, mode):
    suffix = ".png" if mode == "P" else ".jpg"
    path = tmp_path / f"a{suffix}"
    rgb.convert(mode).save(path, **({"quality": 95} if suffix == ".jpg" else {}))
    found = read_picture(path)
    assert found.shape == (120, 160, 3)
    expected = np.array(rgb.convert(mode).convert("RGB"))
    assert np.abs(found.astype(int) - expected).mean() < (2 if suffix == ".jpg" else 0.01)


@pytest.mark.parametrize("mode", ["1", "L", "LA"])
def test_gray(tmp_path, rgb, mode):
    rgb.convert(mode).save(tmp_path / "a.png")
    found = read_picture(tmp_path / "a.png")
    assert (found[..., 0] == found[..., 2]).all()
    assert np.abs(found[..., 0].mean() - np.array(rgb.convert("L")).mean()) < 3


def test_transparent_colors_of_a_palette_are_white(tmp_path):
    picture = Image.new("P", (4, 4), 0)
    picture.putpalette([10, 20, 30])
    picture.save(tmp_path / "a.png", transparency=0)
    assert (read_picture(tmp_path / "a.png") == 255).all()


def test_16_bit_gray(tmp_path):
    Image.fromarray(np.full((4, 5), 0x8123, np.uint16)).save(tmp_path / "a.png")
    assert (read_picture(tmp_path / "a.png") == 0x81).all()


def test_a_picture_too_large_for_memory_is_refused_with_advice(tmp_path, rgb, monkeypatch):
    rgb.save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 5_000)
    with pytest.raises(SlideUnreadable, match=r"at most 10,000 pixels.*OME-Zarr"):
        read_picture(tmp_path / "a.png")


def test_a_picture_that_the_memory_cannot_hold_is_refused(tmp_path):
    Image.new("L", (12_000, 12_000)).save(tmp_path / "a.png", compress_level=1)
    code = (
        "import resource, sys; from pathlib import Path\n"
        "from napari_histogan.slides.picture import read_picture\n"
        "used = int(Path('/proc/self/statm').read_text().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (used + 2**27, resource.RLIM_INFINITY))\n"
        "read_picture(Path(sys.argv[1]))"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "a.png")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "SlideUnreadable: a.png cannot be decoded" in done.stderr


def test_a_missing_picture(tmp_path):
    with pytest.raises(SlideUnreadable, match=r"gone\.png"):
        read_picture(tmp_path / "gone.png")
