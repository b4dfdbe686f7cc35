"""Places and slides are drawn as the paper says: frequencies, speed, and no slide forgotten."""

from __future__ import annotations

import time

import numpy as np
import pytest
from scipy import stats

from napari_histogan.errors import TrainingError
from napari_histogan.training.weak_sampling import (
    PlaceSampler,
    SlideChooser,
    by_probability,
    by_rank,
    told_apart,
)


@pytest.mark.parametrize("alpha", [0.0, 1.0, 2.0])
def test_places_are_drawn_in_proportion_to_a_power_of_the_map(alpha):
    rng = np.random.default_rng(0)
    percent = rng.integers(1, 101, (12, 9)).astype(np.uint8)
    tissue = rng.random((12, 9)) < 0.6
    drawn = PlaceSampler(percent, tissue).draw(200_000, np.random.default_rng(1), by_probability(alpha))
    counts = np.zeros(percent.shape)
    np.add.at(counts, tuple(drawn.T), 1)
    assert not counts[~tissue].any()
    wanted = np.where(tissue, (percent / 100.0) ** alpha, 0)[tissue]
    assert stats.chisquare(counts[tissue], wanted / wanted.sum() * len(drawn)).pvalue > 1e-3
    if alpha:  # and the test would notice another power
        other = np.where(tissue, (percent / 100.0) ** (alpha / 2), 0)[tissue]
        assert stats.chisquare(counts[tissue], other / other.sum() * len(drawn)).pvalue < 1e-6


def test_places_are_drawn_by_their_rank_among_benign_tissue():
    rng = np.random.default_rng(6)
    benign = rng.integers(48, 52, 4000)  # a net that is unsure: 48 to 51 percent, and as often each
    percent = np.repeat(np.array([47, 49, 51, 53], np.uint8), 3)[None]
    weights = by_rank(np.bincount(benign, minlength=256), 4.0)
    drawn = PlaceSampler(percent, np.ones((1, 12), bool)).draw(60_000, rng, weights)
    counts = np.bincount(drawn[:, 1], minlength=12)
    below = [(benign < value).mean() + (benign == value).mean() / 2 for value in (49, 51, 53)]
    wanted = np.repeat([0.5 / 4000, *below], 3) ** 4.0
    assert stats.chisquare(counts[3:], wanted[3:] / wanted[3:].sum() * counts[3:].sum()).pvalue > 1e-3
    assert not counts[:3].any(), "what no benign tissue is as low as is hardly ever drawn"
    evenly = PlaceSampler(percent, np.ones((1, 12), bool)).draw(60_000, rng, by_probability(4.0))
    evenly = np.bincount(evenly[:, 1], minlength=12)
    assert evenly.max() < 2 * evenly.min(), "the probability itself tells next to nothing here"


def test_without_maps_of_benign_slides_there_are_no_ranks():
    assert by_rank(np.zeros(256, np.int64), 4.0) is None


def test_slide_labels_tell_whether_a_net_learned_or_turned_round():
    rng = np.random.default_rng(7)
    benign, malign = (
        rng.choice([10, 11, 12, 80], 3000, p=p) for p in ([0.4, 0.3, 0.3, 0], [0.3, 0.3, 0.2, 0.2])
    )
    counted = np.bincount(benign, minlength=256), np.bincount(malign, minlength=256)
    pairs = np.sign(malign[:, None].astype(int) - benign[None])
    assert told_apart(*counted) == pytest.approx((pairs.mean() + 1) / 2)
    assert told_apart(*counted) > 0.5 > told_apart(*counted[::-1])
    assert told_apart(counted[0], np.zeros(256, np.int64)) is None


def test_a_slide_without_a_map_is_drawn_evenly():
    tissue = np.zeros((8, 8), bool)
    tissue[2:4, 3:7] = True
    drawn = PlaceSampler(None, tissue).draw(80_000, np.random.default_rng(1), by_probability(2.0))
    counts = np.zeros((8, 8))
    np.add.at(counts, tuple(drawn.T), 1)
    assert stats.chisquare(counts[tissue]).pvalue > 1e-3


def test_a_draw_costs_a_logarithm():
    rng = np.random.default_rng(2)
    costs = []
    for side in (100, 3163):  # 10^4 and 10^7 cells
        percent = rng.integers(0, 101, (side, side), dtype=np.uint8)
        sampler = PlaceSampler(percent, np.ones((side, side), bool))
        seconds = []
        for _ in range(20):
            started = time.perf_counter()
            sampler.draw(64, rng, by_probability(2.0))
            seconds.append(time.perf_counter() - started)
        costs.append(np.median(seconds))
    assert costs[1] < 20 * costs[0]  # a pass over the cells would be 1,000 times slower


def test_a_map_of_zeros_still_has_places():
    sampler = PlaceSampler(np.zeros((4, 4), np.uint8), np.eye(4, dtype=bool))
    assert len(np.unique(sampler.draw(100, np.random.default_rng(0), by_probability(2.0)), axis=0)) == 4
    with pytest.raises(TrainingError, match="tissue"):
        PlaceSampler(None, np.zeros((4, 4), bool))


@pytest.mark.parametrize("every", [1, 2, 5])
def test_no_slide_is_left_out_for_longer_than_promised(every):
    rng = np.random.default_rng(3)
    chooser = SlideChooser([True] * 3 + [False] * 17, every)
    chooser.errors[3:] = 0.0
    chooser.errors[5] = 1e6  # left to chance, no other benign slide would ever come
    log = np.array([chooser.choose(rng) for _ in range(20 * 40)])
    for slide in range(20):
        visits = np.concatenate([[-1], np.flatnonzero(log == slide), [len(log)]])
        assert np.diff(visits).max() <= every * 20


def test_kinds_come_equally_often_and_benign_slides_by_their_error():
    rng = np.random.default_rng(4)
    chooser = SlideChooser([True] * 2 + [False] * 4, every_epochs=1000)
    chooser.errors[2:] = [1.0, 3.0, 6.0, np.nan]  # the unmapped one counts as their mean
    log = [chooser.choose(rng) for _ in range(6000)]
    counts = np.bincount(log, minlength=6)
    expected = np.array([1 / 4, 1 / 4, *(np.array([1, 3, 6, 10 / 3]) / (40 / 3) / 2)]) * 6000
    assert stats.chisquare(counts, expected).pvalue > 1e-3


def test_a_restored_chooser_goes_on_as_the_first():
    first = SlideChooser([True, False, False], 3)
    rng = np.random.default_rng(5)
    for _ in range(10):
        first.choose(rng)
    second = SlideChooser([True, False, False], 3)
    second.load_state_dict(first.state_dict())
    ways = [np.random.default_rng(6), np.random.default_rng(6)]
    assert [first.choose(ways[0]) for _ in range(20)] == [second.choose(ways[1]) for _ in range(20)]
