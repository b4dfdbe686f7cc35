"""Every field of every config is an option, with its unit, range, and default in the help."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import pytest

from napari_histogan.cli_options import Parser, add_stage_options, read_config
from napari_histogan.config import (
    STAGES,
    AddSlidesConfig,
    EvaluateConfig,
    StageConfig,
    TrainGanConfig,
    TrainPixelClassifierConfig,
    TrainSegmenterConfig,
    dump_config,
)
from napari_histogan.errors import ConfigError


def parse(model: type[StageConfig], *words: str) -> StageConfig:
    parser = Parser(prog="x")
    parser.add_argument("--config")
    add_stage_options(parser, model)
    return read_config(model, parser.parse_args(words))


@pytest.mark.parametrize("model", STAGES.values(), ids=list(STAGES))
def test_every_field_is_an_option_that_describes_itself(model: type[StageConfig]) -> None:
    parser = Parser(prog="x")
    add_stage_options(parser, model)
    text = " ".join(parser.format_help().split())
    for name, field in model.model_fields.items():
        assert f"--{name.replace('_', '-')}" in text
        assert " ".join(str(field.description).split()) in text
    assert parse(model) == model()


@pytest.mark.parametrize("model", STAGES.values(), ids=list(STAGES))
def test_options_and_toml_mean_the_same(model: type[StageConfig], tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text(dump_config(model(seed=3)))
    assert parse(model, "--config", str(path)) == parse(model, "--seed", "3") == model(seed=3)


def test_values_of_every_type_are_read() -> None:
    gan = parse(TrainGanConfig, "--kimg", "2.5", "--batch=8", "--no-mirror-and-rotate", "--device", "cpu")
    assert gan == TrainGanConfig(kimg=2.5, batch=8, mirror_and_rotate=False, device="cpu")
    slides = parse(AddSlidesConfig, "--paths", "a.svs", "b.svs", "--paths", "c", "--mpp", "0.25")
    assert slides == AddSlidesConfig(paths=(Path("a.svs"), Path("b.svs"), Path("c")), mpp=0.25)
    assert parse(AddSlidesConfig, "--mpp", "none").mpp is None
    assert parse(TrainPixelClassifierConfig, "--hidden", "64", "16").hidden == (64, 16)
    assert parse(TrainSegmenterConfig, "--loss", "cross_entropy").loss == "cross_entropy"
    assert parse(EvaluateConfig, "--ignore", "a.geojson").ignore == Path("a.geojson")


def test_options_win_over_the_file(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text("kimg = 5.0\nbatch = 4\n")
    assert parse(TrainGanConfig, "--config", str(path), "--batch", "16") == TrainGanConfig(kimg=5, batch=16)


def test_help_tells_unit_range_and_default() -> None:
    parser = Parser(prog="x")
    add_stage_options(parser, TrainGanConfig)
    text = " ".join(parser.format_help().split())
    assert "[kimg; above 0; default 300.0]" in text
    assert "[images; at least 2 and at most 1024; default 32]" in text
    assert text.index("--kimg") < text.index("--batch"), "what is basic comes first"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--kimg", "-1"), r"kimg: .*greater than 0.*'-1'"),
        (("--batch", "many"), "batch: .*'many'"),
        (("--batch", "1", "--seed", "-4"), "batch: .*; seed: "),
    ],
)
def test_values_out_of_range_are_named(words: tuple[str, ...], message: str) -> None:
    fields = [f"{w}={v}" for w, v in zip(words[::2], words[1::2], strict=True)]
    with pytest.raises(ConfigError) as caught:
        parse(TrainGanConfig, *fields)
    for clause in message.split("; "):
        assert re.search(clause, str(caught.value))


def test_a_misspelt_field_in_a_file_gets_a_suggestion(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text("r1_gama = 1.0\n")
    with pytest.raises(ConfigError, match=r"config\.toml.*'r1_gama' \(did you mean 'r1_gamma'\?\)"):
        parse(TrainGanConfig, "--config", str(path))
    with pytest.raises(ConfigError, match="no config file"):
        parse(TrainGanConfig, "--config", str(tmp_path / "none.toml"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--kimgs", "3"], "unknown option --kimgs (did you mean --kimg?)"),
        (["--patch_px=3"], "unknown option --patch_px"),
        (["stray"], "cannot make sense of stray"),
        (["--kim", "3"], "unknown option --kim (did you mean --kimg?)"),
    ],
)
def test_a_misspelt_option_gets_a_suggestion(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        parse(TrainGanConfig, *words)
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


def test_a_parser_is_an_ordinary_one() -> None:
    assert isinstance(Parser(prog="x").parse_args([]), argparse.Namespace)
