from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import zarr

from napari_histogan.errors import LabelError, StorageError
from napari_histogan.training.datasets import ArrayPairs, PairPool, ZarrPairs, write_pairs


def pairs(count: int, side: int = 16, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (count, side, side, 3), dtype=np.uint8)
    masks = rng.integers(0, 4, (count, side, side), dtype=np.uint8)
    images[:, 0, 0, 0] = np.arange(count)
    return images, masks


@pytest.mark.parametrize("cache_bytes", [2**30, 0])
def test_pairs_come_back_from_disk(tmp_path: Path, cache_bytes: int) -> None:
    images, masks = pairs(150)
    write_pairs(tmp_path / "pairs.zarr", images, masks, mpp=0.5)
    source = ZarrPairs(tmp_path / "pairs.zarr", cache_bytes=cache_bytes)
    assert (len(source), source.mpp, source.patch_px) == (150, 0.5, 16)
    got_images, got_masks = source.batch([140, 3, 3, 70])
    assert np.array_equal(got_images, images[[140, 3, 3, 70]])
    assert np.array_equal(got_masks, masks[[140, 3, 3, 70]])
    assert np.array_equal(source.class_counts(), np.bincount(masks.ravel(), minlength=256))


@pytest.mark.parametrize("cache_bytes", [2**30, 0])
def test_only_kept_pairs_count(tmp_path: Path, cache_bytes: int) -> None:
    images, masks = pairs(20)
    kept = np.arange(20) % 3 == 0
    write_pairs(tmp_path / "pairs.zarr", images, masks, mpp=1.0, kept=kept)
    source = ZarrPairs(tmp_path / "pairs.zarr", cache_bytes=cache_bytes)
    assert len(source) == 7
    assert np.array_equal(source.batch(range(7))[0], images[kept])
    assert np.array_equal(source.class_counts(), np.bincount(masks[kept].ravel(), minlength=256))


def test_without_kept_pairs_there_is_nothing_to_learn(tmp_path: Path) -> None:
    write_pairs(tmp_path / "pairs.zarr", *pairs(3), mpp=1.0, kept=np.zeros(3, bool))
    with pytest.raises(LabelError, match="3 were made, none kept"):
        ZarrPairs(tmp_path / "pairs.zarr")


def test_what_is_no_set_of_pairs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LabelError, match="is not a set of pairs"):
        ZarrPairs(tmp_path / "nothing.zarr")
    zarr.open_group(tmp_path / "other.zarr", mode="w").create_array("images", shape=(1,), dtype="u1")
    with pytest.raises(LabelError, match="is not a set of pairs"):
        ZarrPairs(tmp_path / "other.zarr")


def test_an_unknown_resolution_is_refused_and_can_be_given(tmp_path: Path) -> None:
    write_pairs(tmp_path / "pairs.zarr", *pairs(3), mpp=1.0)
    del zarr.open_group(tmp_path / "pairs.zarr", mode="r+").attrs["mpp"]
    with pytest.raises(LabelError, match="microns per pixel"):
        ZarrPairs(tmp_path / "pairs.zarr")
    assert ZarrPairs(tmp_path / "pairs.zarr", mpp=2.0).mpp == 2.0


@pytest.mark.parametrize(
    ("images", "masks"),
    [((3, 8, 8, 3), (3, 8, 9)), ((3, 8, 9, 3), (3, 8, 9)), ((0, 8, 8, 3), (0, 8, 8)), ((3, 8, 8), (3, 8, 8))],
)
def test_arrays_that_do_not_fit_are_refused(images: tuple[int, ...], masks: tuple[int, ...]) -> None:
    with pytest.raises(LabelError, match="the pairs have images"):
        ArrayPairs(np.zeros(images, np.uint8), np.zeros(masks, np.uint8), mpp=1.0)


def test_rows_that_do_not_fit_and_taken_paths_are_refused(tmp_path: Path) -> None:
    with pytest.raises(LabelError, match="kept has 2 rows for 3 images"):
        write_pairs(tmp_path / "pairs.zarr", *pairs(3), mpp=1.0, kept=np.ones(2, bool))
    write_pairs(tmp_path / "pairs.zarr", *pairs(3), mpp=1.0)
    with pytest.raises(StorageError, match="already"):
        write_pairs(tmp_path / "pairs.zarr", *pairs(3), mpp=1.0)


def test_pairs_of_one_place_stay_on_one_side(tmp_path: Path) -> None:
    images, masks = pairs(60)
    groups = np.repeat(np.arange(12), 5)
    write_pairs(tmp_path / "pairs.zarr", images, masks, mpp=1.0, groups=groups)
    pool = PairPool([ZarrPairs(tmp_path / "pairs.zarr")], validation_share=0.25, seed=0)
    assert pool.held_out_count == 15
    held_out = set(pool.held_out(1000)[0][:, 0, 0, 0].tolist())
    drawn = {int(i) for step in range(40) for i in pool.draw(step, 20)[0][:, 0, 0, 0]}
    assert drawn == set(range(60)) - held_out
    assert not {groups[i] for i in held_out} & {groups[i] for i in drawn}


def test_a_source_of_one_group_is_all_trained_on() -> None:
    source = ArrayPairs(*pairs(8), mpp=1.0, groups=np.zeros(8))
    pool = PairPool([source], validation_share=0.5, seed=0)
    assert pool.held_out_count == 0
    assert len(pool.held_out(4)[0]) <= 4


def test_weights_say_how_often_a_pair_is_drawn() -> None:
    many, few = ArrayPairs(*pairs(90, seed=1), mpp=1.0), ArrayPairs(*pairs(10, seed=2), mpp=1.0, weight=10.0)
    pool = PairPool([many, few], validation_share=0.0, seed=0)
    rare = {image.tobytes() for image in few.batch(range(10))[0]}
    drawn = [image.tobytes() in rare for step in range(50) for image in pool.draw(step, 40)[0]]
    assert np.mean(drawn) == pytest.approx(100 / 190, abs=0.04)


def test_a_step_always_draws_the_same() -> None:
    pool = PairPool([ArrayPairs(*pairs(30), mpp=1.0)], 0.1, seed=4)
    again = PairPool([ArrayPairs(*pairs(30), mpp=1.0)], 0.1, seed=4)
    assert np.array_equal(pool.draw(7, 16)[0], again.draw(7, 16)[0])
    assert not np.array_equal(pool.draw(7, 16)[0], pool.draw(8, 16)[0])


def test_sources_of_different_size_or_resolution_are_refused() -> None:
    first = ArrayPairs(*pairs(3), mpp=1.0)
    for other in (ArrayPairs(*pairs(3, side=32), mpp=1.0), ArrayPairs(*pairs(3), mpp=0.5)):
        with pytest.raises(LabelError, match="one size and one resolution"):
            PairPool([first, other], 0.1, 0)
    with pytest.raises(LabelError, match="no source"):
        PairPool([ArrayPairs(*pairs(3), mpp=1.0, weight=0)], 0.1, 0)
