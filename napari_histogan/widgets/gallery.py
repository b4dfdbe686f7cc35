"""The gallery below the canvas: thumbnails of all samples, filters, and one key to paint."""

from __future__ import annotations

from math import cos, pi, sin
from typing import Any

from qtpy.QtCore import QEvent, QModelIndex, QObject, QPointF, QRect, QSize, Qt
from qtpy.QtGui import QColor, QPainter, QPen, QPolygonF
from qtpy.QtWidgets import (
    QAbstractItemView,
    QButtonGroup,
    QLabel,
    QListView,
    QPushButton,
    QStyle,
    QStyledItemDelegate,
    QStyleOptionViewItem,
    QVBoxLayout,
    QWidget,
)
from superqt import QFlowLayout

from napari_histogan.widgets.gallery_model import (
    INDEX_ROLE,
    LIKED_ROLE,
    PAINTED_ROLE,
    REAL_ROLE,
    SCORE_ROLE,
    THUMBNAIL_PX,
    Filter,
    GalleryModel,
)
from napari_histogan.widgets.sample_store import SampleStore
from napari_histogan.widgets.session import Session
from napari_histogan.widgets.session_view import SessionView

_CELL = THUMBNAIL_PX + 8
_ROW_GAP = 4
_FILTERS: tuple[tuple[Filter, str, str], ...] = (
    ("all", "All", "Every sample"),
    ("painted", "Painted", "Samples with paint"),
    ("unpainted", "Unpainted", "Samples without paint"),
    ("informative", "Informative", "Samples that would tell most if painted: uncertain, no two alike"),
    ("liked", "Favorites", "Samples that you liked (L)"),
    ("real", "Real", "Real patches as the generator paints them"),
)


class ThumbnailDelegate(QStyledItemDelegate):
    """Draws a thumbnail with a frame when chosen, a dot when painted, its uncertainty, and what is real."""

    def sizeHint(self, _option: QStyleOptionViewItem, _index: QModelIndex) -> QSize:  # noqa: N802
        """Return the size of a cell."""
        return QSize(_CELL, _CELL)

    def paint(self, painter: QPainter, option: QStyleOptionViewItem, index: QModelIndex) -> None:
        """Draw one cell."""
        box = option.rect.adjusted(4, 4, -4, -4)
        pixmap = index.data(Qt.ItemDataRole.DecorationRole)
        if pixmap is not None:
            painter.drawPixmap(box, pixmap)
        else:
            painter.fillRect(box, QColor(128, 128, 128, 60))
        if option.state & QStyle.StateFlag.State_Selected:
            painter.setPen(QPen(QColor("#56b4e9"), 3))
            painter.drawRect(box.adjusted(-2, -2, 1, 1))
        painter.setPen(Qt.PenStyle.NoPen)
        if index.data(PAINTED_ROLE):
            painter.setBrush(QColor("#009e73"))
            painter.drawEllipse(box.right() - 14, box.top() + 3, 11, 11)
            painter.setBrush(Qt.BrushStyle.NoBrush)
        if index.data(REAL_ROLE):
            mark = QRect(box.left() + 2, box.top() + 2, 34, 15)
            painter.fillRect(mark, QColor("#e69f00"))
            painter.setPen(QColor("black"))
            painter.drawText(mark, Qt.AlignmentFlag.AlignCenter, "real")
        if index.data(LIKED_ROLE):
            painter.setPen(QPen(QColor("black"), 1))
            painter.setBrush(QColor("#f0e442"))
            painter.drawPolygon(_star(box.right() - 9, box.bottom() - 24))
            painter.setBrush(Qt.BrushStyle.NoBrush)
        score = index.data(SCORE_ROLE)
        text = f"#{index.data(INDEX_ROLE)}" + (f"  {score:.2f}" if score is not None else "")
        label = QRect(box.left(), box.bottom() - 14, box.width(), 15)
        painter.fillRect(label, QColor(0, 0, 0, 140))
        painter.setPen(QColor("white"))
        painter.drawText(label, Qt.AlignmentFlag.AlignCenter, text)


