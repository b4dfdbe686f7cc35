"""Which loss suits slide labels: beta_1 from how sparse malign tissue is and what error one accepts.

Paper 002, section 3.1.1.  Only some patches of a malign slide hold malign tissue, so benign patches come
with the label "malign", too.  A loss that falls off slowly near q = 0 (beta_1 toward 1) lets the net ignore
those; cross-entropy (beta_1 = 0) does not.  In the toy model all benign patches get one probability theta:

    r (1 - (1 - theta)^beta_0) / beta_0 + (1 - r) gamma (1 - theta^beta_1) / beta_1

is its expected loss, and :func:`beta_1_for` returns the beta_1 whose minimum lies at the theta_0 accepted.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from napari_histogan.errors import ConfigError

_SMALL_BETA = 1e-6
_HALVINGS = 200


def beta_1_for(gamma: float, theta_0: float, r: float = 0.5, beta_0: float = 0.0) -> float:
    """Return the beta_1 whose optimum is ``theta_0`` on benign pixels.

    Parameters
    ----------
    gamma
        Share of the patches of malign slides that hold no malign pixel, in (0, 1).
    theta_0
        Malign probability that is accepted on a benign pixel, in (0, 1).
    r
        Share of the slides that are benign, in (0, 1).
    beta_0
        Of the benign class.

    Raises
    ------
    ConfigError
        If gamma, theta_0, or r is not between 0 and 1.
    """
    _require_shares(gamma=gamma, theta_0=theta_0, r=r)
    mixed = math.log((1 - r) * gamma / r)
    return 1 + ((beta_0 - 1) * math.log1p(-theta_0) - mixed) / math.log(theta_0)


def gamma_for(beta_1: float, theta_0: float, r: float = 0.5, beta_0: float = 0.0) -> float:
    """Return the gamma that a beta_1 is right for; the inverse of :func:`beta_1_for` in gamma."""
    _require_shares(theta_0=theta_0, r=r)
    mixed = (beta_0 - 1) * math.log1p(-theta_0) - (beta_1 - 1) * math.log(theta_0)
    return math.exp(mixed) * r / (1 - r)


def theta_0_for(gamma: float, beta_1: float, r: float = 0.5, beta_0: float = 0.0) -> float:
    """Return the malign probability of benign pixels that a beta_1 leads to.

    The inverse of :func:`beta_1_for` in theta_0.  The derivative of the toy model's loss rises in theta
    where no beta is above 1, so its root is halved in on; where it has none the optimum is 0 or 1.

    Raises
    ------
    ConfigError
        If gamma or r is not between 0 and 1, or a beta is not 0 to 1.
    """
    _require_shares(gamma=gamma, r=r)
    if not (0 <= beta_0 <= 1 and 0 <= beta_1 <= 1):
        raise ConfigError(f"beta is ({beta_0:g}, {beta_1:g})", "0 to 1 both")
    mixed = math.log((1 - r) * gamma / r)
    low, high = 0.0, 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if not 0 < middle < 1:
            break
        slope = (beta_0 - 1) * math.log1p(-middle) - (beta_1 - 1) * math.log(middle) - mixed
        low, high = (low, middle) if slope > 0 else (middle, high)
    return (low + high) / 2


def label_loss(q: NDArray[np.float64], beta: float) -> NDArray[np.float64]:
    """Return the loss of a label whose predicted probability is q: ``(1 - q^beta) / beta``, or ``-log q``."""
    log_q = np.log(np.maximum(q, np.finfo(np.float64).tiny))
    if abs(beta) < _SMALL_BETA:
        return np.asarray(-log_q * (1 + beta * log_q / 2))
    return np.asarray(-np.expm1(beta * log_q) / beta)


def bernoulli_loss(p: float, q: NDArray[np.float64], beta: tuple[float, float]) -> NDArray[np.float64]:
    """Return ``L_beta`` between two Bernoullis of malign probabilities p and q.

    Parameters
    ----------
    p, q
        True probability, and predicted ones, 0..1.
    beta
        (beta_0, beta_1).
    """
    total = np.zeros_like(q, dtype=np.float64)
    for share, predicted, each in ((1 - p, 1 - q, beta[0]), (p, q, beta[1])):
        if share > 0:
            total += share * label_loss(predicted / share, each)
    return total


def toy_loss(
    theta: NDArray[np.float64], gamma: float, beta: tuple[float, float], r: float = 0.5
) -> NDArray[np.float64]:
    """Return the toy model's loss over the malign probability theta of benign patches."""
    return r * label_loss(1 - theta, beta[0]) + (1 - r) * gamma * label_loss(theta, beta[1])


def _require_shares(**values: float) -> None:
    """Refuse what is not between 0 and 1."""
    for name, value in values.items():
        if not 0 < value < 1:
            raise ConfigError(f"{name} is {value:g}", "a number between 0 and 1", "choose another value")
