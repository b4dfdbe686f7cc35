"""What people painted is saved at once, whole, with every version before it."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as stn

from napari_histogan.errors import ArtifactMissing, LabelError, ProjectDamaged, StorageError
from napari_histogan.geometry import Region
from napari_histogan.labels.classes import ClassTable
from napari_histogan.project.corrections import CORRECTIONS, Correction
from napari_histogan.project.masks import MaskStore
from napari_histogan.project.store import Project

CLASSES = ClassTable.from_names(["a", "b", "c"])
SAMPLES = "samples/0004"


def mask(value: int, side: int = 16) -> np.ndarray:
    return np.full((side, side), value, np.uint8)


@pytest.fixture
def store(tmp_path: Path) -> MaskStore:
    return MaskStore(tmp_path / "masks" / "0004")


def test_a_mask_is_where_the_layout_says_and_loads_as_saved(project: Project) -> None:
    assert project.load_mask(SAMPLES, 42) is None
    painted = np.arange(256, dtype=np.uint8).reshape(16, 16) % 3
    assert project.save_mask(SAMPLES, 42, painted)
    path = project.root / "labels" / "masks" / "0004" / "00042.npy"
    assert project.masks(SAMPLES).path(42) == path
    assert np.array_equal(np.load(path), painted)
    assert np.array_equal(Project.open(project.root).load_mask("0004", 42), painted)


@pytest.mark.parametrize("shape", [(0, 0), (1, 7), (300, 2)])
def test_masks_of_any_shape_and_memory_order_are_ordinary_npy_files(store: MaskStore, shape) -> None:
    painted = np.asfortranarray(np.arange(shape[0] * shape[1]).reshape(shape) % 4).astype(np.uint8, order="F")
    store.save(0, painted, CLASSES)
    assert np.array_equal(np.load(store.path(0)), painted)
    store.save(1, painted[:, ::-1], CLASSES)
    assert np.array_equal(store.load(1), painted[:, ::-1])


@settings(max_examples=20, deadline=None)
@given(st.lists(stn.arrays(np.uint8, (4, 4), elements=st.integers(0, 3)), min_size=1, max_size=6))
def test_every_earlier_version_is_kept_in_order(tmp_path_factory, versions: list[np.ndarray]) -> None:
    store = MaskStore(tmp_path_factory.mktemp("masks"))
    different = [v for i, v in enumerate(versions) if i == 0 or not np.array_equal(v, versions[i - 1])]
    saved = [store.save(3, version, CLASSES) for version in versions]
    assert sum(saved) == len(different)
    store.finish_history()
    assert np.array_equal(store.load(3), different[-1])
    kept = [store.load_version(path) for path in store.history(3)]
    assert len(kept) == len(different) - 1
    assert all(np.array_equal(a, b) for a, b in zip(kept, different, strict=False))


def test_earlier_versions_are_compressed(store: MaskStore) -> None:
    for value in (1, 2, 3):
        store.save(0, mask(value, 512), CLASSES)
    store.finish_history()
    assert [path.name for path in store.history(0)] == ["1.npy.z", "2.npy.z"]
    assert max(path.stat().st_size for path in store.history(0)) < 5_000


def test_the_history_goes_on_in_a_new_process_and_for_two_at_once(store: MaskStore) -> None:
    other = MaskStore(store.folder)
    for value, each in ((1, store), (2, other), (3, store), (1, other)):
        each.save(0, mask(value), CLASSES)
    store.finish_history()
    again = MaskStore(store.folder)
    assert [int(again.load_version(p)[0, 0]) for p in again.history(0)] == [1, 2, 3]
    assert again.load(0)[0, 0] == 1


def test_a_mask_saved_elsewhere_meanwhile_is_not_mistaken_for_the_own_one(store: MaskStore) -> None:
    store.save(0, mask(1), CLASSES)
    MaskStore(store.folder).save(0, mask(2), CLASSES)
    assert store.save(0, mask(1), CLASSES)
    assert store.load(0)[0, 0] == 1


def test_painting_on_does_not_change_what_was_saved(store: MaskStore) -> None:
    canvas = mask(1)
    store.save(0, canvas, CLASSES)
    canvas[0] = 2
    assert store.save(0, canvas, CLASSES), "the change must be noticed though the array is the same"
    assert store.load(0)[0, 0] == 2


def test_painted_means_at_least_one_labelled_pixel(store: MaskStore) -> None:
    assert store.painted() == []
    for index in (7, 0, 123_456):
        store.save(index, mask(1), CLASSES)
    store.save(5, mask(0), CLASSES)
    assert store.indices() == [0, 5, 7, 123_456]
    assert store.painted() == [0, 7, 123_456]
    store.save(7, mask(0), CLASSES)
    assert store.painted() == [0, 123_456]


def test_the_content_hash_follows_the_paint_alone(store: MaskStore) -> None:
    empty = store.content_hash()
    store.save(1, mask(1), CLASSES)
    one = store.as_parent()
    assert one.id == "masks/0004"
    store.save(2, mask(0), CLASSES)
    assert store.content_hash() == one.hash, "an empty mask teaches nothing"
    store.save(1, mask(2), CLASSES)
    assert len({empty, one.hash, store.content_hash()}) == 3
    store.save(1, mask(1), CLASSES)
    assert store.content_hash() == one.hash


@pytest.mark.parametrize(
    "wrong", [mask(4), mask(1).astype(np.int32), mask(1)[0], np.zeros((2, 2, 3), np.uint8)]
)
def test_what_is_no_mask_of_these_classes_is_refused(store: MaskStore, wrong: np.ndarray) -> None:
    with pytest.raises(LabelError):
        store.save(0, wrong, CLASSES)
    assert store.indices() == []


def test_wrong_places_are_refused(project: Project) -> None:
    with pytest.raises(LabelError, match="no sample -1"):
        project.masks(SAMPLES).path(-1)
    for wrong in ("generators/0003", "../../etc", "samples/x", ""):
        with pytest.raises(ArtifactMissing, match="names no samples"):
            project.masks(wrong)


def test_a_damaged_mask_points_to_the_history(store: MaskStore) -> None:
    store.save(0, mask(1), CLASSES)
    store.path(0).write_bytes(b"not a mask")
    with pytest.raises(ProjectDamaged, match="history"):
        store.load(0)
    np.save(store.path(0), np.array([{"a": 1}], object), allow_pickle=True)
    with pytest.raises(ProjectDamaged):
        store.load(0)


def test_a_full_disk_keeps_the_mask_that_was_there(store: MaskStore) -> None:
    store.save(0, mask(1, 64), CLASSES)
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(StorageError):
            store.save(0, mask(2, 64), CLASSES)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert store.load(0)[0, 0] == 1
    assert store.indices() == [0]
    assert store.save(0, mask(2, 64), CLASSES)


def test_saving_a_large_mask_is_fast_enough_for_every_stroke(store: MaskStore) -> None:
    canvas, times = mask(0, 1024), []
    for stroke in range(15):
        canvas[stroke * 20 : stroke * 20 + 30, 100:700] = 1 + stroke % 3
        started = time.thread_time()
        store.save(0, canvas, CLASSES)
        times.append(time.thread_time() - started)
    # The budget is 5 ms; the time of this thread alone does not count what else the machine does.
    assert sorted(times)[len(times) // 2] < 0.005


def _paint(folder: Path, value: int) -> None:
    store = MaskStore(folder)
    for index in range(30):
        store.save(index % 3, mask(1 + (value + index) % 3, 64), CLASSES)


def test_two_processes_that_paint_leave_whole_masks(store: MaskStore) -> None:
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_paint, args=(store.folder, value)) for value in (0, 1)]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        for index in store.indices():
            seen = store.load(index)
            assert seen is not None
            assert len(np.unique(seen)) == 1, "a mask of two halves was seen"
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    assert store.indices() == [0, 1, 2]
    assert not [p for p in store.folder.iterdir() if ".tmp-" in p.name]


# Corrections


def correction(name: str = "north edge", value: int = 1) -> Correction:
    return Correction(
        name, "s1", Region(-3, 10, 4, 6), 0.5, np.full((4, 6), value, np.uint8), "heatmaps/0008"
    )


def test_a_correction_is_where_the_layout_says_and_loads_as_saved(project: Project) -> None:
    project.save_correction(correction())
    (found,) = Project.open(project.root).corrections()
    folder = project.root / "labels" / "corrections" / "north edge"
    assert sorted(p.name for p in folder.iterdir()) == ["mask.npy", "region.json"]
    assert (found.name, found.slide, found.mpp, found.source) == ("north edge", "s1", 0.5, "heatmaps/0008")
    assert found.region == Region(-3, 10, 4, 6)
    assert found.created.endswith("+00:00")
    assert np.array_equal(found.mask, correction().mask)


def test_a_corrected_correction_keeps_the_one_before(project: Project) -> None:
    for value in (1, 2, 0):
        project.save_correction(correction(value=value))
    assert [c.mask[0, 0] for c in project.corrections()] == [0]
    history = project.root / "labels" / "corrections" / "history"
    assert [int(np.load(history / f"north edge-{i}" / "mask.npy")[0, 0]) for i in (1, 2)] == [1, 2]


def test_the_hash_of_the_corrections_follows_place_and_paint(project: Project) -> None:
    hashes = [project.corrections_parent().hash]
    for each in (correction(), correction(value=2), correction("other")):
        project.save_correction(each)
        hashes.append(project.corrections_parent().hash)
    assert len(set(hashes)) == 4
    assert project.corrections_parent().id == CORRECTIONS


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".hidden", "history", "a\n", "x" * 101])
def test_odd_names_are_refused(project: Project, name: str) -> None:
    with pytest.raises(LabelError, match="cannot be called"):
        project.save_correction(correction(name))


def test_masks_that_do_not_fit_their_region_are_refused(project: Project) -> None:
    wrong = Correction("a", "s", Region(0, 0, 4, 4), 0.5, np.zeros((4, 5), np.uint8))
    with pytest.raises(LabelError, match=r"\(4, 4\)"):
        project.save_correction(wrong)
    with pytest.raises(LabelError, match="value 3"):
        project.save_correction(correction(value=3))
    assert project.corrections() == []


def test_a_damaged_correction_is_named(project: Project) -> None:
    project.save_correction(correction())
    (project.root / CORRECTIONS / "north edge" / "mask.npy").write_bytes(b"")
    with pytest.raises(ProjectDamaged, match="north edge"):
        project.corrections()


def edge(value: int) -> Correction:
    return Correction("edge", "s", Region(0, 0, 4, 4), 0.5, np.full((4, 4), value, np.uint8))


def test_a_rename_that_fails_leaves_the_correction_before(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.save_correction(edge(1))
    rename = os.rename

    def refuse(source: Path, target: Path) -> None:
        if Path(target).name == "edge" and ".tmp-" in Path(source).name:
            raise OSError("the second rename")
        rename(source, target)

    monkeypatch.setattr("os.rename", refuse)
    with pytest.raises(OSError, match="the second rename"):
        project.save_correction(edge(2))
    assert [int(c.mask[0, 0]) for c in project.corrections()] == [1]
    assert sorted(p.name for p in (project.root / "labels/corrections").iterdir()) == ["edge", "history"]


KILLED_BETWEEN_RENAMES = """
import os, signal, sys
import numpy as np
from pathlib import Path
from napari_histogan.geometry import Region
from napari_histogan.project.corrections import Correction
from napari_histogan.project.store import Project
rename = os.rename
def die(source, target):
    if Path(target).name == "edge":
        os.kill(os.getpid(), signal.SIGKILL)
    rename(source, target)