def _star(x: float, y: float) -> QPolygonF:
    """Return a star with five points around a place."""
    corners = [(8.0 if k % 2 == 0 else 3.4, pi * (k / 5 - 0.5)) for k in range(10)]
    return QPolygonF([QPointF(x + r * cos(angle), y + r * sin(angle)) for r, angle in corners])


class GalleryDock(SessionView):
    """Thumbnails of the current samples.

    Parameters
    ----------
    napari_viewer
        The viewer that the dock belongs to.
    """

    def __init__(self, napari_viewer: Any, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setMinimumHeight(_CELL + 20)
        self.model = GalleryModel(self)
        self.view = QListView()
        self.view.setModel(self.model)
        self.view.setToolTip("Samples: Enter or a double click paints one; letters do what the buttons do")
        self.view.setItemDelegate(ThumbnailDelegate(self.view))
        self.view.setViewMode(QListView.ViewMode.IconMode)
        self.view.setUniformItemSizes(True)
        self.view.setGridSize(QSize(_CELL, _CELL))
        self.view.setResizeMode(QListView.ResizeMode.Adjust)
        self.view.setMovement(QListView.Movement.Static)
        self.view.setVerticalScrollMode(QAbstractItemView.ScrollMode.ScrollPerPixel)
        self.view.setSelectionMode(QAbstractItemView.SelectionMode.ExtendedSelection)
        self.view.doubleClicked.connect(self._open)
        self.view.installEventFilter(self)
        self.status = QLabel("No samples yet.")
        layout = QVBoxLayout(self)
        layout.setContentsMargins(4, 2, 4, 2)
        layout.addLayout(self._make_filters())
        layout.addWidget(self.view, 1)
        self.bind_session(napari_viewer)

    def _make_filters(self) -> QFlowLayout:
        row = QFlowLayout()
        row.setHorizontalSpacing(_ROW_GAP)
        row.setVerticalSpacing(_ROW_GAP)
        self.filters = QButtonGroup(self)
        for number, (name, text, tip) in enumerate(_FILTERS):
            button = QPushButton(text)
            button.setCheckable(True)
            button.setToolTip(tip)
            button.setFocusPolicy(Qt.FocusPolicy.TabFocus)
            button.setChecked(number == 0)
            button.clicked.connect(lambda _checked=False, name=name: self.show_filter(name))
            self.filters.addButton(button, number)
            row.addWidget(button)
        for text, tip, slot in (
            ("Like L", "Make the chosen sample a favorite, or take it back (L)", self.like),
            ("Mix M", "Mix two chosen samples; choose the second with Ctrl (M)", self.mix),
            ("Similar S", "Show samples like the chosen one (S)", self.more_like),
        ):
            button = QPushButton(text)
            button.setToolTip(tip)
            button.setFocusPolicy(Qt.FocusPolicy.TabFocus)
            button.clicked.connect(lambda _checked=False, slot=slot: slot())
            row.addWidget(button)
        row.addWidget(self.status)
        return row

    def show_filter(self, name: Filter) -> None:
        """Show a part of the samples."""
        number = [key for key, _, _ in _FILTERS].index(name)
        self.filters.button(number).setChecked(True)
        self.model.set_filter(name)
        if name == "informative" and self.session is not None and not self.model.scores:
            self.session.painting.ranking.rank()
        self._tell()

    def next_filter(self) -> None:
        """Show the next part of the samples."""
        self.show_filter(_FILTERS[(self.filters.checkedId() + 1) % len(_FILTERS)][0])

    def attach(self, session: Session) -> None:
        """Follow a session."""
        self.watch(session.samples_changed, self._reload)
        self.watch(session.mask_saved, self._mark)
        self.watch(session.scores_changed, self._rank)
        self.watch(session.sample_opened, self._select)
        self.watch(session.painted_changed, self._look_again)
        self.watch(session.favorites.changed, self._show_favorites)
        self._reload()

    def _reload(self) -> None:
        session = self.session
        store = session.samples if session is not None else None
        if session is None or store is None:
            self.model.set_source(0, None)
        else:
            thumbnails = SampleStore(store.path, chunks_kept=2)  # of its own: it is read in another thread
            self.model.set_source(len(store), thumbnails.image, session.painted(), store.real)
            self.model.set_liked(session.favorites.marked)
            self.model.set_scores(session.scores)
            self._select(session.painting.index)
        self._tell()

    def chosen(self) -> list[int]:
        """Return the numbers of the chosen samples, the present one last."""
        indexes = self.view.selectionModel().selectedIndexes()
        present = self.view.currentIndex()
        rows = [i.row() for i in indexes if i.row() != present.row()]
        if present in indexes:
            rows.append(present.row())
        return [self.model.sample(row) for row in rows]

    def like(self) -> None:
        """Make the chosen samples favorites, or take it back."""
        if self.session is not None:
            for index in self.chosen():
                self.session.favorites.toggle(index)

    def mix(self) -> None:
        """Show the mixes of the two chosen samples."""
        chosen = self.chosen()
        if self.session is None:
            return
        if len(chosen) != 2:
            words = "Choose two samples to mix: click one, then another with Ctrl."
            self.session.told.emit(words, "info")
            return
        self.session.tab_wanted.emit("samples")
        self.session.mix_wanted.emit(chosen[0], chosen[1])

    def more_like(self) -> None:
        """Show samples like the chosen one."""
        chosen = self.chosen()
        if self.session is not None and chosen:
            self.session.tab_wanted.emit("samples")
            self.session.mix_wanted.emit(chosen[-1], -1)

    def _show_favorites(self) -> None:
        if self.session is not None:
            self.model.set_liked(self.session.favorites.marked)

    def _mark(self, index: int, pixels: int) -> None:
        self.model.set_painted(index, pixels > 0)
        self._tell()

    def _look_again(self) -> None:
        """Notice masks that another process saved, as the demo does."""
        if self.session is not None and self.session.project is not None:
            painted = set(self.session.painted())
            for index in painted ^ self.model.painted:
                self.model.set_painted(index, index in painted)
            self._tell()

    def _rank(self) -> None:
        if self.session is not None:
            self.model.set_scores(self.session.scores)
        self._tell()

    def _select(self, index: int) -> None:
        row = self.model.row_of(index)
        if row >= 0:
            self.view.setCurrentIndex(self.model.index(row))

    def _tell(self) -> None:
        session = self.session
        if session is None or session.samples is None:
            self.status.setText("No samples yet.")
            return
        shown, painted = self.model.rowCount(), len(self.model.painted)
        words = f"{len(session.samples)} samples, {painted} painted"
        if self.filters.checkedId() == 3 and not self.model.scores:
            words += "; ranking needs paint of two classes"
        elif shown != len(session.samples):
            words += f", {shown} shown"
        self.status.setText(words)

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:  # noqa: N802 - Qt's name
        """Let Enter open the chosen sample, and letters do what the buttons do."""
        if event.type() == QEvent.Type.KeyPress:
            if event.key() in (Qt.Key.Key_Return, Qt.Key.Key_Enter):
                self._open(self.view.currentIndex())
                return True
            letters = {Qt.Key.Key_L: self.like, Qt.Key.Key_M: self.mix, Qt.Key.Key_S: self.more_like,
                       Qt.Key.Key_F: self.next_filter}  # fmt: skip
            act = letters.get(event.key())
            if act is not None and event.modifiers() == Qt.KeyboardModifier.NoModifier:
                act()
                return True
        return bool(super().eventFilter(watched, event))

    def _open(self, index: QModelIndex) -> None:
        if index.isValid() and self.session is not None:
            self.session.open_sample(self.model.sample(index.row()))
