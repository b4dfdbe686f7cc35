from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from napari_histogan.errors import CheckpointError, ModelError
from napari_histogan.models.hypercolumns import layout_of, upsample_and_concatenate
from napari_histogan.models.pixel_classifier import (
    PixelClassifier,
    PixelClassifierSpec,
    PixelPredictor,
    Preset,
    load_pixel_classifier,
    save_pixel_classifier,
)
from napari_histogan.models.stylegan2 import FeatureMap, Generator, GeneratorSpec
from napari_histogan.models.uncertainty import ensemble_statistics, image_uncertainty

CLASSES = tuple({"index": i, "name": n} for i, n in enumerate(("dermis", "keratin", "glass"), 1))


def generated(n: int = 3) -> list[FeatureMap]:
    torch.manual_seed(0)
    spec = GeneratorSpec(z_dim=16, c_dim=0, w_dim=16, img_resolution=32, channel_base=512, channel_max=24)
    generator = Generator(spec).eval()
    with torch.no_grad():
        return generator.synthesis.features(generator.mapping(torch.randn(n, 16)))[1]


def classifier(maps: list[FeatureMap], preset: Preset = "plain", **fields: object) -> PixelClassifier:
    spec = PixelClassifierSpec(layout_of(maps, 32), CLASSES, preset=preset, members=4, **fields)  # type: ignore[arg-type]
    net = PixelClassifier(spec, seed=3).eval()
    columns = upsample_and_concatenate(maps, 32)
    if spec.standardized:
        net.mean.copy_(columns.mean(dim=(0, 2, 3)))
        net.std.copy_(columns.std(dim=(0, 2, 3)))
    if net.normalized:  # as training leaves them, and with shifts that folding must not lose
        net.train()
        net(net.standardize(columns.permute(0, 2, 3, 1).reshape(-1, spec.layout.channels)))
        net.eval()
        for p in (*net.norm_scale, *net.norm_shift, *net.biases):
            p.data.add_(torch.randn(p.shape) * 0.2)
    for w in net.weights:
        w.data.mul_(2)
    return net


def plain_prediction(net: PixelClassifier, maps: list[FeatureMap]) -> tuple[torch.Tensor, torch.Tensor]:
    """What the published code does: upsample, concatenate, run every net on every pixel."""
    columns = upsample_and_concatenate(maps, 32).permute(0, 2, 3, 1)
    n = columns.shape[0]
    p = net(net.standardize(columns.reshape(-1, columns.shape[-1]))).softmax(-1).double()
    mean = p.mean(0)
    js = torch.xlogy(p, p).sum(-1).mean(0) - torch.xlogy(mean, mean).sum(-1)
    return mean.view(n, 32, 32, -1).permute(0, 3, 1, 2), js.view(n, 32, 32)


@pytest.mark.parametrize("hidden", [(128, 32), (16,), (), (20, 12, 8)])
@pytest.mark.parametrize("preset", ["plain", "datasetgan", "hdgan"])
@torch.no_grad()
def test_equals_the_nets_run_on_every_pixel(preset: Preset, hidden: tuple[int, ...]) -> None:
    maps = generated()
    net = classifier(maps, preset, hidden=hidden)
    mean, js = plain_prediction(net, maps)
    found = net.predict(maps)
    torch.testing.assert_close(found.probabilities.double(), mean, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.uncertainty.double(), js, rtol=1e-3, atol=1e-5)
    assert found.labels.dtype == torch.uint8
    top = mean.topk(2, dim=1).values
    clear = top[:, 0] - top[:, 1] > 1e-4
    assert torch.equal(found.labels[clear], (mean.argmax(1) + 1)[clear].to(torch.uint8))
    assert 0 < found.uncertainty.max() <= math.log(3)


@torch.no_grad()
def test_bfloat16_gives_nearly_the_same_labels() -> None:
    maps = generated(8)
    net = classifier(maps)
    exact, rounded = net.predict(maps), net.predict(maps, torch.bfloat16)
    assert (exact.labels == rounded.labels).float().mean() > 0.98
    torch.testing.assert_close(exact.probabilities, rounded.probabilities, rtol=0, atol=0.05)


