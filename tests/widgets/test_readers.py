"""Slides, heatmaps, and projects as napari opens them."""

import numpy as np
import pytest

from napari_histogan.widgets.layer_data import HEATMAP_STORE
from napari_histogan.widgets.readers import (
    get_heatmap_reader,
    get_project_reader,
    get_slide_reader,
    read_heatmap,
    read_slides,
)


def test_slide_is_a_pyramid_in_micrometers(demo_slide):
    reader = get_slide_reader(str(demo_slide))
    ((levels, meta, kind),) = reader(str(demo_slide))
    assert kind == "image"
    assert levels[0].shape == (2967, 2220, 3)
    assert max(levels[-1].shape) <= 1024
    assert isinstance(levels[-1], np.ndarray)
    assert meta["scale"] == pytest.approx((0.499, 0.499), rel=1e-3)
    assert meta["units"] == ("um", "um")


def test_picture_without_resolution_comes_in_pixels_and_says_so(tmp_path):
    from PIL import Image

    path = tmp_path / "plain.png"
    Image.fromarray(np.zeros((40, 50, 3), np.uint8)).save(path)
    ((_, meta, _),) = read_slides([str(path)])
    assert "scale" not in meta
    assert "resolution unknown" in meta["name"]


def test_heatmap_has_a_layer_for_each_class(tiny_project):
    artifact = tiny_project.artifacts("heatmap")[-1]
    for path in (artifact.path, artifact.path / HEATMAP_STORE):
        assert get_heatmap_reader(str(path)) is read_heatmap
    layers = read_heatmap(str(artifact.path))
    assert [meta["name"].split(": ")[1] for _, meta, _ in layers] == ["epidermis", "dermis", "glass"]
    assert [meta["visible"] for _, meta, _ in layers] == [True, False, False]
    total = sum(np.asarray(levels[-1], int) for levels, _, _ in layers)
    assert abs(np.median(total) - 100) <= 2


def test_slide_and_heatmap_lie_on_each_other(tiny_project):
    ((levels, slide, _),) = read_slides(str(tiny_project.slides()[0].path))
    heat_levels, heat, _ = read_heatmap(str(tiny_project.artifacts("heatmap")[-1].path))[0]
    for axis in range(2):
        slide_start = slide["translate"][axis] - slide["scale"][axis] / 2
        heat_start = heat["translate"][axis] - heat["scale"][axis] / 2
        assert slide_start == pytest.approx(heat_start, abs=1e-9)
        slide_end = slide_start + levels[0].shape[axis] * slide["scale"][axis]
        heat_end = heat_start + heat_levels[0].shape[axis] * heat["scale"][axis]
        assert slide_end == pytest.approx(heat_end, abs=heat["scale"][axis])


def test_readers_leave_other_folders_alone(tmp_path, tiny_project):
    assert get_project_reader(str(tmp_path)) is None
    assert get_heatmap_reader(str(tmp_path)) is None
    assert get_slide_reader(str(tmp_path / "missing.svs")) is None
    assert get_project_reader(str(tiny_project.root)) is not None
    assert get_project_reader(str(tiny_project.root / "project.toml")) is not None


def test_commands_without_arguments_do_nothing():
    assert get_project_reader() is None
    assert get_heatmap_reader() is None
    assert get_slide_reader() is None


@pytest.mark.gui
def test_opening_a_project_opens_it_in_the_dock(studio, tiny_project_copy):
    studio.viewer.open(str(tiny_project_copy.root), plugin="napari-histogan")
    studio.until(lambda: studio.session.project is not None)
    assert studio.session.project.root == tiny_project_copy.root
    assert studio.errors() == []
