"""When a GAN in training should worry its owner, in plain words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

COLLAPSE_SHARE = 0.5
"""Samples whose spread falls below this share of the most seen so far have lost variety."""
HIGH_P = 0.8
"""Above it augmentations leak into samples (Karras et al. 2020, "Limited Data", section 3 and figure 4)."""
SURE = 0.2
"""D overfits where its signs stay this far above the target."""
PLAIN_TARGET = 0.6
LOOK_BACK = 3

Figures = Mapping[str, float]


def concerns(history: Sequence[Figures], ada_target: float) -> dict[str, str]:
    """Return what is worrying after the last of a series of reports.

    Parameters
    ----------
    history
        Figures of each report, oldest first: ``spread`` (of samples as a share of that of real patches),
        ``ada_p``, and ``sign_real`` (mean sign of D's logits of real patches, -1 to 1).
    ada_target
        The sign that augmentation aims at; 0 if it is off.

    Returns
    -------
    dict[str, str]
        Messages by kind: ``collapse``, ``augmentation``, ``overfitting``.
    """
    found: dict[str, str] = {}
    if not history:
        return found
    now, recent = history[-1], history[-LOOK_BACK:]
    most = max(figures["spread"] for figures in history)
    if now["spread"] < COLLAPSE_SHARE * most:
        found["collapse"] = (
            f"The samples are becoming alike: their spread fell from {most:.0%} to {now['spread']:.0%} of "
            "that of real patches. Stop, and take an earlier checkpoint or train with a larger r1_gamma."
        )
    if now["ada_p"] > HIGH_P:
        found["augmentation"] = (
            f"Augmentation changes {min(now['ada_p'], 1):.0%} of the pictures; above {HIGH_P:.0%}, its "
            "colors and shapes may leak into samples. There is too little tissue for so long a training: "
            "add slides, or stop here."
        )
    signs = [figures["sign_real"] for figures in recent]
    limit = min(max(ada_target, PLAIN_TARGET) + SURE, 0.95)
    follows = ada_target > 0 and signs[-1] < signs[0]
    if len(recent) == LOOK_BACK and min(signs) > limit and not follows:
        cause = (
            f"augmentation (p {now['ada_p']:.2f}) cannot hold it: lower ada_kimg, or raise r1_gamma"
            if ada_target > 0
            else "augmentation is off: set ada_target to 0.6, or raise r1_gamma"
        )
        found["overfitting"] = (
            f"The discriminator knows the real patches by heart: it takes {(1 + signs[-1]) / 2:.0%} of them "
            f"for real, and {cause}. More slides help most."
        )
    return found


class GanWatch:
    """Hears of every report, and says each concern once as long as it lasts.

    Parameters
    ----------
    ada_target
        See `concerns`.
    """

    def __init__(self, ada_target: float) -> None:
        self._ada_target = ada_target
        self._history: list[dict[str, float]] = []
        self._told: set[str] = set()

    def news(self, figures: Figures) -> list[str]:
        """Return the concerns that were not there at the report before."""
        self._history.append(dict(figures))
        found = concerns(self._history, self._ada_target)
        new = [message for kind, message in found.items() if kind not in self._told]
        self._told = set(found)
        return new
