"""The maps of patch classifiers over the layers of the pictures that they were made of."""

from __future__ import annotations

from typing import Any

import numpy as np
from qtpy.QtCore import QObject, Signal

from napari_histogan.errors import HistoganError
from napari_histogan.slides.zarr_pyramid import open_pyramid
from napari_histogan.widgets.class_colors import heat_colormap
from napari_histogan.widgets.layer_data import HEATMAP_STORE, heatmap_levels
from napari_histogan.widgets.session import Session

STAGE = "predict_patch_map"
_SLIDE = "histogan slide"
"""Key in a layer's metadata: the name under which its picture is a slide of the project."""
_OPACITY = 0.6


class PictureMaps(QObject):
    """Lays each new map over the layer of its picture; belongs to the session, so that it outlives the tab.

    Signals
    -------
    mapped
        Name of a picture over which a map was laid.
    """

    mapped = Signal(str)

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self._session = session
        self.layer: Any = None
        self.class_index = 1
        self._picture: Any = None
        self._map: Any = None
        session.jobs.ended.connect(self._on_ended)
        session.project_closed.connect(lambda _why: self.forget())

    def expect(self, picture: Any, slide: str) -> None:
        """Note under which name a layer's picture is mapped."""
        picture.metadata = {**picture.metadata, _SLIDE: slide}

    def picture_of(self, slide: str) -> Any:
        """Return the layer of a picture; None if it is not open."""
        layers = self._session.viewer.layers
        return next((one for one in layers if one.metadata.get(_SLIDE) == slide), None)

    def set_class(self, index: int) -> None:
        """Show the probability of another class, 1 to K."""
        self.class_index = index
        if self._alive() and index <= len(self._map.channels):
            self.layer.data = heatmap_levels(self._map, index)
            self._color()

    def toggle(self) -> None:
        """Show or hide the map."""
        if self._alive():
            self.layer.visible = not self.layer.visible

    def show(self, slide: str) -> bool:
        """Lay the newest map of a picture over its layer; False if there is none of both."""
        picture, project = self.picture_of(slide), self._session.project
        made = [a for a in project.artifacts("heatmap") if a.stage == STAGE] if project is not None else []
        made = [a for a in made if a.summary.get("slide") == slide]
        if picture is None or project is None or not made:
            return False
        layers = self._session.viewer.layers
        active = layers.selection.active
        self._remove()
        self._map, self._picture = open_pyramid(made[-1].path / HEATMAP_STORE), picture
        factor = self._map.mpp / project.slide(slide).mpp  # of the sides of their pixels
        self.class_index = min(self.class_index, len(self._map.channels))
        self.layer = self._session.viewer.add_image(
            heatmap_levels(self._map, self.class_index),
            multiscale=True,
            colormap=heat_colormap(self._session.require().classes[self.class_index].color),
            scale=np.asarray(picture.scale) * factor,
            translate=np.asarray(picture.translate) + np.asarray(picture.scale) * (factor - 1) / 2,
            affine=picture.affine,
            units=picture.units,
            contrast_limits=(0, 100),
            opacity=_OPACITY,
            blending="translucent",
            interpolation2d="linear",
        )
        layers.move(len(layers) - 1, layers.index(picture) + 1)  # below the paint, which goes on
        if active is not None and active in layers:
            layers.selection.active = active
        self._color()
        self.mapped.emit(slide)
        return True

    def forget(self) -> None:
        """Take the map away; another project is opened."""
        self._remove()
        self._map, self._picture = None, None

    def _on_ended(self, number: int) -> None:
        record = self._session.jobs.records[number]
        if record.status.stage != STAGE or record.status.state != "done":
            return
        try:
            self.show(str(getattr(record.job.config(), "slide", "")))
        except HistoganError as error:
            self._session.told.emit(str(error), "error")

    def _color(self) -> None:
        info = self._session.require().classes[self.class_index]
        self.layer.colormap = heat_colormap(info.color)
        self.layer.name = f"Map of {self._picture.name}: {info.name}"

    def _remove(self) -> None:
        if self._alive():
            self._session.viewer.layers.remove(self.layer)
        self.layer = None

    def _alive(self) -> bool:
        """Whether the layer is there; people may have deleted it."""
        return self.layer is not None and self.layer in self._session.viewer.layers


def picture_maps_of(session: Session) -> PictureMaps:
    """Return the maps of a session; made when there are none."""
    found = session.findChild(PictureMaps)
    return found if found is not None else PictureMaps(session)
