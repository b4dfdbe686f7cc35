"""Block labels over a slide, the block that is looked at, and the sharpened mask, in micrometers."""

from __future__ import annotations

from typing import Any

import numpy as np
from napari.utils.colormaps import DirectLabelColormap, ensure_colormap
from numpy.typing import NDArray
from qtpy.QtCore import QObject
from qtpy.QtGui import QColor

from napari_histogan.labels.block_labels import BlockLabels
from napari_histogan.labels.classes import PALETTE
from napari_histogan.slides.zarr_pyramid import PyramidReader
from napari_histogan.widgets.class_colors import label_colormap, label_features
from napari_histogan.widgets.kept_layers import KeptLayer, change, show_of
from napari_histogan.widgets.session import Session

MOST_PX = 2048
"""The mask is shown on the finest level of a map whose sides are no longer."""

_BLOCK_ON_SCREEN_PX = 220
_GAP = 1.04
_FRAME_COLOR = "#ffffff"


class BlockView(QObject):
    """What the tab of the blocks puts on the canvas; belongs to the session, so that it outlives the tab.

    Parameters
    ----------
    session
        The session of the window.
    """

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self._session = session
        self.labels: BlockLabels | None = None
        self.blocks: Any = None
        self.frame: Any = None
        self.mask: Any = None
        self.second: Any = None
        self._kept = {
            "blocks": KeptLayer(lambda: session.viewer, "labels", opacity=0.45),
            "mask": KeptLayer(lambda: session.viewer, "labels", opacity=0.55),
            "second": KeptLayer(lambda: session.viewer, "picture", multiscale=True, name="Slide again"),
        }
        self.beside = False
        self.front = False
        self.wanted = {"blocks": True, "mask": True}
        self._heat_before: bool | None = None
        session.slide_view.slide_opened.connect(lambda _name: self.clear())
        session.slide_view.heatmap_opened.connect(lambda _id: self._on_heatmap())
        session.project_closed.connect(lambda _why: self.clear())

    # Blocks

    def show(self, labels: BlockLabels) -> None:
        """Lay block labels, and the mask if there is one, over the slide; block 0, 0 begins in its corner."""
        self.front = True
        if self.labels is not labels or not self._alive(self.blocks):
            self.labels = labels
            numbers = list(range(len(labels.values) + 1))
            self.blocks = self._kept["blocks"].show(
                (labels.grid + 1).astype(np.uint8),
                visible=False,
                name="Blocks",
                **self._placed(labels.block_um),
                colormap=block_colormap(labels.values),
                features={"index": numbers, "label": ["no label", *labels.values]},
            )
            self.blocks.editable = False
        if self._alive(self.mask) or not self.show_mask():
            self._apply()

    def show_block(self, row: int, column: int) -> None:
        """Frame one block and bring it to the middle; all colors over the tissue step aside."""
        if self.labels is None:
            return
        um, viewer = self.labels.block_um, self._session.viewer
        corners = np.array([[row, column], [row, column + 1], [row + 1, column + 1], [row + 1, column]]) * um
        if not self._alive(self.frame):
            self.frame = viewer.add_shapes(
                [corners],
                shape_type="polygon",
                name="Block",
                units=("um", "um"),
                edge_color=_FRAME_COLOR,
                face_color="transparent",
                edge_width=um / 40,
            )
            self.frame.editable = False
        else:
            self.frame.data = [corners]
            self.frame.edge_width = um / 40  # blocks of another slide may be of another size
        show_of(self.frame, True)
        self._apply()
        viewer.scene.camera.center = ((row + 0.5) * um, (column + 0.5) * um)
        viewer.scene.camera.zoom = _BLOCK_ON_SCREEN_PX / um

    def hide_block(self) -> None:
        """Take the frame away."""
        if self._alive(self.frame):
            show_of(self.frame, False)
        self._apply()

    # Result

    def toggle(self, part: str) -> bool:
        """Show or hide "blocks" or "mask"; returns whether it is shown now."""
        self.wanted[part] = not self.wanted[part]
        self._apply()
        return self.wanted[part]

    def show_mask(self) -> bool:
        """Lay the likeliest classes of the shown heatmap over the slide; False if there is none."""
        pyramid = self._session.slide_view.map
        if pyramid is None or self._session.slide_view.heatmap is None:
            return False
        classes, cell_um = likeliest(pyramid)
        table = self._session.require().classes
        self.mask = self._kept["mask"].show(
            classes,
            visible=False,
            name="Sharpened mask",
            **self._placed(cell_um),
            colormap=label_colormap(table),
            features=label_features(table),
        )
        self.mask.editable = False
        self._apply()
        return True

    def set_beside(self, beside: bool) -> None:
        """Show mask and probability over a second copy of the slide beside the blocks, or over them."""
        view = self._session.slide_view
        self.beside = beside and view.slide is not None
        if self.beside and not self._alive(self.second):
            self.second = self._kept["second"].show(
                list(view.slide.data), visible=False, scale=view.slide.scale
            )
            layers = self._session.viewer.layers
            if layers.index(self.second) != layers.index(view.slide) + 1:
                layers.move(layers.index(self.second), layers.index(view.slide) + 1)
        self._apply()
        shown = [view.slide, self.second] if self.beside else [view.slide]
        self._session.viewer.reset_view(layers=[layer for layer in shown if layer is not None])

    # Coming and going

    def hide(self) -> None:
        """Hide all; another tab is in front."""
        self.front = False
        if self._alive(self.frame):
            show_of(self.frame, False)
        self._apply()

    def clear(self) -> None:
        """Show nothing; another slide or project comes."""
        for name in self._kept:
            self._drop(name)
        if self._alive(self.frame):
            show_of(self.frame, False)
        self.labels, self.beside, self._heat_before = None, False, None

    def _on_heatmap(self) -> None:
        """Let the mask follow the map that is shown."""
        self._drop("mask")
        if self.front:
            self.show_mask()

    def _apply(self) -> None:
        """Show what is wanted, where it belongs."""
        looking = self._alive(self.frame) and self.frame.visible
        on = {
            "blocks": self.wanted["blocks"] and not looking,
            "mask": self.wanted["mask"] and not looking,
            "second": self.beside,
        }
        for name, visible in on.items():
            layer = getattr(self, name)
            if self._alive(layer):
                show_of(layer, visible and self.front)
        heat = self._session.slide_view.heat
        if self._alive(heat) and looking and self._heat_before is None:
            self._heat_before, heat.visible = bool(heat.visible), False
        elif self._alive(heat) and not looking and self._heat_before is not None:
            heat.visible, self._heat_before = self._heat_before, None
        offset = self._offset() if self.beside and self.front else 0.0
        for layer in (self.mask, self.second, heat):
            if self._alive(layer):
                half = layer.scale[-1] / 2
                change(layer, translate=(half, half + offset))

    def _offset(self) -> float:
        """Return how far right of the slide its second copy lies, in um."""
        entry = self._session.slide_view.entry
        return _GAP * entry.size.width * entry.mpp if entry is not None else 0.0

    def _placed(self, cell_um: float) -> dict[str, Any]:
        """Return scale and place of a layer whose first cell begins in the slide's corner."""
        return {"scale": (cell_um,) * 2, "translate": (cell_um / 2,) * 2, "units": ("um", "um")}

    def _alive(self, layer: Any) -> bool:
        """Whether a layer is there; people may have deleted it."""
        return layer is not None and layer in self._session.viewer.layers

    def _drop(self, name: str) -> None:
        """Let a layer rest until it has something to show."""
        self._kept[name].rest()
        setattr(self, name, None)


