from __future__ import annotations

import numpy as np

from napari_histogan.inference.informative import rank_informative


def test_informative_samples_are_uncertain_and_unlike() -> None:
    features = np.array([[0.0, 0.0], [0.01, 0.0], [5.0, 0.0], [0.0, 5.0], [5.0, 5.0]])
    uncertainty = np.array([1.0, 0.99, 0.6, 0.5, 0.0])
    chosen = rank_informative(uncertainty, features, 3)
    assert chosen[0] == 0
    assert 1 not in chosen  # as uncertain as the first, but its twin
    assert set(chosen) == {0, 2, 3}
    assert len(rank_informative(uncertainty, features, 50)) == 5
    assert rank_informative(uncertainty, features, 1, painted=features[:1])[0] != 0


def test_an_outlier_is_not_preferred_for_being_far() -> None:
    rng = np.random.default_rng(0)
    features = np.concatenate([rng.normal(size=(50, 8)), np.full((1, 8), 40.0)])
    uncertainty = np.concatenate([np.linspace(0.5, 1, 50), [0.2]])
    assert 50 not in rank_informative(uncertainty, features, 10, painted=features[:1])
