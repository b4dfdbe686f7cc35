"""A project, and stages that run for real in child processes but count instead of learning."""

from __future__ import annotations

from pathlib import Path

import pytest

from napari_histogan.project.store import Project

STAGES = f"{Path(__file__).parent / 'counting_stages.py'}:STAGES"


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project.create(tmp_path / "kidney")


@pytest.fixture
def stages() -> str:
    """Argument of the worker that names the counting stages."""
    return STAGES
