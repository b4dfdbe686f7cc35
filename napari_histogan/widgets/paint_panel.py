"""The paint tab: classes, tools, live preview, and what to paint next."""

from __future__ import annotations

import numpy as np
from qtpy.QtWidgets import QCheckBox, QHBoxLayout, QLabel, QVBoxLayout, QWidget

from napari_histogan.widgets.class_table import ClassTableWidget
from napari_histogan.widgets.keys import keyed
from napari_histogan.widgets.mask_history import MaskHistoryButton
from napari_histogan.widgets.session import Session
from napari_histogan.widgets.session_view import SessionView
from napari_histogan.widgets.tool_bar import COMPACT, ToolBar

_OPACITIES = (0.9, 0.6, 0.35, 0.15)
"""Of the paint, by the key that makes it fainter."""


class PaintPanel(SessionView):
    """Everything for painting samples; strokes are saved as they are made."""

    where = "paint"

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._class_pixels: dict[int, np.ndarray[tuple[int], np.dtype[np.int64]]] = {}
        self.title = QLabel("Paint what you are sure of. Nothing needs to be filled completely.")
        self.title.setWordWrap(True)
        self.classes = ClassTableWidget()
        self.tools = ToolBar("paint", assist=True)
        self.live = QCheckBox("Live preview")
        self.live.setChecked(True)
        self.live.setToolTip(keyed("Predict the whole picture after each stroke ({R})", self.where))
        self.live.toggled.connect(self._set_live)
        self._shortcut("R", self.live.toggle)
        self.next_button = self._button("Next most informative sample  ({N})", "N", self._next)
        self.next_button.setToolTip(
            "Open the sample that the ensemble is least sure of ({N}); {Shift+N} goes back"
        )
        self.take_button = self._button("Take prediction  ({Y})", "Y", self._take)
        self.take_button.setToolTip(
            "Paint the predicted region under the mouse where nothing is painted ({Y}); "
            "{Shift+Y} takes all of it"
        )
        self.prediction_button = self._button("Prediction  ({T})", "T", self._toggle_prediction, True)
        self.prediction_button.setToolTip("Show or hide the prediction ({T})")
        self.uncertainty_button = self._button("Uncertainty  ({U})", "U", self._toggle_uncertainty, True)
        self.uncertainty_button.setToolTip("Show where the ensemble disagrees ({U})")
        self.outline_button = self._button("Outlines  ({O})", "O", self._toggle_outline, True)
        self.outline_button.setToolTip("Show paint and prediction as outlines, or as areas ({O})")
        self.alone_button = self._hold_button("Alone  ({Q})", "Q", self._toggle_alone)
        self.alone_button.setToolTip(
            "The picture alone while the key is held, or until it is tapped again ({Q})"
        )
        self.fainter_button = self._button("Fainter  ({W})", "W", self._fade)
        self.fainter_button.setToolTip(
            "Make the paint more transparent; after the faintest it is full again ({W})"
        )
        self.like_button = self._button("Like  ({L})", "L", self._like)
        self.like_button.setToolTip("Make this sample a favorite, or take it back ({L})")
        self.history = MaskHistoryButton()
        self._shortcut("B", self.history.showMenu)
        self._shortcut("Shift+N", self._previous)
        self._shortcut("Shift+Y", self._take_all)
        self.status = QLabel()
        self.status.setWordWrap(True)
        self._lay_out()
        self._connect()

    def _lay_out(self) -> None:
        body = QWidget()
        layout = QVBoxLayout(body)
        layout.setContentsMargins(4, 6, 4, 4)
        for part in (self.title, self.classes, self.tools):
            layout.addWidget(part)
        show = QHBoxLayout()
        show.addWidget(self.live)
        show.addWidget(self.prediction_button)
        show.addWidget(self.uncertainty_button)
        layout.addLayout(show)
        look = QHBoxLayout()
        for button in (self.outline_button, self.alone_button, self.fainter_button):
            look.addWidget(button)
        for button in (self.prediction_button, self.uncertainty_button, self.history):
            button.setStyleSheet(COMPACT)
        layout.addLayout(look)
        layout.addWidget(self.take_button)
        keep = QHBoxLayout()
        keep.addWidget(self.history)
        keep.addWidget(self.like_button)
        layout.addLayout(keep)
        layout.addWidget(self.next_button)
        layout.addWidget(self.status)
        layout.addStretch(1)
        self.area = self.lay_out_scrolled(body)

    def _connect(self) -> None:
        self.classes.chosen.connect(self._choose_class)
        self.classes.edited.connect(self._edit_classes)
        self.classes.refused.connect(self._refuse)
        self.tools.tool_chosen.connect(self._choose_tool)
        self.tools.size_chosen.connect(self._choose_size)

    def attach(self, session: Session) -> None:
        """Follow a session."""
        self.watch(session.project_opened, self._reload)
        self.watch(session.classes_changed, self._reload)
        self.watch(session.samples_changed, self._reload)
        self.watch(session.painted_changed, self._recount)
        self.watch(session.sample_opened, self._on_opened)
        self.watch(session.mask_saved, self._on_saved)
        self.watch(session.painting.predicted, self._on_predicted)
        self.watch(session.painting.tool_changed, self.tools.show_tool)
        self.watch(session.painting.class_changed, self.classes.choose)
        self.history.follow(session)
        self.outline_button.setChecked(session.painting.look.outline)
        self.alone_button.setChecked(session.painting.look.alone)
        self.prediction_button.setChecked(session.painting.look.prediction)
        self.uncertainty_button.setChecked(session.painting.look.uncertainty)
        self._reload()

    def detach(self) -> None:
        """Let go of the session."""
        self.history.follow(None)
        super().detach()

    def set_keys_enabled(self, enabled: bool) -> None:
        """Let the panel's keys act; called when its tab comes to the front or goes."""
        super().set_keys_enabled(enabled)
        self.classes.set_keys_enabled(enabled)
        self.tools.set_keys_enabled(enabled)

    def _reload(self) -> None:
        session = self.session
        if session is None or session.project is None:
            return
        self.classes.show_classes(session.project.classes)
        self._recount()
        if session.read_only:
            self.title.setText("This project is open for looking only; nothing that you paint is kept.")
        painting = session.painting
        if painting.index >= 0:
            self._on_opened(painting.index)

    def _recount(self) -> None:
        self._class_pixels = {}
        if self.session is not None:
            for index in self.session.painted():
                self._count(index)
            self._show_counts()

    def _count(self, index: int) -> None:
        mask = self.session.load_mask(index) if self.session is not None else None
        if mask is not None:
            self._class_pixels[index] = np.bincount(mask.ravel(), minlength=256)

    def _show_counts(self) -> None:
        pixels: dict[int, int] = {}
        masks: dict[int, int] = {}
        for counts in self._class_pixels.values():
            for value in np.flatnonzero(counts[1:]) + 1:
                pixels[int(value)] = pixels.get(int(value), 0) + int(counts[value])
                masks[int(value)] = masks.get(int(value), 0) + 1
        self.classes.show_painted(pixels, masks)

    def _on_opened(self, index: int) -> None:
        session = self.session
        if session is None or session.samples is None or session.read_only:
            return
        has_classes = session.project is not None and len(session.project.classes) > 0
        what = "Paint what you are sure of; every stroke is saved." if has_classes else "Add a class first."
        self.title.setText(f"<b>Sample {index}</b>. {what}")
        side = session.samples.resolution
        self.tools.size.setMaximum(max(8, side // 3))
        if session.painting.mask is not None:
            self.tools.show_size(round(session.painting.mask.brush_size))
            mode = "assist" if session.painting.assist else str(session.painting.mask.mode)
            self.tools.show_tool(mode)
            self.classes.choose(int(session.painting.mask.selected_label))
        self.status.setText("")

    def _on_saved(self, index: int, _pixels: int) -> None:
        self._count(index)
        self._show_counts()
        if self.session is not None and self.session.painting.live:
            self.status.setText("Predicting ...")

    def _on_predicted(self, seconds: float, words: str) -> None:
        took = f" ({seconds:.1f} s)" if seconds else ""
        self.status.setText(f"{words}{took}")

    def _choose_class(self, index: int) -> None:
        if self.session is not None:
            self.classes.choose(index)
            self.session.painting.choose_class(index)

    def _edit_classes(self, table: object) -> None:
        if self.session is not None and not self.session.set_classes(table):  # type: ignore[arg-type]
            self._reload()

    def _refuse(self, words: str) -> None:
        if self.session is not None:
            self.session.told.emit(words, "warning")

    def _choose_tool(self, tool: str) -> None:
        if self.session is not None:
            self.session.painting.set_tool(tool)  # type: ignore[arg-type]

    def _choose_size(self, pixels: int) -> None:
        if self.session is not None:
            self.session.painting.set_brush_size(pixels)

    def _set_live(self, live: bool) -> None:
        if self.session is not None:
            self.session.painting.set_live(live)

    def _next(self) -> None:
        if self.session is not None:
            self.session.painting.open_next()

    def _previous(self) -> None:
        if self.session is not None:
            self.session.painting.open_previous()

    def _take(self) -> None:
        if self.session is not None:
            self.session.painting.take_prediction()

    def _take_all(self) -> None:
        if self.session is not None:
            self.session.painting.take_prediction(everywhere=True)

    def _toggle_prediction(self) -> None:
        if self.session is not None:
            self.session.painting.look.toggle_prediction()
            self.prediction_button.setChecked(self.session.painting.look.prediction)

    def _toggle_uncertainty(self) -> None:
        if self.session is not None:
            self.session.painting.look.toggle_uncertainty()
            self.uncertainty_button.setChecked(self.session.painting.look.uncertainty)

    def _toggle_outline(self) -> None:
        if self.session is not None:
            self.session.painting.look.toggle_outline()
            self.outline_button.setChecked(self.session.painting.look.outline)

    def _toggle_alone(self) -> None:
        if self.session is not None:
            self.session.painting.look.toggle_alone()
            self.alone_button.setChecked(self.session.painting.look.alone)

    def _fade(self) -> None:
        if self.session is not None and self.session.painting.mask is not None:
            mask = self.session.painting.mask
            mask.opacity = next((o for o in _OPACITIES if o < mask.opacity - 0.01), _OPACITIES[0])

    def _like(self) -> None:
        if self.session is not None:
            self.session.favorites.toggle(self.session.painting.index)
