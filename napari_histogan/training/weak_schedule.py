"""How learning from slide labels begins as cross-entropy and becomes paper 002's method over the steps.

A net that has hardly begun to learn knows no malign tissue.  Were it shown more of what it happens to like,
it would come to believe itself; were labels that it finds hopeless given up, it would give up all of them.
So beta_1, alpha, and eta begin at those of cross-entropy on even places with the mean of all pixels.
"""

from __future__ import annotations

import numpy as np

from napari_histogan.config.weak_labels import TrainWeaklyConfig
from napari_histogan.labels.beta import beta_1_for


def beta_1_of(config: TrainWeaklyConfig) -> float:
    """Return the config's beta_1, or that of its gamma, within 0..1; batches are half benign (r = 1/2)."""
    if config.gamma is None:
        return config.beta_1
    return float(np.clip(beta_1_for(config.gamma, config.accepted, 0.5, config.beta_0), 0, 1))


def beta_1_at(config: TrainWeaklyConfig, step: int) -> float:
    """Return beta_1 at a step: it rises evenly from 0 over the first ``beta_rise`` of the steps.

    The gradient of a malign label on the malign logit is ``q^beta_1 (1 - q)``.  At beta_1 near 1 it goes to 0
    with q, which is how the loss gives up on hopeless patches; but at the start every patch is hopeless.
    Cross-entropy first sets malign apart, then the rest is given up.
    """
    rising = config.beta_rise * config.steps
    return beta_1_of(config) * (min(1.0, step / rising) if rising else 1.0)


def alpha_at(config: TrainWeaklyConfig, step: int) -> float:
    """Return alpha at a step: 0 in the first ``even_share`` of the steps, then rising over as many more."""
    return config.alpha * _focus(config, step)


def eta_at(config: TrainWeaklyConfig, step: int) -> float:
    """Return eta at a step, in percent: 100 in the first ``even_share`` of the steps, then falling."""
    return 100 - (100 - config.eta) * _focus(config, step)


def _focus(config: TrainWeaklyConfig, step: int) -> float:
    """Return how far the net's own word chooses places and pixels, 0..1."""
    even = config.even_share * config.steps
    return float(np.clip(step / even - 1, 0, 1)) if even else 1.0
