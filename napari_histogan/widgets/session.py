"""What is open: one project, its samples, its jobs, and the compute process.

A session belongs to the main window.  Docks are views on it: a dock that is closed by
its X and opened again is a new object, and finds everything where it was.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import QEvent, QObject, QTimer, Signal
from qtpy.QtWidgets import QWidget

from napari_histogan.config import StageConfig
from napari_histogan.errors import HistoganError, ProjectLocked, ProjectNotFound
from napari_histogan.labels.classes import ClassTable
from napari_histogan.project.artifacts import Artifact
from napari_histogan.project.store import Project
from napari_histogan.widgets.correcting import Correcting
from napari_histogan.widgets.engine_link import EngineLink
from napari_histogan.widgets.favoring import Favoring
from napari_histogan.widgets.folder_watch import FolderWatch
from napari_histogan.widgets.job_watcher import JobWatcher
from napari_histogan.widgets.painting import Painting
from napari_histogan.widgets.peek import Peek
from napari_histogan.widgets.recent_projects import remember_project
from napari_histogan.widgets.reviewing import Reviewing
from napari_histogan.widgets.rounds import Rounds
from napari_histogan.widgets.sample_store import SampleStore
from napari_histogan.widgets.slide_view import SlideView
from napari_histogan.widgets.stage_titles import title_of
from napari_histogan.widgets.warming import Warming

logger = logging.getLogger("napari_histogan")

_LOOK_AT_FOLDER_MS = 1500


class Session(QObject):
    """One project in one window.

    Parameters
    ----------
    viewer
        The napari viewer.
    window
        Its main window; owns the session.

    Signals
    -------
    project_opened, project_closed
        Another project is shown, or none; the latter says why, if it was not asked for.
    classes_changed, slides_changed, artifacts_changed, samples_changed
        Parts of the project were changed.
    sample_opened
        Number of the sample that can be painted now.
    mask_saved
        Number of a sample and how many of its pixels are labeled.
    painted_changed
        Another process saved masks, as the demo does.
    scores_changed
        How informative samples are was computed anew.
    told
        Words for people and their level: "info", "warning", or "error".
    tab_wanted
        Name of the tab that should come to the front.
    mix_wanted
        Numbers of two samples to mix; the second is -1 for more like the first.
    """

    project_opened = Signal()
    project_closed = Signal(str)
    classes_changed = Signal()
    slides_changed = Signal()
    artifacts_changed = Signal()
    samples_changed = Signal()
    sample_opened = Signal(int)
    mask_saved = Signal(int, int)
    painted_changed = Signal()
    scores_changed = Signal()
    told = Signal(str, str)
    tab_wanted = Signal(str)
    mix_wanted = Signal(int, int)

    def __init__(self, viewer: Any, window: QObject | None = None) -> None:
        super().__init__(window)
        self.viewer = viewer
        self.project: Project | None = None
        self.read_only = False
        self.samples: SampleStore | None = None
        self.samples_artifact: Artifact | None = None
        self.scores: dict[int, float] = {}
        self._painted: list[int] = []
        self._held = ExitStack()
        self._docks: dict[str, Any] = {}
        self.engine = EngineLink(self)
        self.engine.failed.connect(lambda text: self.told.emit(text, "error"))
        self.jobs = JobWatcher(self)
        self.jobs.failed.connect(lambda text: self.told.emit(text, "error"))
        self.jobs.ended.connect(self._on_job_ended)
        self.favorites = Favoring(self)
        self.painting = Painting(self)
        self.slide_view = SlideView(self)
        self.peek = Peek(self)
        self.reviewing = Reviewing(self)
        self.correcting = Correcting(self)
        self.rounds = Rounds(self)
        self.warming = Warming(self)
        self.folder = FolderWatch(self)
        self.folder.gone.connect(self._on_folder_gone)
        self.folder.silent.connect(self._on_silent)
        self.folder.answers.connect(self._on_answers)
        self._folder_timer = QTimer(self)
        self._folder_timer.setInterval(_LOOK_AT_FOLDER_MS)
        self._folder_timer.timeout.connect(self._look_at_folder)
        if window is not None:
            window.installEventFilter(self)

    # Opening and closing

    def create(self, root: Path, classes: ClassTable | None = None) -> bool:
        """Make a project in a new or empty folder and open it; False if it was told why not."""
        try:
            Project.create(root, classes=classes)
        except HistoganError as error:
            self.told.emit(str(error), "error")
            return False
        return self.open(root)

    def open(self, root: Path) -> bool:
        """Open a project; a second window on it opens it read-only.  False if it was told why not."""
        try:
            project = Project.open(root)
        except HistoganError as error:
            self.told.emit(str(error), "error")
            return False
        self.close_project()
        self.read_only = project.read_only
        try:
            if self.read_only:
                self.told.emit(
                    f"Opened for looking only: nothing can be written to {project.root}. To paint or train, "
                    "copy the project to a folder that you may write to.",
                    "warning",
                )
            else:
                self._held.enter_context(project.studio_lock())
        except ProjectLocked as error:
            self.read_only = True
            project = Project.open(root, read_only=True)
            self.told.emit(f"Opened for looking only: {error.found}.", "warning")
        except HistoganError as error:
            self.read_only = True
            self.told.emit(f"Opened for looking only: {error}", "warning")
        self.project = project
        remember_project(project.root)
        self.jobs.watch(project.root)
        self.folder.watch(project.root)
        self._folder_timer.start()
        self._load_samples()
        self.project_opened.emit()
        return True

    def close_project(self, why: str = "") -> None:
        """Forget the project; jobs go on, paint is saved already."""
        if self.project is None:
            return
        self.peek.end()
        self.painting.flush()
        self.correcting.save()
        self._folder_timer.stop()
        self.folder.watch(None)
        self.jobs.watch(None)
        self.engine.forget()
        try:
            self._held.close()
        except OSError:
            logger.info("the lock of a folder that is gone could not be released")
        self._held = ExitStack()
        self.project, self.samples, self.samples_artifact, self.scores = None, None, None, {}
        self.painting.forget()
        self.slide_view.clear()
        self.correcting.forget()
        self.project_closed.emit(why)

    def shut_down(self) -> None:
        """End what belongs to the window; called when the window closes."""
        self.close_project()
        self.engine.close()

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:  # noqa: N802 - Qt's name
        """Shut down when the main window goes; a close that the user cancels hides nothing."""
        if event.type() == QEvent.Type.Hide and not event.spontaneous():
            # Some systems hide a window for a moment when they change its frame.
            QTimer.singleShot(0, self._shut_down_if_hidden)
        return False

    def _shut_down_if_hidden(self) -> None:
        window = self.parent()
        if isinstance(window, QWidget) and not window.isVisible():
            self.shut_down()

    def replace_view(self, name: str, view: Any) -> None:
        """Note the present dock of a kind; an older one lets go."""
        previous = self._docks.get(name)
        if previous is not None and previous is not view:
            previous.detach()
        self._docks[name] = view

    # The project's parts

    def require(self) -> Project:
        """Return the open project.

        Raises
        ------
        ProjectNotFound
            If none is open.
        """
        if self.project is None:
            raise ProjectNotFound("no project is open", "an open project", "open or make one in the dock")
        return self.project

    def attempt(self, what: Callable[[], Any]) -> bool:
        """Do something; errors that the package raises on purpose are told in the dock."""
        try:
            what()
        except (HistoganError, OSError) as error:
            self.told.emit(str(error), "error")
            return False
        return True

    def set_classes(self, table: ClassTable) -> bool:
        """Replace the classes; False if it was told why not."""
        project = self.project
        if project is None or not self.attempt(lambda: project.set_classes(table)):
            return False
        self.classes_changed.emit()
        return True

    def painted(self) -> list[int]:
        """Return the numbers of the painted samples."""
        if self.project is None or self.samples_artifact is None:
            return []
        return self.project.painted(self.samples_artifact)

    def load_mask(self, index: int) -> NDArray[np.uint8] | None:
        """Return the mask of a sample, or None."""
        if self.project is None or self.samples_artifact is None:
            return None
        return self.project.load_mask(self.samples_artifact, index)

    def save_mask(self, index: int, mask: NDArray[np.uint8]) -> bool:
        """Save a mask at once; False if it was told why not."""
        project, samples = self.project, self.samples_artifact
        if project is None or samples is None or self.read_only or not self.folder.reachable:
            return False
        if not self.attempt(lambda: project.save_mask(samples, index, mask)):
            return False
        self._painted = self.painted()
        self.mask_saved.emit(index, int(np.count_nonzero(mask)))
        return True

    def open_sample(self, index: int) -> None:
        """Show a sample for painting and bring the paint tab to the front."""
        if self.samples is None or not 0 <= index < len(self.samples):
            return
        self.tab_wanted.emit("paint")
        if self.attempt(lambda: self.painting.open(index)):
            self.sample_opened.emit(index)

    def set_scores(self, scores: dict[int, float]) -> None:
        """Note how informative samples are."""
        self.scores = scores
        self.scores_changed.emit()

    def use_samples(self, reference: str = "") -> None:
        """Browse another set of samples; "" is the newest."""
        self._load_samples(reference)

    # Jobs

    def run(self, *configs: StageConfig) -> bool:
        """Start stages one after the other, window or not; False if it was told why not."""
        if self.read_only:
            self.told.emit("The project is open for looking only, so nothing can be started here.", "warning")
            return False
        self.painting.flush()
        return self.jobs.start(configs[0], configs[1:]) is not None

    @property
    def waiting_stages(self) -> list[str]:
        """Stages that start when the running one is done."""
        return self.jobs.waiting()

    def _on_job_ended(self, number: int) -> None:
        record = self.jobs.records[number]
        state, title = record.status.state, title_of(record.status.stage)
        if state == "done":
            if record.status.stage in ("sample_images", "invert_patches", "mix_samples"):
                self._load_samples()
            if record.status.stage == "add_slides":
                self.slides_changed.emit()
            self.told.emit(f"Finished: {title.lower()}.", "info")
            if record.warnings and record.status.stage == "invert_patches":
                self.told.emit(record.warnings[-1], "warning")
        elif state == "failed":
            error = record.status.error or {}
            self.told.emit(f"{title} failed. {error.get('message', '')}", "error")
        self.artifacts_changed.emit()

    def _load_samples(self, reference: str = "") -> None:
        project = self.project
        if project is None:
            return
        self.painting.flush()
        self.samples, self.samples_artifact, self.scores = None, None, {}
        if project.artifacts("samples"):
            try:
                self.samples_artifact = project.artifact(reference, "samples")
                self.samples = SampleStore(self.samples_artifact.path)
            except HistoganError as error:
                self.samples_artifact = None
                self.told.emit(str(error), "error")
        self.painting.forget()
        self._painted = self.painted()
        self.samples_changed.emit()
        if self.samples is not None and self.samples_artifact is not None:
            # Torch and the generator load while people look around.
            root, samples = str(project.root), self.samples_artifact.id
            self.engine.ask("load", lambda _reply: None, project=root, samples=samples)

    def _look_at_folder(self) -> None:
        """Notice masks that another process saved."""
        if self.project is None or not self.folder.reachable:
            return
        try:
            painted = self.painted()
        except (HistoganError, OSError):
            return  # the folder is going away, which is told
        if painted != self._painted:
            self._painted = painted
            self.painted_changed.emit()

    def _on_folder_gone(self) -> None:
        if self.project is not None:
            self.close_project(
                f"The project folder {self.project.root} is not there any more: it was moved or deleted, or "
                "its drive is unplugged. Bring it back and open it again; nothing was written elsewhere."
            )

    def _on_silent(self, words: str) -> None:
        self.jobs.pause(True)
        self.told.emit(words, "error")

    def _on_answers(self) -> None:
        self.jobs.pause(False)
        self.painting.flush()
        self.correcting.save()
        self.told.emit("The project's drive answers again; all paint is saved.", "info")
