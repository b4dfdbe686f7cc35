from __future__ import annotations

import pytest
import torch

from napari_histogan.models.hypercolumns import Channel, FeatureLayout
from napari_histogan.models.pixel_classifier import PixelClassifier, PixelClassifierSpec, PixelPredictor
from napari_histogan.training.feature_subspace import leading_directions, share_directions

CLASSES = ({"index": 1, "name": "dark"}, {"index": 2, "name": "bright"})


def classifier() -> PixelClassifier:
    layout = FeatureLayout((Channel("b8.conv0", 8, 80),), 8)
    return PixelClassifier(PixelClassifierSpec(layout, CLASSES, members=4)).eval()


def features(rank: int) -> torch.Tensor:
    g = torch.Generator().manual_seed(0)
    return torch.randn(500, rank, generator=g) @ torch.randn(rank, 80, generator=g) + 2


def test_directions_span_what_the_features_hold() -> None:
    x = features(12) - 2
    basis = leading_directions(x, 12)
    torch.testing.assert_close(basis.t() @ basis, torch.eye(12), rtol=0, atol=1e-4)
    torch.testing.assert_close(x @ basis @ basis.t(), x, rtol=1e-3, atol=1e-3)
    energy = (x @ basis).square().sum(0)
    assert (energy[:-1] >= energy[1:]).all()
    assert torch.equal(leading_directions(x, 12), basis)


@torch.no_grad()
def test_sharing_loses_nothing_that_painted_pixels_show() -> None:
    x, net = features(12), classifier()
    before = net(x)
    share_directions(net, x, 12)
    torch.testing.assert_close(net(x), before, rtol=1e-3, atol=1e-3)
    assert PixelPredictor(net).projection.width == 12


@torch.no_grad()
def test_fewer_directions_are_the_closest_ones() -> None:
    x, net = features(12), classifier()
    answers = x @ net.weights[0].permute(1, 0, 2).reshape(80, -1)
    share_directions(net, x, 5)
    found = x @ net.weights[0].permute(1, 0, 2).reshape(80, -1) + net.biases[0].reshape(-1)
    # Eckart and Young: what is left out are the singular values after the fifth.
    singular = torch.linalg.svdvals(answers - answers.mean(0))
    assert float((found - answers).norm()) == pytest.approx(float(singular[5:].norm()), rel=1e-3)


def test_asking_for_more_directions_than_there_are_changes_nothing() -> None:
    net = classifier()
    before = net.weights[0].clone()
    share_directions(net, features(12), 80)
    assert torch.equal(net.weights[0], before)
