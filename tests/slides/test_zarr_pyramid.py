"""Maps that grow on disk, and OME-Zarr folders of other programs."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import zarr

from napari_histogan.errors import SlideNotFound, SlideUnreadable, StorageError
from napari_histogan.geometry import Region, Size, grid
from napari_histogan.slides.reader import open_slide
from napari_histogan.slides.zarr_pyramid import PyramidWriter, open_pyramid

SIZE = Size(1301, 2050)
STEP = Size(256, 256)


@pytest.fixture(scope="module")
def truth():
    """A smooth map of two channels in percent, (2, 1301, 2050) uint8."""
    y, x = np.mgrid[: SIZE.height, : SIZE.width]
    return np.stack([50 + 50 * np.sin(y / 90), 100 * x / SIZE.width]).astype(np.uint8)


def writer_at(path, **options):
    defaults = {"mpp": 0.5, "chunk": 256}
    return PyramidWriter(path, SIZE, ("gland", "stroma"), **(defaults | options))


def block_of(truth, region):
    return truth[:, region.slices[0], region.slices[1]]


@pytest.fixture(scope="module")
def written(tmp_path_factory, truth):
    path = tmp_path_factory.mktemp("maps") / "map.zarr"
    writer = writer_at(path)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda region: writer.write(region, block_of(truth, region)), grid(SIZE, STEP)))
    writer.close()
    return path


class TestWriter:
    def test_level_0_is_what_was_written(self, written, truth):
        np.testing.assert_array_equal(open_pyramid(written).levels[0][:], truth)

    def test_coarser_levels_are_means(self, written, truth):
        levels = open_pyramid(written).levels
        assert [level.shape for level in levels] == [(2, 1301, 2050), (2, 651, 1025), (2, 326, 513)]
        means = truth[:, :1300].reshape(2, 325, 4, -1)[..., :2048].reshape(2, 325, 4, 512, 4).mean((2, 4))
        assert np.abs(levels[2][:, :325, :512] - means).max() <= 1.5
        assert levels[2][1, 325, 512] == truth[1, -1, -1]

    def test_class_numbers_are_not_mixed(self, tmp_path):
        writer = PyramidWriter(
            tmp_path / "m.zarr", Size(1500, 300), ("class",), mpp=1, chunk=256, categorical=True
        )
        classes = np.random.default_rng(0).choice([1, 9], (256, 256)).astype(np.uint8)
        writer.write(Region(256, 0, 256, 256), classes)
        assert set(np.unique(writer.levels[1][0, 128:256, :128])) == {1, 9}

    def test_a_block_is_on_all_levels_at_once_and_elsewhere_is_zero(self, tmp_path, truth):
        writer = writer_at(tmp_path / "m.zarr")
        growing = open_pyramid(tmp_path / "m.zarr")
        region = Region(256, 512, 256, 256)
        writer.write(region, block_of(truth, region))
        np.testing.assert_array_equal(growing.levels[0][:, 256:512, 512:768], block_of(truth, region))
        for k, level in enumerate(growing.levels):
            there = level[:, 256 >> k : 512 >> k, 512 >> k : 768 >> k]
            assert np.abs(there.mean((1, 2)) - block_of(truth, region).mean((1, 2))).max() < 1
            assert level[:, : 256 >> k].max() == 0
        assert growing.done_blocks() == [region]

    def test_it_continues_a_map(self, tmp_path, truth):
        regions = list(grid(SIZE, STEP))
        first = writer_at(tmp_path / "m.zarr")
        for region in regions[:3]:
            first.write(region, block_of(truth, region))
        second = writer_at(tmp_path / "m.zarr")
        assert [second.done(region) for region in regions[:5]] == [True] * 3 + [False] * 2
        second.write(regions[3], block_of(truth, regions[3]))
        np.testing.assert_array_equal(second.levels[0][:, :256, :1024], truth[:, :256, :1024])

    def test_a_line_that_was_cut_off_is_not_done(self, tmp_path, truth):
        writer = writer_at(tmp_path / "m.zarr")
        regions = list(grid(SIZE, STEP))[:2]
        for region in regions:
            writer.write(region, block_of(truth, region))
        record = tmp_path / "m.zarr" / "blocks.jsonl"
        record.write_bytes(record.read_bytes()[:-4])
        again = writer_at(tmp_path / "m.zarr")
        assert again.done(regions[0])
        assert not again.done(regions[1])
        again.write(regions[1], block_of(truth, regions[1]))
        assert writer_at(tmp_path / "m.zarr").done(regions[1])

    def test_a_map_whose_making_was_interrupted_is_made_anew(self, tmp_path, truth):
        path = tmp_path / "m.zarr"
        begun = zarr.create_group(path, attributes={"made_by": "napari-histogan"})
        begun.create_array("0", shape=(2, 5, 5), dtype=np.uint8)
        writer = writer_at(path)
        region = Region(0, 0, 256, 256)
        writer.write(region, block_of(truth, region))
        np.testing.assert_array_equal(open_pyramid(path).levels[0][:, :256, :256], block_of(truth, region))

    def test_another_map_is_left_alone(self, written):
        for options in ({"mpp": 1.0}, {"dtype": np.float32}):
            with pytest.raises(StorageError, match="another map"):
                writer_at(written, **options)
        with pytest.raises(StorageError, match="another map"):
            PyramidWriter(written, SIZE, ("a", "b"), mpp=0.5)

    def test_a_folder_of_something_else_is_left_alone(self, tmp_path):
        (tmp_path / "thesis.txt").write_text("years of work")
        with pytest.raises(StorageError, match="something else"):
            writer_at(tmp_path)
        assert (tmp_path / "thesis.txt").read_text() == "years of work"

    def test_a_zarr_folder_of_something_else_is_left_alone(self, tmp_path):
        array = zarr.create_group(tmp_path / "a.zarr").create_array("0", shape=(5,), dtype=np.uint8)
        array[:] = 7
        with pytest.raises(StorageError, match="something else"):
            writer_at(tmp_path / "a.zarr")
        assert (zarr.open_array(tmp_path / "a.zarr" / "0")[:] == 7).all()

    @pytest.mark.parametrize(
        ("region", "shape", "dtype", "message"),
        [
            (Region(10, 0, 256, 256), (2, 256, 256), np.uint8, "chunks"),
            (Region(0, 0, 100, 256), (2, 100, 256), np.uint8, "chunks"),
            (Region(0, 2048, 256, 256), (2, 256, 256), np.uint8, "chunks"),
            (Region(0, 0, 256, 256), (3, 256, 256), np.uint8, "shape"),
            (Region(0, 0, 256, 256), (2, 256, 256), np.float32, "float32"),
        ],
    )
    def test_blocks_that_do_not_fit(self, tmp_path, region, shape, dtype, message):
        with pytest.raises(ValueError, match=message):
            writer_at(tmp_path / "m.zarr").write(region, np.zeros(shape, dtype))

    @pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="needs file permissions to hold")
    def test_a_disk_that_refuses(self, tmp_path):
        tmp_path.chmod(0o500)
        with pytest.raises(StorageError, match="cannot be written"):
            writer_at(tmp_path / "m.zarr")

    def test_a_disk_that_fills_up(self, tmp_path):
        """The kernel refuses files beyond a limit, as a full disk does."""
        script = f"""
