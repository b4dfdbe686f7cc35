"""Where the project's jobs run: one box with this machine, another by ssh, or a cluster's queue."""

from __future__ import annotations

from qtpy.QtWidgets import QComboBox, QWidget

from napari_histogan.jobs.launchers import SETTING, parse_launcher
from napari_histogan.widgets.config_form import keep_narrow
from napari_histogan.widgets.session import Session

CHOICES = ("local", "ssh HOST", "slurm")


class LauncherBox(QComboBox):
    """Shows and changes the launcher that a project's jobs take; ``HOST`` is to be typed over."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._session: Session | None = None
        self.setEditable(True)
        self.setInsertPolicy(QComboBox.InsertPolicy.NoInsert)
        self.addItems(list(CHOICES))
        self.setToolTip(
            "Where steps run: on this machine, on another one that sees the project under the same path "
            "(ssh HOST), or in the queue of a cluster (slurm --gres=gpu:1)"
        )
        keep_narrow(self)
        self.activated.connect(lambda _index: self._keep())
        line = self.lineEdit()
        if line is not None:
            line.editingFinished.connect(self._keep)

    def attach(self, session: Session | None) -> None:
        """Show the launcher of the open project."""
        self._session = session
        project = session.project if session is not None else None
        self.setEnabled(project is not None and not project.read_only)
        if project is not None:
            self.setEditText(project.launcher)

    def _keep(self) -> None:
        """Store what was chosen or typed; what names no launcher is told, and the one before stays."""
        words = self.currentText().strip()
        line = self.lineEdit()
        if words == "ssh HOST" and line is not None:
            line.setSelection(len("ssh "), len("HOST"))
            return
        session = self._session
        if session is None or session.project is None or words == session.project.launcher:
            return
        project = session.project

        def store() -> None:
            parse_launcher(words)
            project.set_values(**{SETTING: words})

        if not session.attempt(store):
            self.setEditText(project.launcher)
