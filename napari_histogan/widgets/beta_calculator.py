"""Which loss suits the slides: two sliders, beta_1, and the curves that it makes (paper 002, figure 1)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import QPointF, QRectF, QSize, Qt, Signal
from qtpy.QtGui import QColor, QPainter, QPaintEvent, QPen, QPolygonF
from qtpy.QtWidgets import QCheckBox, QFormLayout, QLabel, QSizePolicy, QVBoxLayout, QWidget
from superqt import QLabeledSlider

from napari_histogan.labels.beta import bernoulli_loss, beta_1_for, theta_0_for, toy_loss
from napari_histogan.widgets.painters import painter_on

MALIGN_COLOR, BENIGN_COLOR, OPTIMUM_COLOR = "#d55e00", "#56b4e9", "#e5604d"
GAMMA, THETA = 33, 5
"""The values of the paper's example in percent; they make beta_1 = 0.61."""

_HEIGHT, _LEFT, _TOP, _BOTTOM, _GAP = 150, 26, 18, 30, 34
_MOST_LOSS = 4.0
_Q = np.linspace(0.004, 0.996, 249)


@dataclass(frozen=True)
class Beta:
    """A loss: gamma and theta_0 in 0..1, and the beta_1 that follows.

    Attributes
    ----------
    gamma
        Share of the malign slides' patches without malign tissue.
    theta_0
        Malign probability that is accepted on benign tissue.
    """

    gamma: float
    theta_0: float

    @property
    def beta_1(self) -> float:
        """Of the malign label, within 0..1, as training takes it."""
        return float(np.clip(beta_1_for(self.gamma, self.theta_0), 0, 1))

    @property
    def optimum(self) -> float:
        """The malign probability that benign tissue comes to; theta_0 unless beta_1 had to be cut."""
        return theta_0_for(self.gamma, self.beta_1)


class BetaChart(QWidget):
    """The loss over the malign probability, and the toy model's loss with its optimum."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._beta = Beta(GAMMA / 100, THETA / 100)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.setFixedHeight(_HEIGHT)
        self.setToolTip(
            "Left: the loss of malign and of benign pixels by predicted malign probability. Right: the "
            "expected loss by what benign tissue gets; the line is where it is least."
        )

    def sizeHint(self) -> QSize:  # noqa: N802 - Qt's name
        """Prefer a low, wide chart."""
        return QSize(300, _HEIGHT)

    def show_beta(self, beta: Beta) -> None:
        """Draw another loss."""
        self._beta = beta
        self.update()

    def curves(self) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Return the losses of malign pixels, benign pixels, and the toy model at 249 probabilities."""
        both = (0.0, self._beta.beta_1)
        toy = toy_loss(_Q, self._beta.gamma, both)
        return bernoulli_loss(1.0, _Q, both), bernoulli_loss(0.0, _Q, both), toy

    def paintEvent(self, _event: QPaintEvent) -> None:  # noqa: N802 - Qt's name
        """Draw both charts."""
        with painter_on(self) as painter:
            self._draw(painter)

    def _draw(self, painter: QPainter) -> None:
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        width = (self.width() - _LEFT - _GAP - 6) / 2
        height = self.height() - _TOP - _BOTTOM
        left = QRectF(_LEFT, _TOP, width, height)
        right = QRectF(_LEFT + width + _GAP, _TOP, width, height)
        malign, benign, toy = self.curves()
        self._frame(painter, left, (0.0, _MOST_LOSS), "predicted malign prob.")
        _line(painter, left, malign, (0.0, _MOST_LOSS), MALIGN_COLOR)
        _line(painter, left, benign, (0.0, _MOST_LOSS), BENIGN_COLOR)
        for color, word, x in ((MALIGN_COLOR, "malign", 0.0), (BENIGN_COLOR, "benign", 0.5)):
            painter.setPen(QColor(color))
            box = QRectF(left.left() + x * width, 0, width / 2, _TOP)
            painter.drawText(box, Qt.AlignmentFlag.AlignCenter, word)
        low = float(toy.min())
        bounds = low - 0.02, low + 1.0
        self._frame(painter, right, bounds, "malign prob. of benign")
        _line(painter, right, toy, bounds, self.palette().text().color().name())
        x = right.left() + self._beta.optimum * width
        painter.setPen(QPen(QColor(OPTIMUM_COLOR), 1.6))
        painter.drawLine(QPointF(x, right.top()), QPointF(x, right.bottom()))
        box = QRectF(right.left(), 0, width, _TOP)
        painter.drawText(box, Qt.AlignmentFlag.AlignCenter, f"least at {100 * self._beta.optimum:.2g} %")

    def _frame(self, painter: QPainter, area: QRectF, bounds: tuple[float, float], below: str) -> None:
        """Draw frame, numbers, and what the x axis is."""
        text = self.palette().text().color()
        faint = QColor(text)
        faint.setAlpha(70)
        painter.setPen(QPen(faint, 1))
        painter.drawRect(area)
        painter.setPen(text)
        small = painter.font()
        small.setPointSizeF(7.5)
        painter.setFont(small)
        right = Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter
        for share in (0.0, 1.0):
            y = area.bottom() - share * area.height()
            value = bounds[0] + share * (bounds[1] - bounds[0])
            painter.drawText(QRectF(area.left() - 30, y - 8, 26, 16), right, f"{value:.2g}")
        line = QRectF(area.left(), area.bottom() + 1, area.width(), 13)
        painter.drawText(line, Qt.AlignmentFlag.AlignLeft, "0")
        painter.drawText(line, Qt.AlignmentFlag.AlignRight, "1")
        painter.drawText(line.translated(0, 13), Qt.AlignmentFlag.AlignCenter, below)


