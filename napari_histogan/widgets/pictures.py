"""Arrays to Qt pictures, and small drawn icons."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import QSize, Qt
from qtpy.QtGui import QColor, QIcon, QImage, QPainter, QPixmap


def to_pixmap(picture: NDArray[np.uint8], side: int | None = None) -> QPixmap:
    """Return a pixmap of an ``(H, W, 3)`` uint8 picture.

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
    pixmap = QPixmap.fromImage(image)
    if side is None:
        return pixmap
    return pixmap.scaled(
        QSize(side, side), Qt.AspectRatioMode.KeepAspectRatio, Qt.TransformationMode.SmoothTransformation
    )


def swatch(color: str, side: int = 16) -> QIcon:
    """Return a square icon of one color."""
    pixmap = QPixmap(side, side)
    pixmap.fill(QColor(color))
    painter = QPainter(pixmap)
    painter.setPen(QColor(128, 128, 128))
    painter.drawRect(0, 0, side - 1, side - 1)
    painter.end()
    return QIcon(pixmap)
