from __future__ import annotations

import numpy as np
import pytest

from napari_histogan.inference.pair_choice import choose_pairs, wanted_shares


def drawn(rare: float, n: int = 400) -> tuple[np.ndarray, np.ndarray]:
    """Uncertainties, and fractions of two classes, the second in a share ``rare`` of the pairs."""
    rng = np.random.default_rng(0)
    second = np.where(rng.random(n) < rare, rng.uniform(0.5, 1, n), 0)
    return rng.random(n).astype(np.float32), np.stack([1 - second, second], axis=1).astype(np.float32)


def test_without_wanted_shares_the_least_uncertain_are_kept() -> None:
    uncertainty, fractions = drawn(0.2)
    choice = choose_pairs(uncertainty, fractions, 100, 0.1, None)
    assert choice.kept.sum() == choice.certain == 100
    assert uncertainty[choice.kept].max() <= uncertainty[~choice.kept].min()


def test_a_rare_class_gets_its_share_and_the_most_uncertain_stay_out() -> None:
    uncertainty, fractions = drawn(0.2)
    wanted = wanted_shares("equal", (), 2)
    choice = choose_pairs(uncertainty, fractions, 90, 0.1, wanted)
    assert fractions.mean(axis=0)[1] < 0.2
    assert choice.kept.sum() == 90
    assert choice.certain == 360
    assert uncertainty[choice.kept].max() <= np.sort(uncertainty)[359]
    assert choice.short == []
    assert choice.shares[1] == pytest.approx(fractions[choice.kept, 1].mean(), abs=1e-6)
    assert choice.shares == pytest.approx([0.5, 0.5], abs=0.026)
    again = choose_pairs(uncertainty, fractions, 90, 0.1, wanted)
    np.testing.assert_array_equal(again.kept, choice.kept)


def test_what_cannot_be_reached_comes_as_near_as_can_be_and_is_told() -> None:
    uncertainty, fractions = drawn(0.1)
    wanted = wanted_shares("none", (1, 3), 2)
    assert wanted == pytest.approx([0.25, 0.75])
    choice = choose_pairs(uncertainty, fractions, 200, 0.0, wanted)
    assert choice.short == [1]
    best = np.sort(fractions[:, 1])[-200:].mean()
    assert choice.shares[1] == pytest.approx(best, abs=1e-6)


def test_a_class_nobody_asked_for_may_be_left_out() -> None:
    uncertainty, fractions = drawn(0.5)
    choice = choose_pairs(uncertainty, fractions, 50, 0.1, wanted_shares("none", (1, 0), 2))
    assert choice.shares[0] >= 0.95
    assert choice.short == []
