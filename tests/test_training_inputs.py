"""Outlines on a project's slide and folders as sources, from the stage's config to the net."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from shapely import box

from napari_histogan import config as c
from napari_histogan.errors import ArtifactMissing, ConfigError
from napari_histogan.labels.annotation import Annotation
from napari_histogan.labels.classes import ClassTable
from napari_histogan.labels.interchange import write_annotations
from napari_histogan.models.segmenter import load_segmenter, pixels_to_input
from napari_histogan.pipeline import STAGE_FUNCTIONS
from napari_histogan.progress import QuietReporter
from napari_histogan.project.reads import what_it_reads
from napari_histogan.project.store import Project
from napari_histogan.training.annotated_slides import AnnotatedSlide
from napari_histogan.training.picture_folders import PictureFolder
from napari_histogan.training_inputs import segmenter_inputs


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """One slide with two halves, its outlines, and a folder with one picture and its mask."""
    picture = np.full((256, 256, 3), 60, np.uint8)
    picture[:, 128:] = 200
    Image.fromarray(picture).save(tmp_path / "halves.png")
    halves = [Annotation("dark", box(0, 0, 128, 256)), Annotation("bright", box(128, 0, 256, 256))]
    write_annotations(tmp_path / "halves.geojson", halves)
    for name in ("train", "masks"):
        (tmp_path / "folder" / name).mkdir(parents=True)
    Image.fromarray(picture).save(tmp_path / "folder" / "train" / "a.png")
    Image.fromarray((1 + (picture[..., 0] > 100)).astype(np.uint8)).save(tmp_path / "folder/masks/a.png")
    project = Project.create(tmp_path / "project", classes=ClassTable.from_names(["dark", "bright"]))
    settings = c.AddSlidesConfig(paths=(tmp_path / "halves.png",), mpp=0.5)
    STAGE_FUNCTIONS["add_slides"](project, settings, QuietReporter(tmp_path / "scratch"))
    return project


def settings(project: Project, **more: object) -> c.TrainSegmenterConfig:
    near = project.root.parent
    sources = (f"outlines:halves={near / 'halves.geojson'}@2", f"folder:{near / 'folder'}@mpp=0.5,weight=0.5")
    values = {"sources": sources, "patch_px": 32, "mpp": 0.5, "width": 4, "depth": 2, "threads": 1}
    return c.TrainSegmenterConfig(**{**values, **more})  # type: ignore[arg-type]


def test_each_source_is_opened_with_its_weight(project: Project, tmp_path: Path) -> None:
    with segmenter_inputs(project, settings(project), QuietReporter(tmp_path / "run")) as found:
        pairs = found.sources
        assert found.results == []
        assert [parent.id for parent in found.parents] == [f"file:{tmp_path / 'halves.geojson'}"]
        assert isinstance(pairs[0], AnnotatedSlide)
        assert isinstance(pairs[1], PictureFolder)
        assert [source.weight for source in pairs] == [2, 0.5]
        assert {(source.mpp, source.patch_px) for source in pairs} == {(0.5, 32)}
    reads = what_it_reads(project, settings(project))
    assert [words.split()[0] for words in reads] == ["slide", "outlines", "folder"]


def test_a_net_is_trained_on_outlines_and_a_folder(project: Project, tmp_path: Path) -> None:
    config = settings(project, steps=40, batch=8, learning_rate=0.02, validate_every=40)
    made = STAGE_FUNCTIONS["train_segmenter"](project, config, QuietReporter(tmp_path / "run"))
    net, info = load_segmenter(made.path)
    assert info.mpp == 0.5
    picture = torch.full((1, 3, 64, 64), 60.0)
    picture[..., 32:] = 200
    with torch.no_grad():
        bright = net(pixels_to_input(picture)).argmax(dim=1)[0] == 1
    assert (bright == (picture[0, 0] > 100)).float().mean() > 0.9
    assert "halves.geojson@2" in made.summary["sources"]
    assert project.stale() == []
    outlines = tmp_path / "halves.geojson"
    outlines.write_bytes(outlines.read_bytes() + b"\n")
    (stale,) = project.stale()
    assert (stale.artifact.id, "changed since" in stale.reason) == (made.id, True)
    assert any("[changed since]" in line for line in project.family(made).lines())
    outlines.unlink()
    assert project.stale() == []  # a project that was moved keeps its results


def test_what_is_not_there_is_said_before_a_job_starts(project: Project) -> None:
    for source in ("outlines:halves=nowhere.geojson", "folder:nowhere@mpp=1"):
        with pytest.raises(ConfigError, match="nothing at nowhere"):
            what_it_reads(project, settings(project, sources=(source,)))
    with pytest.raises(ArtifactMissing):
        what_it_reads(project, settings(project, sources=("datasets/0001@2",)))


def test_the_resolution_is_asked_for_if_nothing_says_it(project: Project, tmp_path: Path) -> None:
    reporter = QuietReporter(tmp_path / "run")
    config = settings(project, mpp=None)
    with pytest.raises(ConfigError, match="--mpp"), segmenter_inputs(project, config, reporter):
        pass


def test_painted_samples_are_a_share_of_what_is_drawn(painted_project_copy: Project, tmp_path: Path) -> None:
    """A data set brings the samples that it goes back to, and a net made from them names them."""
    project = painted_project_copy
    samples = project.artifacts("samples")[-1]
    for config in (
        c.TrainPixelClassifierConfig(members=2, hidden=(4,), epochs=1, threads=1),
        c.SynthesizeDatasetConfig(count=16, threads=1),
    ):
        STAGE_FUNCTIONS[config.stage](project, config, QuietReporter(tmp_path / config.stage))
    with segmenter_inputs(project, c.TrainSegmenterConfig(), QuietReporter(tmp_path / "a")) as found:
        pairs, painted = found.sources
        assert len(painted) == len(project.painted(samples)) == 3
        drawn = [source.weight * len(source) for source in found.sources]
        assert drawn[1] / sum(drawn) == pytest.approx(0.2)
        image, mask = painted.batch([0])
        np.testing.assert_array_equal(mask[0], project.load_mask(samples, project.painted(samples)[0]))
        assert image.shape == (1, pairs.patch_px, pairs.patch_px, 3)
        ids = [parent.id for parent in found.parents]
        assert samples.id in ids
        assert project.masks_parent(samples).id in ids
        assert [result.kind for result in found.results] == ["dataset"]
    alone = c.TrainSegmenterConfig(painted_share=0)
    with segmenter_inputs(project, alone, QuietReporter(tmp_path / "b")) as found:
        assert len(found.sources) == 1
