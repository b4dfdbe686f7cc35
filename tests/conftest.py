"""What all tests share: quiet threads, private napari settings, and where real data may lie."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from pathlib import Path

import hypothesis
import pytest

# How long an example takes says how busy the machine is, not whether the program is right.
hypothesis.settings.register_profile("patient", deadline=None)
hypothesis.settings.load_profile("patient")

_SETTINGS = tempfile.mkdtemp(prefix="histogan-napari-")
atexit.register(shutil.rmtree, _SETTINGS, ignore_errors=True)
os.environ["NAPARI_CONFIG"] = str(Path(_SETTINGS) / "settings.yaml")
os.environ.setdefault("OMP_NUM_THREADS", "1" if "PYTEST_XDIST_WORKER" in os.environ else "2")

DEMO_DATA = Path(__file__).parents[1] / "napari_histogan" / "demo_data"


@pytest.fixture(scope="session")
def demo_slide() -> Path:
    """The slide that ships: skin, 2220 x 2967 px, 0.499 um/px (CC0)."""
    return DEMO_DATA / "CMU-1-Small-Region.svs"


@pytest.fixture(scope="session")
def shared() -> Path:
    """Real data and reference numbers that do not ship; tests that need them skip without."""
    folder = Path(__file__).parents[1].parent / "shared"
    if not folder.is_dir():
        pytest.skip("the data folder 'shared' does not lie beside this checkout")
    return folder


@pytest.fixture(scope="session")
def tiny_project(tmp_path_factory, demo_slide):
    """A project with every stage done on a random 32 px generator; tests must not change it."""
    from tiny_project import make_tiny_project

    return make_tiny_project(tmp_path_factory.mktemp("tiny") / "project", demo_slide)


@pytest.fixture
def tiny_project_copy(tiny_project, tmp_path):
    """A copy of the tiny project that a test may change."""
    from napari_histogan.project.store import Project

    root = tmp_path / "project"
    shutil.copytree(tiny_project.root, root)
    return Project.open(root)


@pytest.fixture(scope="session")
def painted_project(tmp_path_factory, demo_slide):
    """A project up to three painted samples of a random 32 px generator; tests must not change it."""
    from tiny_project import make_painted_project

    return make_painted_project(tmp_path_factory.mktemp("painted") / "project", demo_slide)


@pytest.fixture
def painted_project_copy(painted_project, tmp_path):
    """A copy of the painted project that a test may change."""
    from napari_histogan.project.store import Project

    root = tmp_path / "painted"
    shutil.copytree(painted_project.root, root)
    return Project.open(root)


@pytest.fixture(scope="module")
def cluster():
    """Two workers of a dask scheduler on this machine."""
    distributed = pytest.importorskip("distributed", reason="distributed is in the extra [scale]")
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, host="127.0.0.1", dashboard_address=None
    ) as found:
        yield found
