"""A project folder: making, opening, damaging, and finding what is in it."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
import tomli_w

from napari_histogan.config import (
    ImportGanConfig,
    SampleImagesConfig,
    TrainGanConfig,
    TrainPixelClassifierConfig,
    TrainSegmenterConfig,
)
from napari_histogan.errors import (
    ArtifactMissing,
    LabelError,
    ProjectDamaged,
    ProjectError,
    ProjectLocked,
    ProjectNotFound,
    ProjectTooNew,
    SlideNotFound,
)
from napari_histogan.geometry import Size
from napari_histogan.labels.classes import ClassTable
from napari_histogan.progress import QuietReporter
from napari_histogan.project.artifacts import Artifact
from napari_histogan.project.slide_list import SlideEntry
from napari_histogan.project.store import Project
from napari_histogan.slides.reader import open_slide


def make(project: Project, kind: str, config, content: str = "x", parents=()) -> Artifact:
    with project.new_artifact(kind, config, QuietReporter(), parents) as draft:
        (draft.path / "data.txt").write_text(content)
    return draft.result


def edit(root: Path, **values) -> None:
    path = root / "project.toml"
    path.write_text(tomli_w.dumps({**tomllib.loads(path.read_text()), **values}))


def test_what_was_made_is_there_when_opened_again(project: Project) -> None:
    again = Project.open(project.root)
    assert again.name == "kidney"
    assert again.classes == project.classes
    assert again.slides() == []
    assert again.artifacts() == []


def test_a_folder_that_holds_anything_is_left_alone(tmp_path: Path, project: Project) -> None:
    (tmp_path / "holiday.jpg").write_text("x")
    with pytest.raises(ProjectError, match="not an empty folder"):
        Project.create(tmp_path)
    with pytest.raises(ProjectError, match="holds a project already"):
        Project.create(project.root)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["holiday.jpg", "kidney"]


def test_a_project_whose_making_was_killed_can_be_made_again(tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    begun.mkdir()
    (begun / "slides.json").write_text("[]\n")
    (begun / ".project.toml.tmp-4194303-0a1b2c3d").write_text("half")
    assert Project.create(begun).slides() == []
    lost = tmp_path / "lost"
    lost.mkdir()
    (lost / "slides.json").write_text('[{"name": "a"}]\n')
    with pytest.raises(ProjectError, match="not an empty folder"):
        Project.create(lost)


def test_a_folder_without_a_project_is_named(tmp_path: Path) -> None:
    with pytest.raises(ProjectNotFound, match="histogan new"):
        Project.open(tmp_path)
    with pytest.raises(FileNotFoundError):
        Project.open(tmp_path / "nowhere")


def test_a_newer_project_is_refused_and_not_touched(project: Project) -> None:
    edit(project.root, schema=99, program_version="7.0")
    before = (project.root / "project.toml").read_bytes()
    with pytest.raises(ProjectTooNew, match=r"schema 99.*7\.0.*schema 1.*pip install --upgrade"):
        Project.open(project.root)
    assert (project.root / "project.toml").read_bytes() == before


@pytest.mark.parametrize("text", ["schema = ", "schema = 'one'", "schema = -1", "schema = true"])
def test_a_damaged_document_is_named(project: Project, text: str) -> None:
    (project.root / "project.toml").write_text(text)
    with pytest.raises(ProjectDamaged):
        Project.open(project.root)


def test_classes_that_make_no_sense_are_damage(project: Project) -> None:
    edit(project.root, classes=[{"index": 4, "name": "a"}])
    with pytest.raises(ProjectDamaged, match="without gaps"):
        Project.open(project.root)


def test_keys_that_this_version_does_not_know_survive(project: Project) -> None:
    edit(project.root, hospital="north", viewer={"zoom": 3})
    opened = Project.open(project.root)
    opened.set_classes(ClassTable.from_names(["a", "b", "c"]))
    document = tomllib.loads((project.root / "project.toml").read_text())
    assert document["hospital"] == "north"
    assert document["viewer"] == {"zoom": 3}
    assert [row["name"] for row in document["classes"]] == ["a", "b", "c"]
    assert opened.classes.names == ("a", "b", "c")


def test_another_process_sees_new_classes_after_a_reload(project: Project) -> None:
    other = Project.open(project.root)
    project.set_classes(ClassTable.from_names(["a", "b", "c"]))
    other.reload()
    assert other.classes == project.classes


def test_a_class_that_is_painted_cannot_vanish(project: Project) -> None:
    samples = make(project, "samples", SampleImagesConfig())
    project.save_mask(samples, 0, np.full((8, 8), 2, np.uint8))
    with pytest.raises(LabelError, match="class 2 is painted"):
        project.set_classes(ClassTable.from_names(["only"]))
    assert Project.open(project.root).classes.num_classes == 2


def test_read_only_projects_refuse_every_write(project: Project) -> None:
    reader = Project.open(project.root, read_only=True)
    before = sorted(project.root.rglob("*"))
    for write in (
        lambda: reader.set_classes(ClassTable()),
        lambda: reader.add_slide_entries([]),
        lambda: reader.new_run(TrainGanConfig()),
        lambda: reader.save_mask("samples/0001", 0, np.zeros((4, 4), np.uint8)),
        lambda: make(reader, "samples", SampleImagesConfig()),
    ):
        with pytest.raises(ProjectLocked, match="read-only"):
            write()
    assert sorted(project.root.rglob("*")) == before


# Slides


def test_slides_keep_their_order_and_are_replaced_by_name(project: Project, demo_slide: Path) -> None:
    with open_slide(demo_slide) as slide:
        fingerprint = slide.fingerprint()
    a, b = (SlideEntry(n, demo_slide, 0.5, Size(10, 20), fingerprint) for n in "ab")
    project.add_slide_entries([a, b])
    project.add_slide_entries([SlideEntry("a", demo_slide, 0.25, Size(10, 20))])
    assert [(s.name, s.mpp) for s in Project.open(project.root).slides()] == [("a", 0.25), ("b", 0.5)]
    assert project.slide("b").fingerprint == fingerprint
    assert project.slide().name == "a"
    with pytest.raises(SlideNotFound, match="one of a, b"):
        project.slide("c")


def test_a_project_without_slides_says_how_to_add_some(project: Project) -> None:
    with pytest.raises(SlideNotFound, match="add-slides"):
        project.slide()


def test_slides_are_found_when_project_and_slides_move_together(tmp_path: Path) -> None:
    study = tmp_path / "study"
    project = Project.create(study / "project")
    (study / "s.tif").write_text("pixels")
    project.add_slide_entries([SlideEntry("s", study / "s.tif", 0.5, Size(1, 1))])
    study.rename(tmp_path / "moved")
    assert Project.open(tmp_path / "moved" / "project").slide().path == tmp_path / "moved" / "s.tif"


def test_a_damaged_slide_list_is_named(project: Project) -> None:
    for text in ("[{}]", "{", '[{"name": "a", "path": "p", "mpp": "?", "height": 1, "width": 1}]'):
        (project.root / "slides.json").write_text(text)
        with pytest.raises(ProjectDamaged, match=r"slides\.json"):
            project.slides()


# Finding results


def test_references_name_artifacts(project: Project) -> None:
    first = make(project, "generator", TrainGanConfig(), "1")
    samples = make(project, "samples", SampleImagesConfig())
    second = make(project, "generator", ImportGanConfig(), "2")
    assert [a.id for a in project.artifacts()] == ["generators/0001", "samples/0002", "generators/0003"]
    assert project.artifact("", "generator") == second
    for reference in ("1", "0001", "generators/0001", " generators/0001/"):
        assert project.artifact(reference, "generator") == first
    assert project.find("2") == samples
    assert project.find("generator/3") == second
    assert project.find("") == second
    for wrong in ("2", "samples/0001", "9", "newest"):
        with pytest.raises(ArtifactMissing, match="generators/0001, generators/0003"):
            project.artifact(wrong, "generator")


def test_a_missing_artifact_names_the_stage_that_makes_it(project: Project) -> None:
    with pytest.raises(ArtifactMissing, match="histogan train-gan or histogan import-gan first"):
        project.artifact("", "generator")
    with pytest.raises(ArtifactMissing, match="no kind"):
        project.artifacts("unicorn")


def test_the_family_tells_what_was_changed_or_lost(project: Project) -> None:
    generator = make(project, "generator", TrainGanConfig())
    samples = make(project, "samples", SampleImagesConfig(), parents=[generator])
    project.save_mask(samples, 0, np.ones((4, 4), np.uint8))
    parents = [samples, project.masks_parent(samples)]
    classifier = make(project, "pixel_classifier", TrainPixelClassifierConfig(), parents=parents)
    assert project.family(classifier).lines() == [
        "pixel_classifiers/0003 (train_pixel_classifier)",
        "  samples/0002 (sample_images)",
        "    generators/0001 (train_gan)",
        "  masks/0002",
    ]
    project.save_mask(samples, 1, np.ones((4, 4), np.uint8))
    generator.path.rename(project.root / "elsewhere")
    lines = project.family(classifier).lines()
    assert lines[2] == "    generators/0001  [missing]"
    assert lines[3] == "  masks/0002  [changed since]"


def test_what_is_behind_follows_the_flow(project: Project) -> None:
    generator = make(project, "generator", TrainGanConfig())
    samples = make(project, "samples", SampleImagesConfig(), parents=[generator])
    project.save_mask(samples, 0, np.ones((4, 4), np.uint8))
    parents = [samples, project.masks_parent(samples)]
    make(project, "pixel_classifier", TrainPixelClassifierConfig(), parents=parents)
    assert project.stale() == []
    project.save_mask(samples, 0, np.full((4, 4), 2, np.uint8))
    assert [(s.artifact.id, s.reason) for s in project.stale()] == [
        ("pixel_classifiers/0003", "masks/0002 was painted on since")
    ]
    project.save_mask(samples, 0, np.ones((4, 4), np.uint8))
    assert project.stale() == []
    make(project, "generator", TrainGanConfig())
    assert [(s.artifact.id, s.reason) for s in project.stale()] == [
        ("samples/0002", "generators/0004 is newer than generators/0001"),
        ("pixel_classifiers/0003", "samples/0002, from which it was made, is out of date too"),
    ]


def test_what_was_made_from_its_own_kind_is_not_behind_itself(project: Project) -> None:
    first = make(project, "segmenter", TrainSegmenterConfig())
    make(project, "segmenter", TrainSegmenterConfig(init=first.id), parents=[first])
    assert project.stale() == []


def test_opening_a_project_loads_neither_torch_nor_qt() -> None:
    code = (
        "import sys, napari_histogan.project.store, napari_histogan.jobs.runner, napari_histogan.cli;"
        "sys.exit(any(m.split('.')[0] in ('torch', 'napari', 'qtpy', 'PyQt6') for m in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
