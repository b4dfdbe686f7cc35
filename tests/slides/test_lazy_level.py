"""Lazy levels behave as the arrays that they stand for."""

from __future__ import annotations

import pickle

import dask.array as da
import numpy as np
import pytest

from napari_histogan.geometry import Region, Size
from napari_histogan.slides.lazy_level import LazyLevel
from napari_histogan.slides.reader import open_slide
from napari_histogan.slides.tile_cache import TileCache

WHOLE = np.random.default_rng(0).integers(0, 256, (1100, 700, 3), np.uint8)


class CountingReader:
    """Serves parts of ``WHOLE`` and remembers which."""

    def __init__(self):
        self.regions: list[Region] = []

    def read(self, region, downsample):
        self.regions.append(region)
        return WHOLE[:: int(downsample), :: int(downsample)][region.slices].copy()


@pytest.fixture
def reader():
    return CountingReader()


@pytest.fixture
def level(reader):
    return LazyLevel(Size(1100, 700), 1, reader.read, TileCache(10**8))


@pytest.mark.parametrize(
    "key",
    [
        np.s_[:],
        np.s_[...],
        np.s_[10:20],
        np.s_[500:530, 500:530],
        np.s_[500:530, 500:530, 1],
        np.s_[-1],
        np.s_[3, 4],
        np.s_[3, 4, 2],
        np.s_[::7, ::-3],
        np.s_[1099:3:-100, 5],
        np.s_[..., 0],
        np.s_[5, ..., 1:],
        np.s_[20:10],
        np.s_[2000:3000, :5],
        np.s_[np.int64(3), : np.int64(4)],
    ],
)
def test_indexing_is_numpys(level, key):
    found = level[key]
    np.testing.assert_array_equal(found, WHOLE[key])
    assert found.shape == WHOLE[key].shape


@pytest.mark.parametrize("key", [1100, -1101, np.s_[0, 700]])
def test_indices_beyond_the_end_are_refused(level, key):
    with pytest.raises(IndexError, match="out of range"):
        level[key]


def test_what_it_says_about_itself(level):
    assert (level.shape, level.ndim, level.dtype) == (WHOLE.shape, 3, WHOLE.dtype)
    assert (level.size, level.nbytes, len(level)) == (WHOLE.size, WHOLE.nbytes, 1100)


def test_nothing_is_read_before_it_is_asked_for(level, reader):
    assert reader.regions == []
    _ = level[600:700, 600:650]
    assert reader.regions == [Region(512, 512, 512, 188)]


def test_chunks_are_read_once(level, reader):
    for _ in range(3):
        _ = level[0:600, 0:100]
    assert len(reader.regions) == 2


def test_without_room_in_the_cache_it_still_reads(reader):
    level = LazyLevel(Size(1100, 700), 1, reader.read, TileCache(0))
    np.testing.assert_array_equal(level[100:900, 50:60], WHOLE[100:900, 50:60])


def test_levels_that_share_a_cache_keep_apart(reader):
    cache = TileCache(10**8)
    fine, coarse = (LazyLevel(Size(1100, 700), d, reader.read, cache) for d in (1, 2))
    np.testing.assert_array_equal(fine[:10, :10], WHOLE[:10, :10])
    np.testing.assert_array_equal(coarse[:10, :10], WHOLE[:20:2, :20:2])
    assert coarse.shape == (550, 350, 3)


def test_the_reader_cannot_be_changed_through_what_is_returned(level):
    first = level[:5, :5]
    first[:] = 0
    np.testing.assert_array_equal(level[:5, :5], WHOLE[:5, :5])


def test_as_a_numpy_array(level):
    np.testing.assert_array_equal(np.asarray(level), WHOLE)
    assert np.asarray(level, np.float32).dtype == np.float32


def test_as_a_dask_array(level):
    lazy = da.from_array(level, chunks=level.chunks)
    assert lazy.chunks[0] == (512, 512, 76)
    np.testing.assert_array_equal(lazy[500:600, ::50].compute(scheduler="threads"), WHOLE[500:600, ::50])


def test_levels_of_a_slide_can_be_pickled(demo_path):
    with open_slide(demo_path) as slide:
        level = slide.pyramid()[1]
        copy = pickle.loads(pickle.dumps(level))
        np.testing.assert_array_equal(copy[700:750, 500:600], level[700:750, 500:600])
        copy._read.__self__.close()
