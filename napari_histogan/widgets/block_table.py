"""The label values of blocks as a table: how many blocks, how many estimated, and what they hold."""

from __future__ import annotations

from collections.abc import Sequence

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QAbstractItemView, QHeaderView, QTableWidget, QTableWidgetItem, QWidget

from napari_histogan.widgets.block_queue import ValueRow
from napari_histogan.widgets.block_view import block_colors
from napari_histogan.widgets.pictures import swatch

_LEAST_PX = 132
_HEADER = ("Label", "Estimated", "Mean and spread, %")


class BlockTable(QTableWidget):
    """The calibration as it grows.

    Signals
    -------
    value_chosen
        Position of the label value that was clicked.
    """

    value_chosen = Signal(int)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(0, len(_HEADER), parent)
        self.setToolTip(
            "Label values and what was estimated of them; ✓ is enough.  A click shows a block of the value"
        )
        self.setWordWrap(False)
        self.setHorizontalHeaderLabels(list(_HEADER))
        self.verticalHeader().hide()
        self.horizontalHeader().setSectionResizeMode(2, QHeaderView.ResizeMode.Stretch)
        self.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.setTabKeyNavigation(False)
        self.setFocusPolicy(Qt.FocusPolicy.TabFocus)
        self.setMinimumHeight(_LEAST_PX)
        self.cellClicked.connect(lambda row, _column: self.value_chosen.emit(row))

    def show_rows(self, rows: Sequence[ValueRow], classes: tuple[str, ...]) -> None:
        """Show what is known of each label value.

        Parameters
        ----------
        rows
            In the order of the values.
        classes
            Names, as many as a row has shares.
        """
        self.setRowCount(len(rows))
        colors = block_colors(tuple(row.value for row in rows))
        for number, (row, color) in enumerate(zip(rows, colors, strict=True)):
            mark = "  ✓" if row.is_enough else ""
            items = (
                QTableWidgetItem(swatch(color), row.value),
                QTableWidgetItem(f"{row.estimated} of {row.blocks}{mark}"),
                QTableWidgetItem(shares_in_words(row, classes)),
            )
            for column, item in enumerate(items):
                self.setItem(number, column, item)
        self.resizeColumnToContents(0)
        self.resizeColumnToContents(1)


def shares_in_words(row: ValueRow, classes: tuple[str, ...]) -> str:
    """Return mean and standard deviation of a label value's shares in percent; one class says all of two."""
    if not row.mean:
        return ""
    shown = classes[:1] if len(classes) == 2 else classes
    parts = []
    for number, name in enumerate(shown):
        spread = f" ± {100 * row.deviation[number]:.0f}" if row.deviation else ""
        parts.append(f"{name} {100 * row.mean[number]:.0f}{spread}")
    return ", ".join(parts)
