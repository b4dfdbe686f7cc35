"""The slides tab: add and open slides, run the net, and look at the heatmap."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QFileDialog,
    QFormLayout,
    QHBoxLayout,
    QInputDialog,
    QLabel,
    QPushButton,
    QVBoxLayout,
    QWidget,
)
from superqt import QLabeledSlider

from napari_histogan.config import AddSlidesConfig, PredictHeatmapConfig
from napari_histogan.errors import HistoganError
from napari_histogan.project.artifacts import Artifact
from napari_histogan.project.net_in_use import net_in_use
from napari_histogan.project.slide_list import ALL
from napari_histogan.slides.reader import SLIDE_SUFFIXES, open_slide
from napari_histogan.widgets.file_drop import FileDropView
from napari_histogan.widgets.pictures import swatch
from napari_histogan.widgets.review_box import ReviewBox
from napari_histogan.widgets.session import Session
from napari_histogan.widgets.session_view import keep_low
from napari_histogan.widgets.slide_list import SlideList
from napari_histogan.widgets.stage_forms import last_values
from napari_histogan.widgets.stage_titles import results_in_words

_LIST_PX = 74


class SlidesPanel(FileDropView):
    """Slides with thumbnails, and the heatmap over the open one."""

    where = "slides"

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.words = QLabel("Drop slides here, or add them.")
        self.words.setWordWrap(True)
        self.list = SlideList()
        keep_low(self.list, _LIST_PX)
        self.list.setToolTip(
            "Enter or a double click opens a slide; the two squares are the colors of its stains"
        )
        self.list.itemActivated.connect(lambda item: self.open(str(item.data(Qt.ItemDataRole.UserRole))))
        self.add_button = QPushButton("Add slides ...")
        self.add_button.setToolTip("Register slide files; nothing is copied")
        self.add_button.clicked.connect(self.ask_for_slides)
        self.open_button = QPushButton("Open")
        self.open_button.setToolTip("Show the chosen slide (Enter)")
        self.open_button.clicked.connect(self._open_chosen)
        self.run_button = self._button("Run on slide  ({R})", "R", self.run)
        self.run_button.setToolTip(
            "Run the net in use (tab Correct) over the slide; the map grows while it works ({R})"
        )
        self.all_slides = _all_slides_box()
        self.versions = QComboBox()
        self.versions.setToolTip("Heatmaps of this slide, newest first")
        self.versions.activated.connect(self._choose_version)
        self.classes = QComboBox()
        self.classes.setToolTip("Class whose probability is shown (1-9)")
        self.classes.activated.connect(lambda position: self._choose_class(position + 1))
        self.threshold = _percent_slider(0, "Hide what is less probable; 0 shows a smooth map")
        self.threshold.valueChanged.connect(self._set_threshold)
        self.opacity = _percent_slider(60, "Opacity of the map")
        self.opacity.valueChanged.connect(self._set_opacity)
        self.hide_button = self._button("Map  ({H})", "H", self._toggle)
        self.hide_button.setToolTip("Show or hide the heatmap ({H})")
        self.alone_button = self._hold_button("Slide alone  ({Q})", "Q", self._peek)
        self.alone_button.setToolTip(
            "The slide alone while the key is held, or until it is tapped again ({Q})"
        )
        self.swipe_button = self._button("Swipe  ({W})", "W", self._swipe, True)
        self.swipe_button.setToolTip(
            "The map on the right of a line that follows the mouse, the slide on its left ({W})"
        )
        self.swipe = _percent_slider(50, "Where the line of the swipe stands, for the keyboard")
        self.swipe.valueChanged.connect(self._move_swipe)
        self.review = ReviewBox(self.threshold)
        self._lay_out()
        for k in range(1, 10):
            self._digit(k, lambda k=k: self._choose_class(k))

    def _lay_out(self) -> None:
        for button in (self.add_button, self.open_button):
            button.setFocusPolicy(Qt.FocusPolicy.TabFocus)
        row = QHBoxLayout()
        row.addWidget(self.add_button)
        row.addWidget(self.open_button)
        self.heat_box = QWidget()
        form = QFormLayout(self.heat_box)
        form.setContentsMargins(0, 4, 0, 0)
        form.addRow("Map", self.versions)
        form.addRow("Class", self.classes)
        form.addRow("Show above %", self.threshold)
        form.addRow("Opacity %", self.opacity)
        shown = QHBoxLayout()
        shown.addWidget(self.hide_button)
        shown.addWidget(self.alone_button)
        form.addRow(shown)
        form.addRow(self.swipe_button, self.swipe)
        form.addRow(self.review)
        body = QWidget()
        layout = QVBoxLayout(body)
        layout.setContentsMargins(4, 6, 4, 4)
        layout.addWidget(self.words)
        layout.addWidget(self.list.filter)
        layout.addWidget(self.list, 1)
        layout.addLayout(row)
        layout.addLayout(_in_a_row(self.run_button, self.all_slides))
        layout.addWidget(self.heat_box)
        layout.addWidget(self.review.found, 2)
        self.area = self.lay_out_scrolled(body)

    def attach(self, session: Session) -> None:
        """Follow a session."""
        self.watch(session.project_opened, self._reload)
        self.watch(session.slides_changed, self._reload)
        self.watch(session.artifacts_changed, self._tell)
        self.watch(session.classes_changed, self._fill_classes)
        self.watch(session.jobs.state_changed, lambda _n: self._tell())
        self.review.follow(session)
        self.watch(session.peek.changed, self.alone_button.setChecked)
        self.watch(session.slide_view.swipe.changed, self._tell_swipe)
        self.watch(session.slide_view.swipe.moved, self._show_swipe)
        self._tell_swipe()
        self.watch(session.slide_view.slide_opened, lambda _n: self._tell())
        self.watch(session.slide_view.heatmap_opened, lambda _n: self._tell())
        self._reload()

    def detach(self) -> None:
        """Let go of the session."""
        self.review.detach()
        super().detach()

    def set_keys_enabled(self, enabled: bool) -> None:
        """Let the panel's keys act."""
        super().set_keys_enabled(enabled)
        self.review.set_keys_enabled(enabled)

    # Slides

    def ask_for_slides(self) -> None:
        """Let people choose slide files."""
        patterns = " ".join(f"*{suffix}" for suffix in SLIDE_SUFFIXES)
        files, _ = QFileDialog.getOpenFileNames(self, "Add slides", "", f"Slides ({patterns});;All files (*)")
        if files:
            self.add([Path(file) for file in files])

    def add(self, paths: Sequence[Path], mpp: float | None = None) -> bool:
        """Check slides and start the job that registers them; False if it was told why not.

        Parameters
        ----------
        paths
            Files or folders.
        mpp
            Resolution in um/px of slides that do not say theirs; asked for when needed.
        """
        session = self.session
        if session is None or session.project is None:
            return False
        for path in paths:
            if path.is_dir() and path.suffix != ".zarr":
                continue
            try:
                with open_slide(path, mpp) as slide:
                    knows = slide.has_mpp
            except (HistoganError, OSError) as error:
                session.told.emit(str(error), "error")
                return False
            if not knows:
                mpp = _asked_mpp(self, path)
                if mpp is None:
                    session.told.emit(f"{path.name} was not added: its resolution is not known.", "warning")
                    return False
        return session.run(AddSlidesConfig(paths=tuple(paths), mpp=mpp))

    def open(self, name: str = "") -> bool:
        """Open a slide; "" is the first.  False if it was told why not."""
        session = self.session
        if session is None or session.project is None:
            return False
        shown = session.slide_view.entry
        if session.correcting.active and shown is not None and name not in ("", shown.name):
            session.told.emit("Accept or discard the frame on this slide first (tab Correct).", "warning")
            return False
        return session.attempt(lambda: session.slide_view.open(name))

    def take_files(self, paths: list[Path]) -> None:
        """Add the dropped files."""
        self.add(paths)

    def _open_chosen(self) -> None:
        item = self.list.currentItem()
        self.open(str(item.data(Qt.ItemDataRole.UserRole)) if item is not None else "")

    # Heatmap

    def run(self) -> None:
        """Run the newest net over the chosen slide and show the map growing."""
        session = self.session
        if session is None or session.project is None or not self.run_button.isEnabled():
            return
        item = self.list.currentItem()
        name = str(item.data(Qt.ItemDataRole.UserRole)) if item is not None else ""
        if self.open(name) and session.slide_view.entry is not None:
            values = last_values(session.project, "predict_heatmap")
            wanted = ALL if self.all_slides.isChecked() else session.slide_view.entry.name
            named = {"slide": wanted, "segmenter": net_in_use(session.project)}
            session.run(PredictHeatmapConfig(**{**values, **named}))

    def _choose_version(self, position: int) -> None:
        session = self.session
        if session is not None and session.project is not None:
            found = session.project.artifact(str(self.versions.itemData(position)), "heatmap")
            session.attempt(lambda: session.slide_view.open_heatmap(found))

    def _choose_class(self, index: int) -> None:
        if self.session is not None and 1 <= index <= self.classes.count():
            self.classes.setCurrentIndex(index - 1)
            self.session.slide_view.set_class(index)

    def _set_threshold(self, percent: int) -> None:
        if self.session is not None:
            self.session.slide_view.set_threshold(percent)

    def _set_opacity(self, percent: int) -> None:
        if self.session is not None:
            self.session.slide_view.set_opacity(percent / 100)

    def _swipe(self) -> None:
        if self.session is not None:
            self.session.attempt(self.session.slide_view.swipe.toggle)
            self._tell_swipe()

    def _move_swipe(self, percent: int) -> None:
        if self.session is not None and self.session.slide_view.swipe.active:
            self.session.slide_view.swipe.place(percent)

    def _tell_swipe(self) -> None:
        if self.session is not None:
            swipe = self.session.slide_view.swipe
            self.swipe_button.setChecked(swipe.active)
            self.swipe.setEnabled(swipe.active)

    def _show_swipe(self, percent: int) -> None:
        self.swipe.blockSignals(True)
        self.swipe.setValue(percent)
        self.swipe.blockSignals(False)

    def _peek(self) -> None:
        if self.session is not None:
            self.session.peek.toggle()
            self.alone_button.setChecked(self.session.peek.active)

    def _toggle(self) -> None:
        if self.session is not None:
            self.session.slide_view.toggle_heatmap()

    # Showing

    def _reload(self) -> None:
        session = self.session
        if session is None or session.project is None:
            return
        folders = [artifact.path for artifact in session.project.artifacts("slides")]
        self.list.show_slides(session.project.slides(), folders)
        self._fill_classes()
        self._tell()

    def _fill_classes(self) -> None:
        session = self.session
        if session is None or session.project is None:
            return
        self.classes.clear()
        for info in session.project.classes:
            self.classes.addItem(swatch(info.color), f"{info.key}  {info.name}")
        self.classes.setCurrentIndex(session.slide_view.class_index - 1)

    def _tell(self) -> None:
        session = self.session
        if session is None or session.project is None:
            return
        count = self.list.count()
        plural = "s" if count != 1 else ""
        self.words.setText(
            f"{count} slide{plural}. Drop more here." if count else "Drop slides here, or add them."
        )
        self.add_button.setEnabled(not session.read_only)
        self.open_button.setEnabled(count > 0)
        has_net = bool(session.project.artifacts("segmenter"))
        self.run_button.setEnabled(count > 0 and has_net and not session.read_only)
        self.run_button.setText("Run on slide  ({R})" if has_net else "Run on slide: needs a trained net")
        self.all_slides.setVisible(count > 1)
        self._fill_versions(session)
        self.heat_box.setEnabled(session.slide_view.heat is not None)

    def _fill_versions(self, session: Session) -> None:
        """List the heatmaps of the open slide, if they are not those that are listed."""
        view = session.slide_view
        rows = [(_map_in_words(artifact), artifact.id) for artifact in reversed(view.heatmaps())]
        if view.heat is not None and view.heatmap is None:
            rows.insert(0, ("growing ...", ""))
        listed = [
            (self.versions.itemText(i), self.versions.itemData(i)) for i in range(self.versions.count())
        ]
        if rows != listed:
            self.versions.clear()
            for text, reference in rows:
                self.versions.addItem(text, reference)
        self.versions.setCurrentIndex(self.versions.findData(view.heatmap.id) if view.heatmap else 0)


