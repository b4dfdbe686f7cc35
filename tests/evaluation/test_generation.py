"""Distances between sets of pictures and features against closed forms, and a generator against patches."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
import zarr
from safetensors.torch import save_file

from napari_histogan.errors import ConfigError, ModelError
from napari_histogan.evaluation.generation import compare_pictures, evaluate_generator
from napari_histogan.metrics import frechet_distance, kernel_distance
from napari_histogan.models import inception
from napari_histogan.models.inception import FEATURES, Inception, load_inception
from napari_histogan.models.stylegan2 import Generator, GeneratorSpec
from napari_histogan.slides.patches import ZarrPatches


def exact(n, mean, covariance, seed):
    """Features whose mean and covariance are exactly these."""
    x = np.random.default_rng(seed).standard_normal((n, len(mean)))
    x -= x.mean(0)
    white = x @ np.linalg.inv(np.linalg.cholesky(np.cov(x.T))).T
    return white @ np.linalg.cholesky(covariance).T + mean


def test_frechet_distance_of_normal_distributions_with_known_roots():
    # Diagonal: tr(C1 + C2 - 2 sqrt(C1 C2)) is the sum of (s1 - s2)^2.
    s1, s2 = np.array([1.0, 2.0, 0.5]), np.array([3.0, 2.0, 1.5])
    a = exact(40, [0, 0, 0], np.diag(s1**2), 0)
    b = exact(60, [1, -2, 0.5], np.diag(s2**2), 1)
    assert frechet_distance(a, b) == pytest.approx(1 + 4 + 0.25 + 4 + 0 + 1)
    # Not commuting: against the root by eigenvalues of the product.
    c1, c2 = np.array([[2, 0.8], [0.8, 1]]), np.array([[1, -0.3], [-0.3, 3]])
    root = np.sqrt(np.linalg.eigvals(c1 @ c2).real).sum()
    found = frechet_distance(exact(30, [0, 0], c1, 2), exact(30, [0, 1], c2, 3))
    assert found == pytest.approx(1 + np.trace(c1 + c2) - 2 * root)


def test_frechet_distance_with_fewer_samples_than_features_is_the_shift():
    x = np.random.default_rng(0).standard_normal((5, 300))
    assert frechet_distance(x, x) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(x, x + 0.1) == pytest.approx(300 * 0.01)


def test_kernel_distance_by_hand():
    # D = 1, k(x, y) = (xy + 1)^3. k(0, 2) = 1; k(1, 3) = 64; k(0, .) = 1; k(2, 1) = 27; k(2, 3) = 343.
    x, y = np.array([[0.0], [2.0]]), np.array([[1.0], [3.0]])
    value, error = kernel_distance(x, y)
    assert value == pytest.approx(1 + 64 - 2 * (1 + 1 + 27 + 343) / 4)
    assert np.isnan(error)


def test_kernel_distance_is_unbiased_and_says_how_sure_it_is():
    rng = np.random.default_rng(0)
    # With the diagonal counted, the mean would be about 2 (E k(x, x) - E k(x, y)) / 20, far above the noise.
    drawn = [kernel_distance(*rng.standard_normal((2, 20, 4)))[0] for _ in range(300)]
    assert abs(np.mean(drawn)) < 4 * np.std(drawn) / np.sqrt(len(drawn)) < 0.2
    x, y = rng.standard_normal((2, 400, 8))
    same, error = kernel_distance(x, y, subset_size=100)
    assert 0 < error < 0.02
    assert kernel_distance(x, y + 0.5, subset_size=100)[0] > same + 5 * error
    assert kernel_distance(x, y, subset_size=100) == (same, error)


def test_sets_that_cannot_be_compared_are_refused():
    with pytest.raises(ValueError, match="cannot be compared"):
        frechet_distance(np.zeros((4, 2)), np.zeros((4, 3)))
    with pytest.raises(ValueError, match="at least 2"):
        kernel_distance(np.zeros((1, 2)), np.zeros((4, 2)))


@pytest.fixture(scope="module")
def inception_file(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "inception.pth"
    state = Inception().state_dict()
    state |= {"fc.weight": torch.zeros(1008, FEATURES), "fc.bias": torch.zeros(1008)}
    torch.save({k: v for k, v in state.items() if "num_batches" not in k}, path)
    return path


def test_inception_reads_a_state_dict_and_refuses_others(inception_file, tmp_path):
    network = load_inception(inception_file)
    # The stored network of the community has so many numbers without its last layer.
    assert sum(p.numel() for p in network.parameters()) == 21_785_568
    pictures = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)
    features = network.features(pictures, batch=2)
    assert features.shape == (3, FEATURES)
    assert np.isfinite(features).all()
    one = network.features(pictures[2:])
    assert np.allclose(one, features[2:], rtol=1e-3, atol=1e-5)
    save_file({"Conv2d_1a_3x3.conv.weight": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(ModelError, match="differs from the Inception"):
        load_inception(tmp_path / "other.safetensors")
    with pytest.raises(ModelError, match="there is no file"):
        load_inception(tmp_path / "nothing.pth")
    (tmp_path / "noise.pth").write_bytes(b"no weights at all")
    with pytest.raises(ModelError, match="cannot be read"):
        load_inception(tmp_path / "noise.pth")


def test_inception_is_fetched_when_asked_for_and_checked(inception_file, tmp_path, monkeypatch):
    content = inception_file.read_bytes()
    served = tmp_path / f"inception-{hashlib.sha256(content).hexdigest()[:8]}{inception_file.suffix}"
    served.write_bytes(content)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "cache"))
    monkeypatch.setattr(inception, "WEIGHTS_URL", served.as_uri())
    first = load_inception(Path("download"))
    served.unlink()
    again = load_inception(Path("download"))  # from the cache
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
    (tmp_path / "cache" / "checkpoints" / served.name).write_bytes(b"damaged")
    with pytest.raises(ConfigError, match="could not be downloaded"):
        load_inception(Path("download"))


def test_a_generator_is_nearer_to_its_own_pictures(inception_file, tmp_path):
    torch.manual_seed(0)
    generator = Generator(GeneratorSpec(8, 0, 8, 16, mapping_layers=1, channel_base=128)).eval()
    noise = np.random.default_rng(0).integers(0, 256, (8, 16, 16, 3), np.uint8)
    zarr.save_array(tmp_path / "noise.zarr", noise)
    patches = ZarrPatches(tmp_path / "noise.zarr", 0, dihedral=False, threads=0)
    scores = evaluate_generator(generator, patches, 8)
    assert set(scores.figures()) == {"samples", "sliced_wasserstein"}
    network = load_inception(inception_file)
    full = compare_pictures(noise, noise, network)
    assert full.fid == pytest.approx(0, abs=1e-6)
    assert set(full.figures()) == {"samples", "sliced_wasserstein", "fid", "kid", "kid_error"}
    assert scores.sliced_wasserstein > full.sliced_wasserstein == 0
    generator32 = Generator(GeneratorSpec(8, 0, 8, 32, mapping_layers=1, channel_base=128))
    with pytest.raises(ModelError, match="16 px, the samples 32"):
        evaluate_generator(generator32, patches, 8)
