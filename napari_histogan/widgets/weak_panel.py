"""The tab of slide labels: label slides, choose the loss, train, and watch the maps become better."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from qtpy.QtCore import Qt
from qtpy.QtGui import QPixmap
from qtpy.QtWidgets import (
    QFileDialog,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from napari_histogan.config import TrainWeaklyConfig
from napari_histogan.errors import ConfigError, HistoganError
from napari_histogan.labels.classes import ClassTable
from napari_histogan.labels.slide_labels import BENIGN, LABELS, MALIGN, UNKNOWN, read_slide_labels
from napari_histogan.project.artifacts import Artifact
from napari_histogan.project.slide_labels import has_both, set_slide_labels, slide_labels
from napari_histogan.widgets.beta_calculator import BetaCalculator
from napari_histogan.widgets.config_form import ConfigForm
from napari_histogan.widgets.file_drop import FileDropView
from napari_histogan.widgets.fold import Fold
from napari_histogan.widgets.job_view import JobView
from napari_histogan.widgets.kept_layers import show_of
from napari_histogan.widgets.session import Session
from napari_histogan.widgets.slide_table import SlideTable
from napari_histogan.widgets.stage_forms import last_values
from napari_histogan.widgets.training_maps import STAGE, TrainingMaps, training_maps_of

PLOTS = ("roc.png", "froc.png")
_HIDDEN = ("labels", "gamma", "accepted")
_KEYS = {BENIGN: "B", MALIGN: "M", UNKNOWN: "U"}
_PLOT_PX = 320


class WeakPanel(FileDropView):
    """From labels of whole slides to a map of malign tissue."""

    where = "labels"

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.maps: TrainingMaps | None = None
        self._front = False
        self.words = QLabel()
        self.words.setWordWrap(True)
        self.table = SlideTable()
        self.table.opened.connect(self.open)
        self.label_buttons = {
            label: self._button(f"{label.capitalize()}  {{{key}}}", key, self._labeler(label))
            for label, key in _KEYS.items()
        }
        self.file_button = QPushButton("File ...")
        self.file_button.setToolTip(
            "Read labels from a CSV with the columns slide and label; or drop it here"
        )
        self.file_button.clicked.connect(self.ask_for_file)
        self.calculator = BetaCalculator()
        self.train_button = self._button("Train on slide labels", "Ctrl+Return", self.train)
        self.train_button.setToolTip(
            "Train; the maps over the slides are made anew while it runs ({Ctrl+Return})"
        )
        self.map_button = self._button("Show / hide map  ({H})", "H", self._toggle_map)
        self.map_button.setToolTip("Show or hide the training's newest map ({H})")
        self.form = ConfigForm(TrainWeaklyConfig, hidden=_HIDDEN)
        self.jobs = JobView(elsewhere=tuple(name.removesuffix(".png") for name in PLOTS))
        self.result_words = QLabel()
        self.result_words.setWordWrap(True)
        self.plots = {name: QLabel() for name in PLOTS}
        self._lay_out()

    def _lay_out(self) -> None:
        labels = QHBoxLayout()
        for label, button in self.label_buttons.items():
            button.setToolTip(f"The chosen slides are {label} ({{{_KEYS[label]}}})")
            labels.addWidget(button)
        labels.addWidget(self.file_button)
        self.loss = Fold("Loss: how sparse is malign tissue?")
        self.settings = Fold("Settings of the training")
        for folded, inner in ((self.loss, self.calculator), (self.settings, self.form)):
            folded.addWidget(inner)
        body = QWidget()
        layout = QVBoxLayout(body)
        layout.setContentsMargins(4, 6, 4, 4)
        layout.addWidget(self.words)
        layout.addWidget(self.table)
        layout.addLayout(labels)
        for part in (
            self.loss,
            self.train_button,
            self.settings,
            self.jobs,
            self.map_button,
            self.result_words,
        ):
            layout.addWidget(part)
        for plot in self.plots.values():
            plot.setAlignment(Qt.AlignmentFlag.AlignCenter)
            layout.addWidget(plot)
        layout.addStretch(1)
        self.area = self.lay_out_scrolled(body)

    def attach(self, session: Session) -> None:
        """Follow a session."""
        self.maps = training_maps_of(session)
        self.watch(session.project_opened, self._on_opened)
        self.watch(session.slides_changed, self._reload)
        self.watch(session.artifacts_changed, self._reload)
        self.watch(session.jobs.state_changed, lambda _n: self._tell())
        self.watch(self.maps.mapped, lambda _name: self._show_maps())
        self.jobs.follow(session)
        self._on_opened()

    def detach(self) -> None:
        """Let go of the session."""
        self.jobs.detach()
        super().detach()

    def set_keys_enabled(self, enabled: bool) -> None:
        """Let the keys act and show the slide with the training's map, or hide that."""
        super().set_keys_enabled(enabled)
        if enabled:
            self._come_to_front()
        elif self.maps is not None and self._front:
            self.maps.hide()
            self._show_heatmap(True)
        self._front = enabled

    # Slides and labels

    def open(self, name: str) -> bool:
        """Open a slide with its newest map; False if it was told why not."""
        session, maps = self.session, self.maps
        if session is None or session.project is None or maps is None:
            return False
        shown = session.slide_view.entry
        if session.correcting.active and shown is not None and name not in ("", shown.name):
            session.told.emit(
                "Accept or discard the frame on the other slide first (tab Correct).", "warning"
            )
            return False
        if not session.attempt(lambda: session.slide_view.open(name)):
            return False
        maps.show()
        self._show_heatmap(not maps.newest)
        return True

    def label(self, label: str) -> None:
        """Give the chosen slides a label; it is on disk at once."""
        session = self.session
        if session is None or session.project is None:
            return
        project, names = session.project, self.table.chosen()
        if not names:
            session.told.emit("Choose the slides in the table first.", "warning")
            return
        if session.attempt(lambda: set_slide_labels(project, dict.fromkeys(names, label))):
            session.artifacts_changed.emit()

    def ask_for_file(self) -> None:
        """Let people choose a file of labels."""
        path, _ = QFileDialog.getOpenFileName(self, "Labels of slides", "", "Tables (*.csv);;All files (*)")
        if path:
            self.take_file(Path(path))

    def take_file(self, path: Path) -> bool:
        """Take the labels of a file over; False if it was told why not."""
        session = self.session
        if session is None or session.project is None:
            return False
        project = session.project

        def take() -> None:
            found = read_slide_labels(path, [entry.name for entry in project.slides()])
            known = {name: label for name, label in found.items() if label != UNKNOWN}
            set_slide_labels(project, known)
            session.told.emit(f"{len(known)} slides are labeled by {path.name}.", "info")

        taken = session.attempt(take)
        session.artifacts_changed.emit()
        return taken

    def take_files(self, paths: list[Path]) -> None:
        """Take the labels of the first dropped file."""
        self.take_file(paths[0])

    def _labeler(self, label: str) -> Callable[[], None]:
        return lambda: self.label(label)

    # Training

    def train(self) -> None:
        """Train on the labels that the project keeps."""
        session = self.session
        if session is None or session.project is None or not self.train_button.isEnabled():
            return
        try:
            values = dict(self.form.config()) | self.calculator.values() | {"labels": None}
            config = TrainWeaklyConfig(**values)
        except ConfigError as error:
            session.told.emit(str(error), "error")
            return
        if not len(session.project.classes):
            session.set_classes(ClassTable.from_names((BENIGN, MALIGN)))
        session.run(config)

    def _toggle_map(self) -> None:
        if self.maps is not None and self.maps.layer is not None:
            self.maps.layer.visible = not self.maps.layer.visible

    def _show_heatmap(self, visible: bool) -> None:
        """Show the heatmap of the open slide, or let the training's map alone lie over it."""
        if self.session is not None:
            show_of(self.session.slide_view.heat, visible)

    # Showing

    def _come_to_front(self) -> None:
        session = self.session
        if session is None or session.project is None:
            return
        session.painting.flush()
        session.correcting.hide()
        session.painting.hide()
        shown = session.slide_view.entry
        if shown is not None or session.project.slides():
            self.open(shown.name if shown is not None else "")
        self._reload()

    def _on_opened(self) -> None:
        session = self.session
        if session is None or session.project is None:
            return
        values = last_values(session.project, STAGE)
        self.form.set_values({k: v for k, v in values.items() if k not in _HIDDEN})
        if values.get("gamma"):
            self.calculator.gamma.setValue(round(100 * float(values["gamma"])))
            self.calculator.theta.setValue(round(100 * float(values["accepted"])))
        self._reload()

    def _reload(self) -> None:
        session = self.session
        if session is None or session.project is None or self.maps is None:
            return
        self.maps.find()
        self.table.show_slides([entry.name for entry in session.project.slides()])
        self.table.show_labels(self._labels())
        self._show_maps()
        self._show_result()
        self._tell()

    def _labels(self) -> dict[str, str]:
        session = self.session
        if session is None or session.project is None:
            return {}
        try:
            return slide_labels(session.project)
        except HistoganError as error:
            session.told.emit(str(error), "error")
            return {}

    def _show_maps(self) -> None:
        if self.maps is not None:
            self.table.show_maps({name: found.step for name, found in self.maps.newest.items()})

    def _show_result(self) -> None:
        """Show scores, ROC, and FROC of the newest net."""
        session = self.session
        nets = session.project.artifacts("segmenter") if session is not None and session.project else []
        made = [net for net in nets if net.stage == STAGE]
        scores = _scores(made[-1]) if made else {}
        self.table.show_scores(scores)
        self.result_words.setVisible(bool(made))
        self.result_words.setText(_result_words(made[-1]) if made else "")
        for name, plot in self.plots.items():
            path = made[-1].path / name if made else Path()
            pixmap = QPixmap(str(path)) if path.is_file() else QPixmap()
            plot.setVisible(not pixmap.isNull())
            if not pixmap.isNull():
                mode = Qt.TransformationMode.SmoothTransformation
                plot.setPixmap(pixmap.scaledToWidth(min(_PLOT_PX, pixmap.width()), mode))

    def _tell(self) -> None:
        """Say what there is, and let only those buttons act that can."""
        session = self.session
        if session is None or session.project is None:
            return
        labels, may = self._labels(), not session.read_only
        counts = {label: sum(each == label for each in labels.values()) for label in LABELS}
        for button in (*self.label_buttons.values(), self.file_button):
            button.setEnabled(may and bool(labels))
        self.train_button.setEnabled(may and has_both(labels) and not session.jobs.active())
        self.jobs.setVisible(bool(session.jobs.records))
        self.map_button.setVisible(self.maps is not None and bool(self.maps.newest))
        if not labels:
            self.words.setText("Add slides first (tab Slides).")
        elif not has_both(labels):
            missing = MALIGN if counts[BENIGN] else BENIGN
            self.words.setText(f"Label at least one slide as {missing}: choose rows, then B, M, or U.")
        else:
            self.words.setText(", ".join(f"{count} {label}" for label, count in counts.items()) + ".")


def _scores(net: Artifact) -> dict[str, tuple[float, bool]]:
    """Return each slide's score, and whether it was kept back."""
    path = net.path / "slides.json"
    if not path.is_file():
        return {}
    rows = json.loads(path.read_text(encoding="utf-8"))
    return {str(row["slide"]): (float(row["score"]), bool(row["held_out"])) for row in rows}


def _result_words(net: Artifact) -> str:
    """Say how good a net is, as far as slides were kept back."""
    parts = [f"Net {net.number}"]
    for name, title in (("auc", "ROC AUC"), ("froc", "FROC")):
        if name in net.summary:
            low, high = (float(net.summary[f"{name}_{end}"]) for end in ("low", "high"))
            parts.append(f"{title} {float(net.summary[name]):.2f} ({low:.2f} to {high:.2f})")
    if len(parts) == 1:
        parts.append("no slides were kept back, so nothing is scored (holdout share in the settings)")
    return ": ".join((parts[0], "; ".join(parts[1:])))
