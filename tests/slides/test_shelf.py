"""Of many slides few are open at a time; reading does not show it."""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import numpy as np
import psutil
import pytest
import tifffile

from napari_histogan.errors import SlideError, SlideNotFound
from napari_histogan.geometry import Region
from napari_histogan.slides.patch_plan import plan_patches
from napari_histogan.slides.patches import PatchStream
from napari_histogan.slides.reader import SlideReader, open_slide
from napari_histogan.slides.shelf import SlideShelf

COUNT = 12
CORNER = Region(8, 16, 24, 32)


def write_slide(path: Path, seed: int) -> None:
    """Write a small slide whose lower half is tissue."""
    pixels = np.full((128, 128, 3), 245, np.uint8)
    pixels[64:] = np.random.default_rng(seed).integers((120, 30, 110), (190, 90, 170), (64, 128, 3))
    tifffile.imwrite(path, pixels, photometric="rgb", tile=(32, 32))


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    made = [tmp_path / f"{k}.tif" for k in range(COUNT)]
    for k, path in enumerate(made):
        write_slide(path, k)
    return made


@pytest.fixture
def shelf() -> Iterator[SlideShelf]:
    with closing(SlideShelf(most_open=3)) as made:
        yield made


def put(shelf: SlideShelf, paths: list[Path]) -> list[SlideReader]:
    return [shelf.keep(open_slide(path, mpp=0.5)) for path in paths]


def open_files(folder: Path) -> int:
    return sum(file.path.startswith(str(folder)) for file in psutil.Process().open_files())


def test_few_are_open_and_all_can_be_read_by_many_threads(shelf: SlideShelf, paths: list[Path]) -> None:
    slides = put(shelf, paths)
    assert shelf.num_open == 3
    expected = [tifffile.imread(path)[CORNER.slices] for path in paths]
    drawn = np.random.default_rng(0).integers(COUNT, size=300)
    with ThreadPoolExecutor(8) as threads:
        read = list(threads.map(lambda k: slides[k].read(CORNER), drawn))
    assert all(np.array_equal(pixels, expected[k]) for k, pixels in zip(drawn, read, strict=True))
    assert shelf.num_open == 3
    assert open_files(paths[0].parent) <= 2 * 3, "a TIFF takes two files"


def test_what_a_slide_tells_needs_no_open_file(shelf: SlideShelf, paths: list[Path]) -> None:
    first, *_ = put(shelf, paths)
    with open_slide(paths[0], mpp=0.5) as plain:
        assert (first.size, first.mpp, first.levels) == (plain.size, plain.mpp, plain.levels)
        assert first.fingerprint() == plain.fingerprint()
        assert np.array_equal(
            first.read_at(Region(0, 0, 32, 32), 1.0), plain.read_at(Region(0, 0, 32, 32), 1.0)
        )
    with pickle.loads(pickle.dumps(first)) as copy:
        assert np.array_equal(copy.read(CORNER), first.read(CORNER))


def test_a_slide_that_was_replaced_meanwhile_is_refused(shelf: SlideShelf, paths: list[Path]) -> None:
    first, second, *_ = put(shelf, paths)
    write_slide(paths[0].with_suffix(".new"), 99)
    os.replace(paths[0].with_suffix(".new"), paths[0])
    paths[1].unlink()
    with pytest.raises(SlideError, match=r"0\.tif was replaced while it was in use"):
        first.read(CORNER)
    with pytest.raises(SlideNotFound):
        second.read(CORNER)


def test_closing_leaves_no_file_open(shelf: SlideShelf, paths: list[Path]) -> None:
    first, *_ = put(shelf, paths)
    first.read(CORNER)
    shelf.close()
    assert shelf.num_open == 0
    assert open_files(paths[0].parent) == 0


def test_patches_of_more_slides_than_may_be_open(
    paths: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "plan"
    folder.mkdir()
    with closing(SlideShelf()) as shelf:
        plan = plan_patches(put(shelf, paths), 16, 0.5, folder)
    with closing(PatchStream(plan, seed=1, memory_bytes=0)) as stream:
        expected = stream.next_batch(50)
    monkeypatch.setattr("napari_histogan.slides.patches.SlideShelf", lambda: SlideShelf(most_open=2))
    with closing(PatchStream(plan, seed=1, memory_bytes=0)) as stream:
        assert np.array_equal(stream.next_batch(50), expected)
        assert open_files(tmp_path) <= 2 * 2
