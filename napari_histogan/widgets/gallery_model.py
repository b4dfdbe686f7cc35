"""The list of samples behind the gallery: which are shown, in which order, and their thumbnails."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import QAbstractListModel, QModelIndex, QObject, Qt
from qtpy.QtGui import QImage, QPixmap

from napari_histogan.widgets.thumbnails import ThumbnailLoader

Filter = Literal["all", "painted", "unpainted", "informative", "liked", "real"]

THUMBNAIL_PX = 96
_PIXMAPS_KEPT = 600

INDEX_ROLE = int(Qt.ItemDataRole.UserRole)
PAINTED_ROLE = INDEX_ROLE + 1
SCORE_ROLE = INDEX_ROLE + 2
REAL_ROLE = INDEX_ROLE + 3
LIKED_ROLE = INDEX_ROLE + 4


class GalleryModel(QAbstractListModel):
    """Rows are sample numbers; a thumbnail is made when it is first drawn, 600 are kept.

    Thumbnails are made in another thread; a row without one yet is drawn empty, and again when it came.

    Parameters
    ----------
    parent
        Owner.
    """

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._loader = ThumbnailLoader(THUMBNAIL_PX, self)
        self._loader.ready.connect(self._take)
        self._count = 0
        self._painted: set[int] = set()
        self._scores: dict[int, float] = {}
        self._real: dict[int, float] = {}
        self._liked: set[int] = set()
        self._filter: Filter = "all"
        self._rows: list[int] = []
        self._row_of: dict[int, int] = {}
        self._pixmaps: OrderedDict[int, QPixmap] = OrderedDict()

    def set_source(
        self,
        count: int,
        image: Callable[[int], NDArray[np.uint8]] | None,
        painted: Iterable[int] = (),
        real: Mapping[int, float] | None = None,
    ) -> None:
        """Show other samples.

        Parameters
        ----------
        count
            How many there are.
        image
            Gives the picture of a sample, ``(R, R, 3)`` uint8; called in another thread.
        painted
            Samples that have paint.
        real
            Samples that stand for real patches, and how well each was reproduced, dB.
        """
        self._real = dict(real or {})
        self._count = count
        self._loader.set_source(image)
        self._painted, self._scores, self._liked = set(painted), {}, set()
        self._pixmaps.clear()
        self._rebuild()

    def set_filter(self, name: Filter) -> None:
        """Choose which samples are shown."""
        self._filter = name
        self._rebuild()

    def set_painted(self, index: int, painted: bool) -> None:
        """Note that a sample has paint, or has none any more."""
        if (index in self._painted) == painted:
            return
        if painted:
            self._painted.add(index)
        else:
            self._painted.discard(index)
        if self._filter == "all":
            row = self.row_of(index)
            if row >= 0:
                self.dataChanged.emit(self.index(row), self.index(row), [PAINTED_ROLE])
        else:
            self._rebuild()

    def set_scores(self, scores: Mapping[int, float]) -> None:
        """Note how informative samples are, 0 to 1."""
        self._scores = dict(scores)
        if self._filter == "informative":
            self._rebuild()
        elif self._rows:
            # Not a reset, which would scroll the gallery back while somebody looks at it.
            self.dataChanged.emit(self.index(0), self.index(len(self._rows) - 1), [SCORE_ROLE])

    def set_liked(self, liked: Iterable[int]) -> None:
        """Note which samples are favorites."""
        self._liked = set(liked)
        if self._filter == "liked":
            self._rebuild()
        elif self._rows:
            self.dataChanged.emit(self.index(0), self.index(len(self._rows) - 1), [LIKED_ROLE])

    @property
    def painted(self) -> frozenset[int]:
        """Samples that have paint."""
        return frozenset(self._painted)

    @property
    def scores(self) -> dict[int, float]:
        """How informative samples are, as far as it is known."""
        return dict(self._scores)

    def sample(self, row: int) -> int:
        """Return the sample number in a row."""
        return self._rows[row]

    def row_of(self, index: int) -> int:
        """Return the row of a sample; -1 if the filter hides it."""
        return self._row_of.get(index, -1)

    def rowCount(self, parent: QModelIndex | None = None) -> int:  # noqa: N802 - Qt's name
        """Return how many samples are shown."""
        return 0 if parent is not None and parent.isValid() else len(self._rows)

    def data(self, index: QModelIndex, role: int = int(Qt.ItemDataRole.DisplayRole)) -> Any:
        """Return a sample's thumbnail, number, or marks."""
        if not index.isValid() or index.row() >= len(self._rows):
            return None
        sample = self._rows[index.row()]
        if role == Qt.ItemDataRole.DecorationRole:
            return self._pixmap(sample)
        if role == INDEX_ROLE:
            return sample
        if role == PAINTED_ROLE:
            return sample in self._painted
        if role == REAL_ROLE:
            return sample in self._real
        if role == LIKED_ROLE:
            return sample in self._liked
        if role == SCORE_ROLE:
            return self._scores.get(sample)
        if role == Qt.ItemDataRole.ToolTipRole:
            return self._tooltip(sample)
        return None

    def _tooltip(self, sample: int) -> str:
        words = [f"Sample {sample}", "painted" if sample in self._painted else "not painted"]
        if sample in self._real:
            words.insert(1, f"a real patch as the generator paints it ({self._real[sample]:.1f} dB)")
        if sample in self._liked:
            words.append("a favorite")
        if sample in self._scores:
            words.append(f"informative {self._scores[sample]:.2f} of 1")
        keys = "Enter or double-click paints it, L likes it, S shows more like it, M mixes two chosen ones."
        return ", ".join(words) + ". " + keys

    def _pixmap(self, sample: int) -> QPixmap | None:
        pixmap = self._pixmaps.get(sample)
        if pixmap is None:
            self._loader.want(sample)
        else:
            self._pixmaps.move_to_end(sample)
        return pixmap

    def _take(self, sample: int, image: QImage) -> None:
        """Keep a thumbnail that came, and draw its row again."""
        self._pixmaps[sample] = QPixmap.fromImage(image)
        if len(self._pixmaps) > _PIXMAPS_KEPT:
            self._pixmaps.popitem(last=False)
        row = self.row_of(sample)
        if row >= 0:
            self.dataChanged.emit(self.index(row), self.index(row), [int(Qt.ItemDataRole.DecorationRole)])

    def _rebuild(self) -> None:
        self.beginResetModel()
        rows: Iterable[int] = range(self._count)
        if self._filter == "painted":
            rows = sorted(i for i in self._painted if i < self._count)
        elif self._filter == "unpainted":
            rows = (i for i in range(self._count) if i not in self._painted)
        elif self._filter == "liked":
            rows = sorted(i for i in self._liked if i < self._count)
        elif self._filter == "real":
            rows = sorted(self._real)
        elif self._filter == "informative":
            known = (i for i in self._scores if i not in self._painted and i < self._count)
            rows = sorted(known, key=lambda i: (-self._scores[i], i))
        self._rows = list(rows)
        self._row_of = {sample: row for row, sample in enumerate(self._rows)}
        self.endResetModel()
