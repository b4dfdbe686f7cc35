"""The window of studio_latency.py without the plugin: what napari itself needs for the same acts.

Usage: python studio_alone.py FOLDER; prints one line of JSON.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

import napari
import numpy as np
from napari.utils.colormaps import DirectLabelColormap
from qtpy.QtWidgets import QComboBox, QFormLayout, QLineEdit, QScrollArea, QSpinBox, QWidget
from studio_watch import Watch, settle, stroke

ROUNDS = 3
SIDE = 1024


class Alone:
    """Napari with a few layers, and hands."""

    def __init__(self) -> None:
        self.viewer = napari.Viewer()
        self.viewer.window.resize(1366, 768)
        settle(0.5)
        self.watch = Watch(self.viewer.window._qt_viewer.canvas._scene_canvas)
        self.rng = np.random.default_rng(0)
        self.layers: dict[str, Any] = {}
        names: dict[int | None, str] = {None: "transparent", 0: "transparent", 1: "red", 2: "blue"}
        self.colors = DirectLabelColormap(color_dict=names)

    def act(self, name: str, what: Callable[[], object], rounds: int = 1) -> None:
        """Do something and let napari draw it."""
        self.watch.phase = name
        for _ in range(rounds):
            what()
            settle(0.3)
        self.watch.phase = ""

    def play(self) -> None:
        """Do what the dock's window does, as far as it is napari's."""
        window = self.viewer.window
        self.act("an empty dock", lambda: window.add_dock_widget(QWidget(), name="Empty"))
        self.act("a form of 40 fields", lambda: window.add_dock_widget(_form(), name="Form"))
        self._add_firsts()
        self.viewer.layers.selection.active = self.layers["first labels"]
        self.act("choosing a layer", self._choose, ROUNDS)
        self.viewer.reset_view()
        self.act("painting", self._paint, ROUNDS)
        self.act("other data", self._swap, ROUNDS)
        self.act("hiding and showing", self._blink, ROUNDS)
        self.act("flying", self._fly, 2 * ROUNDS)
        self.act("other limits", self._limit, ROUNDS)
        self.act("other outlines", self._outline, ROUNDS)

    def _add_firsts(self) -> None:
        add = self.viewer
        look: dict[str, Any] = {"contrast_limits": (0, 100), "blending": "translucent"}
        firsts: dict[str, Callable[[], Any]] = {
            "first picture": lambda: add.add_image(self._colors(256), rgb=True),
            "first pyramid": lambda: add.add_image(_levels(self._colors(SIDE)), rgb=True, multiscale=True),
            "first map": lambda: add.add_image(_levels(self._gray()), multiscale=True, **look),
            "first labels": lambda: add.add_labels(self._mask(), colormap=self.colors),
            "first outlines": lambda: self._first_outlines(),
            "first points": lambda: add.add_points(self.rng.uniform(0, SIDE, (20, 2))),
            "first shapes": lambda: add.add_shapes([[[10, 10], [90, 90]]], shape_type="rectangle"),
            "first vectors": lambda: add.add_vectors(self.rng.uniform(0, SIDE, (20, 2, 2))),
        }
        for name, make in firsts.items():
            self.act(name, lambda name=name, make=make: self.layers.update({name: make()}))

    def _first_outlines(self) -> Any:
        layer = self.viewer.add_labels(self._mask(), colormap=self.colors)
        layer.contour = 2
        return layer

    def _choose(self) -> None:
        layers = self.viewer.layers
        picture, labels = self.layers["first picture"], self.layers["first labels"]
        layers.selection.active = labels if layers.selection.active is picture else picture

    def _paint(self) -> None:
        labels = self.layers["first labels"]
        self.viewer.layers.selection.active = labels
        labels.mode, labels.selected_label = "paint", 2
        stroke(self.viewer, labels, [(100, x) for x in range(20, 200, 15)], lambda: None)

    def _swap(self) -> None:
        self.layers["first picture"].data = self._colors(256)
        self.layers["first labels"].data = self._mask()

    def _blink(self) -> None:
        for name in ("first pyramid", "first map", "first labels"):
            self.layers[name].visible = not self.layers[name].visible

    def _fly(self) -> None:
        camera = self.viewer.scene.camera
        camera.center = tuple(self.rng.uniform(200, 800, 2))
        camera.zoom = float(self.rng.uniform(0.5, 4))

    def _limit(self) -> None:
        layer = self.layers["first map"]
        layer.contrast_limits = (layer.contrast_limits[0] + 5, 100)

    def _outline(self) -> None:
        self.layers["first outlines"].data = self._mask()

    def _colors(self, side: int) -> Any:
        return self.rng.integers(0, 256, (side, side, 3), np.uint8)

    def _gray(self) -> Any:
        return self.rng.integers(0, 101, (SIDE, SIDE), np.uint8)

    def _mask(self) -> Any:
        coarse = self.rng.integers(0, 3, (16, 16)).astype(np.uint8)
        return np.kron(coarse, np.ones((16, 16), np.uint8))


def _levels(data: Any) -> list[Any]:
    return [data, data[::2, ::2].copy(), data[::4, ::4].copy()]


def _form() -> QWidget:
    """Return a form as a plugin would show, without any work behind it."""
    inner, area = QWidget(), QScrollArea()
    rows = QFormLayout(inner)
    for k in range(40):
        rows.addRow(f"field {k}", (QLineEdit, QSpinBox, QComboBox)[k % 3]())
    area.setWidgetResizable(True)
    area.setWidget(inner)
    return area


def main() -> None:
    """Measure, and print one line."""
    alone = Alone()
    alone.play()
    alone.viewer.close()
    sys.stdout.write(json.dumps(alone.watch.summary()) + "\n")


if __name__ == "__main__":
    main()
