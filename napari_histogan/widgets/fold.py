"""A part of a panel that folds away."""

from __future__ import annotations

from qtpy.QtGui import QIcon
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
        super().__init__(title, parent, expandedIcon=QIcon(), collapsedIcon=QIcon())
        self._title = title
        self.toggled.connect(self._show_sign)
        self._show_sign(self.isExpanded())
        self.setDuration(0)
        self.toggleButton().setToolTip(f"{title}: show or fold away")

    def _show_sign(self, unfolded: bool) -> None:
        """Say by a sign before the title whether it is open; in the color of text, unlike superqt's icons."""
        self.setText(f"{'▼' if unfolded else '▶'}  {self._title}")
