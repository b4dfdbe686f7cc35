"""Tabs whose titles wrap into rows, so that all are seen in a narrow dock."""

from __future__ import annotations

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import (
    QButtonGroup,
    QHBoxLayout,
    QScrollArea,
    QSizePolicy,
    QStackedWidget,
    QVBoxLayout,
    QWidget,
)

from napari_histogan.widgets.keys import Key, KeyButton
from napari_histogan.widgets.shortcuts import ANYWHERE

_STYLE = "QPushButton { padding: 4px 2px; }"
_KEYED = 8
"""So many tabs have a key."""


class WrappedTabs(QWidget):
    """Pages with titles in rows; Alt with a tab's number brings it to the front.

    Parameters
    ----------
    per_row
        How many titles stand in a row.

    Signals
    -------
    currentChanged
        Number of the page that came to the front.
    """

    currentChanged = Signal(int)  # noqa: N815 - as Qt's tabs call it

    def __init__(self, per_row: int = 5, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._per_row = per_row
        self._buttons: list[KeyButton] = []
        self._group = QButtonGroup(self)
        self._group.idClicked.connect(self.setCurrentIndex)
        self._pages = QStackedWidget()
        self._pages.currentChanged.connect(self._on_page)
        self._rows = QVBoxLayout()
        self._rows.setContentsMargins(4, 0, 4, 0)
        self._rows.setSpacing(2)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        layout.addLayout(self._rows)
        layout.addWidget(self._pages, 1)
        Key(ANYWHERE, "Alt+0", self.focus_page, self)

    def addTab(self, page: QWidget, title: str) -> int:  # noqa: N802 - Qt's name
        """Add a page; returns its number, from 0."""
        number = self._pages.count()
        button = KeyButton(title, ANYWHERE)
        button.setCheckable(True)
        button.setStyleSheet(_STYLE)
        button.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        if number < _KEYED:
            key = f"Alt+{number + 1}"
            button.setToolTip(f"{title.lstrip('0123456789 ')} ({{{key}}})")
            Key(ANYWHERE, key, button.click, self)
        if number % self._per_row == 0:
            row = QHBoxLayout()
            row.setSpacing(2)
            self._rows.addLayout(row)
        else:
            row = self._rows.itemAt(self._rows.count() - 1).layout()
        row.addWidget(button)
        self._group.addButton(button, number)
        self._buttons.append(button)
        self._pages.addWidget(page)
        if number == 0:
            button.setChecked(True)
        return number

    def focus_page(self) -> None:
        """Bring the keyboard to the first control of the page in front that is on and seen."""
        for control in self._pages.currentWidget().findChildren(QWidget):
            takes = control.focusPolicy() & Qt.FocusPolicy.TabFocus
            if takes and control.isVisible() and control.isEnabled() and not isinstance(control, QScrollArea):
                control.setFocus(Qt.FocusReason.TabFocusReason)
                return

    def button(self, number: int) -> KeyButton:
        """Return the button of a page's title."""
        return self._buttons[number]

    def count(self) -> int:
        """Return how many pages there are."""
        return int(self._pages.count())

    def widget(self, number: int) -> QWidget:
        """Return a page."""
        return self._pages.widget(number)

    def tabText(self, number: int) -> str:  # noqa: N802 - Qt's name
        """Return a page's title."""
        return str(self.button(number).text())

    def currentIndex(self) -> int:  # noqa: N802 - Qt's name
        """Return the number of the page in front."""
        return int(self._pages.currentIndex())

    def setCurrentIndex(self, number: int) -> None:  # noqa: N802 - Qt's name
        """Bring a page to the front."""
        self._pages.setCurrentIndex(number)

    def _on_page(self, number: int) -> None:
        if 0 <= number < len(self._buttons):
            self.button(number).setChecked(True)
        self.currentChanged.emit(number)
