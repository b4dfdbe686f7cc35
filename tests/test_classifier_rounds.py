"""Rounds of painting in a project: warm start, kept features, and what a classifier says of itself."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from napari_histogan import config as c
from napari_histogan.cli_tables import artifact_text
from napari_histogan.errors import ConfigError
from napari_histogan.inference.sampling import load_samples
from napari_histogan.labels.classes import ClassTable
from napari_histogan.models.generator_file import save_generator
from napari_histogan.models.stylegan2 import Generator, GeneratorSpec
from napari_histogan.pipeline import STAGE_FUNCTIONS
from napari_histogan.progress import QuietReporter
from napari_histogan.project.artifacts import Artifact
from napari_histogan.project.reads import what_it_reads
from napari_histogan.project.store import Project

SPEC = GeneratorSpec(z_dim=16, c_dim=0, w_dim=16, img_resolution=16, channel_base=256, channel_max=16)


def run(project: Project, config: c.StageConfig) -> Artifact:
    return STAGE_FUNCTIONS[config.stage](project, config, QuietReporter())


def small(**fields: object) -> c.TrainPixelClassifierConfig:
    values = {"members": 2, "hidden": (8,), "epochs": 2, "threads": 1, "precision": "float32"}
    return c.TrainPixelClassifierConfig(**{**values, **fields})


def import_random_generator(project: Project, folder: Path, seed: int) -> None:
    torch.manual_seed(seed)
    folder.mkdir()
    save_generator(folder / "generator.safetensors", Generator(SPEC).eval(), {"mpp": 1.0})
    run(project, c.ImportGanConfig(path=folder))


@pytest.fixture
def project(tmp_path: Path) -> Project:
    project = Project.create(tmp_path / "p", "Rounds", ClassTable.from_names(["dark", "bright"]))
    import_random_generator(project, tmp_path / "g1", 1)
    samples = run(project, c.SampleImagesConfig(count=6, threads=1))
    pictures = np.asarray(load_samples(samples.path).image[:]).mean(axis=-1)
    for index in range(4):
        mask = 1 + (pictures[index] > np.median(pictures[index]))
        project.save_mask(samples, index, mask.astype(np.uint8))
    return project


def test_the_next_round_starts_from_the_last(project: Project, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no pixel classifier reads features of"):
        run(project, small(init="newest"))
    first = run(project, small())
    second = run(project, small(init="newest"))
    assert first.id in [parent.id for parent in second.parents]
    assert second.id in what_it_reads(project, small(init="newest"))
    assert run(project, small(init=str(first.number))).parents[-1].id == first.id
    import_random_generator(project, tmp_path / "g2", 2)
    samples = run(project, c.SampleImagesConfig(count=2, threads=1))
    halves = np.repeat([1, 2], 128).reshape(16, 16).astype(np.uint8)
    for index in range(2):
        project.save_mask(samples, index, halves)
    with pytest.raises(ConfigError, match="knows the classes dark, bright"):
        run(project, small(init="newest"))
    with pytest.raises(ConfigError, match=f"{first.id} is not one that reads features of"):
        run(project, small(init=str(first.number)))


def test_a_classifier_tells_its_figures_with_intervals(project: Project) -> None:
    made = run(project, small(feature_cache=True))
    assert len(list((project.root / "cache" / "features").glob("*/*/zarr.json"))) == 4
    assert made.summary["judged on"] == "4 validation images"
    text = artifact_text(made, project.family(made))
    assert "dice of bright = 0." in text
    assert " to " in str(made.summary["pixel accuracy"])
    plan = json.loads((made.path / "classifier.json").read_text())
    value, low, high = plan["validation"]["intervals"]["mean_iou"]
    assert low <= value <= high
    again = run(project, small(feature_cache=True))
    weights = [(a.path / "classifier.safetensors").read_bytes() for a in (made, again)]
    assert weights[0] == weights[1]
