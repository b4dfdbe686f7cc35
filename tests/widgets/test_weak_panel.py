"""Slide labels in the window: chosen and typed, read from a file, trained on while the maps refresh."""

import json

import numpy as np
import pytest
from blocks_and_slides import weak_project
from qtpy.QtCore import QMimeData, QPointF, Qt, QUrl
from qtpy.QtGui import QDropEvent
from qtpy.QtTest import QTest

from napari_histogan.project.slide_labels import slide_labels
from napari_histogan.slides.zarr_pyramid import open_pyramid
from napari_histogan.widgets.training_maps import training_maps_of

pytestmark = pytest.mark.gui

TINY = {
    "pretrain_steps": 1, "patch_px": 32, "batch": 2, "buffer": 4, "width": 2, "depth": 2, "mpp": 4.0,
    "map_tile_px": 128, "bootstrap": 20, "threads": 1,
}  # fmt: skip


@pytest.fixture
def weak(studio, tmp_path):
    """The tab of the slide labels with four slides that have none."""
    project = weak_project(tmp_path)
    studio.open(project.root)
    studio.dock.show_tab("labels")
    studio.activate()
    return studio


def choose(studio, row, more=False):
    table = studio.dock.labels.table
    keys = Qt.KeyboardModifier.ControlModifier if more else Qt.KeyboardModifier.NoModifier
    place = table.visualItemRect(table.item(row, 0)).center()
    QTest.mouseClick(table.viewport(), Qt.MouseButton.LeftButton, keys, place)
    studio.let_qt_work()


def test_rows_are_chosen_and_labeled_by_keys(weak):
    panel = weak.dock.labels
    assert not panel.train_button.isEnabled()
    weak.key("B")
    assert "Choose the slides" in weak.told[-1][1]
    choose(weak, 0)
    choose(weak, 1, more=True)
    weak.key("B")
    choose(weak, 2)
    weak.key("M")
    choose(weak, 3)
    QTest.mouseClick(panel.label_buttons["malign"], Qt.MouseButton.LeftButton)
    weak.let_qt_work()
    found = slide_labels(weak.session.project)
    assert found == {"b1": "benign", "b2": "benign", "m1": "malign", "m2": "malign"}
    assert [panel.table.item(row, 1).text() for row in range(4)] == ["benign", "benign", "malign", "malign"]
    assert panel.train_button.isEnabled()
    weak.until(lambda: weak.dock.header.next_button.text() == "Train on slide labels ...")
    weak.key("U")
    assert slide_labels(weak.session.project)["m2"] == "unknown"


def test_a_dropped_file_labels_the_slides_or_says_what_is_wrong(weak, tmp_path):
    panel = weak.dock.labels

    def drop(text):
        path = tmp_path / "labels.csv"
        path.write_text(text)
        data = QMimeData()
        data.setUrls([QUrl.fromLocalFile(str(path))])
        left, none = Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier
        panel.dropEvent(QDropEvent(QPointF(5, 5), Qt.DropAction.CopyAction, data, left, none))
        weak.let_qt_work()

    drop("slide,label\nb1,benign\nm1,malign\n")
    assert slide_labels(weak.session.project)["m1"] == "malign"
    assert panel.words.text() == "1 benign, 1 malign, 2 unknown."
    drop("slide,label\nnobody,benign\n")
    assert "'nobody'" in weak.errors()[-1]
    assert slide_labels(weak.session.project)["m1"] == "malign"


@pytest.mark.timeout(280)
def test_maps_refresh_over_the_slide_while_training_runs_and_plots_come_at_the_end(weak, tmp_path):
    panel, session = weak.dock.labels, weak.session
    path = tmp_path / "l.csv"
    path.write_text("slide,label\nb1,benign\nb2,benign\nm1,malign\nm2,malign\n")
    assert panel.take_file(path)
    assert panel.open("m1")
    panel.form.set_values({**TINY, "steps": 60, "map_every": 20, "holdout_share": 0.5})
    panel.calculator.gamma.setValue(40)
    maps, seen = training_maps_of(session), []
    maps.mapped.connect(lambda name: seen.append((name, bool(session.jobs.active()))))
    weak.until(lambda: panel.train_button.isEnabled())
    weak.key("Ctrl+Return")
    weak.until(lambda: maps.layer is not None or not session.jobs.active(), 120)
    weak.until(lambda: session.project.artifacts("segmenter"), 120)
    weak.until(lambda: not session.jobs.active(), 30)
    weak.let_qt_work(0.2)
    assert any(running for _, running in seen), "maps were told while the job ran"
    net = session.project.artifacts("segmenter")[-1]
    assert net.config["gamma"] == 0.4
    assert net.config["labels"] is None
    assert {p.id for p in net.parents} == {"labels/slides.csv"}
    assert session.project.classes.names == ("benign", "malign")
    rows = {row["slide"]: row for row in json.loads((net.path / "slides.json").read_text())}
    run = session.jobs.newest("train_weakly").run_dir
    newest = np.asarray(open_pyramid(run / rows["m1"]["map"]).levels[0][1])
    np.testing.assert_array_equal(maps.layer.data, newest)
    slide = session.slide_view.slide
    assert maps.layer.data_to_world((-0.5, -0.5)) == pytest.approx((0, 0))
    end = slide.data_to_world(np.array(slide.data[0].shape[:2]) - 0.5)
    assert maps.layer.data_to_world(np.array(maps.layer.data.shape) - 0.5) == pytest.approx(end)
    assert maps.layer.name == "Malign, step 60"
    assert [panel.table.item(row, 2).text() for row in range(4)] == ["60"] * 4
    assert sum("kept back" in panel.table.item(row, 3).text() for row in range(4)) == 2
    assert not panel.plots["roc.png"].isHidden()
    assert panel.plots["roc.png"].pixmap().width() > 200
    assert "ROC AUC" in panel.result_words.text()
    choose(weak, 0)
    box = panel.table.visualItemRect(panel.table.item(0, 0)).center()
    QTest.mouseDClick(panel.table.viewport(), Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier, box)
    weak.let_qt_work()
    assert session.slide_view.entry.name == "b1"
    other = np.asarray(open_pyramid(run / rows["b1"]["map"]).levels[0][1])
    np.testing.assert_array_equal(maps.layer.data, other)
    weak.key("H")
    assert not maps.layer.visible
    weak.dock.show_tab("samples")
    assert weak.errors() == []
