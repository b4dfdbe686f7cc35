"""Labels of slides are kept whole, refused when they make no sense, and travel with a backup."""

import pytest

from napari_histogan.errors import LabelError, ProjectLocked
from napari_histogan.geometry import Size
from napari_histogan.project.backup import back_up, restore
from napari_histogan.project.slide_labels import (
    has_both,
    set_slide_labels,
    slide_labels,
    slide_labels_hash,
    slide_labels_path,
)
from napari_histogan.project.slide_list import SlideEntry
from napari_histogan.project.store import Project


@pytest.fixture
def project(tmp_path):
    project = Project.create(tmp_path / "p")
    names = ("one", "two, or so", "three")
    project.add_slide_entries([SlideEntry(n, tmp_path / n, 0.5, Size(10, 10)) for n in names])
    return project


def test_labels_are_kept_changed_and_taken_back(project):
    assert set(slide_labels(project).values()) == {"unknown"}
    assert slide_labels_hash(project) is None
    set_slide_labels(project, {"one": "benign", "two, or so": "malign"})
    assert has_both(slide_labels(Project.open(project.root)))
    assert slide_labels_path(project).read_text() == 'slide,label\none,benign\n"two, or so",malign\n'
    before = slide_labels_hash(project)
    set_slide_labels(project, {"one": "unknown"})
    assert slide_labels(project) == {"one": "unknown", "two, or so": "malign", "three": "unknown"}
    assert not has_both(slide_labels(project))
    assert slide_labels_hash(project) != before


def test_nonsense_is_refused_and_changes_nothing(project):
    set_slide_labels(project, {"one": "benign"})
    before = slide_labels_path(project).read_bytes()
    with pytest.raises(LabelError, match="no slide 'four'"):
        set_slide_labels(project, {"one": "malign", "four": "malign"})
    with pytest.raises(LabelError, match="'cancer'"):
        set_slide_labels(project, {"one": "cancer"})
    with pytest.raises(ProjectLocked):
        set_slide_labels(Project.open(project.root, read_only=True), {"one": "malign"})
    assert slide_labels_path(project).read_bytes() == before


def test_a_backup_carries_them(project, tmp_path):
    set_slide_labels(project, {"three": "malign"})
    back_up(project, tmp_path / "b.zip")
    found = restore(tmp_path / "b.zip", tmp_path / "again").project
    assert slide_labels(found)["three"] == "malign"
