"""The maps of a training on slide labels over the open slide, the newest whole one at any time."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import QObject, Signal

from napari_histogan.errors import HistoganError
from napari_histogan.slides.zarr_pyramid import open_pyramid
from napari_histogan.widgets.class_colors import heat_colormap
from napari_histogan.widgets.kept_layers import KeptLayer, show_of
from napari_histogan.widgets.session import Session

STAGE = "train_weakly"
MOST_PX = 2048
"""A map is shown on its finest level whose sides are no longer, and held in memory: files come and go."""

_MALIGN, _COLOR, _OPACITY = 1, "#d55e00", 0.7


@dataclass(frozen=True, slots=True)
class SlideMap:
    """A map on disk: its folder, and the training step of the weights that made it."""

    path: Path
    step: int


class TrainingMaps(QObject):
    """Follows the newest training on slide labels; belongs to the session, so that it outlives the tab.

    Signals
    -------
    mapped
        Name of a slide whose map was made anew.
    """

    mapped = Signal(str)

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self._session = session
        self.layer: Any = None
        self._kept = KeptLayer(
            lambda: session.viewer,
            "map",
            contrast_limits=(0, 100),
            colormap=heat_colormap(_COLOR),
            opacity=_OPACITY,
            blending="translucent",
        )
        self.front = False
        self.newest: dict[str, SlideMap] = {}
        self._run = -1
        self._shown: SlideMap | None = None
        session.jobs.told.connect(self._on_told)
        session.jobs.state_changed.connect(lambda _number: self.find())
        session.slide_view.slide_opened.connect(lambda _name: self._on_slide())
        session.project_closed.connect(lambda _why: self._forget())

    def find(self) -> None:
        """Take up the newest training of the project, whoever started it."""
        record = self._session.jobs.newest(STAGE)
        number = record.number if record is not None else -1
        if record is None or number == self._run:
            return
        self._run, self.newest = number, {}
        events, _ = record.job.events(0)
        for event in events:
            if event.get("kind") == "map":
                self._note(event)
        self.refresh()

    def show(self) -> None:
        """Show the map of the open slide, now and whenever it is made anew."""
        self.front = True
        self.find()
        self.refresh()

    def hide(self) -> None:
        """Hide the map; another tab is in front."""
        self.front = False
        if self._alive():
            show_of(self.layer, False)

    def refresh(self) -> None:
        """Bring the newest map of the open slide onto the canvas."""
        entry = self._session.slide_view.entry
        found = self.newest.get(entry.name) if entry is not None else None
        if not self.front:
            return
        if found is None:
            if self._alive():
                show_of(self.layer, False)
            return
        if found != self._shown or not self._alive():
            try:
                percent, cell_um = malign_map(found.path)
            except (HistoganError, OSError, KeyError, ValueError):
                return  # it is being replaced at this moment; the next one is told soon
            place: dict[str, Any] = {"scale": (cell_um,) * 2, "translate": (cell_um / 2,) * 2}
            self.layer = self._kept.show(percent, name=f"Malign, step {found.step}", **place)
            self._shown = found
        show_of(self.layer, True)

    def _on_told(self, number: int, event: dict[str, Any]) -> None:
        if event.get("kind") != "map":
            return
        record = self._session.jobs.records.get(number)
        if record is None or record.status.stage != STAGE:
            return
        if number != self._run:
            self.find()
            return
        name = self._note(event)
        entry = self._session.slide_view.entry
        if entry is not None and entry.name == name:
            self.refresh()
        self.mapped.emit(name)

    def _note(self, event: dict[str, Any]) -> str:
        """Remember a map; its path is taken relative to the run, as projects move."""
        name, told = str(event["slide"]), Path(str(event["path"]))
        folder = self._session.jobs.records[self._run].run_dir / "maps"
        self.newest[name] = SlideMap(folder / told.parent.name / told.name, int(event["made_with"]))
        return name

    def _on_slide(self) -> None:
        """Take the map of the slide before away."""
        self._kept.rest()
        self.layer, self._shown = None, None
        if self._session.project is not None:
            self.refresh()

    def _forget(self) -> None:
        self._on_slide()
        self.newest, self._run = {}, -1

    def _alive(self) -> bool:
        """Whether the layer is there; people may have deleted it."""
        return self.layer is not None and self.layer in self._session.viewer.layers


def training_maps_of(session: Session) -> TrainingMaps:
    """Return the maps of a session; made when there are none."""
    found = session.findChild(TrainingMaps)
    return found if found is not None else TrainingMaps(session)


def malign_map(path: Path) -> tuple[NDArray[np.uint8], float]:
    """Return the malign channel ``(h, w) uint8`` percent of a map, small enough to show, and a cell's um."""
    pyramid = open_pyramid(path)
    levels = pyramid.levels
    number = next((k for k, level in enumerate(levels) if max(level.shape[1:]) <= MOST_PX), len(levels) - 1)
    return np.asarray(levels[number][_MALIGN], np.uint8), pyramid.mpp * 2**number
