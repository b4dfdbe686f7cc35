"""Patch classifiers from the user's end: a folder in, figures and a heatmap out, by commands; refusals."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from napari_histogan import config as c
from napari_histogan.errors import ConfigError, LabelError, SlideTooSmall
from napari_histogan.labels.classes import ClassTable
from napari_histogan.models.patch_gan_file import load_info
from napari_histogan.pipeline import STAGE_FUNCTIONS
from napari_histogan.progress import QuietReporter
from napari_histogan.project.overview import overview
from napari_histogan.project.reads import what_it_reads
from napari_histogan.project.store import Project
from napari_histogan.slides.zarr_pyramid import open_pyramid
from napari_histogan.widgets.overview import next_step
from napari_histogan.widgets.overview import overview as steps_of

SIDE = 96
TINY = {
    "patch_px": 32,
    "width": 4,
    "noise": 8,
    "batch": 16,
    "patches": 64,
    "epochs": 6,
    "clahe": False,
    "mpp": 2.0,
    "threads": 1,
}


def picture(seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:SIDE, :SIDE]
    mask = (np.abs(y - x / 2 - 10 * seed) < 2.5) | (np.abs(x - 20 - 12 * seed) < 2.5)
    gray = np.where(mask, 60, 170) + rng.normal(0, 12, mask.shape)
    return np.clip(gray, 0, 255).astype(np.uint8)[..., None].repeat(3, axis=2), mask


def write(root, images: int = 3, value: int = 255) -> None:
    for name in ("images", "masks"):
        (root / name).mkdir(parents=True)
    for seed in range(images):
        pixels, mask = picture(seed)
        Image.fromarray(pixels).save(root / "images" / f"p{seed}.png")
        Image.fromarray((value * mask).astype(np.uint8)).save(root / "masks" / f"p{seed}.png")


@pytest.fixture
def project(tmp_path):
    """A project of two classes with one picture as a slide, and a folder of pictures with masks."""
    write(tmp_path / "data")
    made = Project.create(tmp_path / "project", "Thin", ClassTable.from_names(["vessel", "ground"]))
    add = c.AddSlidesConfig(paths=(tmp_path / "data" / "images" / "p1.png",), mpp=2.0)
    STAGE_FUNCTIONS["add_slides"](made, add, QuietReporter())
    return made


def run(project, config, reporter=None):
    return STAGE_FUNCTIONS[config.stage](project, config, reporter or QuietReporter())


def test_a_heatmap_comes_from_a_folder_of_masks_by_commands(project, tmp_path):
    options = [f"--{k.replace('_', '-')}={v}" for k, v in TINY.items() if k != "clahe"]
    options += ["--holdout-share=0.34", "--learning-rate=0.003"]
    command = [sys.executable, "-m", "napari_histogan"]
    lines = [
        ["train-patch-gan", str(project.root), "--data", str(tmp_path / "data"), "--no-clahe", *options],
        ["predict-patch-map", str(project.root), "--stride=2", "--tile-px=128", "--threads=1"],
    ]
    for line in lines:
        done = subprocess.run([*command, *line], capture_output=True, text=True, timeout=280, check=False)
        assert done.returncode == 0, done.stderr
    net = project.artifacts("patch_classifier")[-1]
    assert net.summary["pictures"] == 2
    assert net.summary["patches"] == 64
    assert net.summary["auc"] > 0.7
    assert load_info(net.path).validation["auc"] == net.summary["auc"]
    with Image.open(net.path / "roc.png") as plot:
        assert plot.width > 300
    heatmap = project.artifacts("heatmap")[-1]
    assert [parent.id for parent in heatmap.parents] == [net.id]
    percent = np.asarray(open_pyramid(heatmap.path / "heatmap.zarr").levels[0])
    assert percent.shape == (2, SIDE, SIDE)
    assert open_pyramid(heatmap.path / "heatmap.zarr").channels == ("vessel", "ground")
    # Every other job's step is told: losses, and previews of samples, the map, and the ROC curve.
    run_dir = next(folder for folder in project.runs() if folder.name.endswith("train-patch-gan"))
    events = [json.loads(line) for line in (run_dir / "events.jsonl").read_text().splitlines()]
    assert any("generator_loss" in event for event in events)
    previews = {e["name"]: e["path"] for e in events if e["kind"] == "preview"}
    assert set(previews) == {"samples", "map", "roc"}
    with Image.open(run_dir / previews["map"]) as shown:
        assert shown.size == (2 * SIDE, SIDE)


def test_a_heatmap_is_judged_like_any_other(project, tmp_path):
    config = c.TrainPatchGanConfig(data=tmp_path / "data", adversarial=False, **TINY)
    assert what_it_reads(project, config) == [str(tmp_path / "data")]
    run(project, config)
    assert overview(project).next_stage == "predict_patch_map"
    assert next_step(project, steps_of(project)).title == "Map a picture ..."
    predict = c.PredictPatchMapConfig(stride=4, tile_px=128, threads=1)
    reads = what_it_reads(project, predict)
    assert reads[0] == project.artifacts("patch_classifier")[-1].id
    assert "p1" in reads[1]
    run(project, predict)
    assert overview(project).next_stage == ""
    assert next_step(project, steps_of(project)).title == "Look at the map ..."
    run(project, config)
    assert "is behind" in overview(project).next_step
    square = [[0, 0], [50, 0], [50, 50], [0, 50], [0, 0]]
    features = [
        {
            "type": "Feature",
            "geometry": {"type": "Polygon", "coordinates": [[[x + d, y] for x, y in square]]},
            "properties": {"classification": {"name": name}},
        }
        for d, name in ((0, "vessel"), (45, "ground"))
    ]
    path = tmp_path / "outlines.geojson"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    made = run(project, c.EvaluateConfig(reference=path, bootstrap=20))
    assert -1 <= made.summary["mcc"] <= 1


def test_painted_classes_train_too(project, tmp_path):
    mask = np.zeros((SIDE, SIDE), np.uint8)
    mask[:40], mask[60:] = 1, 2
    Image.fromarray(mask).save(tmp_path / "data" / "masks" / "p0.png")
    for name in ("p1", "p2"):
        (tmp_path / "data" / "masks" / f"{name}.png").unlink()
        (tmp_path / "data" / "images" / f"{name}.png").unlink()
    config = c.TrainPatchGanConfig(
        data=tmp_path / "data", centers="pixels", unlabelled=32, channel="rgb", **{**TINY, "epochs": 1}
    )
    made = run(project, config)
    assert load_info(made.path).shape.channels == 3


def test_what_cannot_work_is_refused_with_the_numbers(project, tmp_path):
    def refused(error, words, **values):
        config = c.TrainPatchGanConfig(**{"data": tmp_path / "data", **TINY, **values})
        with pytest.raises(error, match=words):
            run(project, config)

    refused(ConfigError, "resolution", mpp=None)
    refused(LabelError, r"vessel [\d,]+, ground [\d,]+", patches=100_000)
    refused(SlideTooSmall, "96 x 96 pixels", patch_px=128)
    write(tmp_path / "empty", value=0)
    refused(LabelError, "the mask of p0 holds only the value 0", data=tmp_path / "empty")
    refused(LabelError, "holds no pictures and masks", data=tmp_path)
    refused(LabelError, "value 255.*1 to 2", centers="pixels")
    Image.fromarray(np.arange(SIDE * SIDE, dtype=np.uint8).reshape(SIDE, SIDE)).save(
        tmp_path / "data" / "masks" / "p2.png"
    )
    refused(LabelError, "the mask of p2 holds 256 values")
    many = Project.create(tmp_path / "many", "Many", ClassTable.from_names(["a", "b", "c"]))
    with pytest.raises(ConfigError, match="a, b, c"):
        run(many, c.TrainPatchGanConfig(data=tmp_path / "data", **TINY))
    assert not project.artifacts("patch_classifier")
