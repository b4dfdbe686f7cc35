from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from napari_histogan import metrics
from napari_histogan.evaluation.significance import bootstrap, bootstrap_difference, welch


def two_class_blocks(rights: np.ndarray, pixels: int = 100) -> np.ndarray:
    """Blocks of two classes in equal parts with the given share of right pixels."""
    blocks = np.zeros((len(rights), 3, 3), np.int64)
    for block, right in zip(blocks, rights, strict=True):
        hit = round(right * pixels / 2)
        block[1, 1] = block[2, 2] = hit
        block[1, 2] = block[2, 1] = pixels // 2 - hit
    return blocks


def test_the_interval_of_a_mean_has_the_width_that_theory_gives() -> None:
    rights = np.random.default_rng(0).uniform(0.4, 1.0, 400)
    blocks = two_class_blocks(rights, 1000)
    (interval,) = bootstrap(blocks, metrics.pixel_accuracy, resamples=2000)
    error = rights.std() / np.sqrt(len(rights))
    assert interval.value == pytest.approx(rights.mean(), abs=1e-3)
    assert interval.high - interval.low == pytest.approx(2 * 1.96 * error, rel=0.08)


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    covered = 0
    for seed in range(100):
        (interval,) = bootstrap(
            two_class_blocks(rng.uniform(0.4, 1.0, 60), 1000), metrics.pixel_accuracy, 200, seed
        )
        covered += interval.low <= 0.7 <= interval.high
    assert 87 <= covered <= 100


def test_pairing_takes_out_how_hard_a_block_is() -> None:
    rights = np.random.default_rng(2).uniform(0.3, 0.9, 50)
    first, second = two_class_blocks(rights + 0.05), two_class_blocks(rights)
    (paired,) = bootstrap_difference(first, second, metrics.pixel_accuracy)
    assert paired.low > 0
    (alone,) = bootstrap(first, metrics.pixel_accuracy)
    (other,) = bootstrap(second, metrics.pixel_accuracy)
    assert alone.low < other.high


def test_one_seed_gives_one_interval() -> None:
    blocks = two_class_blocks(np.random.default_rng(3).uniform(0.3, 0.9, 20))
    assert bootstrap(blocks, metrics.dice, 100, seed=5) == bootstrap(blocks, metrics.dice, 100, seed=5)
    assert bootstrap(blocks, metrics.dice, 100, seed=5) != bootstrap(blocks, metrics.dice, 100, seed=6)


def test_without_resamples_there_is_no_interval() -> None:
    (interval,) = bootstrap(two_class_blocks(np.array([0.5])), metrics.pixel_accuracy, resamples=0)
    assert interval.value == pytest.approx(0.5)
    assert np.isnan([interval.low, interval.high]).all()


def test_a_figure_that_is_never_defined_has_no_interval() -> None:
    blocks = np.zeros((3, 3, 3), np.int64)
    blocks[:, 1, 1] = 5
    one, two = bootstrap(blocks, metrics.dice, 50)
    assert (one.low, one.high) == (1, 1)
    assert np.isnan([two.value, two.low, two.high]).all()


def test_other_blocks_cannot_be_paired() -> None:
    with pytest.raises(ValueError, match="not the same blocks"):
        bootstrap_difference(np.zeros((3, 2, 2)), np.zeros((4, 2, 2)), metrics.pixel_accuracy)


def test_welch_is_the_textbook_s_and_tells_equal_means_from_different_ones():
    # By the formulas of Welch and Satterthwaite.
    first, second = [20.1, 20.9, 21.5, 20.8, 20.8], [18.0, 25.4, 23.1, 20.3, 23.8]
    found = welch(first, second)
    assert found.difference == pytest.approx(np.mean(first) - np.mean(second))
    a, b = (np.var(v, ddof=1) / len(v) for v in (first, second))
    t = found.difference / np.sqrt(a + b)
    freedom = (a + b) ** 2 / (a**2 / 4 + b**2 / 4)
    assert found.p == pytest.approx(2 * stats.t.sf(abs(t), freedom))
    assert found.high - found.difference == pytest.approx(stats.t.ppf(0.975, freedom) * np.sqrt(a + b))
    assert found.low < 0 < found.high
    assert welch([0.9, 0.91, 0.9], [0.8, 0.81, 0.8]).p < 1e-3
    with pytest.raises(ValueError, match="2 and 1 runs"):
        welch([1.0, 2.0], [1.0])
