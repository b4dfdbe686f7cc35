"""TIFFs: what they say about resolution, odd kinds of pixels, and damage."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile

from napari_histogan.errors import SlideUnreadable
from napari_histogan.geometry import Region
from napari_histogan.slides.openslide import OpenSlideReader
from napari_histogan.slides.reader import open_slide
from napari_histogan.slides.tiff import TiffNotSupported, TiffReader

WHOLE = Region(0, 0, 64, 96)


@pytest.fixture
def small():
    return np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)


def write(tmp_path, data, **options) -> Path:
    path = tmp_path / "slide.tif"
    tifffile.imwrite(path, data, **options)
    return path


class TestResolution:
    @pytest.mark.parametrize(
        ("per_unit", "unit", "mpp"),
        [(20_000, "CENTIMETER", 0.5), (101_600, "INCH", 0.25), (72, "INCH", None), (300, "INCH", None)],
    )
    def test_of_tags(self, tmp_path, small, per_unit, unit, mpp):
        path = write(tmp_path, small, resolution=(per_unit, per_unit), resolutionunit=unit)
        with open_slide(path) as slide:
            assert slide.has_mpp == (mpp is not None)
            if mpp:
                assert slide.mpp == pytest.approx(mpp)

    def test_of_no_tags(self, tmp_path, small):
        with open_slide(write(tmp_path, small)) as slide:
            assert not slide.has_mpp

    def test_of_svs(self, demo_path):
        with open_slide(demo_path) as slide:
            assert slide.mpp == 0.499


class TestPixels:
    def test_gray(self, tmp_path, small):
        with open_slide(write(tmp_path, small[..., 0])) as slide:
            found = slide.read(WHOLE)
        assert (found == small[..., :1]).all()

    def test_white_is_zero(self, tmp_path, small):
        path = write(tmp_path, small[..., 0], photometric="miniswhite", tile=(32, 32))
        with open_slide(path) as slide:
            assert (slide.read(WHOLE) == 255 - small[..., :1]).all()

    def test_16_bits_are_scaled_by_their_full_range(self, tmp_path, small):
        path = write(tmp_path, small.astype(np.uint16) * 257, photometric="rgb")
        with open_slide(path) as slide:
            np.testing.assert_array_equal(slide.read(WHOLE), small)

    def test_alpha_lies_on_white(self, tmp_path, small):
        alpha = np.full((64, 96, 1), 255, np.uint8)
        alpha[:32] = 0
        rgba = np.concatenate([small, alpha], axis=-1)
        path = write(tmp_path, rgba, photometric="rgb", extrasamples=["unassalpha"], tile=(32, 32))
        with open_slide(path) as slide:
            found = slide.read(WHOLE)
        assert (found[:32] == 255).all()
        np.testing.assert_array_equal(found[32:], small[32:])

    def test_separate_planes(self, tmp_path, small):
        path = write(
            tmp_path, np.moveaxis(small, -1, 0), photometric="rgb", planarconfig="separate", tile=(32, 32)
        )
        with open_slide(path) as slide:
            np.testing.assert_array_equal(slide.read(Region(3, 5, 50, 60)), small[3:53, 5:65])

    @pytest.mark.parametrize("compression", [None, "lzw", "zlib", "packbits", "zstd"])
    def test_lossless_compressions(self, tmp_path, small, compression):
        path = write(tmp_path, small, photometric="rgb", tile=(32, 48), compression=compression)
        with TiffReader(path) as slide:
            np.testing.assert_array_equal(slide.read(WHOLE), small)

    @pytest.mark.parametrize("color", ["rgb", "ycbcr"])
    def test_jpeg_has_the_right_colors(self, tmp_path, pixels, color):
        data = pixels[:256, :512]
        options = {"tile": (128, 128), "compression": "jpeg", "compressionargs": {"level": 95}}
        path = write(tmp_path, data, photometric=color, **options)
        with TiffReader(path) as slide:
            found = slide.read(Region(0, 0, 256, 512))
        with OpenSlideReader(path) as slide:
            reference = slide.read(Region(0, 0, 256, 512))
        assert np.abs(found.astype(int) - reference).max() <= 2

    def test_tiles_that_the_scanner_left_out_are_white(self, tmp_path, small):
        path = write(tmp_path, small, photometric="rgb", tile=(32, 32), compression="zlib")
        with tifffile.TiffFile(path, mode="r+b") as tiff:
            counts = list(tiff.pages[0].databytecounts)
            counts[0] = 0
            tiff.pages[0].tags["TileByteCounts"].overwrite(counts)
        with open_slide(path) as slide:
            found = slide.read(WHOLE)
        assert (found[:32, :32] == 255).all()
        np.testing.assert_array_equal(found[32:], small[32:])


class TestRefusals:
    def test_a_stack(self, tmp_path):
        path = write(tmp_path, np.zeros((7, 64, 96), np.uint8), photometric="minisblack")
        with pytest.raises(SlideUnreadable, match="one picture"):
            open_slide(path)

    def test_floats_that_are_no_colors(self, tmp_path):
        path = write(tmp_path, np.full((64, 96), 1000, np.float32))
        with open_slide(path) as slide, pytest.raises(SlideUnreadable, match="not colors"):
            slide.read(WHOLE)

    def test_a_damaged_tile_says_where(self, demo_path, tmp_path):
        data = bytearray(demo_path.read_bytes())
        with tifffile.TiffFile(demo_path) as tiff:
            page = tiff.pages[0]
            data[page.dataoffsets[0] : page.dataoffsets[0] + page.databytecounts[0]] = bytes(
                page.databytecounts[0]
            )
        path = tmp_path / "damaged.svs"
        path.write_bytes(data)
        with open_slide(path) as slide:
            with pytest.raises(SlideUnreadable, match="y=10, x=10, level 0"):
                slide.read(Region(10, 10, 20, 20))
            assert slide.read(Region(1000, 1000, 20, 20)).shape == (20, 20, 3)

    def test_compressions_of_other_programs_go_to_openslide(self, tmp_path, small):
        path = write(tmp_path, small, photometric="rgb", tile=(32, 32), compression="jpeg2000")
        with pytest.raises(TiffNotSupported):
            TiffReader(path)
        with pytest.raises(SlideUnreadable, match="opened as a slide"):
            OpenSlideReader(tmp_path)


class TestNdpi:
    @pytest.fixture
    def path(self):
        path = Path(__file__).parents[2] / ".." / "shared" / "data" / "wsi" / "test3-TRITC-2-560.ndpi"
        if not path.exists():
            pytest.skip("needs the shared NDPI slide")
        return path

    def test_it_is_read_by_openslide(self, path):
        with open_slide(path) as slide:
            assert isinstance(slide, OpenSlideReader)
            assert len(slide.levels) == 7
            assert slide.mpp == pytest.approx(0.228175, abs=1e-5)
            fine = slide.read_at(Region(300, 200, 100, 100), 0.9127).mean((0, 1))
            coarse = slide.read(Region(300, 200, 100, 100), 2).mean((0, 1))
        np.testing.assert_allclose(fine, coarse, atol=1)
