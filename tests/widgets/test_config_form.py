"""The form shows every field of a config model and gives the config back."""

from pathlib import Path
from typing import get_args

import pytest
from qtpy.QtWidgets import QLineEdit, QSpinBox

from napari_histogan.config import (
    STAGES,
    TrainGanConfig,
    TrainPixelClassifierConfig,
    TrainSegmenterConfig,
    make_config,
)
from napari_histogan.errors import ConfigError
from napari_histogan.widgets.config_form import ConfigForm


@pytest.mark.parametrize("stage", STAGES)
def test_untouched_form_gives_the_defaults(qtbot, stage):
    form = ConfigForm(STAGES[stage])
    qtbot.addWidget(form)
    assert form.config() == STAGES[stage]()
    assert form.problem.isHidden()


@pytest.mark.parametrize("stage", STAGES)
def test_every_field_has_an_editor_with_a_tooltip(qtbot, stage):
    form = ConfigForm(STAGES[stage])
    qtbot.addWidget(form)
    for name, info in STAGES[stage].model_fields.items():
        assert info.description in form.editor(name).control.toolTip()


def test_values_survive_the_way_through_the_form(qtbot):
    config = TrainSegmenterConfig(
        steps=123,
        learning_rate=3.5e-4,
        loss="cross_entropy",
        augment=False,
        sources=("3", "datasets/0004"),
        seed=9,
    )
    form = ConfigForm(TrainSegmenterConfig)
    qtbot.addWidget(form)
    form.set_values(config.model_dump())
    assert form.config() == config


def test_choosing_a_preset_shows_its_numbers(qtbot):
    form = ConfigForm(TrainPixelClassifierConfig)
    qtbot.addWidget(form)
    combo = form.editor("preset").control
    qtbot.keyClicks(combo, "hdgan")
    assert combo.currentText() == "hdgan"
    assert form.config() == TrainPixelClassifierConfig(preset="hdgan")
    assert form.config().learning_rate == 1e-4
    form.set_values({"learning_rate": 0.01, "preset": "datasetgan"})
    assert form.config() == TrainPixelClassifierConfig(preset="datasetgan", learning_rate=0.01)
    qtbot.wait(1000)  # the box forgets the letters typed before
    qtbot.keyClicks(combo, "plain")
    assert form.config() == TrainPixelClassifierConfig()


def test_ranges_hold_and_problems_are_said_below_the_form(qtbot):
    form = ConfigForm(TrainGanConfig)
    qtbot.addWidget(form)
    spin = form.editor("batch").control
    assert isinstance(spin, QSpinBox)
    assert (spin.minimum(), spin.maximum()) == (2, 1024)
    line = form.editor("learning_rate").control
    assert isinstance(line, QLineEdit)
    line.setText("fast")
    line.textEdited.emit("fast")
    assert "learning_rate" in form.problem.text()
    assert not form.is_valid()
    with pytest.raises(ConfigError, match="learning_rate"):
        form.config()
    line.setText("1e-3")
    line.textEdited.emit("1e-3")
    assert form.config().learning_rate == 1e-3
    assert form.problem.isHidden()


def test_hidden_fields_keep_their_values(qtbot):
    form = ConfigForm(TrainGanConfig, hidden=("patches",))
    qtbot.addWidget(form)
    form.set_values({"patches": "patches/0002"})
    assert form.config().patches == "patches/0002"


def test_paths_and_optional_numbers(qtbot):
    form = ConfigForm(STAGES["import_gan"])
    qtbot.addWidget(form)
    form.editor("path").set_value("/tmp/generator.safetensors")
    form.editor("mpp").control.setText("0.5")
    config = form.config()
    assert config.path == Path("/tmp/generator.safetensors")
    assert config.mpp == 0.5
    form.editor("mpp").control.setText("")
    assert form.config().mpp is None


def test_basic_fields_come_first_and_the_others_are_folded(qtbot):
    form = ConfigForm(TrainGanConfig)
    qtbot.addWidget(form)
    form.show()
    assert not form.advanced.isExpanded()
    assert not form.advanced.isAncestorOf(form.editor("kimg"))
    assert form.advanced.isAncestorOf(form.editor("r1_gamma"))
    folded = form.sizeHint().height()
    form.advanced.expand(animate=False)
    qtbot.waitUntil(lambda: form.sizeHint().height() > folded + 100)


@pytest.mark.parametrize("stage", [name for name, model in STAGES.items() if "preset" in model.model_fields])
def test_every_preset_shows_its_numbers_and_goes_again(qtbot, stage):
    model = STAGES[stage]
    form = ConfigForm(model)
    qtbot.addWidget(form)
    choose = form.editor("preset").control.setCurrentText
    for preset in get_args(model.model_fields["preset"].annotation):
        choose(preset)
        assert form.config() == make_config(model, {"preset": preset})
    choose(str(model.model_fields["preset"].default))
    assert form.config() == model()


def test_a_number_beside_a_preset_is_taken_as_it_stands(qtbot):
    form = ConfigForm(TrainSegmenterConfig)
    qtbot.addWidget(form)
    form.editor("preset").control.setCurrentText("renal")
    assert form.editor("steps").value() == 30_000
    form.editor("steps").control.setValue(1000)  # the default of the plain settings
    assert form.config().steps == 1000
    assert form.config().net == "deeplab"
