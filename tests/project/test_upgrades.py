"""Older layouts are upgraded step by step; nothing that a person wrote is lost."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from napari_histogan.errors import ProjectTooNew
from napari_histogan.project.store import Project
from napari_histogan.project.upgrades import SCHEMA, UPGRADES, upgraded

OLD = """
name = "first trial"
version = "0.0.3"
mpp = 0.5
classes = ["glomerulus", "tubule"]
note = "kept"
"""


@pytest.fixture
def old(tmp_path: Path) -> Path:
    (tmp_path / "project.toml").write_text(OLD)
    return tmp_path


def test_there_is_a_step_from_every_older_schema() -> None:
    assert sorted(UPGRADES) == list(range(SCHEMA))
    for schema, step in UPGRADES.items():
        assert step.__name__ == f"upgrade_{schema}_to_{schema + 1}"


def test_a_project_of_schema_0_opens_with_its_classes(old: Path) -> None:
    project = Project.open(old)
    assert project.name == "first trial"
    assert project.default_mpp == 0.5
    assert [(c.index, c.name, c.key) for c in project.classes] == [(1, "glomerulus", "1"), (2, "tubule", "2")]


def test_the_upgrade_is_written_once_and_the_old_file_is_kept(old: Path) -> None:
    Project.open(old)
    document = tomllib.loads((old / "project.toml").read_text())
    assert document["schema"] == SCHEMA
    assert document["program_version"] == "0.0.3"
    assert document["note"] == "kept"
    assert (old / "project.toml.schema-0").read_text() == OLD
    written = (old / "project.toml").stat().st_mtime_ns
    Project.open(old)
    assert (old / "project.toml").stat().st_mtime_ns == written


def test_reading_only_upgrades_in_memory(old: Path) -> None:
    assert Project.open(old, read_only=True).classes.num_classes == 2
    assert (old / "project.toml").read_text() == OLD


def test_a_document_of_the_present_schema_is_left_as_it_is(tmp_path: Path) -> None:
    document = {"schema": SCHEMA, "classes": [], "anything": [1, 2]}
    assert upgraded(document, tmp_path) == document
    with pytest.raises(ProjectTooNew):
        upgraded({"schema": SCHEMA + 1}, tmp_path)