def _map_in_words(heatmap: Artifact) -> str:
    """Return the number of a map, and of the net that made it."""
    net = results_in_words(p.id for p in heatmap.parents if p.id.startswith("segmenters/"))
    return f"{heatmap.number}, by {net}" if net else str(heatmap.number)


def _all_slides_box() -> QCheckBox:
    """Return what makes a run one over all slides."""
    box = QCheckBox("all slides")
    box.setToolTip("Run over every slide of the project, one after the other")
    return box


def _in_a_row(first: QWidget, second: QWidget) -> QHBoxLayout:
    """Return a row in which the first widget takes the space."""
    row = QHBoxLayout()
    row.addWidget(first, 1)
    row.addWidget(second)
    return row


def _asked_mpp(parent: QWidget, path: Path) -> float | None:
    """Ask how fine a slide is; None if nobody says."""
    text = (
        f"{path.name} does not say how many microns a pixel spans.\n"
        "0.25 is usual for a 40x scan, 0.5 for 20x. Microns per pixel:"
    )
    value, sure = QInputDialog.getDouble(parent, "Resolution", text, 0.5, 0.01, 100.0, 4)
    return float(value) if sure else None


def _percent_slider(value: int, tip: str) -> QLabeledSlider:
    """Return a slider from 0 to 100 percent."""
    slider = QLabeledSlider(Qt.Orientation.Horizontal)
    slider.setRange(0, 100)
    slider.setValue(value)
    slider.setToolTip(tip)
    return slider
