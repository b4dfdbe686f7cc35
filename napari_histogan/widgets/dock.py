"""The main dock: start page, or head and tabs."""

from __future__ import annotations

import html
import time
from pathlib import Path
from typing import Any

from qtpy.QtCore import Qt, QTimer
from qtpy.QtWidgets import QHBoxLayout, QLabel, QPushButton, QStackedWidget, QVBoxLayout, QWidget

from napari_histogan.widgets.block_panel import BlockPanel
from napari_histogan.widgets.correct_panel import CorrectPanel
from napari_histogan.widgets.demo_project import start_demo
from napari_histogan.widgets.gallery import GalleryDock
from napari_histogan.widgets.guide import GuideBox
from napari_histogan.widgets.paint_panel import PaintPanel
from napari_histogan.widgets.patch_panel import PatchPanel
from napari_histogan.widgets.project_header import ProjectHeader
from napari_histogan.widgets.samples_panel import SamplesPanel
from napari_histogan.widgets.session import Session
from napari_histogan.widgets.session_view import SessionView, main_window_of
from napari_histogan.widgets.slides_panel import SlidesPanel
from napari_histogan.widgets.start_page import StartPage
from napari_histogan.widgets.train_panel import TrainPanel
from napari_histogan.widgets.weak_panel import WeakPanel
from napari_histogan.widgets.wrapped_tabs import WrappedTabs

PLUGIN = "napari-histogan"
GALLERY = "Samples"
TABS = ("samples", "paint", "train", "slides", "correct", "blocks", "labels", "patches")
_COLORS = {"info": "#3c6e71", "warning": "#8a6d1f", "error": "#8c3b33"}
_INFO_MS = 8000
_DEMO_WAIT_S = 60.0
_GALLERY_PX = 190


