"""The measured objects of a heatmap as a table; a click on a row flies there."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import QAbstractTableModel, QModelIndex, QObject, Qt, Signal
from qtpy.QtWidgets import QAbstractItemView, QHeaderView, QTableView, QWidget

_COLUMNS = ("No.", "Class", "Area um2", "Perim. um", "Mean %")
_SOURCES = (-1, -2, 2, 3, 4)
_EXPORTED = ("class", "y_um", "x_um", "area_um2", "perimeter_um", "mean_probability")


class ObjectsModel(QAbstractTableModel):
    """Rows as :func:`napari_histogan.inference.review.object_rows` gives them, sorted by any column."""

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._rows: NDArray[np.float64] = np.empty((0, 6))
        self._classes: NDArray[np.int64] = np.empty(0, np.int64)
        self._names: tuple[str, ...] = ()
        self.order: NDArray[np.int64] = np.empty(0, np.int64)
        self._sorted = (0, True)

    def set_rows(self, rows: NDArray[np.float64], classes: NDArray[np.int64], names: Sequence[str]) -> None:
        """Show other objects, with their classes (1 to K, 0 for none) and the names of these."""
        self.beginResetModel()
        self._rows, self._classes, self._names = rows, classes, tuple(names)
        self._arrange()
        self.endResetModel()

    def row(self, number: int) -> NDArray[np.float64]:
        """Return the figures of an object."""
        return np.asarray(self._rows[number])

    def rowCount(self, parent: QModelIndex | None = None) -> int:  # noqa: N802 - Qt's name
        """Return how many objects there are."""
        return 0 if parent is not None and parent.isValid() else len(self._rows)

    def columnCount(self, parent: QModelIndex | None = None) -> int:  # noqa: N802 - Qt's name
        """Return how many figures an object has."""
        return 0 if parent is not None and parent.isValid() else len(_COLUMNS)

    def headerData(self, section: int, orientation: Any, role: int = 0) -> Any:  # noqa: N802 - Qt's name
        """Return a column's title."""
        if orientation == Qt.Orientation.Horizontal and role == Qt.ItemDataRole.DisplayRole:
            return _COLUMNS[section]
        return None

    def data(self, index: QModelIndex, role: int = int(Qt.ItemDataRole.DisplayRole)) -> Any:
        """Return one figure."""
        if not index.isValid():
            return None
        if role == Qt.ItemDataRole.TextAlignmentRole:
            return int(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
        if role != Qt.ItemDataRole.DisplayRole:
            return None
        number = int(self.order[index.row()])
        source = _SOURCES[index.column()]
        if source == -1:
            return str(number + 1)
        if source == -2:
            return self.class_name(number)
        value = self._rows[number, source]
        return f"{100 * value:.0f}" if source == 4 else f"{value:,.0f}"

    def class_name(self, number: int) -> str:
        """Return the name of an object's class; "" if it has none."""
        index = int(self._classes[number]) if number < len(self._classes) else 0
        return self._names[index - 1] if 1 <= index <= len(self._names) else ""

    def sort(self, column: int, order: Any = Qt.SortOrder.AscendingOrder) -> None:
        """Sort by a column."""
        self.layoutAboutToBeChanged.emit()
        self._sorted = (column, order == Qt.SortOrder.AscendingOrder)
        self._arrange()
        self.layoutChanged.emit()

    def _arrange(self) -> None:
        column, ascending = self._sorted
        source = _SOURCES[column]
        keys = np.arange(len(self._rows), dtype=np.float64)
        if source != -1:
            keys = self._rows[:, source] if source >= 0 else self._classes.astype(np.float64)
        self.order = np.argsort(keys if ascending else -keys, kind="stable")


class ObjectsTable(QTableView):
    """Shows objects.

    Signals
    -------
    wanted
        Number of the object that was clicked or gone to by the arrow keys.
    """

    wanted = Signal(int)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.model_ = ObjectsModel(self)
        self.setModel(self.model_)
        self.setToolTip("Objects above the threshold; a click or the arrow keys fly there, a title sorts")
        self.setSortingEnabled(True)
        self.sortByColumn(0, Qt.SortOrder.AscendingOrder)
        self.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.verticalHeader().hide()
        self.setTabKeyNavigation(False)
        self.horizontalHeader().setSectionResizeMode(QHeaderView.ResizeMode.Stretch)
        self.setMinimumHeight(110)
        self.selectionModel().currentRowChanged.connect(self._on_row)
        self.clicked.connect(lambda index: self._on_row(index, None))

    def show_rows(self, rows: NDArray[np.float64], classes: NDArray[np.int64], names: Sequence[str]) -> None:
        """Show other objects; see :meth:`ObjectsModel.set_rows`."""
        self.model_.set_rows(rows, classes, names)

    def csv(self) -> str:
        """Return the rows in the order in which they are shown, as a table for other programs."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(_EXPORTED)
        for number in self.model_.order:
            row = [f"{value:.6g}" for value in self.model_.row(int(number))[:5]]
            writer.writerow([self.model_.class_name(int(number)), *row])
        return text.getvalue()

    def choose(self, number: int) -> None:
        """Mark an object without flying there."""
        found = np.flatnonzero(self.model_.order == number)
        if len(found):
            self.blockSignals(True)
            self.selectRow(int(found[0]))
            self.blockSignals(False)

    def _on_row(self, index: QModelIndex, _before: Any) -> None:
        if index.isValid():
            self.wanted.emit(int(self.model_.order[index.row()]))
