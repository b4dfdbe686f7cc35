"""Estimating blocks: one after another is shown, a slider or a key says how much of each class it holds."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import QRectF, QSize, Qt, Signal
from qtpy.QtGui import QColor, QPainter, QPaintEvent, QPen, QPixmap
from qtpy.QtWidgets import (
    QButtonGroup,
    QGridLayout,
    QHBoxLayout,
    QLabel,
    QRadioButton,
    QSizePolicy,
    QVBoxLayout,
    QWidget,
)
from superqt import QLabeledSlider

from napari_histogan.geometry import Region
from napari_histogan.labels.classes import ClassTable
from napari_histogan.slides.reader import SlideReader
from napari_histogan.widgets.block_queue import Block, BlockQueue, with_share
from napari_histogan.widgets.painters import painter_on
from napari_histogan.widgets.pictures import swatch, to_pixmap
from napari_histogan.widgets.session import Session
from napari_histogan.widgets.session_view import SessionView

_PICTURE_PX = 176
_AROUND = 0.35
"""Tissue shown around a block, in sides of a block."""


class BlockPicture(QWidget):
    """A block in its surroundings, which are dimmed."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._pixmap: QPixmap | None = None
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.setFixedHeight(_PICTURE_PX + 4)
        self.setToolTip("The block to estimate; what is around it does not count")

    def sizeHint(self) -> QSize:  # noqa: N802 - Qt's name
        """Prefer a square."""
        return QSize(_PICTURE_PX, _PICTURE_PX + 4)

    def show_block(self, picture: NDArray[np.uint8]) -> None:
        """Show a block ``(H, W, 3) uint8`` with its surroundings of :data:`_AROUND` blocks a side."""
        self._pixmap = to_pixmap(picture, _PICTURE_PX)
        self.update()

    def paintEvent(self, _event: QPaintEvent) -> None:  # noqa: N802 - Qt's name
        """Draw the picture, the dimming, and the block's frame."""
        if self._pixmap is not None:
            with painter_on(self) as painter:
                self._draw(painter, self._pixmap)

    def _draw(self, painter: QPainter, pixmap: QPixmap) -> None:
        side = pixmap.width()
        left = (self.width() - side) / 2
        painter.drawPixmap(round(left), 2, pixmap)
        inset = side * _AROUND / (1 + 2 * _AROUND)
        block = QRectF(left + inset, 2 + inset, side - 2 * inset, side - 2 * inset)
        dim = QColor(0, 0, 0, 110)
        painter.fillRect(QRectF(left, 2, side, inset), dim)
        painter.fillRect(QRectF(left, block.bottom(), side, inset), dim)
        painter.fillRect(QRectF(left, block.top(), inset, block.height()), dim)
        painter.fillRect(QRectF(block.right(), block.top(), inset, block.height()), dim)
        painter.setPen(QPen(QColor("white"), 1.5))
        painter.drawRect(block)


