"""The first page: try the demo, make a project, or open one."""

from __future__ import annotations

from pathlib import Path

from qtpy.QtCore import Signal
from qtpy.QtWidgets import (
    QFileDialog,
    QLabel,
    QListWidget,
    QListWidgetItem,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from napari_histogan.widgets.demo_project import demo_folder
from napari_histogan.widgets.recent_projects import recent_projects


class StartPage(QWidget):
    """Three buttons and the projects that were open lately.

    Signals
    -------
    demo_wanted, create_wanted, open_wanted
        With the folder.
    """

    demo_wanted = Signal(object)
    create_wanted = Signal(object)
    open_wanted = Signal(object)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.words = QLabel(
            "<b>Learn to paint tissue, paint a few samples, segment whole slides.</b><br>"
            "A project is one folder; slides stay where they are."
        )
        self.words.setWordWrap(True)
        self.demo_button = QPushButton("Try the demo")
        self.demo_button.setToolTip("A project with a slide, a generator, and painted masks, ready to use")
        self.demo_button.setDefault(True)
        self.demo_button.clicked.connect(self._demo)
        self.new_button = QPushButton("New project ...")
        self.new_button.setToolTip("Choose a new or empty folder")
        self.new_button.clicked.connect(self._new)
        self.open_button = QPushButton("Open project ...")
        self.open_button.setToolTip("Choose a project's folder")
        self.open_button.clicked.connect(self._open)
        self.recent = QListWidget()
        self.recent.setToolTip("A double click opens a project")
        self.recent.itemActivated.connect(lambda item: self.open_wanted.emit(Path(item.toolTip())))
        self.recent_title = QLabel("Recent projects")
        layout = QVBoxLayout(self)
        layout.addWidget(self.words)
        for button in (self.demo_button, self.new_button, self.open_button):
            button.setMinimumHeight(34)
            layout.addWidget(button)
        layout.addSpacing(8)
        layout.addWidget(self.recent_title)
        layout.addWidget(self.recent)
        layout.addStretch(1)
        self.refresh()

    def refresh(self) -> None:
        """Read the list of recent projects again."""
        self.recent.clear()
        for root in recent_projects():
            item = QListWidgetItem(f"{root.name}\n{root.parent}")
            item.setToolTip(str(root))
            self.recent.addItem(item)
        self.recent.setVisible(self.recent.count() > 0)
        self.recent_title.setVisible(self.recent.count() > 0)

    def _demo(self) -> None:
        self.demo_wanted.emit(demo_folder())

    def _new(self) -> None:
        folder = QFileDialog.getExistingDirectory(self, "New project: choose a new or empty folder")
        if folder:
            self.create_wanted.emit(Path(folder))

    def _open(self) -> None:
        folder = QFileDialog.getExistingDirectory(self, "Open project: choose its folder")
        if folder:
            self.open_wanted.emit(Path(folder))
