"""The guide of the first run: it ticks what people really did, and remembers it with the project."""

from __future__ import annotations

import pytest
from qtpy.QtCore import Qt
from qtpy.QtTest import QTest

from napari_histogan.project.store import Project
from napari_histogan.widgets.guide import STEPS

pytestmark = pytest.mark.gui


@pytest.fixture
def guided(opened):
    opened.activate()
    opened.key("Alt+G")
    opened.until(opened.dock.guide.isVisible)
    return opened


def step_of(studio) -> str:
    step = studio.dock.guide.step
    return step.name if step is not None else ""


@pytest.mark.timeout(240)
def test_each_step_is_ticked_when_it_is_done(guided):
    guide, session = guided.dock.guide, guided.session
    assert "Step 1 of 5" in guide.words.text()
    QTest.mouseClick(guide.show_button, Qt.MouseButton.LeftButton)
    assert guided.dock.tabs.currentIndex() == 0
    session.open_sample(7)
    assert step_of(guided) == "paint"
    guided.key("1")
    guided.stroke(session.painting.mask, [(6, 4), (6, 26)])
    assert step_of(guided) == "paint"  # two classes are wanted
    guided.key("2")
    guided.stroke(session.painting.mask, [(22, 4), (22, 26)])
    guided.until(lambda: step_of(guided) == "map", 60)  # the prediction came by itself
    assert guide.ticks.text().count("✓") == 3
    guided.key("Alt+9")
    assert guided.dock.tabs.currentIndex() == 3
    guided.until(lambda: step_of(guided) == "correct")
    guided.key("Alt+9")
    assert guided.dock.tabs.currentIndex() == 4
    guided.key("C")
    assert session.correcting.active, guided.told
    guided.key("Return")
    assert step_of(guided) == ""
    assert "whole way" in guide.words.text()
    assert not guide.show_button.isEnabled()


def test_it_is_hidden_by_key_and_remembers_where_it_was(guided):
    guided.session.open_sample(3)
    root = guided.session.project.root
    guided.open(root)
    assert guided.dock.guide.isVisible()
    assert step_of(guided) == "paint"
    guided.activate()
    guided.key("Alt+G")
    guided.until(lambda: not guided.dock.guide.isVisible())
    assert not guided.dock.header.guide_button.isChecked()
    guided.open(root)
    assert not guided.dock.guide.isVisible()


def test_the_demo_begins_with_it_and_other_projects_do_not(studio, tmp_path):
    studio.open(Project.create(tmp_path / "demo", "HistoGAN demo").root)
    assert studio.dock.guide.isVisible()
    studio.open(Project.create(tmp_path / "other", "Kidney").root)
    assert not studio.dock.guide.isVisible()


def test_every_step_has_a_target_in_its_tab(opened):
    for step in STEPS:
        opened.dock.show_tab(step.tab)
        target = opened.dock.guide._targets[step.name]()
        assert target is not None, step.name
