"""Which samples would tell most if painted; asked of the compute process behind everything else."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import QObject, QTimer

from napari_histogan.jobs.engine_client import Reply

if TYPE_CHECKING:
    from napari_histogan.widgets.session import Session

_DELAY_MS = 1200
_RANKED = 500
"""Unpainted samples that are ranked at once."""


class Ranking(QObject):
    """Ranks samples a moment after a prediction came, or when it is asked to.

    Attributes
    ----------
    timer
        Ranks when it ends.
    """

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self._session = session
        self.timer = QTimer(self)
        self.timer.setSingleShot(True)
        self.timer.setInterval(_DELAY_MS)
        self.timer.timeout.connect(self.rank)

    def rank(self) -> None:
        """Ask which samples without paint are the most informative."""
        artifact, samples = self._session.samples_artifact, self._session.samples
        if artifact is None or samples is None or not self._session.painted():
            return
        painted = set(self._session.painted())
        pool = [i for i in range(len(samples)) if i not in painted][:_RANKED]
        self._session.engine.ask(
            "rank",
            self._on_ranked,
            on_failed=lambda text: self._session.painting.predicted.emit(0.0, text),
            project=str(self._session.require().root),
            samples=artifact.id,
            pool=pool,
        )

    def _on_ranked(self, reply: Reply) -> None:
        if "scores" in reply.arrays:
            pairs = zip(reply.arrays["pool"].tolist(), reply.arrays["scores"].tolist(), strict=True)
            self._session.set_scores({int(i): float(s) for i, s in pairs})


def next_to_paint(count: int, taken: set[int], scores: dict[int, float], index: int) -> int:
    """Return the most informative sample that is free; the next one while none is ranked, -1 for none."""
    free = [i for i in range(count) if i not in taken]
    known = [i for i in free if i in scores]
    if known:
        return max(known, key=lambda i: (scores[i], -i))
    return next((i for i in free if i > index), free[0] if free else -1)
