"""The beta calculator: the paper's check values, and that it and the toy model's curve agree."""

from __future__ import annotations

import numpy as np
import pytest

from napari_histogan.errors import ConfigError
from napari_histogan.labels.beta import (
    bernoulli_loss,
    beta_1_for,
    gamma_for,
    label_loss,
    theta_0_for,
    toy_loss,
)


def test_check_values_of_the_paper():
    assert beta_1_for(0.33, 0.05, 0.5, 0.0) == pytest.approx(0.61, abs=0.005)
    assert theta_0_for(0.33, 0.0, 0.5, 0.0) == pytest.approx(0.25, abs=0.005)
    for gamma, r in ((0.33, 0.5), (0.8, 0.4), (0.1, 0.7)):
        plain = (1 - r) * gamma / (r + (1 - r) * gamma)
        assert theta_0_for(gamma, 0.0, r, 0.0) == pytest.approx(plain, abs=1e-12)


@pytest.mark.parametrize(("gamma", "theta_0", "r"), [(0.33, 0.05, 0.5), (0.6, 0.1, 0.45), (0.2, 0.02, 0.6)])
def test_there_and_back(gamma, theta_0, r):
    beta_1 = beta_1_for(gamma, theta_0, r)
    assert theta_0_for(gamma, beta_1, r) == pytest.approx(theta_0, rel=1e-9)
    assert gamma_for(beta_1, theta_0, r) == pytest.approx(gamma, rel=1e-9)
    theta = np.linspace(0.001, 0.999, 99_801)
    drawn = toy_loss(theta, gamma, (0.0, beta_1), r)
    assert theta[drawn.argmin()] == pytest.approx(theta_0, abs=2e-5)


def test_sparse_noise_is_ignored_altogether_by_beta_1_of_1():
    assert theta_0_for(0.33, 1.0) == pytest.approx(0.0, abs=1e-12)


def test_losses_between_bernoullis_are_least_where_they_agree():
    q = np.linspace(0.01, 0.99, 99)
    assert q[bernoulli_loss(0.3, q, (0.0, 0.0)).argmin()] == pytest.approx(0.3)
    np.testing.assert_allclose(bernoulli_loss(1.0, q, (0.0, 1.0)), 1 - q)
    np.testing.assert_allclose(label_loss(q, 0.0), -np.log(q))
    assert np.isfinite(label_loss(np.zeros(1), 0.0)).all()


@pytest.mark.parametrize("values", [(0.0, 0.1, 0.5), (0.3, 1.0, 0.5), (0.3, 0.1, 0.0)])
def test_shares_out_of_range_are_refused(values):
    with pytest.raises(ConfigError, match="between 0 and 1"):
        beta_1_for(*values)