def test_uncertainty_is_the_jensen_shannon_divergence() -> None:
    agreeing = torch.tensor([[[0.0], [2.0]]]).expand(5, 2, 1)
    opposed = torch.tensor([[[40.0], [0.0]], [[0.0], [40.0]]])
    assert ensemble_statistics(agreeing)[1].item() == pytest.approx(0, abs=1e-6)
    mean, js = ensemble_statistics(opposed)
    assert js.item() == pytest.approx(math.log(2), abs=1e-6)
    assert mean[:, 0].tolist() == pytest.approx([0.5, 0.5])


def test_image_uncertainty_is_the_mean_of_the_highest_tenth() -> None:
    pixels = torch.arange(100.0).view(1, 10, 10)
    assert image_uncertainty(pixels).tolist() == [94.5]


@torch.no_grad()
def test_probabilities_can_be_left_out() -> None:
    maps = generated()
    predictor = PixelPredictor(classifier(maps))
    assert predictor(maps, probabilities=False).probabilities.shape == (3, 0, 32, 32)
    torch.testing.assert_close(predictor(maps, probabilities=False).uncertainty, predictor(maps).uncertainty)


@torch.no_grad()
def test_nets_that_share_few_directions_are_labelled_through_these() -> None:
    maps = generated()
    net = classifier(maps)
    basis = torch.linalg.qr(torch.randn(net.spec.layout.channels, 9)).Q
    net.weights[0].copy_(basis @ (basis.t() @ net.weights[0]))
    predictor = PixelPredictor(net)
    assert predictor.projection.width == 9
    found = predictor(maps)
    # The plain way, pixel by pixel: every member's own product of all channels.
    columns = upsample_and_concatenate(maps, 32).permute(0, 2, 3, 1).flatten(0, 2)
    plain = net(net.standardize(columns)).softmax(2).mean(0).view(3, 32, 32, -1).permute(0, 3, 1, 2)
    torch.testing.assert_close(found.probabilities, plain, rtol=1e-4, atol=1e-5)
    assert PixelPredictor(classifier(maps)).projection.width == net.spec.members * net.spec.hidden[0]


@pytest.mark.parametrize("preset", ["plain", "hdgan"])
def test_round_trip(tmp_path: Path, preset: Preset) -> None:
    maps = generated()
    net = classifier(maps, preset, generator_hash="abc")
    save_pixel_classifier(tmp_path, net, {"epoch": 7})
    loaded = load_pixel_classifier(tmp_path)
    assert loaded.spec == net.spec
    assert not loaded.training
    assert json.loads((tmp_path / "classifier.json").read_text())["epoch"] == 7
    np.testing.assert_array_equal(loaded.predict(maps).uncertainty, net.predict(maps).uncertainty)


def test_same_seed_same_weights() -> None:
    maps = generated()
    assert torch.equal(classifier(maps).weights[0], classifier(maps).weights[0])


def test_features_of_another_generator_are_refused() -> None:
    maps = generated()
    net = classifier(maps, generator_hash="a" * 64)
    net.check_generator("a" * 64)
    with pytest.raises(ModelError, match="trained on generator aaaaaaaaaaaa"):
        net.check_generator("b" * 64)
    with pytest.raises(ModelError, match="the feature maps are"):
        net.predict([m._replace(tensor=m.tensor[:, 1:]) for m in maps])


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    net = classifier(generated())
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_pixel_classifier(tmp_path)
    save_pixel_classifier(tmp_path, net)
    weights = load_file(tmp_path / "classifier.safetensors")
    save_file(weights | {"biases.0": weights["biases.0"] * float("nan")}, tmp_path / "classifier.safetensors")
    with pytest.raises(CheckpointError, match=r"biases\.0 .* holds NaN"):
        load_pixel_classifier(tmp_path)
    (tmp_path / "classifier.safetensors").write_bytes(b"cut")
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_pixel_classifier(tmp_path)
