"""Samples from samples: what each mix takes from whom, and the stage that keeps them."""

import numpy as np
import pytest
import torch

from napari_histogan.config import MixSamplesConfig
from napari_histogan.errors import ConfigError
from napari_histogan.inference.mixing import crossovers, neighbors
from napari_histogan.inference.sampling import load_samples, rebuild
from napari_histogan.models.generator_file import load_generator
from napari_histogan.pipeline import STAGE_FUNCTIONS
from napari_histogan.progress import QuietReporter
from napari_histogan.project.favorites import favorites, set_favorite
from napari_histogan.project.reads import what_it_reads
from napari_histogan.project.store import Project


def run(project, **values):
    return STAGE_FUNCTIONS["mix_samples"](project, MixSamplesConfig(threads=1, **values), QuietReporter())


def test_crossovers_take_coarse_layers_from_one_and_fine_ones_from_the_other():
    first, second = np.zeros((5, 3), np.float32), np.ones((5, 3), np.float32)
    mixed = crossovers(first, second)
    assert mixed.shape == (8, 5, 3)
    assert [row[:, 0].tolist() for row in mixed[:2]] == [[0, 1, 1, 1, 1], [0, 0, 1, 1, 1]]
    np.testing.assert_array_equal(mixed[4:], 1 - mixed[:4])


def test_neighbors_go_as_far_as_they_are_asked():
    first = np.zeros((2, 3), np.float32)
    others = np.ones((4, 2, 3), np.float32)
    assert (neighbors(first, others, 0.25) == 0.25).all()


def test_mixes_become_samples_that_can_be_rebuilt_and_painted(painted_project_copy):
    project = painted_project_copy
    old = project.artifacts("samples")[-1]
    made = run(project, first=3, second=8)
    source, got = load_samples(old.path), load_samples(made.path)
    layers = source.w.shape[1]
    assert len(got.w) == made.summary["count"] == 2 * (layers - 1)
    np.testing.assert_array_equal(got.w[1][:2], source.w[3][:2])
    np.testing.assert_array_equal(got.w[1][2:], source.w[8][2:])
    assert got.noise_seed[0] == source.noise_seed[3]
    assert got.noise_seed[-1] == source.noise_seed[8]
    generator = load_generator(project.artifacts("generator")[-1].path).eval()
    with torch.inference_mode():
        again = rebuild(generator, got.w[1:2], got.noise_seed[1:2])
    assert np.abs(again.astype(int) - got.image[1:2]).max() <= 1
    assert {p.id for p in made.parents} >= {old.id}
    mask = np.zeros(got.image.shape[1:3], np.uint8)
    mask[:8], mask[8:] = 1, 2
    project.save_mask(made, 0, mask)
    assert project.painted(made) == [0]


def test_without_a_second_they_are_like_the_first(painted_project_copy):
    made = run(painted_project_copy, first=3, count=5, strength=0.1)
    source = load_samples(painted_project_copy.artifacts("samples")[0].path)
    got = load_samples(made.path)
    assert len(got.w) == 5
    near = np.linalg.norm(got.w - source.w[3], axis=(1, 2))
    far = np.linalg.norm(np.delete(source.w, 3, axis=0) - source.w[3], axis=(1, 2))
    assert near.max() < far.min()
    assert len({row.tobytes() for row in got.w}) == 5


@pytest.mark.parametrize("values", [{"first": 3, "second": 3}, {"first": 99}, {"first": 1, "second": 99}])
def test_wrong_numbers_are_refused(painted_project_copy, values):
    with pytest.raises(ConfigError, match="0 to 23"):
        run(painted_project_copy, **values)


def test_a_dry_run_names_the_set(painted_project_copy):
    newest = painted_project_copy.artifacts("samples")[-1].id
    assert newest in what_it_reads(painted_project_copy, MixSamplesConfig(first=1))


def test_favorites_are_kept_in_the_project(painted_project_copy):
    project, samples = painted_project_copy, painted_project_copy.artifacts("samples")[-1]
    assert favorites(project, samples) == set()
    set_favorite(project, samples, 7, True)
    assert set_favorite(project, samples, 3, True) == {3, 7}
    set_favorite(project, samples, 7, False)
    assert favorites(Project.open(project.root), samples) == {3}
