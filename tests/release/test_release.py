"""What a stranger gets: the wheel's contents, one version, a valid manifest, and files that hosts read."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

import napari_histogan

ROOT = Path(__file__).parents[2]
MOST_BYTES = 20 * 2**20
PAPERS = 5


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel as it would be published."""
    folder = tmp_path_factory.mktemp("wheel")
    build = f"from hatchling.build import build_wheel; build_wheel({str(folder)!r})"
    subprocess.run([sys.executable, "-c", build], cwd=ROOT, check=True, capture_output=True)
    return next(folder.glob("*.whl"))


def test_the_wheel_holds_what_users_need_and_nothing_else(wheel):
    assert wheel.stat().st_size < MOST_BYTES
    assert wheel.name.startswith(f"napari_histogan-{napari_histogan.__version__}-py3-none-any")
    with zipfile.ZipFile(wheel) as bundle:
        names = set(bundle.namelist())
        metadata = bundle.read(next(n for n in names if n.endswith("METADATA"))).decode()
        scripts = bundle.read(next(n for n in names if n.endswith("entry_points.txt"))).decode()
    assert {n.partition("/")[0].partition("-")[0] for n in names} == {"napari_histogan"}
    data = {n.removeprefix("napari_histogan/demo_data/") for n in names if "/demo_data/" in n}
    assert {"CMU-1-Small-Region.svs", "generator/generator.safetensors", "reference.geojson"} < data
    assert sum(n.startswith("painted/") and n.endswith(".png") for n in data) == 24
    assert {"napari_histogan/napari.yaml", "napari_histogan/py.typed"} < names
    assert not [n for n in names if "test" in n.lower() or n.endswith((".pyc", ".zip"))]
    assert any(n.endswith("licenses/LICENSE") for n in names)
    assert "Classifier: Framework :: napari" in metadata
    assert links_beside(metadata.partition("\n\n")[2]) == []
    assert "histogan = napari_histogan.cli:main" in scripts
    assert "napari-histogan = napari_histogan:napari.yaml" in scripts


def links_beside(text):
    """Links and pictures that an index cannot follow, for they name files without an address."""
    return [target for target in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in target]


def test_an_index_shows_no_dead_links_with_or_without_an_address():
    sys.path.insert(0, str(ROOT / "scripts"))
    from package_readme import for_an_index

    text = (ROOT / "README.md").read_text(encoding="utf-8")
    files = {target.partition("#")[0] for target in links_beside(text)}
    named, linked = (
        for_an_index(text, None, "1.2.3"),
        for_an_index(text, "https://host.example/us/here/", "1.2.3"),
    )
    assert links_beside(named) == links_beside(linked) == []
    for file in files:
        assert f"`{file}`" in named or f"`{file}/`" in named, file
        kind = "raw" if file.endswith(".png") else "blob"
        assert f"https://host.example/us/here/{kind}/v1.2.3/{file}" in linked
    assert "<!--" not in named + linked
    commands = re.findall(r"^```sh\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert commands
    assert all(block in named and block in linked for block in commands)


def test_modules_of_the_checkout_are_all_in_the_wheel(wheel):
    with zipfile.ZipFile(wheel) as bundle:
        packed = {n for n in bundle.namelist() if n.endswith(".py")}
    tracked = subprocess.run(
        ["git", "ls-files", "napari_histogan/*.py"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if tracked.returncode:
        pytest.skip("this is no checkout")
    assert set(tracked.stdout.split()) <= packed


def test_the_version_stands_in_one_place():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert "version" in project["dynamic"]
    command = [sys.executable, "-m", "napari_histogan", "--version"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    assert said == f"histogan {napari_histogan.__version__}"
    assert f"## {napari_histogan.__version__}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert not re.search(r"^version:", (ROOT / "CITATION.cff").read_text(encoding="utf-8"), re.MULTILINE)


def test_lowest_versions_are_those_that_pip_would_allow():
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts/lowest_versions.py")], capture_output=True, text=True, check=True
    )
    pins = [Requirement(line) for line in done.stdout.splitlines()]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = {name: Requirement(one) for one in project["dependencies"] if (name := Requirement(one).name)}
    assert set(wanted) <= {pin.name for pin in pins}
    for pin in pins:
        (lowest,) = pin.specifier
        version = lowest.version.removesuffix(".*")
        allowed = wanted.get(pin.name, Requirement(f"{pin.name}>={version}")).specifier
        assert allowed.contains(version)
        assert not allowed.contains(f"{int(version.partition('.')[0]) - 1}.999")


def test_napari_accepts_the_manifest():
    manifest = ROOT / "napari_histogan" / "napari.yaml"
    command = [sys.executable, "-m", "npe2", "validate", str(manifest)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_files_that_hosts_read_are_whole():
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8"))
    matrix = workflow["jobs"]["test"]["strategy"]["matrix"]
    assert {os.partition("-")[0] for os in matrix["os"]} == {"ubuntu", "macos", "windows"}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    named = {c.rpartition(" ")[2] for c in project["classifiers"] if "Python :: 3." in c}
    assert set(matrix["python"]) == named
    linted = {step.get("run") for step in workflow["jobs"]["lint-and-docs"]["steps"]}
    assert {"make lint", "make docs"} <= linted
    for path in (ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml"):
        form = yaml.safe_load(path.read_text(encoding="utf-8"))
        assert {"name", "description", "body"} <= set(form), path.name
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert len(citation["references"]) == PAPERS
    assert all(paper["title"] and paper["authors"] for paper in citation["references"])


def test_every_stage_and_page_keeps_its_marks():
    command = [sys.executable, str(ROOT / "scripts/check_docs.py"), "--no-commands"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
