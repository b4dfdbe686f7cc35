"""Layers that stay in the window: what they show is swapped, and only what differs is set.

Adding or removing a layer blocks napari for a tenth of a second or more, and a labels layer that goes may
take the window with it (napari #8471: the next frame reads what is not there any more).  Setting a property
to what it is costs as much as changing it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np

Kind = Literal["picture", "map", "labels"]
"""Colors, one number a pixel, or whole numbers that stand for something."""

_RESTS = "histogan rests"


def change(layer: Any, **values: Any) -> None:
    """Set those properties of a layer that differ, in the given order.

    Parameters
    ----------
    layer
        A layer of napari.
    values
        Properties by name.
    """
    for name, value in values.items():
        if not _same(getattr(layer, name), value):
            setattr(layer, name, value)


def show_of(layer: Any, visible: bool) -> None:
    """Show or hide a layer, if there is one and it is not so already."""
    if layer is not None:
        change(layer, visible=visible)


def rests(layer: Any) -> bool:
    """Whether a layer of ours waits, hidden and empty, for what it shows next."""
    return bool(layer.metadata.get(_RESTS, False))


class KeptLayer:
    """One layer that is added when it is first needed, and rests hidden and empty in between.

    Parameters
    ----------
    viewer
        Gives the napari viewer.
    kind
        What it shows.
    multiscale
        Whether its data are levels of a pyramid.
    fixed
        Properties that never change.
    """

    def __init__(self, viewer: Callable[[], Any], kind: Kind, multiscale: bool = False, **fixed: Any) -> None:
        self._viewer = viewer
        self._kind, self._multiscale = kind, multiscale
        self._fixed: dict[str, Any] = {"units": ("um", "um"), **fixed}
        self._layer: Any = None

    def show(self, data: Any, visible: bool = True, **values: Any) -> Any:
        """Show data; returns the layer.

        Parameters
        ----------
        data
            An array, or a list of them, finest first.
        visible
            Whether it is seen at once.
        values
            Properties of the layer, such as ``name``, ``scale``, and ``translate`` in um.
        """
        if not self.there:
            self._layer = self._add(data, visible=visible, **values)
            return self._layer
        layer = self._layer
        layer.data = data
        change(layer, **values)
        layer.metadata = {**layer.metadata, _RESTS: False}
        change(layer, visible=visible)
        return layer

    def rest(self) -> None:
        """Hide the layer and let go of its data."""
        if self.there and not rests(self._layer):
            change(self._layer, visible=False)
            self._layer.data = self._nothing()
            self._layer.metadata = {**self._layer.metadata, _RESTS: True}

    def prepare(self) -> None:
        """Add the layer, hidden and empty, so that it is there when it is needed."""
        if not self.there:
            self._layer = self._add(self._nothing(), visible=False)
            self._layer.metadata = {**self._layer.metadata, _RESTS: True}

    @property
    def there(self) -> bool:
        """Whether the layer is in the window, resting or not; people may have deleted it."""
        return self._layer is not None and self._layer in self._viewer().layers

    def _add(self, data: Any, **values: Any) -> Any:
        viewer, everything = self._viewer(), {**self._fixed, **values}
        if self._kind == "labels":
            layer = viewer.add_labels(data, multiscale=self._multiscale, **everything)
        else:
            colors = self._kind == "picture"
            layer = viewer.add_image(data, multiscale=self._multiscale, rgb=colors, **everything)
        layer.locked = True  # against deleting it by accident
        return layer

    def _nothing(self) -> Any:
        colors = (3,) if self._kind == "picture" else ()
        if self._multiscale:
            return [np.zeros((2, 2, *colors), np.uint8), np.zeros((1, 1, *colors), np.uint8)]
        return np.zeros((1, 1, *colors), np.uint8)


def _same(present: Any, wanted: Any) -> bool:
    """Whether a property is so already; what cannot be compared is taken to differ."""
    if isinstance(present, np.ndarray):
        return np.shape(wanted) == present.shape and bool(np.array_equal(present, wanted))
    if isinstance(wanted, bool | int | float | str):
        return bool(present == wanted)
    if isinstance(present, tuple | list):
        return tuple(present) == tuple(wanted)
    return present is wanted
