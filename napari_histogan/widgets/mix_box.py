"""Mixing two samples, or more like one: a look at what comes out, and a button that keeps it as samples."""

from __future__ import annotations

from typing import Any

import numpy as np
from qtpy.QtCore import Qt, QTimer
from qtpy.QtWidgets import QFormLayout, QHBoxLayout, QLabel, QPushButton, QVBoxLayout, QWidget
from superqt import QLabeledDoubleSlider

from napari_histogan.jobs.engine_client import Reply
from napari_histogan.widgets.pictures import sheet_of, to_pixmap
from napari_histogan.widgets.session import Session
from napari_histogan.widgets.session_view import SessionView
from napari_histogan.widgets.stage_forms import config_of

_LIKE_SHOWN = 8
_COLUMNS = 4
_DELAY_MS = 120


class MixBox(SessionView):
    """Shows mixes as the compute process makes them; hidden until somebody asks.

    Parameters
    ----------
    instead_of
        What gives its place to the mixes while they are shown.
    """

    def __init__(self, instead_of: QWidget, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._instead_of = instead_of
        self.first, self.second = -1, -1
        self.title = QLabel()
        self.title.setWordWrap(True)
        self.strength = QLabeledDoubleSlider(Qt.Orientation.Horizontal)
        self.strength.setRange(0.05, 1.0)
        self.strength.setDecimals(2)
        self.strength.setValue(0.4)
        self.strength.setToolTip("How far the new samples go from the chosen one")
        self.look = QLabel()
        self.look.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self.keep_button = QPushButton("&Keep these as samples")
        self.keep_button.setToolTip("Make a new set of samples of them, to paint (Alt+K)")
        self.keep_button.clicked.connect(self.keep)
        self.close_button = QPushButton("&Close")
        self.close_button.setToolTip("Back to the look at the generator (Alt+C)")
        self.close_button.clicked.connect(self.hide)
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(_DELAY_MS)
        self._timer.timeout.connect(self._ask)
        self.strength.valueChanged.connect(lambda _v: self._timer.start())
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 4, 0, 4)
        layout.addWidget(self.title)
        self.form = QFormLayout()
        self.form.addRow("How far", self.strength)
        layout.addLayout(self.form)
        layout.addWidget(self.look)
        row = QHBoxLayout()
        row.addWidget(self.keep_button, 1)
        row.addWidget(self.close_button)
        layout.addLayout(row)
        super().hide()

    def attach(self, session: Session) -> None:
        """Follow a session."""
        self.watch(session.mix_wanted, self.show_mix)
        self.watch(session.samples_changed, self.hide)
        self.watch(session.project_closed, lambda _why: self.hide())

    def show_mix(self, first: int, second: int) -> None:
        """Show the mixes of two samples, or samples like the first if ``second`` is -1."""
        self.first, self.second = first, second
        like = second < 0
        self.title.setText(
            f"<b>Like sample {first}</b>"
            if like
            else f"<b>Samples {first} and {second} mixed</b>: layout of one, stain of the other"
        )
        self.form.setRowVisible(0, like)
        self.look.clear()
        self.look.setText("Mixing ...")
        self.show()
        self._ask()

    def showEvent(self, event: Any) -> None:  # noqa: N802 - Qt's name
        """Take the place of the other."""
        super().showEvent(event)
        self._instead_of.hide()

    def hide(self) -> None:
        """Give the place back."""
        super().hide()
        self._instead_of.show()

    def keep(self) -> None:
        """Start the job that makes samples of what is shown."""
        session = self.session
        if session is None or session.project is None or session.samples_artifact is None:
            return
        values = {**self._values(), "count": 24, "samples": session.samples_artifact.id}
        if session.run(config_of(session.project, "mix_samples", **values)):
            session.told.emit(
                "Making samples of the mixes; the gallery shows them when they are done.", "info"
            )

    def _values(self) -> dict[str, Any]:
        second = None if self.second < 0 else self.second
        return {"first": self.first, "second": second, "strength": self.strength.value()}

    def _ask(self) -> None:
        session = self.session
        if session is None or session.project is None or session.samples_artifact is None:
            return
        if self.first < 0 or self.isHidden():
            return
        session.engine.ask(
            "mix",
            self._show,
            project=str(session.project.root),
            samples=session.samples_artifact.id,
            config={**self._values(), "count": _LIKE_SHOWN},
        )

    def _show(self, reply: Reply) -> None:
        pictures = reply.arrays.get("images")
        if pictures is None or not len(pictures):
            return
        columns = min(_COLUMNS, len(pictures))
        if self.second >= 0:  # one row each way, as many as are told apart at this width
            half = len(pictures) // 2
            chosen = np.unique(np.linspace(0, half - 1, min(half, _COLUMNS)).round().astype(int))
            pictures, columns = pictures[[*chosen, *(chosen + half)]], len(chosen)
        pixmap = to_pixmap(sheet_of(pictures, columns))
        width = max(200, min(self.width() - 16, 480))
        self.look.setPixmap(pixmap.scaledToWidth(width, Qt.TransformationMode.SmoothTransformation))
