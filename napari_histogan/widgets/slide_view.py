"""A slide and its heatmap as aligned layers in micrometers; the heatmap may still be growing."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QObject, QTimer, Signal

from napari_histogan.errors import HistoganError
from napari_histogan.geometry import Region
from napari_histogan.project.artifacts import Artifact
from napari_histogan.project.slide_list import SlideEntry
from napari_histogan.slides.reader import SlideReader, open_slide
from napari_histogan.slides.zarr_pyramid import PyramidReader, open_pyramid
from napari_histogan.widgets.class_colors import heat_colormap
from napari_histogan.widgets.display import require_opengl
from napari_histogan.widgets.kept_layers import KeptLayer, change, show_of
from napari_histogan.widgets.layer_data import HEATMAP_STORE, heatmap_levels, slide_levels
from napari_histogan.widgets.side_by_side import SideBySide
from napari_histogan.widgets.swipe import Swipe
from napari_histogan.widgets.threshold_outline import ThresholdOutline

if TYPE_CHECKING:
    from napari_histogan.widgets.session import Session

_REPAINT_MS = 250
_MAKES_MAPS = ("predict_heatmap", "predict_patch_map")


class SlideView(QObject):
    """Shows one slide and at most one heatmap over it.

    Signals
    -------
    slide_opened
        Name of the slide, "" for none.
    heatmap_opened
        Id of the heatmap, "" for none.
    """

    slide_opened = Signal(str)
    heatmap_opened = Signal(str)

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self._session = session
        self.entry: SlideEntry | None = None
        self.reader: SlideReader | None = None
        self.slide: Any = None
        self.heat: Any = None
        self.map: PyramidReader | None = None
        self.heatmap: Artifact | None = None
        self.class_index = 1
        self.threshold = 0
        self.opacity = 0.6
        self.levels: list[Any] = []
        self._top: Any = None
        self._kept_slide = KeptLayer(lambda: session.viewer, "picture", multiscale=True, name="Slide")
        self._kept_heat = KeptLayer(
            lambda: session.viewer,
            "map",
            multiscale=True,
            name="Heatmap",
            contrast_limits=(0, 100),
            blending="translucent",
            interpolation2d="linear",
        )
        self._heat_was_visible = True
        self._growing = -1
        self._repaint = QTimer(self)
        self._repaint.setSingleShot(True)
        self._repaint.setInterval(_REPAINT_MS)
        self._repaint.timeout.connect(self._refresh)
        self.outline = ThresholdOutline(self, session)
        self.beside = SideBySide(self, session)
        self.swipe = Swipe(self, session)
        session.jobs.told.connect(self._on_job_event)
        session.jobs.ended.connect(self._on_job_ended)
        session.classes_changed.connect(self._recolor)

    def prepare(self) -> bool:
        """Add one more of the layers, hidden, before anybody waits for it; False when all are there."""
        for kept in (self._kept_slide, self._kept_heat, self.outline.kept):
            if not kept.there:
                kept.prepare()
                return True
        return False

    # Slide

    def open(self, name: str) -> None:
        """Show a slide, and the newest heatmap of it if there is one."""
        project = self._session.require()
        entry = project.slide(name)
        if entry == self.entry and self.slide is not None:
            self.show()
            return
        require_opengl()
        reader = open_slide(entry.path, mpp=entry.mpp)
        levels = slide_levels(reader)
        self.clear()
        self.entry, self.reader = entry, reader
        self._session.painting.hide()
        place: dict[str, Any] = {"scale": (reader.mpp,) * 2, "translate": (reader.mpp / 2,) * 2}
        self.slide = self._kept_slide.show(levels, name=f"Slide {entry.name}", **place)
        self._session.viewer.canvas.overlays.scale_bar.visible = True
        self._session.viewer.reset_view(layers=[self.slide])
        self.slide_opened.emit(entry.name)
        newest = self.heatmaps()
        if newest:
            self.open_heatmap(newest[-1])

    def show(self) -> None:
        """Show the slide's layers instead of the samples'."""
        self._session.painting.hide()
        if self.slide is not None and not self.slide.visible:
            self.slide.visible = True
            show_of(self.heat, self._heat_was_visible)
            self._session.viewer.reset_view(layers=[self.slide])
            self.outline.update()

    def hide(self) -> None:
        """Hide the slide's layers."""
        self.beside.hide()
        self.swipe.hide()
        self.outline.hide()
        if self.heat is not None and self.slide is not None and self.slide.visible:
            self._heat_was_visible = bool(self.heat.visible)
        for layer in (self.slide, self.heat):
            show_of(layer, False)

    def clear(self) -> None:
        """Show no slide."""
        self.beside.hide()
        self._drop_heatmap()
        self._kept_slide.rest()
        if self.reader is not None:
            self.reader.close()
        self.entry, self.reader, self.slide = None, None, None
        self.slide_opened.emit("")

    # Heatmap

    def heatmaps(self) -> list[Artifact]:
        """Return the heatmaps of the shown slide, oldest first."""
        if self.entry is None:
            return []
        found = self._session.require().artifacts("heatmap")
        first = self._session.require().slide("").name
        return [
            a
            for a in found
            if str(a.summary.get("slide") or a.config.get("slide") or first) == self.entry.name
        ]

    def open_heatmap(self, artifact: Artifact) -> None:
        """Lay a finished heatmap over the slide."""
        if self.heatmap is None or self.heatmap.id != artifact.id:
            self._show_map(artifact.path / HEATMAP_STORE)
            self.heatmap = artifact
            self.heatmap_opened.emit(artifact.id)

    def set_class(self, index: int) -> None:
        """Show the probability of another class."""
        self.class_index = index
        if self.heat is not None and self.map is not None and index <= len(self.map.channels):
            self.levels = heatmap_levels(self.map, index)
            self._top = self.levels[-1]
            self.heat.data = self.levels
            self._recolor()
            self.swipe.take_levels()
            self.outline.update()

    def set_threshold(self, percent: int) -> None:
        """Hide what is less probable than so many percent; 0 shows a smooth map."""
        self.threshold = percent
        if self.heat is not None:
            change(self.heat, contrast_limits=(percent, 100) if percent < 100 else (99, 100))
            self.beside.follow()
            self.swipe.follow()
            self.outline.update_soon()

    def set_opacity(self, opacity: float) -> None:
        """Set the heatmap's opacity, 0 to 1."""
        self.opacity = opacity
        if self.heat is not None:
            self.heat.opacity = opacity
            self.beside.follow()
            self.swipe.follow()

    def toggle_heatmap(self) -> None:
        """Show or hide the heatmap."""
        if self.heat is not None:
            self.heat.visible = not self.heat.visible
            self.outline.update()

    def fly_to(self, center_um: tuple[float, float], side_um: float) -> None:
        """Show a place, (y, x) in um, with at least ``side_um`` around it."""
        viewer = self._session.viewer
        viewer.scene.camera.center = (float(center_um[0]), float(center_um[1]))
        viewer.scene.camera.zoom = min(viewer.canvas.size) / max(20.0, side_um)

    def color(self) -> str:
        """Return the shown class's color."""
        table = self._session.require().classes
        return table[self.class_index].color if 1 <= self.class_index <= len(table) else "#ffffff"

    def center_um(self) -> tuple[float, float]:
        """Return the middle of what the canvas shows, (y, x) in um."""
        y, x = self._session.viewer.scene.camera.center[-2:]
        return float(y), float(x)

    def _show_map(self, path: Path) -> None:
        if self.reader is None:
            return
        self._drop_heatmap()
        self.map = open_pyramid(path)
        self.class_index = min(self.class_index, len(self.map.channels))
        self.levels = heatmap_levels(self.map, self.class_index)
        self._top = self.levels[-1]
        mpp = self.map.mpp
        # napari's pixel centers lie on whole numbers; so the slide's corner, not its first center, is 0.
        shift = mpp / 2
        place: dict[str, Any] = {"scale": (mpp, mpp), "translate": (shift, shift), "opacity": self.opacity}
        self.heat = self._kept_heat.show(self.levels, **place)
        self._recolor()
        self.set_threshold(self.threshold)

    def _drop_heatmap(self) -> None:
        self.swipe.hide()
        self.outline.clear()
        self._kept_heat.rest()
        self.heat, self.map, self.heatmap, self._top, self._growing = None, None, None, None, -1

    def _recolor(self) -> None:
        if self.heat is None or self._session.project is None:
            return
        table = self._session.project.classes
        if 1 <= self.class_index <= len(table):
            info = table[self.class_index]
            colors = heat_colormap(info.color)
            if self.heat.colormap.name != colors.name:
                self.heat.colormap = colors
            change(self.heat, name=f"Heatmap: {info.name}")

    # Growing

    def _on_job_event(self, number: int, event: dict[str, Any]) -> None:
        """Follow the map that a job writes into its run folder over the shown slide."""
        record = self._session.jobs.records[number]
        if self.entry is None or record.status.stage not in _MAKES_MAPS:
            return
        if event.get("kind") == "heatmap" and event.get("slide") == self.entry.name:
            self._open_newest()  # of one of several slides; the job goes on
        named = str(event.get("part", ""))  # which of several slides
        if event.get("kind") != "block" or named not in ("", self.entry.name):
            return
        if number != self._growing:
            store = record.run_dir / str(event.get("map", HEATMAP_STORE))
            wanted = named or getattr(record.job.config(), "slide", "")
            wanted = wanted or self._session.require().slide("").name
            if wanted != self.entry.name or not store.is_dir():
                return  # another slide, or the job is done already and its map is a result
            try:
                self._show_map(store)
            except HistoganError:
                return
            self._growing = number
            self.heatmap_opened.emit("")
        self._update_top(Region(*(int(event[key]) for key in ("y", "x", "height", "width"))))
        self._repaint.start()

    def _update_top(self, region: Region) -> None:
        """Copy a block that is on disk into the coarsest level, which lives in memory."""
        if self.map is None or self._top is None:
            return
        part = region.scaled(1 / 2 ** (len(self.map.levels) - 1)).slices
        if self._top[part].size:
            self._top[part] = np.asarray(self.map.levels[-1][(self.class_index - 1, *part)])

    def _refresh(self) -> None:
        if self.heat is not None:
            self.heat.refresh(extent=False, highlight=False)
            self.swipe.grown()
            self.outline.refresh()

    def _on_job_ended(self, number: int) -> None:
        record = self._session.jobs.records[number]
        if record.status.stage not in _MAKES_MAPS or self.entry is None:
            return
        if record.status.state == "done":
            self._open_newest()
        elif number == self._growing:
            self._growing = -1

    def _open_newest(self) -> None:
        newest = self.heatmaps()
        if newest:
            self.open_heatmap(newest[-1])
