"""A result is in the project whole or not at all, and tells when it was changed."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_histogan import __version__
from napari_histogan.config import STAGES, SampleImagesConfig, TrainGanConfig
from napari_histogan.errors import ProjectDamaged, ProjectError, Stopped, StorageError
from napari_histogan.progress import QuietReporter
from napari_histogan.project.artifacts import (
    KINDS,
    Parent,
    content_hash,
    hash_files,
    read_artifact,
    stages_making,
    verify_all,
    verify_artifact,
)
from napari_histogan.project.runs import read_status
from napari_histogan.project.store import Project

CONFIG = TrainGanConfig(kimg=1.5, seed=7)


def tree(root: Path) -> dict[str, bytes]:
    """Every file below a folder, without locks and runs."""
    found = {p.relative_to(root).as_posix(): p for p in root.rglob("*") if p.is_file()}
    return {name: p.read_bytes() for name, p in found.items() if not name.startswith((".locks", "runs"))}


@pytest.fixture
def small_files() -> Iterator[None]:
    """A system that refuses files above 100 kB, as a full disk does."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_every_kind_is_made_by_a_stage_and_every_result_is_a_kind() -> None:
    assert {model.result for model in STAGES.values()} == set(KINDS)
    assert stages_making("generator") == ["train_gan", "import_gan"]
    assert len(set(KINDS.values())) == len(KINDS)


def test_an_artifact_records_how_it_was_made(project: Project) -> None:
    parent = Parent("masks/0004", "0" * 64)
    with project.new_artifact("generator", CONFIG, QuietReporter(), [parent]) as draft:
        (draft.path / "inner").mkdir()
        (draft.path / "inner" / "weights.bin").write_bytes(b"weights")
        draft.summary.update(loss=np.float32(0.5), shape=(2, 3), path=Path("a"), bad=float("nan"))
        with pytest.raises(ProjectError, match="not finished"):
            _ = draft.result
    made = draft.result
    assert made == read_artifact(project.root / "generators" / "0001") == project.artifact("", "generator")
    assert (made.id, made.kind, made.stage, made.number) == ("generators/0001", "generator", "train_gan", 1)
    assert (made.seed, made.config["kimg"], made.program_version) == (7, 1.5, __version__)
    assert made.parents == (parent,)
    assert made.stage_config() == CONFIG
    assert made.summary == {"loss": 0.5, "shape": [2, 3], "path": "a", "bad": None}
    assert set(made.files) == {"inner/weights.bin"}
    assert json.loads((made.path / "artifact.json").read_text())["id"] == made.id


def test_hashes_are_those_of_sha256sum(project: Project) -> None:
    tool = shutil.which("sha256sum")
    if tool is None:
        pytest.skip("sha256sum is not installed")
    with project.new_artifact("generator", CONFIG, QuietReporter()) as draft:
        (draft.path / "weights.bin").write_bytes(os.urandom(70_000))
    path = draft.result.path / "weights.bin"
    said = subprocess.run([tool, str(path)], capture_output=True, text=True, check=True).stdout
    assert said.split()[0] == draft.result.files["weights.bin"]


def test_equal_content_has_an_equal_hash_whatever_made_it(project: Project) -> None:
    hashes = []
    for config, content in ((CONFIG, "a"), (TrainGanConfig(seed=1), "a"), (CONFIG, "b")):
        with project.new_artifact("generator", config, QuietReporter()) as draft:
            (draft.path / "x").write_text(content)
        hashes.append(draft.result.hash)
    assert hashes[0] == hashes[1] != hashes[2]


@given(
    st.dictionaries(
        st.text("ab/", min_size=1, max_size=3), st.text("01", min_size=64, max_size=64), max_size=4
    )
)
def test_the_hash_depends_on_kind_names_and_contents_but_not_on_order(files: dict[str, str]) -> None:
    backwards = dict(reversed(files.items()))
    assert content_hash("dataset", files) == content_hash("dataset", backwards)
    assert content_hash("dataset", files) != content_hash("samples", files)
    for name in files:
        assert content_hash("dataset", files) != content_hash("dataset", {**files, name: "f" * 64})
        assert content_hash("dataset", files) != content_hash(
            "dataset", {k: v for k, v in files.items() if k != name}
        )


