"""A part of a panel that folds away."""

from __future__ import annotations

from qtpy.QtWidgets import QWidget
from superqt import QCollapsible


class Fold(QCollapsible):
    """A folded part: a click on its title, or Space on it, shows what is inside, at once.

    Parameters
    ----------
    title
        What stands on it.
    """

    def __init__(self, title: str, parent: QWidget | None = None) -> None:
        super().__init__(title, parent, expandedIcon="▼", collapsedIcon="▶")
        self.setDuration(0)
        self.toggleButton().setToolTip(f"{title}: show or fold away")
