"""Layers stay in the window: what they show is swapped, and nothing is set that is so already."""

from collections import Counter

import numpy as np
import pytest
from blocks_and_slides import block_project
from napari.components import ViewerModel
from napari.layers import Labels

from napari_histogan.widgets.block_view import block_view_of
from napari_histogan.widgets.kept_layers import KeptLayer, change, rests
from napari_histogan.widgets.layer_pictures import is_paint, is_picture
from napari_histogan.widgets.sample_layers import Making


def pyramid(side: int, levels: int, colors: tuple[int, ...] = ()) -> list[np.ndarray]:
    return [np.full((side >> k, side >> k, *colors), k + 1, np.uint8) for k in range(levels)]


def test_only_what_differs_is_set():
    layer = Labels(np.zeros((4, 4), np.uint8), scale=(2.0, 2.0), name="a")
    seen: Counter[str] = Counter()
    for name in ("visible", "scale", "name", "opacity", "contour"):
        layer.events[name].connect(lambda _event, name=name: seen.update([name]))
    layer.contour = 1
    seen.clear()
    change(layer, visible=True, scale=(2.0, 2.0), name="a", opacity=layer.opacity, contour=1)
    assert not seen
    change(layer, visible=False, scale=(2.0, 3.0), name="b", contour=0)
    assert set(seen) == {"visible", "scale", "name", "contour"}
    assert tuple(layer.scale) == (2.0, 3.0)


@pytest.mark.parametrize("kind", ["picture", "map", "labels"])
def test_a_layer_rests_and_comes_back_with_other_data(kind):
    viewer = ViewerModel()
    colors = (3,) if kind == "picture" else ()
    kept = KeptLayer(lambda: viewer, kind, multiscale=True, name="one")
    kept.prepare()
    assert kept.there
    assert rests(viewer.layers["one"])
    assert not viewer.layers["one"].visible
    first = kept.show(pyramid(64, 3, colors), scale=(2.0, 2.0))
    assert first is viewer.layers["one"]
    assert first.visible
    assert not rests(first)
    kept.rest()
    assert not first.visible
    assert max(first.data[0].shape[:2]) == 2, "a hidden layer holds no pictures"
    again = kept.show(pyramid(128, 5, colors), scale=(0.5, 0.5), name="two")
    assert again is first
    assert len(viewer.layers) == 1
    assert len(again.data) == 5
    assert (again.name, tuple(again.scale)) == ("two", (0.5, 0.5))
    viewer.layers.clear()
    assert not kept.there
    kept.rest()
    assert kept.show(pyramid(64, 3, colors)) is not first, "people may delete a layer"


def test_resting_layers_are_no_pictures_to_learn_from():
    viewer = ViewerModel()
    picture, paint = KeptLayer(lambda: viewer, "picture"), KeptLayer(lambda: viewer, "labels")
    for kept in (picture, paint):
        kept.prepare()
    assert not any(is_picture(layer) or is_paint(layer) for layer in viewer.layers)
    assert is_picture(picture.show(np.zeros((8, 8, 3), np.uint8)))
    assert is_paint(paint.show(np.zeros((8, 8), np.uint8)))


def test_what_fails_in_the_middle_is_begun_anew_and_nothing_twice_at_once():
    making, fails = Making(), [True]

    def steps():
        yield "first"
        assert not making.step(steps), "it was begun again while a step was under way"
        if fails.pop() if fails else False:
            raise ZeroDivisionError
        yield "second"

    assert making.step(steps)
    with pytest.raises(ZeroDivisionError):
        making.step(steps)
    while making.step(steps):
        pass
    assert making.made == ["first", "second"]


def shown(layer) -> bool:
    return layer is not None and layer.visible


@pytest.mark.gui
@pytest.mark.timeout(280)
def test_no_labels_leave_the_window_while_projects_and_tabs_change(studio, tiny_project_copy, tmp_path):
    """A labels layer that goes takes the window with it: the next frame reads what is not there any more."""
    blocks, _, _ = block_project(tmp_path)
    gone, counts = [], []
    studio.viewer.layers.events.removed.connect(lambda event: gone.append(event.value))
    for _ in range(2):
        studio.open(tiny_project_copy.root)
        studio.session.open_sample(5)
        studio.until(lambda: studio.session.warming.done)
        active = studio.viewer.layers.selection.active
        assert active == studio.session.painting.mask, "layers that come later must not take the brush away"
        studio.session.painting.set_brush_size(9)
        studio.stroke(studio.session.painting.mask, [(9, 6), (9, 20)])
        studio.dock.show_tab("slides")
        studio.session.slide_view.set_threshold(50)
        studio.until(lambda: studio.session.slide_view.outline.layer is not None)
        studio.dock.show_tab("labels")
        studio.open(blocks.root)
        studio.dock.show_tab("blocks")
        studio.until(lambda: shown(block_view_of(studio.session).blocks))
        studio.key("E")
        studio.let_qt_work(0.2)
        counts.append(len(studio.viewer.layers))
    assert gone == []
    assert counts[1] == counts[0]
    studio.session.slide_view.set_threshold(0)
