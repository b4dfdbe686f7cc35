"""The train tab: one button for the whole way, each step with its settings, and the running job."""

from __future__ import annotations

from qtpy.QtCore import QTimer
from qtpy.QtWidgets import (
    QComboBox,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from napari_histogan.config import STAGES, StageConfig
from napari_histogan.errors import ConfigError
from napari_histogan.project.painted_sets import count_painted
from napari_histogan.widgets.config_form import ConfigForm, keep_narrow
from napari_histogan.widgets.fold import Fold
from napari_histogan.widgets.job_view import JobView
from napari_histogan.widgets.launcher_box import LauncherBox
from napari_histogan.widgets.session import Session
from napari_histogan.widgets.session_view import SessionView
from napari_histogan.widgets.stage_forms import config_of, last_values
from napari_histogan.widgets.stage_titles import title_of

TRAIN_CHAIN = ("train_pixel_classifier", "synthesize_dataset", "train_segmenter")
"""From paint to a net for slides."""

_SINGLE = (
    "extract_patches", "train_gan", "sample_images", "invert_patches", "mix_samples",
    "train_pixel_classifier", "synthesize_dataset", "train_segmenter", "predict_heatmap",
    "detect_objects", "merge_corrections", "evaluate",
)  # fmt: skip
"""Steps that can be started one by one here."""


class TrainPanel(SessionView):
    """Starts stages and follows them."""

    where = "train"

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._forms: dict[str, ConfigForm] = {}
        self.words = QLabel("From your paint to a net for slides: three steps, one button.")
        self.words.setWordWrap(True)
        self.train_button = self._button("Train  ({Ctrl+Return})", "Ctrl+Return", self.train)
        self.train_button.setToolTip("Pixel classifier, synthetic data set, and net, one after the other")
        self.steps = QComboBox()
        self.steps.setToolTip("A single step with its settings")
        keep_narrow(self.steps)
        for stage in _SINGLE:
            self.steps.addItem(title_of(stage), stage)
        self.steps.setCurrentIndex(self.steps.findData("train_segmenter"))
        self.steps.currentIndexChanged.connect(lambda _i: self._show_form())
        self.start_button = QPushButton("Start this step")
        self.start_button.setToolTip("Start the chosen step with the settings below")
        self.start_button.clicked.connect(self.start_step)
        self._form_place = QVBoxLayout()
        self.launcher = LauncherBox()
        self.jobs = JobView()
        self._lay_out()

    def _lay_out(self) -> None:
        single = Fold("Single steps and settings")
        inner = QWidget()
        place = QVBoxLayout(inner)
        place.setContentsMargins(0, 0, 0, 0)
        row = QHBoxLayout()
        row.addWidget(self.steps, 1)
        row.addWidget(self.start_button)
        place.addLayout(row)
        where = QHBoxLayout()
        where.addWidget(QLabel("Run on"))
        where.addWidget(self.launcher, 1)
        place.addLayout(where)
        place.addLayout(self._form_place)
        single.addWidget(inner)
        self.single_steps = single
        body = QWidget()
        layout = QVBoxLayout(body)
        layout.setContentsMargins(4, 6, 4, 4)
        for part in (self.words, self.train_button, self.jobs, single):
            layout.addWidget(part)
        layout.addStretch(1)
        self.area = self.lay_out_scrolled(body)

    def attach(self, session: Session) -> None:
        """Follow a session."""
        self.watch(session.project_opened, self._reload)
        self.watch(session.artifacts_changed, self._tell)
        self.watch(session.mask_saved, lambda _i, _n: self._tell())
        self.watch(session.jobs.state_changed, lambda _n: self._tell())
        self.jobs.follow(session)
        self._reload()

    def detach(self) -> None:
        """Let go of the session."""
        self.jobs.detach()
        super().detach()

    def form(self, stage: str) -> ConfigForm:
        """Return the form of a stage; it shows what was used last until it is edited."""
        if stage not in self._forms:
            form = self._forms[stage] = ConfigForm(STAGES[stage])
            project = self.session.project if self.session is not None else None
            if project is not None:
                form.set_values(last_values(project, stage))
        return self._forms[stage]

    def train(self) -> None:
        """Start the three steps from paint to net."""
        session = self.session
        if session is None or session.project is None:
            return
        try:
            configs = [self._config(stage) for stage in TRAIN_CHAIN]
        except ConfigError as error:
            session.told.emit(str(error), "error")
            return
        if session.run(*configs):
            session.tab_wanted.emit("train")

    def start_step(self) -> None:
        """Start the chosen step."""
        session = self.session
        if session is None:
            return
        try:
            config = self.form(str(self.steps.currentData())).config()
        except ConfigError as error:
            session.told.emit(str(error), "error")
            return
        session.run(config)

    def show_step(self, stage: str) -> None:
        """Bring a step and its settings to the front."""
        self.steps.setCurrentIndex(self.steps.findData(stage))
        self.single_steps.expand(animate=False)
        form = self.form(stage)
        QTimer.singleShot(60, lambda: self.area.ensureWidgetVisible(form))

    def _config(self, stage: str) -> StageConfig:
        if stage in self._forms:
            return self._forms[stage].config()
        if self.session is None:
            raise ConfigError("no project is open", "an open project", "open one first")
        return config_of(self.session.require(), stage)

    def _show_form(self) -> None:
        while self._form_place.count():
            item = self._form_place.takeAt(0)
            widget = item.widget() if item is not None else None
            if widget is not None:
                widget.hide()
        form = self.form(str(self.steps.currentData()))
        self._form_place.addWidget(form)
        form.show()

    def _reload(self) -> None:
        for form in self._forms.values():
            form.hide()
            form.deleteLater()
        self._forms.clear()
        self.launcher.attach(self.session)
        if self.session is not None and self.session.project is not None:
            self._show_form()
            self._tell()

    def _tell(self) -> None:
        session = self.session
        if session is None or session.project is None:
            return
        painted = count_painted(session.project)
        busy = bool(session.jobs.active())
        self.train_button.setEnabled(painted > 0 and not busy and not session.read_only)
        self.start_button.setEnabled(not session.read_only)
        waiting = ", ".join(title_of(stage).lower() for stage in session.waiting_stages)
        if busy:
            self.words.setText(
                "You may close the window; the job goes on." + (f" Next: {waiting}." if waiting else "")
            )
        elif painted:
            masks = f"{painted} mask{'s' if painted != 1 else ''}"
            self.words.setText(f"{masks} painted. From paint to a net for slides: three steps, one button.")
        else:
            self.words.setText("Paint some samples first; then one button trains a net for slides.")
