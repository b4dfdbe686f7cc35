"""Everything that the manifest names is there, and napari can open it."""

import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
import yaml

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


@pytest.mark.parametrize("kind", ["widgets", "readers", "sample_data"])
def test_only_declared_commands_are_used(kind):
    assert CONTRIBUTIONS[kind]
    assert all(item["command"] in COMMANDS for item in CONTRIBUTIONS[kind])


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
