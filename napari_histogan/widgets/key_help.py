"""The table of all keys, as they are set now."""

from __future__ import annotations

from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QAbstractItemView,
    QDialog,
    QDialogButtonBox,
    QHeaderView,
    QLabel,
    QLineEdit,
    QTableWidget,
    QTableWidgetItem,
    QVBoxLayout,
    QWidget,
)

from napari_histogan.widgets.keys import key_table

_WORDS = (
    "Keys act in the tab that is in front. Most can be changed in File > Preferences > Shortcuts "
    "(all begin with HistoGAN); numbers of classes and keys of the gallery are fixed."
)


class KeyHelp(QDialog):
    """Lists keys; a field finds one by its letter or by what it does."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setWindowTitle("Keys of HistoGAN")
        self.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        words = QLabel(_WORDS)
        words.setWordWrap(True)
        self.field = QLineEdit()
        self.field.setPlaceholderText("Find a key, such as: outline")
        self.field.setToolTip("Show only rows with these letters")
        self.field.setClearButtonEnabled(True)
        self.field.textChanged.connect(self._find)
        rows = key_table()
        self.table = QTableWidget(len(rows), 3)
        self.table.setToolTip("Where a key acts, the key, and what it does")
        self.table.setHorizontalHeaderLabels(["Where", "Key", "What it does"])
        self.table.verticalHeader().hide()
        self.table.setTabKeyNavigation(False)
        self.table.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.table.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        for row, texts in enumerate(rows):
            for column, text in enumerate(texts):
                self.table.setItem(row, column, QTableWidgetItem(text))
        header = self.table.horizontalHeader()
        header.setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
        header.setSectionResizeMode(2, QHeaderView.ResizeMode.Stretch)
        box = QDialogButtonBox(QDialogButtonBox.StandardButton.Close)
        box.rejected.connect(self.close)
        layout = QVBoxLayout(self)
        for part in (words, self.field, self.table, box):
            layout.addWidget(part)
        self.resize(640, 560)
        self.field.setFocus()

    def _find(self, letters: str) -> None:
        """Hide rows without these letters."""
        wanted = letters.casefold().strip()
        for row in range(self.table.rowCount()):
            items = [self.table.item(row, column) for column in range(3)]
            text = " ".join(item.text() for item in items if item is not None)
            self.table.setRowHidden(row, wanted not in text.casefold())


def show_keys(parent: QWidget) -> KeyHelp:
    """Open the table; the window behind it stays usable."""
    shown = parent.window().findChild(KeyHelp)
    dialog = shown if shown is not None else KeyHelp(parent.window())
    dialog.show()
    dialog.raise_()
    return dialog
