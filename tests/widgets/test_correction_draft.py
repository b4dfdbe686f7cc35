"""A frame that is not accepted outlives the window; versions of the net are compared and gone back to."""

import numpy as np
import pytest
from other_window import kill_window_after
from qtpy.QtCore import Qt
from qtpy.QtTest import QTest

from napari_histogan.config import MergeCorrectionsConfig, PredictHeatmapConfig, TrainSegmenterConfig
from napari_histogan.geometry import Region
from napari_histogan.pipeline import STAGE_FUNCTIONS
from napari_histogan.progress import QuietReporter
from napari_histogan.project.corrections import Correction
from napari_histogan.project.frame_draft import drop_draft, load_draft, save_draft
from napari_histogan.project.net_in_use import net_in_use
from napari_histogan.project.store import Project


def test_a_draft_comes_back_as_it_was(tmp_path):
    assert load_draft(tmp_path) is None
    mask = np.arange(12, dtype=np.uint8).reshape(3, 4) % 3
    frame = Correction("draft", "slide", Region(5, 6, 3, 4), 0.5, mask, source="heatmaps/0003")
    save_draft(tmp_path, frame)
    again = load_draft(tmp_path)
    assert (again.slide, again.region, again.mpp, again.source) == ("slide", frame.region, 0.5, frame.source)
    np.testing.assert_array_equal(again.mask, mask)
    (tmp_path / "drafts/frame.npz").write_bytes(b"half of it")
    assert load_draft(tmp_path) is None
    drop_draft(tmp_path)
    drop_draft(tmp_path)


@pytest.mark.gui
@pytest.mark.timeout(600)
def test_a_killed_window_loses_no_stroke_of_the_frame(studio, tiny_project_copy):
    root = tiny_project_copy.root
    kill_window_after(
        root,
        """
dock.show_tab("correct")
dock.correct.place()
session.correcting.layer.paint((9, 9), 2)
""",
    )
    studio.open(root)
    assert any("not accepted" in text for _, text in studio.told)
    studio.activate()
    studio.dock.show_tab("correct")
    assert "Go on" in studio.dock.correct.place_button.text()
    studio.key("C")
    correcting = studio.session.correcting
    assert correcting.active
    assert correcting.layer.data[9, 9] == 2
    studio.session.close_project()  # closing keeps it, too
    studio.open(root)
    studio.dock.show_tab("correct")
    studio.key("C")
    assert correcting.layer.data[9, 9] == 2
    studio.key("Return")
    (saved,) = Project.open(root).corrections()
    assert saved.mask[9, 9] == 2
    assert load_draft(root) is None
    assert "Place" in studio.dock.correct.place_button.text()


@pytest.fixture
def two_nets(studio, tiny_project_copy):
    """The dock with a net, a correction, a net that learned from it, and a map of each."""
    project = tiny_project_copy
    mask = np.ones((64, 64), np.uint8)
    mask[:, 32:] = 2
    project.save_correction(Correction("c-1", project.slide("").name, Region(40, 40, 64, 64), 1.0, mask))
    for config in (
        MergeCorrectionsConfig(patch_px=32),
        TrainSegmenterConfig(steps=2, width=4, depth=2, batch=4, threads=1),
        PredictHeatmapConfig(threads=1),
    ):
        STAGE_FUNCTIONS[config.stage](project, config, QuietReporter())
    studio.open(project.root)
    studio.activate()
    studio.dock.show_tab("correct")
    return studio


def click(studio, row, ctrl=False):
    table = studio.dock.correct.nets.table
    keys = Qt.KeyboardModifier.ControlModifier if ctrl else Qt.KeyboardModifier.NoModifier
    place = table.visualItemRect(table.item(row, 0)).center()
    QTest.mouseClick(table.viewport(), Qt.MouseButton.LeftButton, keys, place)
    studio.let_qt_work()


@pytest.mark.gui
@pytest.mark.timeout(600)
def test_versions_are_compared_judged_and_gone_back_to(two_nets):
    session, panel = two_nets.session, two_nets.dock.correct
    old, new = (a.id for a in session.project.artifacts("segmenter"))
    two_nets.until(lambda: panel.round.isVisible(), 200)
    assert "1 corrected place" in panel.round.text()
    assert "0.0041 mm2" in panel.round.text()
    click(two_nets, 0)
    click(two_nets, 1, ctrl=True)
    assert panel.nets.chosen() == [new, old]
    two_nets.key("V")
    view = session.slide_view
    assert view.beside.active, two_nets.told
    assert [p.id for p in view.heatmap.parents] == [new]
    assert [p.id for p in view.beside.heatmap.parents] == [old]
    two_nets.key("V")
    assert not view.beside.active
    click(two_nets, 1)
    two_nets.key("X")
    assert net_in_use(Project.open(session.project.root)) == old
    assert panel.nets.table.item(1, 0).text().endswith("*")
    assert two_nets.errors() == []
