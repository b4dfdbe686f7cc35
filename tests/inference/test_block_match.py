"""A map that is brought into agreement with blocks has their shares, and the net's order within them."""

from __future__ import annotations

import numpy as np
import pytest

from napari_histogan.errors import LabelError, Stopped
from napari_histogan.geometry import Size, grid
from napari_histogan.inference.block_match import matched, matching_offsets, shifted, spread, write_matched
from napari_histogan.labels.block_labels import BlockLabels
from napari_histogan.progress import QuietReporter
from napari_histogan.slides.zarr_pyramid import PyramidWriter, open_pyramid


def softmax(logits, axis):
    raised = np.exp(logits - logits.max(axis=axis, keepdims=True))
    return raised / raised.sum(axis=axis, keepdims=True)


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("spread_of_logits", [0.1, 1.0, 6.0])
def test_blocks_get_the_shares_that_their_labels_say(classes, spread_of_logits):
    rng = np.random.default_rng(classes)
    p = softmax(rng.normal(0, spread_of_logits, (20, classes, 256)), 1)
    shares = rng.dirichlet(np.ones(classes), 20)
    shares = np.maximum(shares, 0.02)
    shares /= shares.sum(axis=1, keepdims=True)
    offsets = matching_offsets(p, shares)
    tied = np.stack(
        [shifted(each[:, None], b[:, None, None])[:, 0] for each, b in zip(p, offsets, strict=True)]
    )
    np.testing.assert_allclose(tied.mean(axis=2), shares, atol=2e-3)
    np.testing.assert_allclose(offsets.sum(axis=1), 0, atol=1e-9)


def test_a_block_that_agrees_already_stays():
    p = softmax(np.random.default_rng(0).normal(0, 1, (1, 3, 100)), 1)
    assert np.abs(matching_offsets(p, p.mean(axis=2))).max() < 1e-3


def test_shares_of_0_and_1_and_a_net_that_is_sure_of_the_opposite_stay_finite():
    p = np.zeros((1, 2, 64))
    p[:, 0] = 1.0
    offsets = matching_offsets(p, np.array([[0.0, 1.0]]))
    tied = shifted(p[0][:, None], offsets[0][:, None, None])
    assert np.isfinite(offsets).all()
    assert tied[1].mean() == pytest.approx(0.99, abs=2e-3)


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(LabelError, match="shares"):
        matching_offsets(np.full((2, 2, 9), 0.5), np.full((3, 2), 0.5))


def test_shifts_are_those_of_the_blocks_in_their_middles_and_go_over_evenly():
    offsets = np.arange(6.0).reshape(2, 3, 1)
    found = spread(offsets, np.array([0.0, 0.5, 1.0, 1.5, 1.9]), np.array([0.5, 1.0, 1.5, 2.5, 2.9]))
    np.testing.assert_allclose(found[0, 0], [0, 0.5, 1, 2, 2])
    np.testing.assert_allclose(found[0, 2], [1.5, 2, 2.5, 3.5, 3.5])
    np.testing.assert_allclose(found[0, 4], [3, 3.5, 4, 5, 5])


def test_a_disc_that_a_net_sees_in_the_wrong_brightness_is_found_with_its_blocks():
    """Half of the picture is too pale, and the net is sure there is nothing: its blocks say otherwise."""
    y, x = np.mgrid[:96, :128]
    disc = (y - 40) ** 2 + (x - 60) ** 2 < 30**2
    rng = np.random.default_rng(3)
    logits = np.where(disc, 1.5, -1.5) - np.where(x < 60, 3.0, 0.0) + rng.normal(0, 0.5, disc.shape)
    p = 1 / (1 + np.exp(-logits))
    side = 16
    means = disc.reshape(6, side, 8, side).mean(axis=(1, 3))
    eta = np.stack([np.linspace(0, 1, 11), np.linspace(1, 0, 11)], axis=1)
    grid = np.rint(10 * means).astype(np.int16)
    tied = matched(np.stack([p, 1 - p]), grid, eta, side)

    def wrong(found):
        return np.mean((found > 0.5) != disc)

    assert wrong(p) > 0.08
    assert wrong(tied[0]) < wrong(p) / 3
    assert wrong(tied[0]) < wrong(np.kron(means, np.ones((side, side)))) / 1.5, "finer than the blocks"
    np.testing.assert_allclose(tied.sum(axis=0), 1)
    nothing = matched(np.stack([p, 1 - p]), np.full_like(grid, -1), eta, side)
    np.testing.assert_allclose(nothing[0], np.clip(p, 0.0025, 0.9975), atol=0.003)


def test_a_heatmap_on_disk_gets_what_a_picture_gets_and_empty_places_stay(tmp_path):
    rng = np.random.default_rng(5)
    size, side = Size(1100, 1300), 100
    coarse = rng.integers(5, 95, (22, 26))
    malign = np.kron(coarse, np.ones((50, 50))).astype(np.uint8)
    percent = np.stack([malign, 100 - malign])
    percent[:, :100, :200] = 0
    source = PyramidWriter(tmp_path / "a.zarr", size, ("x", "y"), np.uint8, mpp=2.0)
    for part in grid(size, Size(512, 512)):
        source.write(part, percent[(slice(None), *part.slices)])
    labels = BlockLabels(("low", "high"), rng.integers(-1, 2, (11, 13)).astype(np.int16), 2.0 * side)
    eta = np.array([[0.2, 0.8], [0.7, 0.3]])
    reporter = QuietReporter(tmp_path)
    count = write_matched(tmp_path / "a.zarr", tmp_path / "b.zarr", labels, eta, reporter)
    assert count == (labels.grid >= 0).sum()
    found = np.asarray(open_pyramid(tmp_path / "b.zarr").levels[0])
    assert not found[:, :100, :200].any()
    open_places = labels.grid.copy()
    open_places[0, :2] = -1  # nothing is known of them
    wanted = matched(percent / 100, open_places, eta, side)
    np.testing.assert_allclose(found[:, 200:], 100 * wanted[:, 200:], atol=1.5)
    with pytest.raises(Stopped):
        write_matched(
            tmp_path / "a.zarr", tmp_path / "c.zarr", labels, eta, QuietReporter(tmp_path, lambda: True)
        )


def test_blocks_that_the_edge_cuts_are_matched_by_what_is_there():
    p = np.full((2, 40, 40), 0.5)
    eta = np.array([[0.8, 0.2]])
    tied = matched(p, np.zeros((3, 3), np.int16), eta, 16)
    np.testing.assert_allclose(tied[0], 0.8, atol=2e-3)
