"""Everything that the manifest names is there, and napari can open it."""

import subprocess
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

import napari_histogan

PACKAGE = Path(napari_histogan.__file__).parent
MANIFEST = yaml.safe_load((PACKAGE / "napari.yaml").read_text())
CONTRIBUTIONS = MANIFEST["contributions"]
COMMANDS = {command["id"]: command["python_name"] for command in CONTRIBUTIONS["commands"]}


def test_both_places_hold_the_same_file():
    top = PACKAGE.parent / "napari.yaml"
    if not top.exists():
        pytest.skip("an installed package has no top level")
    assert top.read_bytes() == (PACKAGE / "napari.yaml").read_bytes()


def test_npe2_finds_it_valid():
    ran = subprocess.run(
        [sys.executable, "-m", "npe2", "validate", "napari-histogan"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr


@pytest.mark.parametrize("name", COMMANDS.values())
def test_every_command_resolves(name):
    module, _, attribute = name.partition(":")
    assert callable(getattr(import_module(module), attribute))


@pytest.mark.parametrize("kind", ["widgets", "readers", "writers", "sample_data"])
def test_only_declared_commands_are_used(kind):
    assert CONTRIBUTIONS[kind]
    assert all(item["command"] in COMMANDS for item in CONTRIBUTIONS[kind])


def test_menus_are_such_as_napari_shows():
    for menu, items in CONTRIBUTIONS["menus"].items():
        assert menu in {"napari/layers/segment", "napari/file/io_utilities"}
        assert all(item["command"] in COMMANDS for item in items)


def test_nothing_that_napari_ignores_or_fetches_from_the_network_is_used():
    assert "keybindings" not in CONTRIBUTIONS
    assert not any("icon" in command for command in CONTRIBUTIONS["commands"])


@pytest.mark.gui
def test_every_widget_opens(studio):
    viewer = studio.viewer
    for widget in CONTRIBUTIONS["widgets"]:
        _, inner = viewer.window.add_plugin_dock_widget("napari-histogan", widget["display_name"])
        assert inner.minimumHeight() >= 0


@pytest.mark.gui
def test_sample_data_opens_in_micrometers(studio):
    (layer,) = studio.viewer.open_sample("napari-histogan", "demo_slide")
    assert layer.multiscale
    assert layer.name == "HistoGAN demo slide"
    assert layer.scale == pytest.approx([0.499, 0.499], rel=1e-3)
    assert [str(unit) for unit in layer.units] == ["micrometer", "micrometer"]


@pytest.mark.gui
def test_the_demo_project_opens_in_the_dock(studio, tiny_project_copy, tmp_path, monkeypatch):
    demo = tiny_project_copy.root.rename(tmp_path / "histogan-demo")  # as if it was made earlier
    for name in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(name, str(tmp_path))
    (layer,) = studio.viewer.open_sample("napari-histogan", "demo_project")
    studio.until(lambda: studio.session.project is not None)
    assert studio.session.project.root == demo
    studio.viewer.layers.remove(layer)


@pytest.mark.gui
def test_labels_are_saved_as_outlines_in_pixels_of_the_slide(opened, tmp_path):
    from napari_histogan.labels.interchange import read_annotations

    mask = np.zeros((40, 50), np.uint8)
    mask[10:20, 5:25] = 2
    layer = opened.viewer.add_labels(mask, name="mine")
    layer.save(str(tmp_path / "alone.geojson"), plugin="napari-histogan")
    (outline,) = read_annotations(tmp_path / "alone.geojson")
    assert outline.class_name == "class 2"
    assert outline.geometry.bounds == (5, 10, 25, 20)
    opened.dock.show_tab("slides")
    mpp = opened.session.slide_view.reader.mpp
    # The first pixel's corner lies at (100, 200) um; a pixel spans two of the slide's.
    layer.scale = (2 * mpp, 2 * mpp)
    layer.translate = (100 + mpp, 200 + mpp)
    layer.features = {"index": [0, 1, 2], "class": ["unlabeled", "epidermis", "dermis"]}
    layer.save(str(tmp_path / "slide.geojson"), plugin="napari-histogan")
    (outline,) = read_annotations(tmp_path / "slide.geojson")
    assert outline.class_name == "dermis"
    assert outline.color == opened.session.project.classes[2].color
    left, top = 200 / mpp, 100 / mpp
    assert outline.geometry.bounds == pytest.approx((left + 10, top + 20, left + 50, top + 40), abs=0.01)
    layer.save(str(tmp_path / "mask.png"), plugin="napari-histogan")
    with Image.open(tmp_path / "mask.png") as saved:
        assert np.array_equal(np.asarray(saved), mask)
    opened.viewer.layers.remove(layer)
