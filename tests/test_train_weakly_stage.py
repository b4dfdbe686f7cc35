"""Labels of whole slides from the user's end: commands, slides kept back, refusals."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from napari_histogan import config as c
from napari_histogan.errors import ConfigError, LabelError, NoTissue
from napari_histogan.labels.classes import ClassTable
from napari_histogan.models.segmenter import load_segmenter_info
from napari_histogan.pipeline import STAGE_FUNCTIONS
from napari_histogan.progress import QuietReporter
from napari_histogan.project.reads import what_it_reads
from napari_histogan.project.store import Project
from napari_histogan.slide_label_inputs import held_out

SIDE = 128
TINY = {
    "steps": 2,
    "pretrain_steps": 1,
    "patch_px": 32,
    "batch": 2,
    "buffer": 4,
    "width": 2,
    "depth": 2,
    "mpp": 4.0,
    "map_tile_px": 128,
    "bootstrap": 50,
    "threads": 1,
}


@pytest.fixture(scope="module")
def labeled(tmp_path_factory):
    """A project of four slides, of 4 um/px, with their labels in a file."""
    root = tmp_path_factory.mktemp("weak")
    rng = np.random.default_rng(0)
    for name in ("b1", "b2", "m1", "m2"):
        pixels = rng.normal((200, 120, 170), 15, (SIDE, SIDE, 3)).clip(0, 255).astype(np.uint8)
        if name.startswith("m"):
            pixels[:100, :100] //= 2
        Image.fromarray(pixels).save(root / f"{name}.png")
    project = Project.create(root / "project", "Weak", ClassTable.from_names(["benign", "malign"]))
    files = tuple(sorted(root.glob("*.png")))
    STAGE_FUNCTIONS["add_slides"](project, c.AddSlidesConfig(paths=files, mpp=4.0), QuietReporter())
    (root / "labels.csv").write_text("slide,label\nb1,benign\nb2,Benign\nm1,malign\nm2,malign\n")
    square = [[0, 0], [100, 0], [100, 100], [0, 100], [0, 0]]
    feature = {"type": "Feature", "geometry": {"type": "Polygon", "coordinates": [square]}, "properties": {}}
    for name in ("m1", "m2"):
        (root / f"{name}.geojson").write_text(
            json.dumps({"type": "FeatureCollection", "features": [feature]})
        )
    return project, root


def test_a_segmenter_and_its_plots_come_from_a_file_of_labels(labeled):
    project, root = labeled
    config = c.TrainWeaklyConfig(
        labels=root / "labels.csv", holdout_share=0.5, lesions=root, gamma=0.33, **TINY
    )
    assert len(what_it_reads(project, config)) == 6  # 4 slides, labels, and outlines
    reporter = QuietReporter()
    made = STAGE_FUNCTIONS["train_weakly"](project, config, reporter)
    assert made.kind == "segmenter"
    assert load_segmenter_info(made.path).class_names == ("benign", "malign")
    assert made.summary["beta_1"] == pytest.approx(0.61, abs=0.005)
    assert 0 <= made.summary["auc_low"] <= made.summary["auc"] <= made.summary["auc_high"] <= 1
    assert 0 <= made.summary["froc"] <= 1
    rows = json.loads((made.path / "slides.json").read_text())
    assert sum(row["held_out"] for row in rows) == 2
    assert {e["name"] for e in reporter.events if e["kind"] == "preview"} == {"loss", "roc", "froc"}
    for name in ("roc.png", "froc.png"):
        with Image.open(made.path / name) as plot:
            assert plot.width > 300
    assert (made.path / "labels.csv").read_text().startswith("slide,label")


def test_the_result_runs_over_a_slide_from_the_command_line(labeled):
    project, root = labeled
    command = [sys.executable, "-m", "napari_histogan"]
    options = [f"--{k.replace('_', '-')}={v}" for k, v in TINY.items()]
    done = subprocess.run(
        [*command, "train-weakly", str(project.root), "--labels", str(root / "labels.csv"), *options],
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    net = project.artifacts("segmenter")[-1]
    assert net.stage == "train_weakly"
    predict = c.PredictHeatmapConfig(slide="m1", segmenter=net.id, threads=1)
    heatmap = STAGE_FUNCTIONS["predict_heatmap"](project, predict, QuietReporter())
    assert heatmap.summary["classes"] == ["benign", "malign"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("slide,label\nb1,benign\n", "1 benign, 0 malign"),
        ("slide,label\nb1,benign\nm1,cancer\n", "'cancer'"),
        ("slide,label\nnobody,benign\n", "'nobody'"),
        ("slide,label\nb1,benign\nb1,malign\n", "twice"),
        ("name;label\n", "header with slide and label"),
    ],
)
def test_labels_that_make_no_sense_are_refused(labeled, tmp_path, text, words):
    project, _ = labeled
    path = tmp_path / "labels.csv"
    path.write_text(text)
    count = len(project.artifacts("segmenter"))
    with pytest.raises(LabelError, match=words):
        STAGE_FUNCTIONS["train_weakly"](project, c.TrainWeaklyConfig(labels=path, **TINY), QuietReporter())
    assert len(project.artifacts("segmenter")) == count


def test_missing_outlines_and_slides_without_tissue_are_refused(labeled, tmp_path):
    project, root = labeled
    labels = root / "labels.csv"
    config = c.TrainWeaklyConfig(labels=labels, holdout_share=0.5, lesions=tmp_path, **TINY)
    with pytest.raises(ConfigError, match="no outlines"):
        STAGE_FUNCTIONS["train_weakly"](project, config, QuietReporter())
    other = Project.create(tmp_path / "other", "Empty", ClassTable.from_names(["benign", "malign"]))
    for name in ("b1", "m1"):
        Image.new("RGB", (SIDE, SIDE), "white").save(tmp_path / f"{name}.png")
    paths = (tmp_path / "b1.png", tmp_path / "m1.png")
    STAGE_FUNCTIONS["add_slides"](other, c.AddSlidesConfig(paths=paths, mpp=4.0), QuietReporter())
    (tmp_path / "two.csv").write_text("slide,label\nb1,benign\nm1,malign\n")
    with pytest.raises(NoTissue, match=r"b1\.png"):
        STAGE_FUNCTIONS["train_weakly"](
            other, c.TrainWeaklyConfig(labels=tmp_path / "two.csv", **TINY), QuietReporter()
        )


def test_each_kind_keeps_its_share_back():
    labels = {f"b{k}": "benign" for k in range(8)} | {f"m{k}": "malign" for k in range(4)} | {"x": "unknown"}
    kept = held_out(labels, 0.25, seed=3)
    assert (sum(n[0] == "b" for n in kept), sum(n[0] == "m" for n in kept), "x" in kept) == (2, 1, False)
    assert kept == held_out(labels, 0.25, seed=3)
    assert not held_out(labels, 0.0, seed=3)
