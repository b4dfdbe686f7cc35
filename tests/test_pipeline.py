"""The data flow: names agree everywhere, and a toy project goes the whole way."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from napari_histogan import config as c
from napari_histogan import pipeline
from napari_histogan.errors import (
    ArtifactMissing,
    ConfigError,
    LabelError,
    ModelError,
    NoTissue,
    SlideError,
    SlideHasNoMpp,
    SlideNotFound,
    SlideTooSmall,
    SlideUnreadable,
    Stopped,
)
from napari_histogan.geometry import Region
from napari_histogan.labels.classes import ClassTable
from napari_histogan.models.stylegan2 import Generator, GeneratorSpec, generator_info
from napari_histogan.progress import QuietReporter
from napari_histogan.project.corrections import Correction
from napari_histogan.project.store import Project
from napari_histogan.slides.zarr_pyramid import open_pyramid
from napari_histogan.stage_inputs import is_usual_slide
from tests.models.foreign_checkpoints import rosinality_state

ROOT = Path(__file__).parents[1]
CLASSES = ClassTable.from_names(["epidermis", "dermis", "keratin", "glass"])
TINY_GAN = {
    "kimg": 0.032,
    "batch": 8,
    "z_dim": 16,
    "w_dim": 16,
    "mapping_layers": 1,
    "channel_base": 256,
    "channel_max": 16,
    "tick_kimg": 0.016,
    "threads": 1,
}


def run(project, config):
    """Run a stage here, as a library user would."""
    stage = pipeline.STAGE_FUNCTIONS[config.stage]
    return stage(project, config, QuietReporter(project.root / ".scratch" / config.stage))


@pytest.fixture(scope="module")
def story(tmp_path_factory, demo_slide):
    """A project that went from slide to retrained net; the artifacts by stage."""
    project = Project.create(tmp_path_factory.mktemp("story") / "project", classes=CLASSES)
    made = {}

    def step(config, name=None):
        reporter = QuietReporter(project.root.parent / f"scratch-{len(made)}")
        made[name or config.stage] = pipeline.STAGE_FUNCTIONS[config.stage](project, config, reporter)

    step(c.AddSlidesConfig(paths=(demo_slide,)))
    step(c.ExtractPatchesConfig(patch_px=32, mpp=4.0))
    step(c.TrainGanConfig(**TINY_GAN))
    step(c.SampleImagesConfig(count=8, threads=1))
    samples = made["sample_images"]
    for index in range(5):
        mask = np.zeros((32, 32), np.uint8)
        for value in (1, 2, 3, 4):
            mask[4 * value : 4 * value + 3, 2 + index : 20 + index] = value
        project.save_mask(samples, index, mask)
    step(c.TrainPixelClassifierConfig(members=2, epochs=2, threads=1))
    step(c.SynthesizeDatasetConfig(count=24, batch=8, shard=16, threads=1))
    step(c.TrainSegmenterConfig(steps=6, batch=8, width=4, depth=2, validate_every=3, threads=1))
    step(c.PredictHeatmapConfig(tile_px=64, threads=1))  # 8 times coarser, as its patches were taken
    reference = ROOT / "napari_histogan" / "demo_data" / "reference.geojson"
    step(c.EvaluateConfig(reference=reference, bootstrap=20))
    mask = np.full((40, 50), 2, np.uint8)
    mask[:10] = 4
    name = project.slides()[0].name
    project.save_correction(Correction("spot", name, Region(100, 120, 40, 50), 4.0, mask))
    step(c.MergeCorrectionsConfig(patch_px=32))
    second = c.TrainSegmenterConfig(steps=4, batch=8, width=4, depth=2, validate_every=2, threads=1, init="7")
    step(second, "retrained")
    return project, made


def test_stages_configs_functions_and_verbs_have_the_same_names():
    assert list(c.STAGES) == list(pipeline.STAGE_FUNCTIONS)
    for stage, model in c.STAGES.items():
        assert model.__name__.removesuffix("Config").lower() == stage.replace("_", "")
        assert model.result in __import__("napari_histogan.project.artifacts", fromlist=["KINDS"]).KINDS
    text = subprocess.run(
        [sys.executable, "-m", "napari_histogan", "--help"], capture_output=True, text=True, check=True
    ).stdout
    for stage in c.STAGES:
        assert stage.replace("_", "-") in text


def test_docs_name_every_stage():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for stage in c.STAGES:
        assert stage.replace("_", "-") in text, f"README.md does not name {stage}"


def test_every_stage_leaves_its_artifact_with_parents(story):
    project, made = story
    for name, artifact in made.items():
        assert artifact.kind == c.STAGES[artifact.stage].result
        assert project.find(artifact.id).hash == artifact.hash, name
    parents = {name: {p.id for p in artifact.parents} for name, artifact in made.items()}
    assert made["extract_patches"].id in parents["train_gan"]
    assert made["train_gan"].id in parents["sample_images"]
    assert {made["train_gan"].id, made["sample_images"].id} < parents["train_pixel_classifier"]
    assert made["train_pixel_classifier"].id in parents["synthesize_dataset"]
    assert made["synthesize_dataset"].id in parents["train_segmenter"]
    assert made["train_segmenter"].id in parents["predict_heatmap"]
    retrained = parents["retrained"]
    assert {made["merge_corrections"].id, made["synthesize_dataset"].id} < retrained
    assert made["train_segmenter"].id in retrained


def test_heatmap_covers_the_slide_with_percent_of_every_class(story):
    project, made = story
    pyramid = open_pyramid(made["predict_heatmap"].path / "heatmap.zarr")
    assert pyramid.mpp == 4.0
    assert pyramid.channels == CLASSES.names
    slide = project.slides()[0]
    assert pyramid.size.height == pytest.approx(slide.size.height * slide.mpp / 4.0, abs=1)
    total = pyramid.levels[0][:].astype(int).sum(axis=0)
    assert ((total > 95) & (total < 105)).all()


def test_evaluation_says_mcc_and_dice_of_each_class(story):
    _project, made = story
    summary = made["evaluate"].summary
    assert -1 <= summary["mcc"] <= 1
    assert {f"dice_{name}" for name in CLASSES.names} < set(summary)


def test_repainting_makes_what_follows_stale(story):
    project, made = story
    before = {stale.artifact.id for stale in project.stale()}
    mask = project.load_mask(made["sample_images"], 0)
    mask[-1] = 1
    project.save_mask(made["sample_images"], 0, mask)
    after = {stale.artifact.id for stale in project.stale()}
    assert made["train_pixel_classifier"].id in after - before


def test_a_generator_of_this_program_can_be_imported(story, tmp_path):
    project, made = story
    other = Project.create(tmp_path / "other", classes=CLASSES)
    imported = run(other, c.ImportGanConfig(path=made["train_gan"].path))
    assert imported.kind == "generator"
    again = run(other, c.SampleImagesConfig(count=2, threads=1))
    assert again.parents[0].id == imported.id
    assert project.root != other.root


def test_samples_of_another_generator_are_refused(story, tmp_path):
    project, made = story
    other = Project.create(tmp_path / "other", classes=CLASSES)
    run(other, c.ImportGanConfig(path=made["train_gan"].path))
    samples = run(other, c.SampleImagesConfig(count=2, threads=1))
    other.save_mask(samples, 0, np.eye(32, dtype=np.uint8))
    generator = other.artifacts("generator")[0].path
    record = (generator / "artifact.json").read_text()
    (generator / "artifact.json").write_text(record.replace(other.artifacts("generator")[0].hash, "0" * 64))
    with pytest.raises(ModelError, match="not the generator"):
        run(other, c.TrainPixelClassifierConfig(members=2, epochs=1, threads=1))
    assert project.painted(made["sample_images"])


# Bad input


@pytest.fixture
def empty(tmp_path):
    """A project without slides."""
    return Project.create(tmp_path / "project", classes=CLASSES)


def picture(path, pixels):
    Image.fromarray(np.asarray(pixels, np.uint8)).save(path)
    return path


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda d, s: d / "none.svs", SlideNotFound, "there is no slide"),
        (lambda d, s: (d / "note.svs", (d / "note.svs").write_text("hello"))[0], SlideUnreadable, "note.svs"),
        (
            lambda d, s: (d / "cut.svs", (d / "cut.svs").write_bytes(s.read_bytes()[:400_000]))[0],
            SlideUnreadable,
            "cut",
        ),
        (
            lambda d, s: picture(d / "a.png", np.zeros((90, 90, 3))),
            SlideHasNoMpp,
            "does not say its resolution",
        ),
        (lambda d, s: d, SlideError, "no slides in"),
    ],
)
def test_files_that_are_no_slides_are_refused(empty, tmp_path, demo_slide, make, error, words):
    folder = tmp_path / "files"
    folder.mkdir()
    with pytest.raises(error, match=words):
        run(empty, c.AddSlidesConfig(paths=(make(folder, demo_slide),)))
    assert empty.slides() == []
    assert empty.artifacts() == []


def test_slide_smaller_than_a_patch_is_refused(empty, tmp_path):
    rng = np.random.default_rng(0)
    tissue = np.stack([rng.integers(120, 255, (60, 60)), *2 * [rng.integers(0, 120, (60, 60))]], -1)
    run(empty, c.AddSlidesConfig(paths=(picture(tmp_path / "small.png", tissue),), mpp=1.0))
    with pytest.raises(SlideTooSmall, match="60 x 60"):
        run(empty, c.ExtractPatchesConfig(patch_px=64, mpp=1.0))


def test_slide_without_tissue_is_refused(empty, tmp_path):
    white = picture(tmp_path / "white.png", np.full((900, 900, 3), 244))
    run(empty, c.AddSlidesConfig(paths=(white,), mpp=1.0))
    with pytest.raises(NoTissue, match="white"):
        run(empty, c.ExtractPatchesConfig(patch_px=64, mpp=1.0))
    assert empty.artifacts("patches") == []


def test_slide_that_was_replaced_is_noticed(empty, tmp_path, demo_slide):
    copy = tmp_path / "copy.svs"
    copy.write_bytes(demo_slide.read_bytes())
    run(empty, c.AddSlidesConfig(paths=(copy,)))
    data = bytearray(copy.read_bytes())
    data[100_000:400_000] = bytes(300_000)
    copy.write_bytes(data)
    with pytest.raises(SlideError, match="not the one that was added"):
        run(empty, c.ExtractPatchesConfig(patch_px=32, mpp=4.0))


def test_stages_without_their_input_name_the_stage_that_makes_it(empty):
    with pytest.raises(ArtifactMissing, match="histogan extract-patches"):
        run(empty, c.TrainGanConfig(**TINY_GAN))
    with pytest.raises(ArtifactMissing, match="histogan train-gan or histogan import-gan"):
        run(empty, c.SampleImagesConfig())
    with pytest.raises(ArtifactMissing, match="histogan synthesize-dataset"):
        run(empty, c.TrainSegmenterConfig())


def test_nothing_painted_and_nothing_corrected_are_said(story, empty, tmp_path):
    _project, made = story
    run(empty, c.ImportGanConfig(path=made["train_gan"].path))
    run(empty, c.SampleImagesConfig(count=2, threads=1))
    with pytest.raises(LabelError, match=r"no sample of .* is painted"):
        run(empty, c.TrainPixelClassifierConfig())
    with pytest.raises(LabelError, match="nothing was corrected yet"):
        run(empty, c.MergeCorrectionsConfig())


def test_missing_paths_are_refused(empty, tmp_path):
    with pytest.raises(ConfigError, match="no generator"):
        run(empty, c.ImportGanConfig(path=tmp_path / "nothing"))
    with pytest.raises(ConfigError, match="no outlines"):
        run(empty, c.EvaluateConfig(reference=tmp_path / "nothing.geojson"))


def test_stopped_stage_leaves_no_artifact(empty, demo_slide, tmp_path):
    reporter = QuietReporter(tmp_path / "run", stop_when=lambda: True)
    with pytest.raises(Stopped):
        pipeline.add_slides(empty, c.AddSlidesConfig(paths=(demo_slide,)), reporter)
    assert empty.artifacts() == []
    assert empty.slides() == []


def test_a_generator_of_another_program_can_be_imported(empty, tmp_path):
    torch.manual_seed(0)
    generator = Generator(
        GeneratorSpec(8, 0, 8, 32, mapping_layers=2, channel_base=128, channel_max=8)
    ).eval()
    torch.save({"g_ema": rosinality_state(generator)}, tmp_path / "100000.pt")
    with pytest.raises(ConfigError, match="does not say its resolution"):
        run(empty, c.ImportGanConfig(path=tmp_path / "100000.pt"))
    imported = run(empty, c.ImportGanConfig(path=tmp_path / "100000.pt", mpp=0.5))
    assert imported.summary["mpp"] == 0.5
    assert generator_info(imported.path)["imported_from"] == "100000.pt"
    samples = run(empty, c.SampleImagesConfig(count=2, threads=1))
    assert samples.parents[0].id == imported.id


def test_a_coarse_net_is_at_home_on_slides_like_those_it_was_made_from(story, tiny_project):
    project, made = story
    entry, net = project.slides()[0], made["train_segmenter"]
    assert is_usual_slide(project, net, entry)
    assert not is_usual_slide(project, net, replace(entry, name="elsewhere", mpp=entry.mpp / 10))
    imported = tiny_project.artifacts("segmenter")[-1]  # learned from a generator of elsewhere
    assert not is_usual_slide(tiny_project, imported, tiny_project.slides()[0])
