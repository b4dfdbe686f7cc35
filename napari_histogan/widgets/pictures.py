"""Arrays to Qt pictures, and small drawn icons."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import QSize, Qt
from qtpy.QtGui import QColor, QIcon, QImage, QPainter, QPixmap


def to_pixmap(picture: NDArray[np.uint8], side: int | None = None) -> QPixmap:
    """Return a pixmap of an ``(H, W, 3)`` uint8 picture; see :func:`to_image`."""
    return QPixmap.fromImage(to_image(picture, side))


def to_image(picture: NDArray[np.uint8], side: int | None = None) -> QImage:
    """Return a Qt image of an ``(H, W, 3)`` uint8 picture; may be called in any thread.

    Parameters
    ----------
    picture
        RGB.
    side
        Length of the longer side in screen pixels; None keeps the size.
    """
    data = np.ascontiguousarray(picture)
    height, width = data.shape[:2]
    # The copy frees Qt from the numpy buffer, which may go first.
    image = QImage(data.data, width, height, 3 * width, QImage.Format.Format_RGB888).copy()
    if side is None:
        return image
    return image.scaled(
        QSize(side, side), Qt.AspectRatioMode.KeepAspectRatio, Qt.TransformationMode.SmoothTransformation
    )


def sheet_of(pictures: NDArray[np.uint8], columns: int) -> NDArray[np.uint8]:
    """Lay ``(N, S, S, 3)`` pictures out in rows; what does not fill a row is left out."""
    n, side = pictures.shape[:2]
    rows = pictures[: n // columns * columns].reshape(-1, columns, side, side, 3)
    return np.ascontiguousarray(rows.transpose(0, 2, 1, 3, 4).reshape(-1, columns * side, 3))


def swatch(color: str, side: int = 16) -> QIcon:
    """Return a square icon of one color."""
    pixmap = QPixmap(side, side)
    pixmap.fill(QColor(color))
    painter = QPainter(pixmap)
    painter.setPen(QColor(128, 128, 128))
    painter.drawRect(0, 0, side - 1, side - 1)
    painter.end()
    return QIcon(pixmap)


def mark_with(pixmap: QPixmap, colors: Sequence[str]) -> None:
    """Draw a small square of each color into the lower left corner of a picture."""
    side = max(6, pixmap.height() // 6)
    painter = QPainter(pixmap)
    painter.setPen(QColor("white"))
    for number, color in enumerate(colors):
        painter.setBrush(QColor(color))
        painter.drawRect(2 + number * (side + 2), pixmap.height() - side - 3, side, side)
    painter.end()
