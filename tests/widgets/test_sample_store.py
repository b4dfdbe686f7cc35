"""Samples are read as they were written."""

import numpy as np
import pytest
import zarr

from napari_histogan.errors import ProjectDamaged
from napari_histogan.widgets.sample_store import SampleStore


@pytest.fixture
def images(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 3), np.uint8)
    group = zarr.create_group(tmp_path / "samples.zarr", attributes={"mpp": 0.5})
    group.create_array("image", data=images, chunks=(6, 8, 8, 3))
    return images


def test_every_sample(tmp_path, images):
    store = SampleStore(tmp_path)
    assert (len(store), store.resolution, store.mpp) == (20, 8, 0.5)
    for index in (0, 19, 5, 6, 7, 0):
        np.testing.assert_array_equal(store.image(index), images[index])


def test_no_such_sample(tmp_path, images):
    with pytest.raises(IndexError, match="0 to 19"):
        SampleStore(tmp_path).image(20)


def test_missing_store_is_said_in_words(tmp_path):
    with pytest.raises(ProjectDamaged, match="cannot be read"):
        SampleStore(tmp_path)


def test_samples_of_the_stage(tiny_project):
    store = SampleStore(tiny_project.artifacts("samples")[-1].path)
    assert (len(store), store.resolution, store.mpp) == (24, 32, 1.0)
