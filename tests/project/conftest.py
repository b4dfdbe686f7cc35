"""A project in a temporary folder, with two classes."""

from __future__ import annotations

from pathlib import Path

import pytest

from napari_histogan.labels.classes import ClassTable
from napari_histogan.project.store import Project


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project.create(tmp_path / "kidney", classes=ClassTable.from_names(["glomerulus", "tubule"]))