import resource, signal, numpy as np
from napari_histogan.errors import StorageError
from napari_histogan.geometry import Region, Size
from napari_histogan.slides.zarr_pyramid import PyramidWriter
writer = PyramidWriter({str(tmp_path / "m.zarr")!r}, Size(512, 512), ("a",), mpp=1.0)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
noise = np.random.default_rng(0).integers(0, 100, (512, 512), dtype=np.uint8)
try:
    writer.write(Region(0, 0, 512, 512), noise)
except StorageError as error:
    assert "free some space" in str(error)
    assert not writer.done(Region(0, 0, 512, 512))
    print("refused")
"""
        if os.name == "nt":
            pytest.skip("needs limits of Unix")
        found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
        assert found.stdout.strip() == "refused", found.stderr

    def test_processes_write_level_0_and_one_fills_the_rest(self, tmp_path, truth):
        parts = writer_at(tmp_path / "m.zarr"), writer_at(tmp_path / "m.zarr")
        for k, region in enumerate(grid(SIZE, STEP)):
            parts[k % 2].write(region, block_of(truth, region), coarser=False)
        assert parts[0].levels[1][:].max() == 0
        for region in grid(SIZE, STEP):
            parts[0].fill_coarser(region)
        np.testing.assert_array_equal(parts[0].levels[0][:], truth)
        assert abs(float(parts[0].levels[2][:].mean()) - truth.mean()) < 1

    def test_floats(self, tmp_path):
        writer = PyramidWriter(tmp_path / "m.zarr", Size(1100, 40), ("p",), np.float16, mpp=1.0, chunk=512)
        block = np.random.default_rng(0).random((512, 40)).astype(np.float16)
        writer.write(Region(0, 0, 512, 40), block)
        means = block.astype(float).reshape(256, 2, 20, 2).mean((1, 3))
        np.testing.assert_allclose(writer.levels[1][0, :256], means, atol=1e-3)


class TestReader:
    def test_what_it_says(self, written):
        pyramid = open_pyramid(written)
        assert pyramid.mpp == 0.5
        assert pyramid.scale_um == [0.5, 1.0, 2.0]
        assert pyramid.channels == ("gland", "stroma")
        assert pyramid.size == SIZE

    def test_metadata_puts_levels_over_each_other(self, written):
        attributes = zarr.open_group(written, mode="r").attrs["ome"]
        assert attributes["version"] == "0.5"
        steps = attributes["multiscales"][0]["datasets"][2]["coordinateTransformations"]
        assert steps[0] == {"type": "scale", "scale": [1.0, 2.0, 2.0]}
        assert steps[1] == {"type": "translation", "translation": [0.0, 0.75, 0.75]}
        assert [axis.get("unit") for axis in attributes["multiscales"][0]["axes"]] == [
            None,
            "micrometer",
            "micrometer",
        ]

    def test_one_channel_for_a_viewer(self, written, truth):
        levels = open_pyramid(written).channel(1)
        assert levels[0].shape == SIZE.shape
        assert levels[0].ndim == 2
        assert levels[0].chunks == (256, 256)
        np.testing.assert_array_equal(levels[0][10:300, 5:9], truth[1, 10:300, 5:9])
        np.testing.assert_array_equal(np.asarray(levels[0]), truth[1])

    def test_no_map(self, tmp_path):
        with pytest.raises(SlideNotFound):
            open_pyramid(tmp_path / "none.zarr")
        with pytest.raises(SlideUnreadable):
            open_pyramid(tmp_path)


class TestSlidesOfOtherPrograms:
    def make(self, path, attributes, shape=(1, 1, 1, 60, 80), zarr_format=2):
        group = zarr.create_group(path, zarr_format=zarr_format)
        group.create_array("0", shape=shape, dtype=np.uint16)[:] = 128 << 8
        group.attrs.update(attributes)

    def multiscales(self, unit="nanometer", scale=500.0):
        axes = [{"name": "t", "type": "time"}, {"name": "c", "type": "channel"}]
        axes += [{"name": n, "type": "space", "unit": unit} for n in "zyx"]
        step = {"type": "scale", "scale": [1.0, 1.0, 1.0, scale, scale]}
        return [{"axes": axes, "datasets": [{"path": "0", "coordinateTransformations": [step]}]}]

    def test_ngff_0_4_with_five_axes_and_16_bits(self, tmp_path):
        self.make(tmp_path / "s.zarr", {"multiscales": self.multiscales()})
        with open_slide(tmp_path / "s.zarr") as slide:
            assert slide.mpp == 0.5
            found = slide.read(Region(0, 0, 60, 80))
        assert (found == 128).all()

    def test_a_picture_one_folder_deeper(self, tmp_path):
        zarr.create_group(tmp_path / "s.zarr", zarr_format=2)
        self.make(tmp_path / "s.zarr" / "0", {"multiscales": self.multiscales("micrometer", 0.25)})
        with open_slide(tmp_path / "s.zarr") as slide:
            assert slide.mpp == 0.25

    def test_without_a_unit_the_resolution_is_not_known(self, tmp_path):
        self.make(tmp_path / "s.zarr", {"multiscales": self.multiscales("")})
        with open_slide(tmp_path / "s.zarr") as slide:
            assert not slide.has_mpp

    def test_a_stack_is_refused(self, tmp_path):
        self.make(tmp_path / "s.zarr", {"multiscales": self.multiscales()}, shape=(1, 1, 4, 60, 80))
        with pytest.raises(SlideUnreadable, match="one picture"):
            open_slide(tmp_path / "s.zarr")

    def test_a_missing_level_is_noticed_at_once(self, tmp_path):
        multiscales = self.multiscales()
        multiscales[0]["datasets"].append({"path": "1"})
        self.make(tmp_path / "s.zarr", {"multiscales": multiscales})
        with pytest.raises(SlideUnreadable, match="no OME-Zarr picture"):
            open_slide(tmp_path / "s.zarr")


def test_a_map_whose_making_was_killed_at_once_is_begun_anew(tmp_path):
    folder = tmp_path / "map.zarr"
    folder.mkdir()
    (folder / f"zarr.{'0a' * 16}.partial").write_bytes(b"{")
    writer = PyramidWriter(folder, Size(10, 10), ["a"], mpp=0.5)
    writer.write(Region(0, 0, 10, 10), np.full((1, 10, 10), 7, np.uint8))
    assert np.asarray(open_pyramid(folder).levels[0]).min() == 7


@pytest.mark.parametrize("line", ["[" * 100_000, "[1e400, 0, 1, 1]", '{"y": 1}'])
def test_damaged_lines_of_the_block_list_count_as_not_done(tmp_path, line):
    writer = PyramidWriter(tmp_path / "map.zarr", Size(10, 10), ["a"], mpp=0.5)
    writer.write(Region(0, 0, 10, 10), np.zeros((1, 10, 10), np.uint8))
    with (tmp_path / "map.zarr" / "blocks.jsonl").open("a") as file:
        file.write(f"\n{line}\n")
    assert open_pyramid(tmp_path / "map.zarr").done_blocks() == [Region(0, 0, 10, 10)]