class HistoganDock(SessionView):
    """From slides to heatmaps in one dock.

    Parameters
    ----------
    napari_viewer
        The viewer that the dock belongs to.
    """

    def __init__(self, napari_viewer: Any, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setMinimumWidth(345)
        self._wanted: Path | None = None
        self._awaited = (Path(), 0.0)
        self.start_page = StartPage()
        self.header = ProjectHeader()
        self.samples, self.paint, self.train = SamplesPanel(), PaintPanel(), TrainPanel()
        self.slides, self.correct, self.blocks = SlidesPanel(), CorrectPanel(), BlockPanel()
        self.labels, self.patches = WeakPanel(), PatchPanel()
        self.tabs = WrappedTabs()
        for number, (panel, title) in enumerate(
            (
                (self.samples, "Samples"),
                (self.paint, "Paint"),
                (self.train, "Train"),
                (self.slides, "Slides"),
                (self.correct, "Correct"),
                (self.blocks, "Blocks"),
                (self.labels, "Labels"),
                (self.patches, "Patches"),
            ),
            1,
        ):
            self.tabs.addTab(panel, f"{number} {title}")
        self.tabs.currentChanged.connect(self._on_tab)
        self.guide = self._make_guide()
        work = QWidget()
        inner = QVBoxLayout(work)
        inner.setContentsMargins(0, 0, 0, 0)
        inner.addWidget(self.header)
        inner.addWidget(self.guide)
        inner.addWidget(self.tabs, 1)
        self.stack = QStackedWidget()
        self.stack.addWidget(self.start_page)
        self.stack.addWidget(work)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.stack, 1)
        layout.addWidget(self._make_message())
        self.start_page.open_wanted.connect(self.open_project)
        self.start_page.create_wanted.connect(self.create_project)
        self.start_page.demo_wanted.connect(self.try_demo)
        self.header.action_wanted.connect(self.do)
        self.header.close_wanted.connect(self._close_project)
        self.bind_session(napari_viewer)

    def _make_guide(self) -> GuideBox:
        """Make the guide, and tell it what it can point at."""
        guide = GuideBox(
            {
                "open": lambda: self.window().findChild(GalleryDock),
                "paint": lambda: self.paint.classes,
                "predict": lambda: self.paint.uncertainty_button,
                "map": lambda: self.slides.run_button,
                "correct": lambda: self.correct.place_button,
            }
        )
        guide.shown_changed.connect(self.header.guide_button.setChecked)
        self.header.guide_wanted.connect(guide.toggle)
        return guide

    def _make_message(self) -> QWidget:
        """Make the bar that says what went wrong or well, with a button that hides it."""
        self.message_bar = QWidget()
        self.message = QLabel()
        self.message.setWordWrap(True)
        self.message.setTextInteractionFlags(self.message.textInteractionFlags().TextSelectableByMouse)
        hide = QPushButton("x")
        hide.setMaximumWidth(26)
        hide.setToolTip("Hide this message")
        hide.clicked.connect(self.message_bar.hide)
        row = QHBoxLayout(self.message_bar)
        row.setContentsMargins(6, 4, 4, 4)
        row.addWidget(self.message, 1)
        row.addWidget(hide)
        self.message_bar.hide()
        self._message_timer = QTimer(self)
        self._message_timer.setSingleShot(True)
        self._message_timer.timeout.connect(self.message_bar.hide)
        return self.message_bar

    def attach(self, session: Session) -> None:
        """Follow a session."""
        self.watch(session.told, self.tell)
        self.watch(session.project_opened, self._on_opened_anew)
        self.watch(session.project_closed, self._on_closed)
        self.watch(session.tab_wanted, self.show_tab)
        for view in self._views():
            view.follow(session)
        if session.project is not None:
            self._on_opened()
        if self._wanted is not None:
            self.open_project(self._wanted)

    def detach(self) -> None:
        """Let go of the session."""
        for view in self._views():
            view.detach()
        self._set_keys("")
        super().detach()

    def _views(self) -> tuple[SessionView, ...]:
        return (
            self.header,
            self.guide,
            self.samples,
            self.paint,
            self.train,
            self.slides,
            self.correct,
            self.blocks,
            self.labels,
            self.patches,
        )

    # What people ask for

    def open_project(self, root: Path) -> bool:
        """Open a project folder."""
        return self.session is not None and self.session.open(Path(root))

    def create_project(self, root: Path) -> bool:
        """Make a project in a new or empty folder."""
        return self.session is not None and self.session.create(Path(root))

    def try_demo(self, root: Path) -> None:
        """Open the demo project; it is made from shipped data the first time."""
        session = self.session
        if session is None:
            return
        if (root / "project.toml").is_file():
            session.open(root)
            return
        if session.attempt(lambda: start_demo(root)):
            self.tell(f"Making the demo project in {root}; it opens in a few seconds ...", "info")
            self._awaited = root, time.monotonic()
            self._await_demo()

    def try_demo_when_ready(self, root: Path) -> None:
        """Open the demo project as soon as the dock lies in its window."""
        if self.session is None:
            QTimer.singleShot(50, lambda: self.try_demo_when_ready(root))
        else:
            self.try_demo(root)

    def open_when_ready(self, root: Path) -> None:
        """Open a project as soon as the dock lies in its window."""
        if self.session is None:
            self._wanted = root
        else:
            self.open_project(root)

    def _await_demo(self) -> None:
        """Open the demo project once it is there."""
        root, since = self._awaited
        if (root / "project.toml").is_file():
            self.open_project(root)
        elif time.monotonic() - since > _DEMO_WAIT_S:
            log = root.with_name(f"{root.name}-log.txt")
            self.tell(f"The demo project did not appear. {log} may say why.", "error")
        else:
            QTimer.singleShot(300, self._await_demo)

    def do(self, action: str) -> None:
        """Do a next step by its name."""
        session = self.session
        if session is None or session.project is None:
            return
        if action == "add_slides":
            self.show_tab("slides")
            self.slides.ask_for_slides()
        elif action in ("extract_patches", "train_gan"):
            self.show_tab("train")
            self.train.show_step(action)
            self.tell("Check the settings, then press Start this step.", "info")
        elif action == "sample_images":
            self.show_tab("samples")
            self.samples.draw()
        elif action == "add_class":
            self.show_tab("paint")
            self.paint.classes.add()
        elif action == "paint":
            session.painting.open_next()
        elif action == "train":
            self.show_tab("train")
            self.train.train()
        elif action == "retrain":
            self.correct.retrain()
        elif action == "predict_heatmap":
            self.show_tab("slides")
            self.slides.run()
        elif action == "look":
            self.show_tab("correct")
        elif action in ("show_blocks", "show_labels", "show_patches"):
            self.show_tab(action.removeprefix("show_"))
        elif action == "show_job":
            self.show_tab("train")

    def show_tab(self, name: str) -> None:
        """Bring a tab to the front."""
        self.tabs.setCurrentIndex(TABS.index(name))

    def tell(self, text: str, level: str = "info") -> None:
        """Say something at the foot of the dock; errors stay until they are hidden."""
        self.message.setText(html.escape(text).replace("\n", "<br>"))
        self.message_bar.setStyleSheet(f"background: {_COLORS.get(level, _COLORS['info'])}; color: white;")
        self.message_bar.show()
        if level == "info":
            self._message_timer.start(_INFO_MS)
        else:
            self._message_timer.stop()

    # What happens

    def _on_opened_anew(self) -> None:
        self.tabs.setCurrentIndex(0)
        self._on_opened()

    def _on_opened(self) -> None:
        self.stack.setCurrentIndex(1)
        self._open_gallery()
        self._on_tab(self.tabs.currentIndex())

    def _on_closed(self, why: str) -> None:
        self.start_page.refresh()
        self.stack.setCurrentIndex(0)
        self._set_keys("")
        if why:
            self.tell(why, "error")

    def _close_project(self) -> None:
        if self.session is not None:
            self.session.close_project()

    def _open_gallery(self) -> None:
        """Show the gallery dock below the canvas; napari opens it only once."""
        try:
            place_below(self._viewer.window.add_plugin_dock_widget(PLUGIN, GALLERY)[0])
        except (ValueError, KeyError) as error:
            self.tell(f"The gallery could not be opened: {error}", "warning")

    def _on_tab(self, position: int) -> None:
        name = TABS[position]
        session = self.session
        if session is None or session.project is None:
            return
        self._set_keys(name)
        if name in ("slides", "correct"):
            session.painting.flush()
            if session.slide_view.slide is not None:
                session.slide_view.show()
                session.correcting.show()
            elif session.project.slides():
                self.slides.open("")
        elif name in ("samples", "paint") and session.painting.index >= 0:
            picture = session.painting.picture
            there = picture is not None and picture.visible
            session.painting.show()
            if picture is not None and not there:  # who looks at a part of it goes on doing so
                self._viewer.reset_view(layers=[picture])

    def _set_keys(self, name: str) -> None:
        """Let only the keys of the tab in front act."""
        if self.session is not None:
            self.session.peek.end()
        self.samples.set_keys_enabled(name == "samples")
        self.paint.set_keys_enabled(name == "paint")
        self.slides.set_keys_enabled(name == "slides")
        self.correct.set_keys_enabled(name == "correct")
        self.blocks.set_keys_enabled(name == "blocks")
        self.labels.set_keys_enabled(name == "labels")
        self.patches.set_keys_enabled(name == "patches")
        self.train.set_keys_enabled(name in ("paint", "train"))


def place_below(dock_widget: Any) -> None:
    """Move a dock below the canvas, unless the user has made it float or moved it since."""
    window = main_window_of(dock_widget)
    if window is None or dock_widget.property("histogan placed"):
        return
    dock_widget.setProperty("histogan placed", True)
    window.addDockWidget(Qt.DockWidgetArea.BottomDockWidgetArea, dock_widget)
    # The dock on the right keeps its full height; the gallery takes what is left of it.
    window.setCorner(Qt.Corner.BottomRightCorner, Qt.DockWidgetArea.RightDockWidgetArea)
    window.resizeDocks([dock_widget], [_GALLERY_PX], Qt.Orientation.Vertical)
