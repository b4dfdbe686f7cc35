"""The list of slides: thousands open at once, for text and thumbnail of a row are read when it is seen."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from qtpy.QtCore import QSize, Qt
from qtpy.QtGui import QIcon, QPixmap
from qtpy.QtWidgets import QLineEdit, QListWidget, QListWidgetItem, QWidget

from napari_histogan.project.slide_list import SlideEntry
from napari_histogan.widgets.pictures import mark_with

_ICON = QSize(72, 56)
_FILTER_FROM = 10
"""So many slides are found more quickly by a word than by looking."""

_Role = Qt.ItemDataRole


class SlideList(QListWidget):
    """Slides with name, size, and thumbnail, and a filter by words of their names.

    Attributes
    ----------
    filter
        The box for words; shown above ten slides.  To be laid out by whoever owns the list.
    """

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setIconSize(_ICON)
        self.setUniformItemSizes(True)  # or each row would be asked for its thumbnail at once
        self.filter = QLineEdit()
        self.filter.setPlaceholderText("Filter by name")
        self.filter.setToolTip("Shows the slides whose names hold all of these words")
        self.filter.setClearButtonEnabled(True)
        self.filter.textChanged.connect(self._apply)
        self.filter.hide()

    def show_slides(self, entries: Sequence[SlideEntry], folders: Iterable[Path]) -> None:
        """List slides; ``folders`` hold thumbnails by name, the oldest first."""
        newest_first = tuple(reversed(list(folders)))
        self.clear()
        for entry in entries:
            self.addItem(_SlideItem(entry, newest_first))
        self.filter.setVisible(len(entries) > _FILTER_FROM or bool(self.filter.text()))
        self._apply()

    def shown(self) -> list[str]:
        """Return the names of the slides that the filter leaves."""
        rows = (row for row in range(self.count()) if not self.isRowHidden(row))
        return [str(item.data(_Role.UserRole)) for row in rows if (item := self.item(row)) is not None]

    def _apply(self) -> None:
        """Hide what the filter leaves out; the first slide that is left becomes the current one."""
        words = self.filter.text().casefold().split()
        first = -1
        for row in range(self.count()):
            item = self.item(row)
            name = str(item.data(_Role.UserRole)).casefold() if item is not None else ""
            hidden = not all(word in name for word in words)
            if hidden != self.isRowHidden(row):
                self.setRowHidden(row, hidden)
            first = row if first < 0 and not hidden else first
        if first >= 0 and (self.currentRow() < 0 or self.isRowHidden(self.currentRow())):
            self.setCurrentRow(first)


class _SlideItem(QListWidgetItem):
    """A row whose words and picture are made when somebody asks."""

    def __init__(self, entry: SlideEntry, folders: tuple[Path, ...]) -> None:
        super().__init__()
        self._entry, self._folders = entry, folders

    def data(self, role: int) -> Any:
        """Answer what the view asks for."""
        if role == _Role.UserRole:
            return self._entry.name
        if role == _Role.DisplayRole:
            return self._words
        if role == _Role.DecorationRole:
            return self._icon
        if role == _Role.ToolTipRole:
            return f"{self._entry.path}\nStains: {' and '.join(self._stains) or 'not known'}"
        return super().data(role)

    @property
    def _stains(self) -> list[str]:
        return [str(color) for color in (self._entry.stain or {}).get("colors", [])]

    @cached_property
    def _words(self) -> str:
        entry = self._entry
        missing = "" if entry.path.exists() else "\nfile is missing"
        return f"{entry.name}\n{entry.size.width} x {entry.size.height} px, {entry.mpp:.3g} um/px{missing}"

    @cached_property
    def _icon(self) -> QIcon | None:
        """The newest thumbnail with the colors of the stains; None if there is none."""
        paths = (folder / f"{self._entry.name}.png" for folder in self._folders)
        path = next((path for path in paths if path.is_file()), None)
        if path is None:
            return None
        pixmap = QPixmap(str(path)).scaled(_ICON * 2, Qt.AspectRatioMode.KeepAspectRatio)
        mark_with(pixmap, self._stains)
        icon = QIcon(pixmap)
        icon.addPixmap(pixmap, QIcon.Mode.Selected)  # without a tint
        return icon
