"""A run keeps the inputs that it began with."""

from __future__ import annotations

import pytest

from napari_histogan.config import AddSlidesConfig
from napari_histogan.errors import ArtifactMissing
from napari_histogan.progress import QuietReporter
from napari_histogan.project.inputs import keep_inputs
from napari_histogan.project.store import Project


@pytest.fixture
def filled(tmp_path):
    """A project with one artifact, and a function that adds one."""
    project = Project.create(tmp_path / "project")

    def add():
        reporter = QuietReporter(tmp_path / f"scratch-{len(project.artifacts())}")
        with project.new_artifact("slides", AddSlidesConfig(), reporter) as draft:
            (draft.path / "names.txt").write_text(str(draft.number))
        return draft.result

    add()
    return project, add


def newest(project):
    return lambda: [project.artifact("", "slides")]


def test_a_resumed_run_keeps_what_was_newest_at_its_beginning(filled, tmp_path):
    project, add = filled
    first = keep_inputs(project, tmp_path, "slides", newest(project))
    add()
    assert keep_inputs(project, tmp_path, "slides", newest(project)) == first
    other = tmp_path / "other-run"
    other.mkdir()
    assert keep_inputs(project, other, "slides", newest(project)) != first


def test_each_input_is_kept_under_its_own_name(filled, tmp_path):
    project, add = filled
    one = keep_inputs(project, tmp_path, "one", newest(project))
    add()
    two = keep_inputs(project, tmp_path, "two", newest(project))
    assert one != two
    assert keep_inputs(project, tmp_path, "one", newest(project)) == one


def test_an_input_that_is_gone_is_said(filled, tmp_path):
    project, add = filled
    (kept,) = keep_inputs(project, tmp_path, "slides", newest(project))
    add()
    kept.path.rename(tmp_path / "elsewhere")
    with pytest.raises(ArtifactMissing, match="slides/0001"):
        keep_inputs(project, tmp_path, "slides", newest(project))