os.rename = die
mask = np.full((4, 4), 2, np.uint8)
Project.open(sys.argv[1]).save_correction(Correction("edge", "s", Region(0, 0, 4, 4), 0.5, mask))
"""


def test_a_kill_between_the_renames_loses_no_correction(project: Project) -> None:
    project.save_correction(edge(1))
    command = [sys.executable, "-c", KILLED_BETWEEN_RENAMES, str(project.root)]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    (left,) = (project.root / "labels/corrections").glob(".*")
    os.utime(left, (0, 0))
    assert [int(c.mask[0, 0]) for c in project.corrections()] == [2]
    kept = project.root / "labels/corrections/history/edge-1/mask.npy"
    assert np.load(kept)[0, 0] == 1


def test_versions_of_corrections_of_similar_names_stay_apart(project: Project) -> None:
    for value in (1, 2, 1):
        project.save_correction(edge(value))
    (project.root / "labels/corrections/history/edge-1").rename(project.root / "elsewhere")
    project.save_correction(edge(2))
    project.save_correction(edge(1))
    assert project.corrections()[0].mask[0, 0] == 1
    history = project.root / "labels/corrections/history"
    assert sorted(p.name for p in history.iterdir()) == ["edge-1", "edge-2", "edge-3"]


def test_a_damaged_mask_names_the_newest_version_that_is_whole(store: MaskStore) -> None:
    for value in (1, 2, 1):
        store.save(0, np.full((8, 8), value, np.uint8), CLASSES)
    store.finish_history()
    store.path(0).write_bytes(b"no mask")
    store.history(0)[-1].write_bytes(b"no version")
    with pytest.raises(ProjectDamaged, match=r"1\.npy\.z holds the version before, 64 pixels painted"):
        store.load(0)
