"""Block labels in the window: dropped, estimated by key and drag, trained on, and beside their mask."""

import numpy as np
import pytest
from blocks_and_slides import BLOCK_UM, MPP, SIDE, block_project, blocks_csv, slide_project
from qtpy.QtCore import QMimeData, QPoint, QPointF, Qt, QUrl
from qtpy.QtGui import QDropEvent
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QStyle, QStyleOptionSlider

from napari_histogan.labels.calibration import CalibrationTable
from napari_histogan.labels.classes import ClassTable
from napari_histogan.project.calibrations import Calibration
from napari_histogan.project.store import Project
from napari_histogan.widgets.block_view import block_view_of

pytestmark = pytest.mark.gui


def drop(widget, path):
    """Let go of a file over a widget."""
    data = QMimeData()
    data.setUrls([QUrl.fromLocalFile(str(path))])
    left, none = Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier
    widget.dropEvent(QDropEvent(QPointF(5, 5), Qt.DropAction.CopyAction, data, left, none))


def press(studio, button):
    QTest.mouseClick(button, Qt.MouseButton.LeftButton)
    studio.let_qt_work()


def handle(slider, percent):
    """Return where the handle of a labeled slider is at a value."""
    inner = slider._slider
    option = QStyleOptionSlider()
    inner.initStyleOption(option)
    control, groove, knob = QStyle.ComplexControl.CC_Slider, QStyle.SubControl.SC_SliderGroove, None
    knob = QStyle.SubControl.SC_SliderHandle
    width = inner.style().subControlRect(control, option, knob, inner).width()
    span = inner.style().subControlRect(control, option, groove, inner).width() - width
    return QPoint(round(width / 2 + span * percent / 100), inner.height() // 2)


def drag(studio, slider, percent):
    """Drag a slider from where it is."""
    inner, left, none = slider._slider, Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier
    QTest.mousePress(inner, left, none, handle(slider, slider.value()))
    for part in (0.3, 0.7, 1.0):
        here = slider.value()
        QTest.mouseMove(inner, handle(slider, here + (percent - here) * part))
        studio.let_qt_work(0.02)
    QTest.mouseRelease(inner, left, none, handle(slider, percent))
    studio.let_qt_work()


@pytest.fixture
def blocks(studio, tmp_path):
    """The tab of the blocks with a set of block labels."""
    project, artifact, shares = block_project(tmp_path)
    studio.open(project.root)
    studio.dock.show_tab("blocks")
    studio.activate()
    return studio, artifact, shares


@pytest.mark.timeout(280)
def test_a_dropped_file_becomes_a_layer_that_fits_the_slide(studio, tmp_path):
    project, shares = slide_project(tmp_path)
    studio.open(project.root)
    studio.dock.show_tab("blocks")
    panel = studio.dock.blocks
    assert "Drop a file" in panel.words.text()
    drop(panel, blocks_csv(tmp_path / "b.csv", shares))
    panel.importing.form.editor("block_um").set_value(BLOCK_UM)
    studio.let_qt_work()
    press(studio, panel.importing.start_button)
    studio.until(lambda: panel.queue is not None, 150)
    layer = block_view_of(studio.session).blocks
    assert layer.data.shape == (8, 10)
    assert layer.data_to_world((-0.5, -0.5)) == pytest.approx((0, 0))
    slide = studio.session.slide_view.slide
    end = slide.data_to_world(np.array(slide.data[0].shape[:2]) - 0.5)
    assert layer.data_to_world((7.5, 9.5)) == pytest.approx(end)
    values = panel.queue.labels.values
    assert layer.data[0, 0] == values.index("middle" if 0.1 < shares[0, 0] <= 0.5 else _value(shares)) + 1
    assert panel.table.rowCount() == 3
    studio.until(lambda: studio.dock.header.next_button.text() == "Estimate blocks ...")
    studio.dock.show_tab("paint")
    assert not layer.visible
    assert studio.errors() == []


def _value(shares):
    return ("low", "middle", "high")[int(shares[0, 0] > 0.1) + int(shares[0, 0] > 0.5)]


def test_keys_and_drags_fill_the_table_and_every_estimate_is_on_disk(blocks):
    studio, artifact, _ = blocks
    panel, calibration = studio.dock.blocks, studio.dock.blocks.calibration
    studio.key("E")
    assert panel.estimating
    first = calibration.block
    view = block_view_of(studio.session)
    assert np.ptp(view.frame.data[0], axis=0)[-2:] == pytest.approx((BLOCK_UM, BLOCK_UM))
    assert view.frame.data[0].min(axis=0)[-2:] == pytest.approx(
        (first.row * BLOCK_UM, first.column * BLOCK_UM)
    )
    assert not view.blocks.visible, "colors over the tissue would sway the eye"
    studio.dock.show_tab("paint")
    studio.dock.show_tab("blocks")
    assert view.frame.visible
    assert not view.blocks.visible, "coming back from another tab changes nothing"
    said = lambda: Calibration(studio.session.project, artifact).estimates()  # noqa: E731
    studio.key("3")
    assert said()[first.row, first.column].shares == pytest.approx({"disc": 0.3, "ground": 0.7})
    second = calibration.block
    assert second != first
    drag(studio, calibration.sliders[0], 80)
    assert said()[second.row, second.column].shares["disc"] == pytest.approx(0.8, abs=0.04)
    third = calibration.block
    studio.key("F")
    assert said()[third.row, third.column].shares["disc"] == 1.0
    studio.key("Backspace")
    assert calibration.block == third
    assert "said before" in calibration.words.text()
    studio.key("Delete")
    assert (third.row, third.column) not in said()
    studio.key("N")
    assert calibration.block not in (first, second, third)
    row = panel.queue.labels.values.index(first.label)
    assert panel.table.item(row, 1).text().startswith("2 of")
    assert panel.table.item(row, 2).text().startswith("disc 5")
    # The window goes without a word; another one finds everything.
    studio.session.close_project()
    studio.open(artifact.path.parents[1])
    studio.dock.show_tab("blocks")
    studio.let_qt_work()
    assert len(said()) == 2
    assert panel.table.item(row, 1).text().startswith("2 of")
    assert not panel.estimating
    assert studio.errors() == []


def test_a_value_says_when_it_has_enough_and_a_click_goes_to_another(blocks):
    studio, _, shares = blocks
    panel, calibration = studio.dock.blocks, studio.dock.blocks.calibration
    studio.key("E")
    label = calibration.block.label
    count = 0
    while calibration.block is not None and calibration.block.label == label and count < 20:
        place = calibration.block.row, calibration.block.column
        studio.key(str(min(9, round(10 * shares[place]))))
        count += 1
    row = panel.queue.labels.values.index(label)
    assert "✓" in panel.table.item(row, 1).text()
    assert any("has enough" in text for _, text in studio.told)
    last = panel.table.rowCount() - 1
    box = panel.table.visualItemRect(panel.table.item(last, 0))
    QTest.mouseClick(
        panel.table.viewport(), Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier, box.center()
    )
    studio.let_qt_work()
    assert calibration.block.label == panel.queue.labels.values[last]
    studio.key("E")
    assert not panel.estimating
    assert not panel.train_button.isEnabled()


@pytest.mark.timeout(200)
def test_training_sharpens_the_blocks_and_the_result_lies_beside_them(blocks):
    studio, _, shares = blocks
    panel, session = studio.dock.blocks, studio.session
    queue = panel.queue
    for z, value in enumerate(queue.labels.values):
        for block in [b for b in queue.blocks if b.label == value][: 3 + z]:
            share = float(shares[block.row, block.column])
            queue.keep(block, [share, 1 - share])
    panel._on_classes()
    quick = {
        "steps": 4, "validate_every": 2, "width": 4, "depth": 1, "block_px": SIDE, "context_px": 2,
        "groups": 2, "per_group": 3, "threads": 1,
    }  # fmt: skip
    panel.training.set_values(quick)
    studio.until(lambda: panel.train_button.isEnabled())
    studio.key("Ctrl+Return")
    studio.until(lambda: session.project.artifacts("heatmap") and not session.jobs.active(), 150)
    net = session.project.artifacts("segmenter")[-1]
    assert CalibrationTable.load(net.path / "calibration.json").blocks.tolist() == [3, 4, 5]
    view = block_view_of(session)
    studio.until(lambda: view.mask is not None and view.mask.visible)
    percent = np.asarray(session.slide_view.map.levels[0][:])
    np.testing.assert_array_equal(view.mask.data, percent.argmax(axis=0) + 1)
    assert view.mask.data_to_world((-0.5, -0.5)) == pytest.approx((0, 0))
    studio.key("S")
    width = 10 * SIDE * MPP
    assert view.second.visible
    for layer in (view.mask, session.slide_view.heat):
        assert layer.data_to_world((-0.5, -0.5))[1] > width, "beside the slide, not over it"
    assert view.blocks.data_to_world((-0.5, -0.5))[1] == pytest.approx(0)
    studio.key("M")
    assert not view.mask.visible
    studio.key("B")
    assert not view.blocks.visible
    studio.dock.show_tab("slides")
    assert session.slide_view.heat.data_to_world((-0.5, -0.5)) == pytest.approx((0, 0))
    assert not view.second.visible
    assert session.jobs.newest("train_super_resolution").metrics["loss"]
    assert studio.errors() == [text for text in studio.errors() if "fewer than" in text]


def test_classes_are_named_where_none_are(studio, tmp_path):
    project, _, _ = block_project(tmp_path)
    Project.open(project.root).set_classes(ClassTable())
    studio.open(project.root)
    studio.dock.show_tab("blocks")
    studio.activate()
    panel = studio.dock.blocks
    assert not panel.estimate_button.isEnabled()
    panel.class_names.setFocus()
    QTest.keyClicks(panel.class_names, "tumor, other")
    QTest.keyClick(panel.class_names, Qt.Key.Key_Return)
    studio.let_qt_work()
    assert studio.session.project.classes.names == ("tumor", "other")
    assert panel.estimate_button.isEnabled()
    studio.dock.show_tab("samples")
