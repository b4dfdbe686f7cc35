"""A round of corrections that makes the net worse is told, and one click goes back to the net before it."""

import numpy as np
import pytest
from qtpy.QtCore import Qt
from qtpy.QtTest import QTest

from napari_histogan.config import MergeCorrectionsConfig, PredictHeatmapConfig, TrainSegmenterConfig
from napari_histogan.geometry import Region
from napari_histogan.pipeline import STAGE_FUNCTIONS
from napari_histogan.progress import QuietReporter
from napari_histogan.project.corrections import Correction
from napari_histogan.project.net_in_use import net_in_use
from napari_histogan.slides.reader import open_slide

pytestmark = pytest.mark.gui


@pytest.mark.timeout(280)
def test_a_worse_net_is_told_and_the_one_before_is_a_click_away(studio, tiny_project_copy):
    project = tiny_project_copy
    slide, region = project.slide(""), Region(640, 384, 128, 128)
    with open_slide(slide.path) as reader:
        glass = reader.read_at(region, 1.0).min(axis=2) > 200
    assert 0.1 < glass.mean() < 0.9
    mask = np.where(glass, 2, 1).astype(np.uint8)
    project.save_correction(Correction("half-glass", slide.name, region, 1.0, mask))
    tiny = {"width": 4, "depth": 2, "batch": 4, "threads": 1, "ema": 0.5}
    for config in (
        MergeCorrectionsConfig(patch_px=32),
        TrainSegmenterConfig(steps=80, **tiny),
        PredictHeatmapConfig(threads=1),
        TrainSegmenterConfig(steps=1, **tiny),
        PredictHeatmapConfig(threads=1),
    ):
        STAGE_FUNCTIONS[config.stage](project, config, QuietReporter())
    net, worse = project.artifacts("segmenter")[-2:]
    assert net_in_use(project) == worse.id

    studio.open(project.root)
    studio.activate()
    studio.dock.show_tab("correct")
    button = studio.dock.correct.back_button
    studio.until(lambda: studio.dock.correct.round.text(), 100)
    assert button.isVisible(), studio.dock.correct.round.text()
    assert any("made the net worse" in text for text in studio.errors())
    assert f"net {net.number}" in button.text()
    QTest.mouseClick(button, Qt.MouseButton.LeftButton)
    assert net_in_use(project) == net.id
    studio.until(lambda: not button.isVisible())
    assert studio.dock.correct.versions.item(1, 0).text().endswith("*")
