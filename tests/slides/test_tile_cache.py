"""The cache keeps what was used last, and never more than it may."""

from __future__ import annotations

import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from napari_histogan.slides.tile_cache import TileCache


def tile(value, nbytes=100):
    return np.full(nbytes, value, np.uint8)


def test_the_one_unused_for_longest_goes_first():
    cache = TileCache(300)
    for k in range(3):
        cache.put(k, tile(k))
    assert cache.get(0) is not None
    cache.put(3, tile(3))
    assert cache.get(1) is None
    assert [cache.get(k)[0] for k in (0, 2, 3)] == [0, 2, 3]


def test_a_tile_larger_than_the_cache_is_not_kept():
    cache = TileCache(150)
    cache.put("small", tile(1))
    cache.put("large", tile(2, 151))
    assert cache.get("large") is None
    assert cache.get("small") is not None


def test_what_one_owner_kept_can_be_dropped():
    cache = TileCache(1000)
    for owner in (1, 2):
        for k in range(3):
            cache.put((owner, k), tile(owner))
    cache.put("other", tile(9))
    cache.drop(1)
    assert cache.held_bytes == 400
    assert cache.get((1, 0)) is None
    assert cache.get((2, 2))[0] == 2
    assert cache.get("other")[0] == 9


def test_putting_a_key_again_replaces_it():
    cache = TileCache(250)
    for value in range(5):
        cache.put("same", tile(value))
    assert cache.held_bytes == 100
    assert cache.get("same")[0] == 4


def test_clearing_forgets():
    cache = TileCache(300)
    cache.put(1, tile(1))
    cache.clear()
    assert cache.get(1) is None
    assert cache.held_bytes == 0


def test_a_pickled_cache_is_empty():
    cache = TileCache(300)
    cache.put(1, tile(1))
    copy = pickle.loads(pickle.dumps(cache))
    assert copy.max_bytes == 300
    assert copy.get(1) is None


def test_threads_keep_the_bound():
    cache = TileCache(1000)

    def work(seed):
        rng = np.random.default_rng(seed)
        for key in rng.integers(0, 40, 300):
            found = cache.get(int(key))
            if found is None:
                cache.put(int(key), tile(key))
            elif found[0] != key:
                return False
            if cache.held_bytes > 1000:
                return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(8)))
    assert cache.held_bytes == 1000