@pytest.mark.parametrize("error", [ValueError("bad"), Stopped(), KeyboardInterrupt()])
def test_an_error_leaves_nothing_behind(project: Project, error: BaseException) -> None:
    with project.new_artifact("generator", CONFIG, QuietReporter()) as draft:
        (draft.path / "x").write_text("earlier")
    before = tree(project.root)

    def fail() -> None:
        with project.new_artifact("generator", CONFIG, QuietReporter()) as draft:
            (draft.path / "x").write_text("half")
            raise error

    with pytest.raises(type(error)):
        fail()
    assert tree(project.root) == before
    assert [p.name for p in (project.root / "generators").iterdir()] == ["0001"]
    status = read_status(project.runs()[-1])
    assert status.state == ("failed" if isinstance(error, ValueError) else "stopped")
    assert status.without_worker


def test_a_full_disk_is_noticed_before_anything_is_touched(project: Project) -> None:
    free = shutil.disk_usage(project.root).free
    before = sorted(project.root.rglob("*"))
    with (
        pytest.raises(StorageError, match="bytes free") as caught,
        project.new_artifact("generator", CONFIG, QuietReporter(), needs_bytes=10 * free),
    ):
        pytest.fail("the block must not be entered")
    assert f"{10 * free:,} bytes" in str(caught.value)
    assert sorted(project.root.rglob("*")) == before


def test_a_disk_that_fills_up_meanwhile_touches_nothing_made_earlier(
    project: Project, small_files: None
) -> None:
    with project.new_artifact("generator", CONFIG, QuietReporter()) as draft:
        (draft.path / "x").write_text("earlier")
    before = tree(project.root)

    def fill() -> None:
        with project.new_artifact("generator", CONFIG, QuietReporter(), needs_bytes=123_456) as draft:
            (draft.path / "x").write_bytes(bytes(200_000))

    with pytest.raises(StorageError, match=r"disk is full: [\d,]+ bytes are free.*123,456 bytes"):
        fill()
    assert tree(project.root) == before
    assert verify_artifact(project.artifact("", "generator")) == []


