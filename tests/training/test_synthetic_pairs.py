from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from napari_histogan.errors import LabelError
from napari_histogan.training.datasets import write_pairs
from napari_histogan.training.synthetic_pairs import SyntheticPairs

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (9, 8, 8, 3), np.uint8)
MASKS = RNG.integers(1, 4, (9, 8, 8), np.uint8)
KEPT = np.array([1, 1, 0, 1, 1, 1, 0, 1, 1], np.bool_)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_pairs(tmp_path / "pairs.zarr", IMAGES, MASKS, 1.5, kept=KEPT)
    return tmp_path


def test_items_are_the_kept_pairs(folder: Path) -> None:
    pairs = SyntheticPairs(folder)
    assert len(pairs) == len(SyntheticPairs(folder / "pairs.zarr", as_float=False)) == 7
    image, mask = pairs[2]
    assert (image.dtype, image.shape, mask.dtype) == (torch.float32, (3, 8, 8), torch.int64)
    np.testing.assert_allclose(image.permute(1, 2, 0) * 255, IMAGES[3], atol=1e-4)
    np.testing.assert_array_equal(mask, MASKS[3])
    np.testing.assert_array_equal(SyntheticPairs(folder, as_float=False)[-1][0].permute(1, 2, 0), IMAGES[8])
    with pytest.raises(IndexError):
        pairs[7]


def test_it_works_with_workers_and_a_transform(folder: Path) -> None:
    pairs = SyntheticPairs(folder, transform=lambda image, mask: (image.flip(-1), mask.flip(-1)))
    seen = [mask for _, masks in DataLoader(pairs, batch_size=3, num_workers=1) for mask in masks]
    np.testing.assert_array_equal(torch.stack(seen), MASKS[KEPT][..., ::-1])


def test_a_folder_without_pairs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LabelError, match="not a set of pairs"):
        SyntheticPairs(tmp_path)