class CalibrationPanel(SessionView):
    """Shows blocks and takes their shares; every estimate is on disk at once.

    Signals
    -------
    estimated
        An estimate was kept or taken back; names the label value.
    looked_at
        Row and column of the block that is shown.
    finished
        No block wants an estimate any more.
    """

    where = "blocks"

    estimated = Signal(str)
    looked_at = Signal(int, int)
    finished = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.queue: BlockQueue | None = None
        self.position = -1
        self.shares: list[float] = []
        self._reader: SlideReader | None = None
        self.words = QLabel()
        self.words.setWordWrap(True)
        self.picture = BlockPicture()
        self.sliders: list[QLabeledSlider] = []
        self.choices = QButtonGroup(self)
        self._rows = QGridLayout()
        self._rows.setContentsMargins(0, 0, 0, 0)
        self.hint = QLabel()
        self.hint.setWordWrap(True)
        self.back_button = self._button("Back", "Backspace", self.back)
        self.back_button.setToolTip("To the block before, to say it anew ({Backspace})")
        self.skip_button = self._button("Skip  ({N})", "N", self.skip)
        self.skip_button.setToolTip("To the next block without saying anything ({N})")
        self.accept_button = self._button("Accept  ({Return})", "Return", self.accept)
        self.accept_button.setToolTip("Keep what the sliders show ({Return})")
        for digit in range(10):
            self._digit(digit, lambda digit=digit: self.set_by_key(digit / 10))
        self._shortcut("F", lambda: self.set_by_key(1.0))
        self._shortcut("C", self.choose_next)
        self._shortcut("Delete", self.take_back)
        self._lay_out()

    def _lay_out(self) -> None:
        ends = QHBoxLayout()
        for button in (self.back_button, self.skip_button, self.accept_button):
            ends.addWidget(button)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        for part in (self.words, self.picture):
            layout.addWidget(part)
        layout.addLayout(self._rows)
        layout.addWidget(self.hint)
        layout.addLayout(ends)

    def attach(self, session: Session) -> None:
        """Follow a session; the tab of the blocks says what to show."""

    def set_keys_enabled(self, enabled: bool) -> None:
        """Let the keys act, and show the block on the slide again after another tab was in front."""
        super().set_keys_enabled(enabled)
        if enabled and self.block is not None:
            self.looked_at.emit(self.block.row, self.block.column)

    def begin(self, queue: BlockQueue, reader: SlideReader, classes: ClassTable) -> bool:
        """Show the first block that wants an estimate; False if there is none.

        Parameters
        ----------
        queue
            The blocks.
        reader
            Their slide, open.
        classes
            The project's, two or more.
        """
        self.queue, self._reader = queue, reader
        self._make_sliders(classes)
        return self._go(queue.next_open())

    def show_value(self, value: str) -> None:
        """Show a block of a label value."""
        if self.queue is not None:
            self._go(self.queue.first_of(value))

    @property
    def block(self) -> Block | None:
        """The block that is shown."""
        if self.queue is None or not 0 <= self.position < len(self.queue.blocks):
            return None
        return self.queue.blocks[self.position]

    # What people say

    def set_by_key(self, share: float) -> None:
        """Set the chosen class's share; with two classes that says it all, so it is kept."""
        if self.block is None:
            return
        self._set(max(0, self.choices.checkedId()), share)
        if len(self.shares) == 2:
            self.accept()

    def choose_next(self) -> None:
        """Choose the next class for the digits."""
        if self.sliders:
            following = (self.choices.checkedId() + 1) % len(self.sliders)
            self.choices.button(following).setChecked(True)
            self._say_hint()

    def accept(self) -> None:
        """Keep the shares and show the next block."""
        block, queue = self.block, self.queue
        if block is None or queue is None or self.session is None:
            return
        if self.session.attempt(lambda: queue.keep(block, self.shares)):
            self.estimated.emit(block.label)
            self._go(queue.next_open(self.position))

    def take_back(self) -> None:
        """Forget what was said of the shown block."""
        block, queue = self.block, self.queue
        if block is None or queue is None or self.session is None or queue.shares(block) is None:
            return
        if self.session.attempt(lambda: queue.take_back(block)):
            self.estimated.emit(block.label)
            self._show()

    def skip(self) -> None:
        """Show the next block that wants an estimate."""
        if self.queue is not None:
            self._go(self.queue.next_open(self.position))

    def back(self) -> None:
        """Show the block before."""
        if self.queue is not None and self.position > 0:
            self._go(self.position - 1)

    # Showing

    def _go(self, position: int) -> bool:
        """Show a block; tell when there is none."""
        if position < 0:
            self.position = -1
            self.finished.emit()
            return False
        self.position = position
        self._show()
        return True

    def _show(self) -> None:
        block, queue, reader = self.block, self.queue, self._reader
        if block is None or queue is None or reader is None or self.session is None:
            return
        um = queue.labels.block_um
        mpp = max(um * (1 + 2 * _AROUND) / _PICTURE_PX, reader.mpp)
        side = round(um * (1 + 2 * _AROUND) / mpp)
        y, x = (round((k - _AROUND) * um / mpp) for k in (block.row, block.column))
        self.session.attempt(lambda: self.picture.show_block(reader.read_at(Region(y, x, side, side), mpp)))
        said = queue.shares(block)
        self.shares = said or [1 / len(queue.classes)] * len(queue.classes)
        self._show_shares()
        number, count = queue.turn(self.position)
        before = "; said before" if said else ""
        self.words.setText(f"<b>{block.label}</b>: block {number} of {count}{before}")
        self._say_hint()
        self.looked_at.emit(block.row, block.column)

    def _say_hint(self) -> None:
        if self.queue is None or not self.queue.classes:
            return
        name = self.queue.classes[max(0, self.choices.checkedId())]
        more = "" if len(self.shares) == 2 else " C: next class."
        self.hint.setText(f"0-9: so many tenths {name}, F: all of it.{more} Or drag a slider.")

    def _make_sliders(self, classes: ClassTable) -> None:
        """Make a row for each class: its name, which the digits choose, and its slider."""
        while self._rows.count():
            item = self._rows.takeAt(0)
            widget = item.widget() if item is not None else None
            if widget is not None:
                if isinstance(widget, QRadioButton):
                    self.choices.removeButton(widget)
                widget.hide()
                widget.deleteLater()
        self.sliders = []
        for number, info in enumerate(classes):
            choice = QRadioButton(info.name)
            choice.setIcon(swatch(info.color))
            choice.setToolTip("The digits say this class's share (C: the next)")
            choice.setFocusPolicy(Qt.FocusPolicy.TabFocus)
            choice.setChecked(number == 0)
            choice.clicked.connect(self._say_hint)
            self.choices.addButton(choice, number)
            slider = QLabeledSlider(Qt.Orientation.Horizontal)
            slider.setRange(0, 100)
            slider.setToolTip(f"Share of {info.name} in the block, in percent")
            slider.valueChanged.connect(self._dragging(number))
            slider.sliderReleased.connect(self._released)
            self._rows.addWidget(choice, number, 0)
            self._rows.addWidget(slider, number, 1)
            self.sliders.append(slider)

    def _dragging(self, number: int) -> Callable[[int], None]:
        """Return what a slider's new value does."""
        return lambda percent: self._set(number, percent / 100)

    def _released(self) -> None:
        """Take a drag as the answer where one share says it all."""
        if len(self.shares) == 2:
            self.accept()

    def _set(self, index: int, share: float) -> None:
        self.shares = with_share(self.shares, index, share)
        self._show_shares()

    def _show_shares(self) -> None:
        for slider, share in zip(self.sliders, self.shares, strict=True):
            slider.blockSignals(True)
            slider.setValue(round(100 * share))
            slider.blockSignals(False)