def test_a_really_full_disk(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", str(disk)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("this user may not mount a small disk")
    try:
        project = Project.create(disk / "p")
        with project.new_artifact("generator", CONFIG, QuietReporter()) as draft:
            (draft.path / "x").write_text("earlier")
        before = tree(project.root)

        def fill() -> None:
            with project.new_artifact("samples", SampleImagesConfig(), QuietReporter()) as draft:
                (draft.path / "x").write_bytes(bytes(20 << 20))

        with pytest.raises(StorageError, match="the disk is full"):
            fill()
        assert tree(project.root) == before
        assert not list((project.root / "samples").iterdir())
        assert read_status(project.runs()[-1]).state == "failed"
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_full_disk_leaves_the_documents_whole(project: Project, small_files: None) -> None:
    before = tree(project.root)
    with pytest.raises(StorageError):
        project.set_values(note="x" * 200_000)
    assert tree(project.root) == before
    assert [p for p in project.root.iterdir() if ".tmp-" in p.name] == []


def test_what_was_taken_returns_after_an_error(project: Project, tmp_path: Path) -> None:
    result = tmp_path / "result"
    (result / "deep").mkdir(parents=True)
    (result / "deep" / "x").write_text("hours of work")

    def fail(whole: bool) -> None:
        with project.new_artifact("generator", CONFIG, QuietReporter()) as draft:
            draft.take_whole(result) if whole else draft.take(result)
            assert not (result / "deep").exists()
            raise ValueError

    for whole in (True, False):
        with pytest.raises(ValueError):  # noqa: PT011
            fail(whole)
        assert (result / "deep" / "x").read_text() == "hours of work"
    with project.new_artifact("generator", CONFIG, QuietReporter()) as draft:
        draft.take(result)
    assert (draft.result.path / "deep" / "x").read_text() == "hours of work"


def test_a_run_has_one_result_and_gives_it_its_number(project: Project) -> None:
    project.new_run(SampleImagesConfig())
    run = project.new_run(CONFIG)
    with project.new_artifact("generator", CONFIG, QuietReporter(run)) as draft:
        pass
    assert draft.result.id == "generators/0002"
    assert len(project.runs()) == 2
    with (
        pytest.raises(ProjectError, match="has its result"),
        project.new_artifact("generator", CONFIG, QuietReporter(run)),
    ):
        pytest.fail("the block must not be entered")


def test_a_run_folder_of_another_project_gives_no_number(project: Project, tmp_path: Path) -> None:
    other = Project.create(tmp_path / "other")
    for _ in range(3):
        run = other.new_run(CONFIG)
    with project.new_artifact("generator", CONFIG, QuietReporter(run)) as draft:
        pass
    assert draft.result.number == 1


def test_an_unknown_kind_is_refused(project: Project) -> None:
    with (
        pytest.raises(ProjectError, match="no kind of artifact 'unicorn'"),
        project.new_artifact("unicorn", CONFIG, QuietReporter()),
    ):
        pytest.fail("the block must not be entered")


def test_verifying_names_each_change(project: Project) -> None:
    with project.new_artifact("generator", CONFIG, QuietReporter()) as draft:
        for name in ("a", "b", "c"):
            (draft.path / name).write_text(name)
    made = draft.result
    assert verify_artifact(made) == []
    (made.path / "a").unlink()
    (made.path / "b").write_text("B")
    (made.path / "d").write_text("d")
    assert verify_artifact(made) == ["a is missing", "b was changed", "d is not recorded"]
    assert "artifact.json" not in hash_files(made.path)


def test_a_forged_record_is_noticed(project: Project) -> None:
    with project.new_artifact("generator", CONFIG, QuietReporter()) as draft:
        (draft.path / "a").write_text("a")
    record = draft.result.path / "artifact.json"
    (draft.result.path / "a").write_text("b")
    forged = re.sub(r'"a": "\w+"', f'"a": "{hash_files(draft.result.path)["a"]}"', record.read_text())
    record.write_text(forged)
    assert verify_artifact(read_artifact(draft.result.path)) == ["artifact.json was changed"]


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"kind": 1'])
def test_a_damaged_record_is_named(project: Project, text: str) -> None:
    with project.new_artifact("generator", CONFIG, QuietReporter()) as draft:
        pass
    (draft.result.path / "artifact.json").write_text(text)
    with pytest.raises(ProjectDamaged, match="generators/0001"):
        project.artifacts("generator")


def test_verifying_all_goes_on_after_a_damaged_record(project: Project) -> None:
    for _ in range(3):
        with project.new_artifact("generator", CONFIG, QuietReporter()) as draft:
            (draft.path / "a").write_text("a")
    (project.root / "generators" / "0001" / "artifact.json").write_text("")
    (project.root / "generators" / "0002" / "a").write_text("b")
    found = verify_all(project.root)
    assert list(found) == ["generators/0001", "generators/0002", "generators/0003"]
    assert "cannot be read" in found["generators/0001"][0]
    assert found["generators/0002"] == ["a was changed"]
    assert found["generators/0003"] == []


def test_a_file_that_may_not_be_read_is_not_called_a_full_disk(project: Project) -> None:
    with (
        pytest.raises(PermissionError, match="slide") as caught,
        project.new_artifact("generator", CONFIG, QuietReporter()),
    ):
        raise PermissionError(13, "Permission denied", "slide.svs")
    assert not isinstance(caught.value, StorageError)


def test_half_written_folders_are_no_artifacts(project: Project) -> None:
    with project.new_artifact("generator", CONFIG, QuietReporter()) as draft:
        assert project.artifacts() == []
        assert draft.path.parent == project.root / "generators"
    assert [a.id for a in project.artifacts()] == ["generators/0001"]


def test_what_a_killed_process_left_half_written_is_no_part_of_a_result(project: Project) -> None:
    left = [".best.safetensors.77.tmp", ".best.safetensors.77.json", "0." + "0a" * 16 + ".partial"]
    left += ["progress.tmp", ".plan.77.part", ".note.json.tmp-77-0a1b2c3d"]
    with project.new_artifact("samples", SampleImagesConfig(), QuietReporter()) as draft:
        (draft.path / "deep").mkdir()
        for name in [*left, "best.safetensors", "model.json", ".hidden"]:
            (draft.path / "deep" / name).write_text("x")
    assert sorted(draft.result.files) == ["deep/.hidden", "deep/best.safetensors", "deep/model.json"]
    assert sorted(path.name for path in (draft.result.path / "deep").iterdir()) == [
        ".hidden",
        "best.safetensors",
        "model.json",
    ]
