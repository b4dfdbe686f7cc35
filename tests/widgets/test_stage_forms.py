"""Settings come from the last run of a stage, without the names of what it read."""

from napari_histogan.widgets.stage_forms import config_of, last_values


def test_last_settings_are_taken_over_but_references_are_not(tiny_project):
    values = last_values(tiny_project, "train_segmenter")
    assert values["steps"] == 4
    assert "sources" not in values
    config = config_of(tiny_project, "train_segmenter", steps=7)
    assert (config.steps, config.width, config.sources) == (7, 4, ())


def test_stage_that_never_ran_has_its_defaults(tiny_project):
    assert last_values(tiny_project, "train_gan") == {}
    assert config_of(tiny_project, "train_gan").kimg == 300
