"""The slides with their labels, their newest maps, and their scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QAbstractItemView, QHeaderView, QTableWidget, QTableWidgetItem, QWidget

from napari_histogan.labels.slide_labels import BENIGN, MALIGN, UNKNOWN
from napari_histogan.widgets.pictures import swatch

LABEL_COLORS = {BENIGN: "#56b4e9", MALIGN: "#d55e00", UNKNOWN: "#808080"}
_HEADER = ("Slide", "Label", "Map", "Score")
_NAME, _LABEL, _MAP, _SCORE = range(4)
_LEAST_PX = 150


class SlideTable(QTableWidget):
    """One row a slide; several can be chosen to be labeled at once.

    Signals
    -------
    opened
        Name of the slide that was double-clicked.
    """

    opened = Signal(str)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(0, len(_HEADER), parent)
        self.setToolTip(
            "Choose rows and press B, M, or U; a double click opens a slide.  Map: the step that made it"
        )
        self.setHorizontalHeaderLabels(list(_HEADER))
        self.verticalHeader().hide()
        self.horizontalHeader().setSectionResizeMode(_NAME, QHeaderView.ResizeMode.Stretch)
        self.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.setSelectionMode(QAbstractItemView.SelectionMode.ExtendedSelection)
        self.setTabKeyNavigation(False)
        self.setFocusPolicy(Qt.FocusPolicy.TabFocus)
        self.setMinimumHeight(_LEAST_PX)
        self.cellDoubleClicked.connect(lambda row, _column: self.opened.emit(self.name(row)))

    def name(self, row: int) -> str:
        """Return the slide of a row."""
        item = self.item(row, _NAME)
        return item.text() if item is not None else ""

    def chosen(self) -> list[str]:
        """Return the slides of the chosen rows."""
        return [self.name(row) for row in sorted({index.row() for index in self.selectedIndexes()})]

    def show_slides(self, names: Sequence[str]) -> None:
        """List slides; the choice of rows is kept where these are the same."""
        if names == [self.name(row) for row in range(self.rowCount())]:
            return
        self.setRowCount(len(names))
        for row, name in enumerate(names):
            for column in range(len(_HEADER)):
                self.setItem(row, column, QTableWidgetItem(name if column == _NAME else ""))

    def show_labels(self, labels: Mapping[str, str]) -> None:
        """Show the label of each slide."""
        for row in range(self.rowCount()):
            label = labels.get(self.name(row), UNKNOWN)
            item = QTableWidgetItem(swatch(LABEL_COLORS[label], 12), label)
            self.setItem(row, _LABEL, item)
        self.resizeColumnToContents(_LABEL)

    def show_maps(self, steps: Mapping[str, int]) -> None:
        """Show which training step made each slide's newest map."""
        self._fill(_MAP, {name: f"{step:,}" for name, step in steps.items()})

    def show_scores(self, scores: Mapping[str, tuple[float, bool]]) -> None:
        """Show each slide's score 0..1, and mark those that were kept back from training."""
        words = {
            name: f"{100 * score:.0f} %{' kept back' if held else ''}"
            for name, (score, held) in scores.items()
        }
        self._fill(_SCORE, words)

    def _fill(self, column: int, words: Mapping[str, str]) -> None:
        for row in range(self.rowCount()):
            item = self.item(row, column)
            if item is not None:
                item.setText(words.get(self.name(row), ""))
        self.resizeColumnToContents(column)
