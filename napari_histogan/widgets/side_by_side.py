"""A second view that moves with the first: the slide alone, or with another version's heatmap."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QObject, Signal

from napari_histogan.project.artifacts import Artifact
from napari_histogan.slides.zarr_pyramid import open_pyramid
from napari_histogan.widgets.layer_data import HEATMAP_STORE, heatmap_levels

if TYPE_CHECKING:
    from napari_histogan.widgets.session import Session
    from napari_histogan.widgets.slide_view import SlideView


class SideBySide(QObject):
    """Shows the slide's layers in the left box of napari's grid, and a copy of the slide in the right one.

    napari puts runs of layers, counted from the top of the list, into the boxes of its grid, which move
    together.  The copies stand below everything that the slide shows, so that two runs are enough.

    Signals
    -------
    changed
        The second view came, went, or shows something else.
    """

    changed = Signal()

    def __init__(self, view: SlideView, session: Session) -> None:
        super().__init__(view)
        self._view, self._session = view, session
        self.slide: Any = None
        self.heat: Any = None
        self.heatmap: Artifact | None = None

    @property
    def active(self) -> bool:
        """Whether there are two views."""
        return self.slide is not None

    def toggle(self) -> None:
        """Show the slide alone beside the slide with its map, or one view again."""
        if self.active:
            self.hide()
        else:
            self.show()

    def show(self, heatmap: Artifact | None = None) -> None:
        """Show the second view, with another heatmap of the same slide if one is given."""
        view, viewer = self._view, self._session.viewer
        if view.slide is None:
            return
        self.hide()
        view.swipe.hide()
        place = {"scale": view.slide.scale, "translate": view.slide.translate, "units": ("um", "um")}
        self.slide = viewer.add_image(
            list(view.slide.data), rgb=True, multiscale=True, name="Slide (right)", **place
        )
        if heatmap is not None:
            pyramid = open_pyramid(heatmap.path / HEATMAP_STORE)
            class_index = min(view.class_index, len(pyramid.channels))
            self.heat = viewer.add_image(
                heatmap_levels(pyramid, class_index),
                multiscale=True,
                name=f"Heatmap (right): {heatmap.id}",
                scale=(pyramid.mpp, pyramid.mpp),
                translate=(pyramid.mpp / 2, pyramid.mpp / 2),
                units=("um", "um"),
                opacity=view.opacity,
                blending="translucent",
                interpolation2d="linear",
            )
        self.heatmap = heatmap
        self.follow()
        for layer in (self.slide, self.heat):
            if layer is not None:
                viewer.layers.move(viewer.layers.index(layer), viewer.layers.index(view.slide))
        self._arrange()
        for event in (viewer.layers.events.inserted, viewer.layers.events.removed):
            event.connect(self._arrange)
        viewer.reset_view(layers=[view.slide])
        self.changed.emit()

    def follow(self) -> None:
        """Let the second map look like the first."""
        if self.heat is not None and self._view.heat is not None:
            self.heat.colormap = self._view.heat.colormap
            self.heat.contrast_limits = self._view.heat.contrast_limits
            self.heat.opacity = self._view.opacity

    def hide(self) -> None:
        """Show one view again."""
        if not self.active:
            return
        viewer = self._session.viewer
        for event in (viewer.layers.events.inserted, viewer.layers.events.removed):
            with suppress(ValueError):
                event.disconnect(self._arrange)
        viewer.canvas.grid.enabled = False
        for layer in (self.heat, self.slide):
            if layer is not None and layer in viewer.layers:
                viewer.layers.remove(layer)
        self.slide, self.heat, self.heatmap = None, None, None
        self.changed.emit()

    def _arrange(self, _event: Any = None) -> None:
        """Make the first run end where the slide's own layers end."""
        viewer, slide = self._session.viewer, self._view.slide
        if not self.active or slide is None or slide not in viewer.layers:
            return
        viewer.canvas.grid.shape = (1, 2)
        viewer.canvas.grid.stride = -(len(viewer.layers) - viewer.layers.index(slide))
        viewer.canvas.grid.enabled = True