class BetaCalculator(QWidget):
    """Two questions about the slides, and beta_1.

    Signals
    -------
    changed
        A slider was moved, or the loss is to be used or not.
    """

    changed = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.use = QCheckBox("Choose the loss by these two numbers")
        self.use.setToolTip("Off: beta_1 is taken from the settings of the training")
        self.use.setChecked(True)
        self.use.toggled.connect(lambda _on: self._on_changed())
        self.gamma = _percent(
            1, 99, GAMMA, "Share of the malign slides' patches that hold no malign tissue (gamma)"
        )
        self.theta = _percent(1, 49, THETA, "Malign probability that you accept on benign tissue (theta_0)")
        for slider in (self.gamma, self.theta):
            slider.valueChanged.connect(lambda _value: self._on_changed())
        self.words = QLabel()
        self.words.setWordWrap(True)
        self.chart = BetaChart()
        form = QFormLayout()
        form.setContentsMargins(0, 0, 0, 0)
        form.addRow("Empty patches %", self.gamma)
        form.addRow("Accepted %", self.theta)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.use)
        layout.addLayout(form)
        layout.addWidget(self.words)
        layout.addWidget(self.chart)
        self._on_changed()

    @property
    def beta(self) -> Beta:
        """What the sliders say."""
        return Beta(self.gamma.value() / 100, self.theta.value() / 100)

    def values(self) -> dict[str, float | None]:
        """Return the fields of the training's config that follow."""
        if not self.use.isChecked():
            return {"gamma": None}
        return {"gamma": self.beta.gamma, "accepted": self.beta.theta_0, "beta_0": 0.0}

    def _on_changed(self) -> None:
        beta = self.beta
        text = f"<b>beta_1 = {beta.beta_1:.2f}</b>"
        if abs(beta.optimum - beta.theta_0) > 0.002:
            text += f", as far as it goes: benign tissue comes to {100 * beta.optimum:.2g} %"
        self.words.setText(text)
        for part in (self.gamma, self.theta, self.words, self.chart):
            part.setEnabled(self.use.isChecked())
        self.chart.show_beta(beta)
        self.changed.emit()


def _percent(low: int, high: int, value: int, tip: str) -> QLabeledSlider:
    """Return a slider of percents."""
    slider = QLabeledSlider(Qt.Orientation.Horizontal)
    slider.setRange(low, high)
    slider.setValue(value)
    slider.setToolTip(tip)
    return slider


def _line(
    painter: QPainter, area: QRectF, values: NDArray[np.float64], bounds: tuple[float, float], color: str
) -> None:
    """Draw a curve over the probabilities; what is above the bounds is cut off."""
    low, high = bounds
    heights = (np.minimum(values, high) - low) / (high - low)
    points = [
        QPointF(area.left() + q * area.width(), area.bottom() - share * area.height())
        for q, share in zip(_Q.tolist(), heights.tolist(), strict=True)
    ]
    painter.setPen(QPen(QColor(color), 1.8))
    painter.drawPolyline(QPolygonF(points))
