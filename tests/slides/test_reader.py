"""The contract of slide readers, held against each backend."""

from __future__ import annotations

import pickle
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image

from napari_histogan.errors import SlideError, SlideHasNoMpp, SlideNotFound, SlideUnreadable
from napari_histogan.geometry import Region, Size
from napari_histogan.slides.openslide import OpenSlideReader
from napari_histogan.slides.picture import PictureReader
from napari_histogan.slides.reader import SLIDE_SUFFIXES, SlideReader, open_slide, pyramid_levels
from napari_histogan.slides.tiff import TiffReader
from napari_histogan.slides.zarr_pyramid import ZarrReader

MPP = 0.499


class SlideReaderTests:
    """What every backend promises.  Subclasses say which file, backend, and number of levels."""

    name: str
    backend: type[SlideReader]
    level_count: int
    given_mpp: float | None = None

    @pytest.fixture
    def path(self, made):
        return made[self.name]

    @pytest.fixture
    def expected(self, pixels):
        """Level 0 as it must come out."""
        return pixels

    @pytest.fixture
    def slide(self, path):
        with open_slide(path, self.given_mpp) as slide:
            yield slide

    def test_the_backend_is_the_expected_one(self, slide):
        assert type(slide) is self.backend

    def test_size_and_levels(self, slide, expected):
        assert slide.size == Size(*expected.shape[:2])
        assert len(slide.levels) == self.level_count
        assert slide.levels[0].downsample == 1
        downsamples = [level.downsample for level in slide.levels]
        assert downsamples == sorted(downsamples)
        for info in slide.levels:
            assert info.size.width == pytest.approx(slide.size.width / info.downsample, abs=1)

    def test_mpp(self, slide):
        assert slide.has_mpp
        assert slide.mpp == pytest.approx(MPP, rel=1e-4)

    def test_the_users_mpp_wins(self, path):
        with open_slide(path, 0.25) as slide:
            assert slide.mpp == 0.25

    @pytest.mark.parametrize("box", [(0, 0, 64, 64), (100, 230, 300, 301), (637, 1036, 64, 64), (5, 7, 1, 1)])
    def test_a_region_inside_has_the_pixels_of_the_file(self, slide, expected, box):
        region = Region(*box)
        found = slide.read(region, 0)
        assert found.dtype == np.uint8
        assert found.flags.writeable
        np.testing.assert_array_equal(found, expected[region.slices])

    def test_what_lies_outside_is_white(self, slide, expected):
        found = slide.read(Region(-10, -20, 60, 70), 0)
        assert (found[:10] == 255).all()
        assert (found[:, :20] == 255).all()
        np.testing.assert_array_equal(found[10:, 20:], expected[:50, :50])
        far = slide.read(Region(slide.size.height - 5, slide.size.width + 100, 20, 20), 0)
        assert (far == 255).all()

    def test_an_empty_region_is_empty(self, slide):
        assert slide.read(Region(3, 3, 0, 5)).shape == (0, 5, 3)
        assert slide.read_at(Region(3, 3, 5, 0), 3.1 * slide.mpp).shape == (5, 0, 3)

    def test_a_level_that_is_not_there_is_refused(self, slide):
        with pytest.raises(ValueError, match="levels 0 to"):
            slide.read(Region(0, 0, 5, 5), self.level_count)

    def test_coarser_levels_show_the_same_place(self, slide, expected):
        for k, info in enumerate(slide.levels):
            region = Region(0, 0, 120, 120).scaled(1 / info.downsample)
            found = slide.read(region, k).mean((0, 1))
            side = round(region.height * info.downsample)
            np.testing.assert_allclose(found, expected[:side, :side].mean((0, 1)), atol=4)

    def test_read_at_averages_areas(self, slide, expected):
        found = slide.read_at(Region(10, 20, 64, 80), 2 * slide.mpp)
        whole = expected[20:148, 40:200].reshape(64, 2, 80, 2, 3).mean((1, 3))
        assert np.abs(found - whole).max() <= 1.01

    def test_read_at_takes_any_scale(self, slide, expected):
        found = slide.read_at(Region(16, 32, 40, 50), 3.3 * slide.mpp)
        assert found.shape == (40, 50, 3)
        there = expected[53:185, 106:271].mean((0, 1))
        np.testing.assert_allclose(found.mean((0, 1)), there, atol=3)

    def test_read_at_nearly_the_same_mpp_keeps_pixels(self, slide, expected):
        found = slide.read_at(Region(0, 0, 64, 64), slide.mpp * 1.002)
        np.testing.assert_array_equal(found, expected[:64, :64])

    def test_neighboring_regions_fit_together(self, slide):
        mpp = slide.mpp * 2.7
        whole = slide.read_at(Region(0, 0, 80, 90), mpp).astype(int)
        parts = [slide.read_at(Region(0, x, 80, 45), mpp) for x in (0, 45)]
        assert np.abs(np.concatenate(parts, axis=1) - whole).max() <= 1

    def test_a_little_enlarging_is_allowed_and_more_is_refused(self, slide):
        assert slide.read_at(Region(5, 5, 30, 30), slide.mpp / 1.4).shape == (30, 30, 3)
        with pytest.raises(SlideError, match="coarser"):
            slide.read_at(Region(5, 5, 30, 30), slide.mpp / 2)

    def test_thumbnail(self, slide):
        picture = slide.thumbnail(100)
        assert max(picture.shape[:2]) == 100
        assert picture.shape[0] / picture.shape[1] == pytest.approx(
            slide.size.height / slide.size.width, rel=0.03
        )

    def test_pyramid_is_lazy_arrays_down_to_a_thousand_pixels(self, slide, expected):
        levels = slide.pyramid()
        assert levels[0].shape == expected.shape
        assert max(levels[-1].shape) <= 1024
        for fine, coarse in pairwise(levels):
            assert coarse.shape[0] == -(-fine.shape[0] // 2)
        box = np.s_[500:600:3, -200:-100, :2]
        np.testing.assert_array_equal(levels[0][box], expected[box])

    def test_the_fingerprint_stays(self, slide, path):
        with open_slide(path, self.given_mpp) as again:
            assert again.fingerprint() == slide.fingerprint()

    def test_a_pickled_reader_opens_the_file_anew(self, slide):
        with pickle.loads(pickle.dumps(slide)) as copy:
            assert copy.mpp == slide.mpp
            region = Region(10, 10, 50, 50)
            np.testing.assert_array_equal(copy.read(region), slide.read(region))

    def test_threads_read_the_same(self, slide, expected):
        regions = [Region(17 * k % 600, 31 * k % 1000, 90, 90) for k in range(48)]
        with ThreadPoolExecutor(4) as pool:
            for region, found in zip(regions, pool.map(slide.read, regions), strict=True):
                inside = region.clipped(slide.size)
                np.testing.assert_array_equal(found[: inside.height, : inside.width], expected[inside.slices])

    def test_repr_names_the_file(self, slide, path):
        assert path.name in repr(slide)


@pytest.fixture(scope="module")
def demo_by_openslide(demo_path):
    with OpenSlideReader(demo_path) as slide:
        return slide.read(Region(0, 0, *slide.size.shape))


@pytest.fixture(scope="module")
def demo_by_tiles(demo_path):
    with TiffReader(demo_path) as slide:
        return slide.read(Region(0, 0, *slide.size.shape))


class TestSvs(SlideReaderTests):
    backend, level_count = TiffReader, 1

    @pytest.fixture
    def path(self, demo_path):
        return demo_path

    @pytest.fixture
    def expected(self, demo_by_openslide):
        return demo_by_openslide


class TestOpenSlide(SlideReaderTests):
    backend, level_count = OpenSlideReader, 1

    @pytest.fixture
    def path(self, demo_path):
        return demo_path

    @pytest.fixture
    def slide(self, demo_path):
        with OpenSlideReader(demo_path) as slide:
            yield slide

    @pytest.fixture
    def expected(self, demo_by_tiles):
        return demo_by_tiles


class TestOmeTiff(SlideReaderTests):
    name, backend, level_count = "ome", TiffReader, 3


class TestTiffOfPages(SlideReaderTests):
    name, backend, level_count = "pages", TiffReader, 3


class TestTiffOfStrips(SlideReaderTests):
    name, backend, level_count = "strips", TiffReader, 1


class TestTiffOfPlanes(SlideReaderTests):
    name, backend, level_count = "planes", TiffReader, 1


class TestOmeZarr(SlideReaderTests):
    name, backend, level_count = "zarr", ZarrReader, 3


class TestPicture(SlideReaderTests):
    name, backend, level_count, given_mpp = "png", PictureReader, 1, MPP

    def test_mpp_must_be_given(self, path):
        with open_slide(path) as slide:
            assert not slide.has_mpp
            with pytest.raises(SlideHasNoMpp, match="open it with mpp="):
                slide.read_at(Region(0, 0, 5, 5), 1.0)
            assert slide.read(Region(0, 0, 5, 5)).shape == (5, 5, 3)


class TestOpening:
    def test_a_missing_file(self, tmp_path):
        with pytest.raises(SlideNotFound, match=r"gone\.svs"):
            open_slide(tmp_path / "gone.svs")

    @pytest.mark.parametrize("suffix", [s for s in SLIDE_SUFFIXES if s != ".zarr"] + [""])
    @pytest.mark.parametrize("content", [b"", b"this is no picture at all\n" * 40])
    def test_a_file_that_is_no_slide(self, tmp_path, suffix, content):
        path = tmp_path / f"notes{suffix}"
        path.write_bytes(content)
        with pytest.raises(SlideUnreadable, match="notes"):
            open_slide(path)

    def test_a_folder_that_is_no_slide(self, tmp_path):
        (tmp_path / "photo.txt").write_text("nothing")
        with pytest.raises(SlideUnreadable, match="OME-Zarr"):
            open_slide(tmp_path)

    @pytest.mark.parametrize("share", [0.01, 0.5, 0.95])
    def test_a_slide_that_was_cut_off(self, demo_path, tmp_path, share):
        data = demo_path.read_bytes()
        path = tmp_path / "half.svs"
        path.write_bytes(data[: int(len(data) * share)])
        with pytest.raises(SlideUnreadable, match="copy"):
            open_slide(path)

    def test_a_picture_that_was_cut_off(self, made, tmp_path):
        path = tmp_path / "half.png"
        path.write_bytes(made["png"].read_bytes()[:100_000])
        with pytest.raises(SlideUnreadable, match="export the picture again"):
            open_slide(path)

    @pytest.mark.parametrize("mpp", [0.0, -1.0, 5000.0])
    def test_a_senseless_resolution_is_refused(self, demo_path, mpp):
        with pytest.raises(SlideError, match="um/px"):
            open_slide(demo_path, mpp)

    def test_the_fingerprint_tells_files_apart(self, demo_path, tmp_path):
        data = bytearray(demo_path.read_bytes())
        data[len(data) - 100] ^= 1
        path = tmp_path / "other.svs"
        path.write_bytes(data)
        with open_slide(path) as other, open_slide(demo_path) as slide:
            assert other.fingerprint() != slide.fingerprint()


def test_a_large_reduction_is_read_in_pieces_without_seams(demo_path, monkeypatch):
    with open_slide(demo_path) as slide:
        whole = slide.read_downsampled(Region(0, 0, 90, 70), 31.7)
        monkeypatch.setattr("napari_histogan.slides.reader._PIECE_BYTES", 500_000)
        pieces = slide.read_downsampled(Region(0, 0, 90, 70), 31.7)
    assert np.abs(whole.astype(int) - pieces).max() <= 1


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ([(701, 1100), (351, 550), (175, 275)], [1, 2, 4]),
        ([(32914, 46000), (8228, 11500), (2057, 2875)], [1, 4, 16]),
        ([(1001, 999), (500, 499)], [1, 2]),
        ([(3000, 3000), (1000, 1000)], [1, 3]),
    ],
)
def test_downsamples_are_powers_of_two_where_sizes_allow(sizes, expected):
    levels = pyramid_levels([Size(*size) for size in sizes])
    assert [level.downsample for level in levels] == expected


def test_size_at_rounds(made):
    with open_slide(made["png"], 0.5) as slide:
        assert slide.size_at(1.0) == Size(350, 550)


def test_a_picture_with_alpha_lies_on_white(tmp_path):
    rgba = np.zeros((20, 30, 4), np.uint8)
    rgba[:, 15:] = (200, 100, 50, 255)
    Image.fromarray(rgba).save(tmp_path / "alpha.png")
    with open_slide(tmp_path / "alpha.png", 1.0) as slide:
        found = slide.read(Region(0, 0, 20, 30))
    assert (found[:, :15] == 255).all()
    assert (found[:, 15:] == (200, 100, 50)).all()


def test_a_fingerprint_notices_changes_at_both_ends(tmp_path):
    path = tmp_path / "slide.png"
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(path)
    seen = set()
    with open_slide(path, mpp=1.0) as slide:
        for data in (b"a" * 3_000_000, b"b" + b"a" * 2_999_999, b"a" * 2_999_999 + b"b", b"a" * 2_999_999):
            path.write_bytes(data)
            seen.add(slide.fingerprint())
    assert len(seen) == 4
