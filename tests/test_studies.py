"""The table of accuracy over annotation effort, made for a small project by the stage."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from napari_histogan import config as c
from napari_histogan.errors import ConfigError, LabelError, Stopped
from napari_histogan.pipeline import STAGE_FUNCTIONS
from napari_histogan.progress import QuietReporter
from napari_histogan.slides.reader import open_slide
from napari_histogan.studies import ARMS


def _annotate(folder, slide, corner: int, count: int) -> None:
    """Write pictures of the slide and masks by brightness: three classes, as the tiny project's."""
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    from napari_histogan.geometry import Region

    with open_slide(slide) as reader:
        for k in range(count):
            pixels = reader.read(Region(corner + 70 * k, 900, 64, 96))
            brightness = pixels.mean(axis=2)
            mask = 1 + np.digitize(brightness, np.quantile(brightness, [0.33, 0.66]))
            Image.fromarray(pixels).save(folder / "images" / f"{k}.png")
            Image.fromarray(mask.astype(np.uint8)).save(folder / "masks" / f"{k}.png")


@pytest.fixture(scope="module")
def folders(tmp_path_factory, demo_slide):
    root = tmp_path_factory.mktemp("annotated")
    _annotate(root / "train", demo_slide, 400, 6)
    _annotate(root / "test", demo_slide, 1600, 3)
    return root


def _config(folders, **values) -> c.LabelEfficiencyConfig:
    small = {"painted": 2, "control": 3, "control_plus": 8, "seeds": 2, "pairs": 32, "steps": 3, "width": 4}
    paths = {"annotated": folders / "train", "test": folders / "test", "picture_mpp": 1.0}
    return c.LabelEfficiencyConfig(
        **{**paths, **small, "batch": 4, "bootstrap": 50, "picture_steps": 2, **values}
    )


def test_a_stopped_study_goes_on_and_fills_the_table(painted_project_copy, folders, tmp_path):
    project, stage = painted_project_copy, STAGE_FUNCTIONS["label_efficiency"]
    run_dir = tmp_path / "run"
    tested = lambda: sorted(run_dir.glob("seed-*/*/counts.npz"))  # noqa: E731
    with pytest.raises(Stopped):
        stage(project, _config(folders), QuietReporter(run_dir, lambda: len(tested()) >= 3))
    early = {path: path.stat().st_mtime_ns for path in tested()}
    assert len(early) == 3

    result = stage(project, _config(folders), QuietReporter(run_dir))
    assert {path: path.stat().st_mtime_ns for path in early} == early  # what was tested is kept
    rows = json.loads((result.path / "label_efficiency.json").read_text())
    assert [row["arm"] for row in rows] == list(ARMS)
    assert [row["images"] for row in rows] == [2, 3, 8, 5]
    for row in rows:
        assert len(row["mcc_by_seed"]) == 2
        assert row["mcc"][0] == pytest.approx(np.mean(row["mcc_by_seed"]))
        assert set(row["ahead_of"]) == set(ARMS) - {row["arm"]}
    assert "Transfer" in (result.path / "report.html").read_text(encoding="utf-8")
    assert result.summary["mcc_control_plus"] == rows[2]["mcc"][0]
    # Every pixel of the three whole test pictures was judged, once for each seed.
    counts = np.load(tested()[0])["counts"]
    assert counts.shape[0] == 3
    assert counts.sum() == 3 * 64 * 96


def test_what_is_missing_is_said_before_training(painted_project_copy, folders, tmp_path):
    stage = STAGE_FUNCTIONS["label_efficiency"]

    def refused(**values):
        stage(painted_project_copy, _config(folders, **values), QuietReporter(tmp_path / "run"))

    with pytest.raises(LabelError, match="3 samples are painted"):
        refused(painted=24)
    with pytest.raises(LabelError, match=r"gives \d+ patches of 32 px at 1 um/px"):
        refused(control_plus=5000)
    with pytest.raises(ConfigError, match=r"no folder .* of test pictures"):
        refused(test=folders / "nowhere")
    assert not list((tmp_path / "run").glob("seed-*"))
