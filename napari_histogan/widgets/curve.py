"""A small line chart that Qt paints itself; quick enough to be updated while a job runs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from qtpy.QtCore import QPointF, QRectF, QSize, Qt
from qtpy.QtGui import QColor, QPainter, QPaintEvent, QPen, QPolygonF, QResizeEvent
from qtpy.QtWidgets import QSizePolicy, QWidget

from napari_histogan.widgets.painters import painter_on

LINE_COLORS = ("#56b4e9", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#f0e442")
"""Colors of the lines in their order; told apart by color-blind eyes."""

MAX_POINTS = 4000
"""Lines that grow longer are thinned: every second point of the older half goes."""

_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 8, 20, 18
_MARK, _GAP = 17, 10
"""Width of a line's mark in the legend, and the room after its words."""
_PLOT_PX = 56


class CurveWidget(QWidget):
    """Lines of numbers over steps, with a shared axis.

    Points that are not finite are kept out of the picture.
    """

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._lines: dict[str, list[tuple[float, float]]] = {}
        self._shown: tuple[str, ...] | None = None
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Preferred)
        self.setMinimumHeight(90)
        self.setToolTip("Curves of the running job; the last values stand above.")

    def sizeHint(self) -> QSize:  # noqa: N802 - Qt's name
        """Prefer a low, wide chart."""
        return QSize(300, 120)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the lines that have points."""
        return tuple(self._lines)

    def points(self, name: str) -> list[tuple[float, float]]:
        """Return a copy of the points of a line."""
        return list(self._lines.get(name, ()))

    def clear(self) -> None:
        """Forget all lines."""
        self._lines.clear()
        self._shown = None
        self.update()

    def add(self, step: float, name: str, value: float) -> None:
        """Append a point; call :meth:`update` is done by Qt when it has time."""
        if not (math.isfinite(step) and math.isfinite(value)):
            return
        is_new = name not in self._lines
        line = self._lines.setdefault(name, [])
        line.append((step, value))
        if len(line) > MAX_POINTS:
            half = len(line) // 2
            line[:half] = line[:half:2]
        if is_new:
            self._fit()
        self.update()

    def show_only(self, names: Sequence[str] | None) -> None:
        """Draw only some lines; None draws all."""
        self._shown = None if names is None else tuple(names)
        self._fit()
        self.update()

    def resizeEvent(self, event: QResizeEvent) -> None:  # noqa: N802 - Qt's name
        """Find room for the legend, whose rows follow from the width."""
        super().resizeEvent(event)
        self._fit()

    def _seen(self) -> dict[str, list[tuple[float, float]]]:
        """Return the lines that are drawn."""
        return {n: p for n, p in self._lines.items() if p and (self._shown is None or n in self._shown)}

    def _top(self) -> float:
        """Return where the chart begins, below the legend."""
        return max([float(_TOP), *(box.bottom() + 3 for box in self.legend(_words(self._seen())))])

    def _fit(self) -> None:
        self.setMinimumHeight(round(self._top() + _PLOT_PX + _BOTTOM))

    def paintEvent(self, _event: QPaintEvent) -> None:  # noqa: N802 - Qt's name
        """Draw frame, grid, lines, and legend."""
        with painter_on(self) as painter:
            self._draw(painter)

    def _draw(self, painter: QPainter) -> None:
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        text = self.palette().text().color()
        lines = self._seen()
        texts = _words(lines)
        legend, top = self.legend(texts), self._top()
        area = QRectF(
            _LEFT, top, max(1, self.width() - _LEFT - _RIGHT), max(1, self.height() - top - _BOTTOM)
        )
        faint = QColor(text)
        faint.setAlpha(60)
        painter.setPen(QPen(faint, 1))
        painter.drawRect(area)
        if not lines:
            painter.setPen(text)
            painter.drawText(area, Qt.AlignmentFlag.AlignCenter, "no numbers yet")
            return
        bounds = _bounds(list(lines.values()))
        self._draw_axis(painter, area, bounds, text, faint)
        for number, points in enumerate(lines.values()):
            color = QColor(LINE_COLORS[number % len(LINE_COLORS)])
            painter.setPen(QPen(color, 1.6))
            painter.drawPolyline(_polygon(points, area, bounds))
            box = legend[number]
            painter.fillRect(QRectF(box.left(), box.center().y() - 1.5, _MARK - 5, 3), color)
            painter.setPen(text)
            painter.drawText(
                box.adjusted(_MARK, 0, 0, 0),
                Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter,
                texts[number],
            )

    def _draw_axis(
        self,
        painter: QPainter,
        area: QRectF,
        bounds: tuple[float, float, float, float],
        text: QColor,
        faint: QColor,
    ) -> None:
        x0, x1, y0, y1 = bounds
        for k in range(3):
            y = area.bottom() - area.height() * k / 2
            painter.setPen(QPen(faint, 1, Qt.PenStyle.DotLine))
            painter.drawLine(QPointF(area.left(), y), QPointF(area.right(), y))
            painter.setPen(text)
            label = QRectF(0, y - 8, _LEFT - 5, 16)
            vertical = Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter
            painter.drawText(label, vertical, f"{y0 + (y1 - y0) * k / 2:.3g}")
        below = QRectF(area.left(), area.bottom() + 2, area.width(), _BOTTOM - 2)
        painter.drawText(below, Qt.AlignmentFlag.AlignLeft, f"{x0:.4g}")
        painter.drawText(below, Qt.AlignmentFlag.AlignRight, f"{x1:.4g}")

    def legend(self, texts: Sequence[str]) -> list[QRectF]:
        """Return where the words about each line stand: side by side, in as many rows as they need."""
        metrics = self.fontMetrics()
        x, y, boxes = float(_LEFT), 1.0, []
        for text in texts:
            width = _MARK + metrics.horizontalAdvance(text) + _GAP
            if x > _LEFT and x + width > self.width():
                x, y = float(_LEFT), y + metrics.height()
            boxes.append(QRectF(x, y, width, metrics.height()))
            x += width
        return boxes


def _words(lines: Mapping[str, Sequence[tuple[float, float]]]) -> list[str]:
    """Return each line's name and last value."""
    return [f"{name} {points[-1][1]:.3g}" for name, points in lines.items()]


def _bounds(lines: Sequence[Sequence[tuple[float, float]]]) -> tuple[float, float, float, float]:
    """Return smallest and largest x and y, with some room where they are equal."""
    xs = [x for line in lines for x, _ in line]
    ys = [y for line in lines for _, y in line]
    x0, x1, y0, y1 = min(xs), max(xs), min(ys), max(ys)
    if x0 == x1:
        x1 = x0 + 1
    if y0 == y1:
        room = abs(y0) * 0.1 or 1.0
        y0, y1 = y0 - room, y1 + room
    return x0, x1, y0, y1


def _polygon(
    points: Sequence[tuple[float, float]], area: QRectF, bounds: tuple[float, float, float, float]
) -> QPolygonF:
    """Map points to pixels; at most about two a pixel column are kept."""
    x0, x1, y0, y1 = bounds
    step = max(1, len(points) // max(1, int(area.width() * 2)))
    kept = [*points[::step], points[-1]]
    return QPolygonF(
        [
            QPointF(
                area.left() + (x - x0) / (x1 - x0) * area.width(),
                area.bottom() - (y - y0) / (y1 - y0) * area.height(),
            )
            for x, y in kept
        ]
    )
