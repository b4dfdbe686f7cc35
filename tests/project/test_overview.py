"""The overview names the next step at every point of the flow; inputs are told before a job starts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from napari_histogan import config as c
from napari_histogan.errors import ArtifactMissing, ConfigError, LabelError, SlideNotFound
from napari_histogan.geometry import Region, Size
from napari_histogan.labels.block_labels import BlockLabels
from napari_histogan.labels.classes import ClassTable
from napari_histogan.progress import QuietReporter
from napari_histogan.project.artifacts import KINDS, Artifact
from napari_histogan.project.calibrations import Calibration
from napari_histogan.project.corrections import Correction
from napari_histogan.project.overview import overview
from napari_histogan.project.reads import what_it_reads
from napari_histogan.project.slide_labels import set_slide_labels, slide_labels_parent
from napari_histogan.project.slide_list import SlideEntry
from napari_histogan.project.store import Project


def make(project: Project, stage: str, *parents) -> Artifact:
    model = c.STAGES[stage]
    with project.new_artifact(model.result, model(), QuietReporter(), parents) as draft:
        draft.summary["stage"] = stage
    return draft.result


def test_the_next_step_follows_the_flow(project: Project, demo_slide: Path) -> None:
    steps = [overview(project).next_stage]
    project.add_slide_entries([SlideEntry("s", demo_slide, 0.5, Size(10, 10))])
    make(project, "add_slides")
    made = {}
    for stage in ("extract_patches", "train_gan", "sample_images"):
        steps.append(overview(project).next_stage)
        made[stage] = make(project, stage)
    steps.append(overview(project).next_stage)
    project.save_mask(made["sample_images"], 0, np.ones((4, 4), np.uint8))
    samples = made["sample_images"], project.masks_parent(made["sample_images"])
    for stage in ("train_pixel_classifier", "synthesize_dataset", "train_segmenter", "predict_heatmap"):
        steps.append(overview(project).next_stage)
        make(project, stage, *(samples if stage == "train_pixel_classifier" else ()))
    assert steps == [
        "add_slides",
        "extract_patches",
        "train_gan",
        "sample_images",
        "paint",
        "train_pixel_classifier",
        "synthesize_dataset",
        "train_segmenter",
        "predict_heatmap",
    ]
    end = overview(project)
    assert end.next_stage == ""
    assert "up to date" in end.next_step
    project.save_mask(made["sample_images"], 1, np.ones((4, 4), np.uint8))
    behind = overview(project)
    assert behind.next_stage == "train_pixel_classifier"
    assert "masks/0004 was painted on since" in behind.next_step


def test_an_imported_generator_needs_no_slides(tmp_path: Path) -> None:
    project = Project.create(tmp_path / "p")
    make(project, "import_gan")
    assert overview(project).next_stage == "sample_images"
    make(project, "sample_images")
    found = overview(project)
    assert found.next_stage == "paint"
    assert "classes" in found.next_step


def test_every_kind_and_the_painting_have_a_line(project: Project) -> None:
    found = overview(project)
    assert [s.kind for s in found.stages if s.kind] == list(KINDS)
    assert [s.stage for s in found.stages].index("paint") == list(KINDS).index("samples") + 1
    make(project, "import_gan")
    line = next(s for s in overview(project).stages if s.kind == "generator")
    assert (line.stage, line.count, line.newest) == ("import_gan", 1, "generators/0001")
    assert line.summary == {"stage": "import_gan"}


# What a stage reads


@pytest.mark.parametrize(
    ("config", "error", "message"),
    [
        (c.AddSlidesConfig(paths=(Path("/nowhere/a.svs"),)), ConfigError, "no file /nowhere/a.svs"),
        (c.ExtractPatchesConfig(), SlideNotFound, "add-slides"),
        (c.TrainGanConfig(), ArtifactMissing, "extract-patches"),
        (c.ImportGanConfig(), ConfigError, "was given no file"),
        (c.SampleImagesConfig(), ArtifactMissing, "train-gan or histogan import-gan"),
        (c.TrainPixelClassifierConfig(), ArtifactMissing, "sample-images"),
        (c.SynthesizeDatasetConfig(), ArtifactMissing, "train-pixel-classifier"),
        (c.TrainSegmenterConfig(), ArtifactMissing, "synthesize-dataset"),
        (c.PredictHeatmapConfig(), ArtifactMissing, "train-segmenter"),
        (c.EvaluateConfig(), ArtifactMissing, "predict-heatmap"),
        (c.MergeCorrectionsConfig(), LabelError, "nothing was corrected"),
    ],
)
def test_an_empty_project_says_what_each_stage_lacks(project, config, error, message) -> None:
    with pytest.raises(error, match=message):
        what_it_reads(project, config)


def test_inputs_are_named(project: Project, demo_slide: Path) -> None:
    project.add_slide_entries([SlideEntry("s", demo_slide, 0.5, Size(10, 10))])
    for stage in ("extract_patches", "train_gan", "sample_images", "synthesize_dataset", "train_segmenter"):
        make(project, stage)
    project.save_mask("samples/0003", 5, np.ones((4, 4), np.uint8))
    project.save_correction(Correction("edge", "s", Region(0, 0, 4, 4), 0.5, np.ones((4, 4), np.uint8)))
    slide = f"slide s ({demo_slide})"
    for config, expected in [
        (c.AddSlidesConfig(paths=(demo_slide,)), [str(demo_slide)]),
        (c.ExtractPatchesConfig(), [slide]),
        (c.TrainGanConfig(init="2"), ["patches/0001", "generators/0002"]),
        (c.SampleImagesConfig(), ["generators/0002"]),
        (c.TrainPixelClassifierConfig(), ["samples/0003", "1 painted masks of samples/0003"]),
        (c.TrainSegmenterConfig(init="5"), ["segmenters/0005", "datasets/0004"]),
        (c.TrainSegmenterConfig(sources=("datasets/0004",)), ["datasets/0004"]),
        (c.PredictHeatmapConfig(), ["segmenters/0005", slide]),
        (c.MergeCorrectionsConfig(), ["corrected region edge"]),
    ]:
        assert what_it_reads(project, config) == expected


def test_wrong_names_are_refused(project: Project) -> None:
    generator = make(project, "train_gan")
    with pytest.raises(ConfigError, match="is a generator"):
        what_it_reads(project, c.TrainSegmenterConfig(sources=(generator.id,)))
    samples = make(project, "sample_images")
    with pytest.raises(LabelError, match="no sample of samples/0002 is painted"):
        what_it_reads(project, c.TrainPixelClassifierConfig(samples=samples.id))
    project.set_classes(ClassTable.from_names(["a", "b"]))
    project.save_correction(Correction("edge", "s", Region(0, 0, 2, 2), 0.5, np.ones((2, 2), np.uint8)))
    with pytest.raises(LabelError, match="no corrected region 'x'"):
        what_it_reads(project, c.MergeCorrectionsConfig(regions=("x",)))


def test_masks_that_a_new_generator_leaves_behind_are_told(project: Project) -> None:
    old = make(project, "import_gan")
    samples = make(project, "sample_images", old)
    for index in range(3):
        project.save_mask(samples, index, np.ones((4, 4), np.uint8))
    make(project, "import_gan")
    found = overview(project)
    assert found.next_stage == "sample_images"
    assert (
        "The 3 masks painted on samples/0002 stay there and stay usable with generators/0001"
        in found.next_step
    )
    assert found.next_step.endswith("histogan train-pixel-classifier PROJECT --samples samples/0002")
    make(project, "sample_images", project.artifact("", "generator"))
    (painting,) = (state for state in overview(project).stages if state.stage == "paint")
    assert painting.count == 0
    assert painting.summary == {"corrections": 0, "on samples/0002": 3}


def test_coarse_labels_need_no_generator(tmp_path: Path) -> None:
    project = Project.create(tmp_path / "p", classes=ClassTable.from_names(["a", "b"]))
    project.add_slide_entries([SlideEntry("s", tmp_path / "s.png", 0.5, Size(10, 10))])
    make(project, "add_slides")
    assert overview(project).next_stage == "extract_patches"
    with project.new_artifact("block_labels", c.ImportBlockLabelsConfig(), QuietReporter()) as draft:
        grid = np.array([[0, 1, 2], [0, 1, -1]], np.int16)
        BlockLabels(("low, or not", "high", "rare"), grid, 5.0).save(draft.path)
        draft.summary.update(slide="s")
    assert overview(project).next_step.startswith("Estimate blocks of low, or not, high: histogan open")
    calibration = Calibration(project, draft.result)
    for row, value in enumerate(["low, or not", "high", "low, or not", "high"]):
        assert overview(project).next_stage == "estimate"
        calibration.estimate(row, 0, value, {"a": 0.25, "b": 0.75})
    assert overview(project).next_stage == "train_super_resolution"
    made = make(project, "train_super_resolution", draft.result)
    assert overview(project).next_stage == "predict_heatmap"
    make(project, "predict_heatmap", made)
    assert overview(project).next_stage == ""
    make(project, "extract_patches")
    assert overview(project).next_stage == "train_gan", "who plans patches wants a generator"


def test_slide_labels_need_no_generator(tmp_path: Path) -> None:
    project = Project.create(tmp_path / "p")
    project.add_slide_entries([SlideEntry(n, tmp_path / n, 0.5, Size(10, 10)) for n in ("s", "t")])
    make(project, "add_slides")
    set_slide_labels(project, {"s": "benign"})
    assert overview(project).next_stage == "extract_patches", "one kind alone teaches nothing"
    set_slide_labels(project, {"t": "malign"})
    assert overview(project).next_stage == "train_weakly"
    make(project, "train_weakly", slide_labels_parent(project))
    assert overview(project).next_stage == "predict_heatmap"
    set_slide_labels(project, {"s": "unknown"})
    behind = overview(project)
    assert behind.next_stage == "train_weakly"
    assert "labels/slides.csv changed since" in behind.next_step
