"""The samples tab: look at what the generator knows, and draw samples to paint."""

from __future__ import annotations

from typing import Any

from qtpy.QtCore import Qt, QTimer
from qtpy.QtGui import QPixmap
from qtpy.QtWidgets import (
    QComboBox,
    QFileDialog,
    QFormLayout,
    QInputDialog,
    QLabel,
    QPushButton,
    QSizePolicy,
    QSpinBox,
    QVBoxLayout,
    QWidget,
)
from superqt import QLabeledDoubleSlider

from napari_histogan.config import SampleImagesConfig
from napari_histogan.jobs.engine_client import Reply
from napari_histogan.widgets.config_form import keep_narrow
from napari_histogan.widgets.mix_box import MixBox
from napari_histogan.widgets.pictures import sheet_of, to_pixmap
from napari_histogan.widgets.session import Session
from napari_histogan.widgets.session_view import SessionView
from napari_histogan.widgets.stage_forms import config_of

_SHOWN = 12
_COLUMNS = 4
_PREVIEW_DELAY_MS = 120


class SamplesPanel(SessionView):
    """Variety, seed, a live look at the generator, and a button that draws samples."""

    where = "samples"

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.words = QLabel("Pictures that the generator invents. Choose how varied they are.")
        self.words.setWordWrap(True)
        self.variety = QLabeledDoubleSlider(Qt.Orientation.Horizontal)
        self.variety.setRange(0.0, 1.0)
        self.variety.setDecimals(2)
        self.variety.setValue(0.7)
        self.variety.setToolTip("1 is all that the generator knows, smaller is more typical")
        self.seed = QSpinBox()
        self.seed.setRange(0, 999_999)
        self.seed.setToolTip("Another seed gives other pictures; the same seed gives the same")
        self.count = QSpinBox()
        self.count.setRange(1, 100_000)
        self.count.setValue(200)
        self.count.setToolTip("How many samples to draw")
        self.look = QLabel()
        self.look.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self.look.setMinimumHeight(120)
        # The picture must not widen what scrolls beyond the dock.
        self.look.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Preferred)
        self.draw_button = self._button("Draw samples", "Ctrl+Return", self.draw)
        self.draw_button.setToolTip("Draw new samples; they appear in the gallery below ({Ctrl+Return})")
        self.real_button = self._button("Add real patches", "Alt+R", self.add_real)
        self.real_button.setToolTip(
            "Find real patches in the generator, to paint them like samples ({Alt+R}): random ones of the "
            "planned tissue, or pictures that you choose if none is planned. More settings: tab Train"
        )
        self.import_button = QPushButton("Import generator ...")
        self.import_button.setToolTip("Bring in a generator that was trained elsewhere")
        self.import_button.clicked.connect(self._import)
        self.sets = QComboBox()
        self.sets.setToolTip("Samples that were drawn before; their masks stay with them")
        keep_narrow(self.sets)
        self.sets.activated.connect(self._choose_set)
        self.mix = MixBox(instead_of=self.look)
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(_PREVIEW_DELAY_MS)
        self._timer.timeout.connect(self._ask)
        self.variety.valueChanged.connect(lambda _v: self.look_again())
        self.seed.valueChanged.connect(lambda _v: self.look_again())
        self._lay_out()

    def _lay_out(self) -> None:
        form = QFormLayout()
        form.addRow("Samples", self.sets)
        form.addRow("Variety", self.variety)
        form.addRow("Seed", self.seed)
        form.addRow("How many", self.count)
        body = QWidget()
        layout = QVBoxLayout(body)
        layout.setContentsMargins(4, 6, 4, 4)
        layout.addWidget(self.words)
        layout.addLayout(form)
        for part in (self.mix, self.look, self.draw_button, self.real_button, self.import_button):
            layout.addWidget(part)
        layout.addStretch(1)
        self.area = self.lay_out_scrolled(body)

    def attach(self, session: Session) -> None:
        """Follow a session."""
        self.watch(session.project_opened, self._reload)
        self.watch(session.samples_changed, self._reload)
        self.watch(session.artifacts_changed, self._reload)
        self.mix.follow(session)
        self._reload()

    def detach(self) -> None:
        """Let go of the session."""
        self.mix.detach()
        super().detach()

    def look_again(self) -> None:
        """Show what the generator makes of the present variety and seed."""
        if self.isVisible():
            self._timer.start()

    def showEvent(self, event: object) -> None:  # noqa: N802 - Qt's name
        """Show the generator's pictures when the tab comes to the front."""
        super().showEvent(event)
        if self.look.pixmap().isNull():
            self.look_again()

    def draw(self) -> None:
        """Start the job that draws samples."""
        session = self.session
        if session is None or session.project is None:
            return
        values = {"count": self.count.value(), "truncation": self.variety.value(), "seed": self.seed.value()}
        if session.run(SampleImagesConfig(**values)):
            session.told.emit("Drawing samples ...", "info")

    def add_real(self) -> None:
        """Start the job that finds real patches in the generator."""
        session = self.session
        if session is None or session.project is None:
            return
        project = session.project
        values: dict[str, Any] = {"truncation": self.variety.value(), "seed": self.seed.value()}
        if not project.artifacts("patches"):
            names = "Pictures (*.png *.jpg *.jpeg *.tif *.tiff *.bmp);;All files (*)"
            paths, _ = QFileDialog.getOpenFileNames(self, "Real patches", "", names)
            if not paths:
                return
            values["paths"] = tuple(paths)
        if session.run(config_of(project, "invert_patches", **values)):
            session.told.emit(
                "Finding real patches in the generator; the Train tab shows how far ...", "info"
            )

    def _reload(self) -> None:
        session = self.session
        if session is None or session.project is None:
            return
        has_generator = bool(session.project.artifacts("generator"))
        for button in (self.draw_button, self.real_button):
            button.setEnabled(has_generator and not session.read_only)
        self.import_button.setEnabled(not session.read_only)
        self.words.setText(
            "Pictures that the generator invents. Choose how varied they are."
            if has_generator
            else "There is no generator yet. Add slides and train one (tab Train), or import one here."
        )
        self.sets.clear()
        for artifact in reversed(session.project.artifacts("samples")):
            summary = artifact.summary
            count, variety = summary.get("count", "?"), summary.get("truncation", "?")
            real = f"{summary['real']} of them real, " if summary.get("real") else ""
            self.sets.addItem(f"{artifact.number}: {count} pictures, {real}variety {variety}", artifact.id)
        if session.samples_artifact is not None:
            self.sets.setCurrentIndex(self.sets.findData(session.samples_artifact.id))
        self.sets.setEnabled(self.sets.count() > 0)
        if has_generator:
            self.look_again()
        else:
            self.look.clear()

    def _choose_set(self, position: int) -> None:
        if self.session is not None:
            self.session.use_samples(str(self.sets.itemData(position)))

    def _ask(self) -> None:
        session = self.session
        if session is None or session.project is None or not session.project.artifacts("generator"):
            return
        session.engine.ask(
            "sample",
            self._show,
            project=str(session.project.root),
            generator="",
            truncation=self.variety.value(),
            seed=self.seed.value(),
            n=_SHOWN,
        )

    def _show(self, reply: Reply) -> None:
        pictures = reply.arrays.get("images")
        if pictures is None:
            return
        pixmap: QPixmap = to_pixmap(sheet_of(pictures, _COLUMNS))
        width = max(200, min(self.area.viewport().width() - 16, 480))
        self.look.setPixmap(pixmap.scaledToWidth(width, Qt.TransformationMode.SmoothTransformation))

    def _import(self) -> None:
        session = self.session
        path, _ = QFileDialog.getOpenFileName(
            self, "Import generator", "", "Generators (*.safetensors *.pkl *.pt);;All files (*)"
        )
        if not path or session is None or session.project is None:
            return
        values: dict[str, Any] = {"path": path}
        if not path.endswith(".safetensors"):  # files of other programs do not say it
            question = "Microns per pixel of its pictures"
            values["mpp"], answered = QInputDialog.getDouble(
                self, "Import generator", question, 1.0, 0.05, 50.0, 3
            )
            if not answered:
                return
        project = session.project
        session.attempt(lambda: session.run(config_of(project, "import_gan", **values)))
