"""How sources of a segmenter's training are named, and what its presets set."""

from __future__ import annotations

from pathlib import Path

import pytest

from napari_histogan.config import TrainSegmenterConfig, dump_config
from napari_histogan.config.segmentation import RENAL
from napari_histogan.config.training_sources import SourceName, absolute_source, parse_source
from napari_histogan.jobs.runner import with_absolute_paths


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("datasets/0003", SourceName("artifact", "datasets/0003")),
        ("7@0.5", SourceName("artifact", "7", weight=0.5)),
        ("outlines:a-b=x/y.geojson", SourceName("outlines", "a-b", Path("x/y.geojson"))),
        ("outlines:s=o.xml@weight=3", SourceName("outlines", "s", Path("o.xml"), 3.0)),
        ("folder:a/b@mpp=0.5", SourceName("folder", path=Path("a/b"), mpp=0.5)),
        ("outlines:s=/home/me@lab/o.xml", SourceName("outlines", "s", Path("/home/me@lab/o.xml"))),
        ("folder:/a@b@mpp=0.5,weight=2", SourceName("folder", path=Path("/a@b"), weight=2.0, mpp=0.5)),
    ],
)
def test_every_kind_of_source_has_a_name(text: str, expected: SourceName) -> None:
    assert parse_source(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("datasets/0003@2", "datasets/0003@2"),
        ("outlines:a-b=x.geojson@3", "outlines:a-b={here}/x.geojson@3"),
        (" folder:a/b@mpp=0.5,weight=2", "folder:{here}/a/b@mpp=0.5,weight=2"),
        ("outlines:s=/there/o.xml", "outlines:s=/there/o.xml"),
    ],
)
def test_files_are_found_from_any_folder(text: str, expected: str, tmp_path: Path, monkeypatch) -> None:
    here = tmp_path / "me@lab"
    here.mkdir()
    monkeypatch.chdir(here)
    config = with_absolute_paths(TrainSegmenterConfig(sources=(text,)))
    assert config.sources == (expected.format(here=here),)
    assert absolute_source(config.sources[0]) == config.sources[0]


@pytest.mark.parametrize(
    "text",
    ["", "@2", "7@much", "7@-1", "7@nan", "7@mpp=1", "7@size=3", "7@1,2", "outlines:x", "outlines:=f",
     "outlines:s=f@mpp=1", "folder:a", "folder:@mpp=1", "folder:a@mpp=0"],
)  # fmt: skip
def test_other_names_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r":|@"):
        TrainSegmenterConfig(sources=(text,))


def test_the_preset_sets_what_is_left_and_is_settled_once() -> None:
    config = TrainSegmenterConfig(preset="renal", steps=77)
    assert config.preset == "plain"
    assert config.steps == 77
    assert {name: getattr(config, name) for name in RENAL if name != "steps"} == {
        name: value for name, value in RENAL.items() if name != "steps"
    }
    assert (config.net, config.schedule, config.learning_rate, config.batch) == ("deeplab", "poly", 0.007, 12)
    assert TrainSegmenterConfig.model_validate(config.model_dump()) == config
    assert "renal" not in dump_config(config)
    assert RENAL["steps"] == 30_000


@pytest.mark.parametrize(
    "values", [{"output_stride": 4}, {"downsamples": ()}, {"downsamples": (0.5,)}, {"devices": 3}]
)
def test_values_that_cannot_be_are_refused(values: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(values))):
        TrainSegmenterConfig(**values)
