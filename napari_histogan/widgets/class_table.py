"""The classes: number, color, name, key, and how much of each is painted."""

from __future__ import annotations

from dataclasses import replace

from qtpy.QtCore import Qt, Signal
from qtpy.QtGui import QColor, QKeySequence, QShortcut
from qtpy.QtWidgets import (
    QAbstractItemView,
    QColorDialog,
    QHBoxLayout,
    QHeaderView,
    QPushButton,
    QTableWidget,
    QTableWidgetItem,
    QVBoxLayout,
    QWidget,
)

from napari_histogan.errors import LabelError
from napari_histogan.labels.classes import ClassInfo, ClassTable
from napari_histogan.widgets.pictures import swatch

_SCARCE_SHARE = 0.05
_ROW_PX = 24


class ClassTableWidget(QWidget):
    """Shows the classes and lets people add, rename, and recolor them.

    Signals
    -------
    chosen
        Number of the class to paint with.
    edited
        The new :class:`ClassTable`.
    refused
        Why an edit is not possible.
    """

    chosen = Signal(int)
    edited = Signal(object)
    refused = Signal(str)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._classes = ClassTable()
        self._filling = False
        self._keys: list[QShortcut] = []
        self._keys_enabled = False
        self.table = QTableWidget(0, 3)
        self.table.setHorizontalHeaderLabels(["Key", "Class", "Painted"])
        self.table.verticalHeader().hide()
        self.table.verticalHeader().setDefaultSectionSize(_ROW_PX)
        self.table.horizontalHeader().setFixedHeight(_ROW_PX)
        self.table.horizontalHeader().setSectionResizeMode(1, QHeaderView.ResizeMode.Stretch)
        self.table.setColumnWidth(0, 56)
        self.table.setColumnWidth(2, 120)
        self.table.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.table.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.table.setToolTip("The number key or a click chooses a class; a double click renames it.")
        self.table.setTabKeyNavigation(False)
        self.table.itemChanged.connect(self._rename)
        self.table.itemSelectionChanged.connect(self._choose_row)
        self.add_button = QPushButton("+ class")
        self.add_button.setToolTip("Add a class; double-click its name to change it")
        self.add_button.clicked.connect(self.add)
        self.color_button = QPushButton("Color ...")
        self.color_button.setToolTip("Change the color of the chosen class")
        self.color_button.clicked.connect(self._ask_color)
        row = QHBoxLayout()
        for button in (self.add_button, self.color_button):
            button.setFocusPolicy(Qt.FocusPolicy.TabFocus)
            row.addWidget(button)
        row.addStretch(1)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.table)
        layout.addLayout(row)

    def show_classes(self, table: ClassTable) -> None:
        """Show other classes."""
        self._filling = True
        self._classes = table
        self.table.setRowCount(len(table))
        for row, info in enumerate(table):
            key = QTableWidgetItem(swatch(info.color), info.key or "")
            key.setFlags(key.flags() & ~Qt.ItemFlag.ItemIsEditable)
            painted = QTableWidgetItem("")
            painted.setFlags(painted.flags() & ~Qt.ItemFlag.ItemIsEditable)
            self.table.setItem(row, 0, key)
            self.table.setItem(row, 1, QTableWidgetItem(info.name))
            self.table.setItem(row, 2, painted)
        self.table.setFixedHeight(_ROW_PX * (min(max(len(table), 2), 9) + 1) + 4)
        self._filling = False
        self._bind_keys()

    def show_painted(self, pixels: dict[int, int], masks: dict[int, int]) -> None:
        """Show how many pixels, in how many masks, are painted of each class."""
        self._filling = True
        total = sum(pixels.values())
        for row, info in enumerate(self._classes):
            count = pixels.get(info.index, 0)
            item = self.table.item(row, 2)
            if item is None:
                continue
            where = masks.get(info.index, 0)
            text = f"{_short(count)} px, {where} mask{'s' * (where != 1)}" if count else "none yet"
            scarce = total > 0 and count < _SCARCE_SHARE * total / max(1, len(self._classes))
            item.setText(f"{text}, low!" if scarce and count else text)
            item.setToolTip("Much less than the others; paint some more of it." if scarce else "")
        self._filling = False

    def choose(self, index: int) -> None:
        """Mark a class as chosen."""
        self._filling = True
        self.table.selectRow(index - 1)
        self._filling = False

    @property
    def chosen_index(self) -> int:
        """Number of the chosen class; 0 for none."""
        return self.table.currentRow() + 1

    def add(self) -> None:
        """Add a class with the next number, a color of its own, and its key."""
        index = len(self._classes) + 1
        names = {name.casefold() for name in self._classes.names}
        name = next(n for k in range(index, index + 300) if (n := f"class {k}").casefold() not in names)
        self._try(lambda: ClassTable((*self._classes, ClassInfo(index, name))))

    def recolor(self, index: int, color: str) -> None:
        """Give a class another color."""
        self._replace(replace(self._classes[index], color=color))

    def rename(self, index: int, name: str) -> None:
        """Give a class another name."""
        self._try(lambda: self._with(replace(self._classes[index], name=name)))

    def set_keys_enabled(self, enabled: bool) -> None:
        """Let the number keys choose classes, or leave them to others."""
        self._keys_enabled = enabled
        for shortcut in self._keys:
            shortcut.setEnabled(enabled)

    def _with(self, info: ClassInfo) -> ClassTable:
        return ClassTable(tuple(info if c.index == info.index else c for c in self._classes))

    def _replace(self, info: ClassInfo) -> None:
        self._try(lambda: self._with(info))

    def _try(self, make: object) -> None:
        try:
            table = make()  # type: ignore[operator]
        except LabelError as error:
            self.refused.emit(str(error))
            self.show_classes(self._classes)
            return
        self.edited.emit(table)

    def _rename(self, item: QTableWidgetItem) -> None:
        if not self._filling and item.column() == 1:
            self.rename(item.row() + 1, item.text())

    def _choose_row(self) -> None:
        if not self._filling and self.table.currentRow() >= 0:
            self.chosen.emit(self.table.currentRow() + 1)

    def _ask_color(self) -> None:
        index = self.chosen_index
        if index < 1:
            self.refused.emit("Choose a class first, then its color.")
            return
        color = QColorDialog.getColor(QColor(self._classes[index].color), self, "Color of the class")
        if color.isValid():
            self.recolor(index, color.name())

    def _bind_keys(self) -> None:
        for shortcut in self._keys:
            shortcut.setEnabled(False)
            shortcut.deleteLater()
        self._keys = []
        for info in self._classes:
            if info.key:
                shortcut = QShortcut(QKeySequence(info.key), self)
                shortcut.setEnabled(self._keys_enabled)
                shortcut.activated.connect(lambda index=info.index: self.chosen.emit(index))
                self._keys.append(shortcut)


def _short(count: int) -> str:
    """Return a count in at most four letters."""
    for limit, unit in ((1_000_000, "M"), (1_000, "k")):
        if count >= limit:
            return f"{count / limit:.1f}{unit}" if count < 10 * limit else f"{count // limit}{unit}"
    return str(count)
