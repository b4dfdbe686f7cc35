"""From paint to a net by one button; failures are told with the log."""

import pytest
from qtpy.QtCore import Qt
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication

from napari_histogan.config import SynthesizeDatasetConfig, TrainSegmenterConfig
from napari_histogan.jobs.runner import start_job
from napari_histogan.widgets.train_panel import TRAIN_CHAIN

pytestmark = pytest.mark.gui


@pytest.mark.timeout(200)
def test_one_button_runs_the_three_steps_and_draws_their_curves(opened):
    session, panel = opened.session, opened.dock.train
    before = {
        kind: len(session.project.artifacts(kind)) for kind in ("pixel_classifier", "dataset", "segmenter")
    }
    opened.dock.show_tab("train")
    panel.train_button.click()
    assert session.waiting_stages == list(TRAIN_CHAIN[1:])
    opened.until(lambda: not session.waiting_stages and not session.jobs.active(), 150)
    for kind, count in before.items():
        assert len(session.project.artifacts(kind)) == count + 1
    newest = session.project.artifacts("segmenter")[-1]
    assert newest.config["steps"] == 4, "settings are those of the last run"
    assert panel.jobs.record.status.stage == "train_segmenter"
    assert panel.jobs.record.metrics["loss"]
    assert panel.jobs.bar.value() == 1000
    opened.until(lambda: opened.dock.header.next_button.text() == "Run on slide again")
    assert opened.errors() == []


@pytest.mark.timeout(120)
def test_failed_job_is_told_with_a_report_to_copy(opened):
    session, panel = opened.session, opened.dock.train
    session.run(TrainSegmenterConfig(sources=("99",)))
    opened.until(lambda: not session.jobs.active(), 60)
    opened.dock.show_tab("train")
    opened.let_qt_work()
    assert any("99" in text for text in opened.errors())
    assert panel.jobs.report.isVisible()
    panel.jobs.copy_button.click()
    text = QApplication.clipboard().text()
    assert "Train segmentation net" in text
    assert "99" in text
    assert "log.txt" in text
    assert panel.jobs.resume_button.isVisible()


@pytest.mark.timeout(120)
def test_job_started_elsewhere_is_found_stopped_and_resumed(opened):
    session, panel = opened.session, opened.dock.train
    opened.dock.show_tab("train")
    job = start_job(session.project.root, SynthesizeDatasetConfig(count=60_000, batch=16, shard=64))
    opened.until(lambda: job.number in session.jobs.records, 30)
    record = lambda: session.jobs.records[job.number]  # noqa: E731 - the record is replaced when it resumes
    opened.until(lambda: record().progress and record().status.state == "running", 60)
    assert panel.jobs.record.number == job.number
    opened.until(lambda: panel.jobs.stop_button.isVisible())
    panel.jobs.stop_button.click()
    opened.until(lambda: record().status.state == "stopped", 60)
    opened.until(lambda: panel.jobs.resume_button.isVisible())
    panel.jobs.resume_button.click()
    opened.until(lambda: record().status.state == "running", 60)
    session.jobs.stop(job.number)
    opened.until(lambda: record().status.state == "stopped", 60)


def test_form_refuses_values_out_of_range_before_anything_starts(opened):
    panel = opened.dock.train
    panel.show_step("train_segmenter")
    form = panel.form("train_segmenter")
    form.editor("learning_rate").set_value("quick")
    runs = len(opened.session.project.runs())
    panel.start_button.click()
    assert "learning_rate" in opened.errors()[-1]
    assert len(opened.session.project.runs()) == runs


def test_where_steps_run_is_one_box_that_the_project_remembers(opened):
    panel, project = opened.dock.train, opened.session.project
    opened.dock.show_tab("train")
    panel.single_steps.expand(animate=False)
    assert panel.launcher.currentText() == "local"
    line = panel.launcher.lineEdit()
    for text, kept in (("ssh gpu1", "ssh gpu1"), ("cloud", "ssh gpu1"), ("local", "local")):
        line.selectAll()
        QTest.keyClicks(line, text)
        QTest.keyClick(line, Qt.Key.Key_Return)
        opened.let_qt_work()
        assert panel.launcher.currentText() == kept
        assert type(project).open(project.root).launcher == kept
    assert "the launcher 'cloud' is not known" in opened.errors()[-1]
