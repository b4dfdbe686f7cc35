"""Configs: every field is explained, TOML round-trips, wrong fields are named."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from napari_histogan.config import (
    STAGES,
    AddSlidesConfig,
    ExtractPatchesConfig,
    TrainGanConfig,
    dump_config,
    load_config,
    make_config,
)
from napari_histogan.errors import ConfigError

EXAMPLES = {"evaluate": {"reference": "outlines.geojson"}, "import_gan": {"path": "generator"}}


@pytest.mark.parametrize("stage", STAGES)
def test_every_field_says_what_it_is(stage):
    for name, field in STAGES[stage].model_fields.items():
        assert field.description, f"{stage}.{name} has no description"
        assert set(field.json_schema_extra) == {"unit", "basic"}, f"{stage}.{name}"


@pytest.mark.parametrize("stage", STAGES)
def test_toml_round_trip_gives_the_same_config(stage, tmp_path):
    config = STAGES[stage](**EXAMPLES.get(stage, {}))
    path = tmp_path / "config.toml"
    path.write_text(dump_config(config), encoding="utf-8")
    assert load_config(STAGES[stage], path) == config


def test_changed_values_survive_toml(tmp_path):
    config = TrainGanConfig(kimg=12.5, ada_target=0.0, threads=3, patches="patches/0002")
    (tmp_path / "c.toml").write_text(dump_config(config), encoding="utf-8")
    assert load_config(TrainGanConfig, tmp_path / "c.toml") == config


def test_overrides_win_over_the_file(tmp_path):
    (tmp_path / "c.toml").write_text("kimg = 5\nbatch = 8\n", encoding="utf-8")
    config = load_config(TrainGanConfig, tmp_path / "c.toml", {"kimg": 7})
    assert (config.kimg, config.batch) == (7, 8)


def test_misspelt_field_is_named_with_the_nearest_one():
    with pytest.raises(ConfigError, match=r"'learning_rat' \(did you mean 'learning_rate'\?\)"):
        make_config(TrainGanConfig, {"learning_rat": 0.1})


def test_value_out_of_range_is_named_with_what_was_given():
    with pytest.raises(ConfigError, match=r"batch: .*2.*got 1"):
        make_config(TrainGanConfig, {"batch": 1})


@pytest.mark.parametrize("side", [48, 100, 65])
def test_patches_must_be_a_power_of_two(side):
    with pytest.raises(ConfigError, match=f"power of two, got {side}"):
        make_config(ExtractPatchesConfig, {"patch_px": side})


def test_missing_and_broken_files_are_told_apart(tmp_path):
    with pytest.raises(ConfigError, match="no config file"):
        load_config(TrainGanConfig, tmp_path / "none.toml")
    (tmp_path / "bad.toml").write_text("kimg = = 3", encoding="utf-8")
    with pytest.raises(ConfigError, match="not valid TOML"):
        load_config(TrainGanConfig, tmp_path / "bad.toml")


def test_configs_cannot_be_changed():
    config = AddSlidesConfig(paths=(Path("a.svs"),))
    with pytest.raises(ValidationError, match="frozen"):
        config.seed = 3