def block_view_of(session: Session) -> BlockView:
    """Return the view of a session; made when there is none."""
    found = session.findChild(BlockView)
    return found if found is not None else BlockView(session)


def likeliest(pyramid: PyramidReader) -> tuple[NDArray[np.uint8], float]:
    """Return the likeliest class 1..K of a map, 0 where it has nothing, ``(H, W) uint8``, and a cell's um."""
    number = next(
        (k for k, level in enumerate(pyramid.levels) if max(level.shape[1:]) <= MOST_PX),
        len(pyramid.levels) - 1,
    )
    percent = np.asarray(pyramid.levels[number][:])
    classes = np.where(percent.any(axis=0), percent.argmax(axis=0) + 1, 0).astype(np.uint8)
    return classes, pyramid.mpp * 2**number


def block_colors(values: tuple[str, ...]) -> list[str]:
    """Return a color for each label value: a ramp for bins in percent, colors far apart for names."""
    if not all("%" in value for value in values):
        return [PALETTE[z % len(PALETTE)] for z in range(len(values))]
    ramp = np.asarray(ensure_colormap("viridis").map(np.linspace(0, 1, len(values))))
    return [QColor.fromRgbF(*(float(part) for part in color[:3])).name() for color in ramp]


def block_colormap(values: tuple[str, ...]) -> Any:
    """Return the colors of the block layer; blocks without a label are transparent."""
    colors: dict[int | None, Any] = {None: (0, 0, 0, 0), 0: (0, 0, 0, 0)}
    colors.update(dict(enumerate(block_colors(values), 1)))
    return DirectLabelColormap(color_dict=colors)
