"""Brush, eraser, fill, and polygon: one row of buttons with their keys."""

from __future__ import annotations

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QButtonGroup, QHBoxLayout, QLabel, QVBoxLayout, QWidget
from superqt import QLabeledSlider

from napari_histogan.widgets.keys import Key, KeyButton

_TOOLS = (
    ("paint", "Brush", "P", "Paint the chosen class; the right mouse button encircles and fills"),
    ("erase", "Erase", "E", "Back to unlabeled"),
    ("fill", "Fill", "F", "Fill a closed region"),
    ("polygon", "Polygon", "G", "Click corners; Enter or a double click closes"),
)
COMPACT = "QPushButton { padding: 4px 2px; }"
"""For rows of buttons that a narrow dock must hold."""
_ASSIST = ("assist", "Assist", "A", "Paint only where the prediction agrees with the chosen class")


class ToolBar(QWidget):
    """Chooses tool and brush size; the keys work wherever the mouse is.

    Parameters
    ----------
    where
        Tab of the keys.
    assist
        Offer the brush that follows a prediction.

    Signals
    -------
    tool_chosen
        "paint", "assist", "erase", "fill", or "polygon".
    size_chosen
        Diameter of the brush in pixels.
    """

    tool_chosen = Signal(str)
    size_chosen = Signal(int)

    def __init__(self, where: str, assist: bool = False, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._tools = (_TOOLS[0], _ASSIST, *_TOOLS[1:]) if assist else _TOOLS
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        row = QHBoxLayout()
        self._group = QButtonGroup(self)
        self.shortcuts: list[Key] = []
        for number, (tool, text, key, tip) in enumerate(self._tools):
            button = KeyButton(f"{text} {{{key}}}", where)
            button.setCheckable(True)
            button.setToolTip(f"{tip} ({{{key}}})")
            button.setStyleSheet(COMPACT)
            button.clicked.connect(lambda _checked=False, tool=tool: self.tool_chosen.emit(tool))
            self._group.addButton(button, number)
            row.addWidget(button)
            self.shortcuts.append(Key(where, key, lambda tool=tool: self.tool_chosen.emit(tool), self))
        layout.addLayout(row)
        sizes = QHBoxLayout()
        sizes.addWidget(QLabel("Brush size"))
        self.size = QLabeledSlider(Qt.Orientation.Horizontal)
        self.size.setRange(1, 60)
        self.size.setToolTip("Diameter of the brush in pixels of the picture ([ and ])")
        self.size.valueChanged.connect(self.size_chosen.emit)
        sizes.addWidget(self.size)
        layout.addLayout(sizes)

    def show_tool(self, tool: str) -> None:
        """Press the button of a tool; other tools release all."""
        names = [name for name, *_ in self._tools]
        if tool in names:
            self._group.button(names.index(tool)).setChecked(True)

    def show_size(self, pixels: int) -> None:
        """Show the brush's size without choosing it anew."""
        self.size.blockSignals(True)
        self.size.setValue(pixels)
        self.size.blockSignals(False)

    def set_keys_enabled(self, enabled: bool) -> None:
        """Let the keys act, or leave them to others."""
        for shortcut in self.shortcuts:
            shortcut.setEnabled(enabled)
