"""Numbers that suit a patch size and a number of slides; a settled config says what is used."""

import pytest

from napari_histogan.config import TrainGanConfig, dump_config, load_config
from napari_histogan.config.gan_presets import settle, suggest


@pytest.mark.parametrize("resolution", [2**k for k in range(5, 13)])
@pytest.mark.parametrize("slides", [1, 2000])
@pytest.mark.parametrize("devices", [1, 3, 8, 128])
def test_suggestions_are_valid_everywhere(resolution, slides, devices):
    config = settle(TrainGanConfig(devices=devices), resolution, slides)
    assert config.preset == "plain"
    assert config.batch % devices == 0
    assert config.batch >= 4
    assert config.channel_base // resolution >= 4 or resolution <= 64


@pytest.mark.parametrize(
    ("resolution", "batch", "gamma", "ema"),
    [(128, 32, 0.1024, 10), (256, 16, 0.8192, 5), (512, 8, 6.5536, 2.5), (1024, 4, 52.4288, 1.25)],
)
def test_the_papers_automatic_settings(resolution, batch, gamma, ema):
    found = suggest(resolution, 1)
    assert (found["batch"], found["r1_gamma"], found["ema_kimg"]) == (batch, gamma, ema)


def test_small_patches_keep_the_defaults():
    assert settle(TrainGanConfig(), 64, 1) == TrainGanConfig(preset="plain")


def test_what_was_given_wins_and_plain_changes_nothing():
    given = TrainGanConfig(batch=24, r1_gamma=3.0, micro_batch=4)
    found = settle(given, 256, 1)
    assert (found.batch, found.r1_gamma, found.micro_batch) == (24, 3.0, 4)
    assert found.channel_base == 16384
    assert settle(found, 1024, 500) is found
    plain = TrainGanConfig(preset="plain")
    assert settle(plain, 1024, 500) is plain


def test_a_generator_to_start_from_keeps_its_sizes():
    found = settle(TrainGanConfig(init="generators/0001"), 256, 1)
    assert found.channel_base == TrainGanConfig().channel_base
    assert found.r1_gamma == 0.8192


def test_the_saved_config_shows_the_numbers(tmp_path):
    found = settle(TrainGanConfig(), 512, 50)
    (tmp_path / "config.toml").write_text(dump_config(found))
    assert load_config(TrainGanConfig, tmp_path / "config.toml") == found
    assert "r1_gamma = 6.5536" in dump_config(found)
