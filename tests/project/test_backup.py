"""A backup brings human work back, and a forged one harms nothing."""

from __future__ import annotations

import io
import json
import zipfile
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import zarr

from napari_histogan.config import ImportGanConfig, SampleImagesConfig
from napari_histogan.errors import LabelError, ProjectDamaged, ProjectError, ProjectTooNew
from napari_histogan.geometry import Region, Size
from napari_histogan.labels.classes import ClassTable
from napari_histogan.progress import QuietReporter
from napari_histogan.project.backup import back_up, restore
from napari_histogan.project.corrections import Correction
from napari_histogan.project.slide_list import SlideEntry
from napari_histogan.project.store import Project


def sampled(project: Project, content: str = "samples") -> str:
    with project.new_artifact("samples", SampleImagesConfig(), QuietReporter()) as draft:
        (draft.path / "x").write_text(content)
    return draft.result.id


@pytest.fixture
def painted(project: Project) -> Project:
    samples = sampled(project)
    for value in (1, 2):
        project.save_mask(samples, 3, np.full((32, 32), value, np.uint8))
    project.save_mask(samples, 9, np.ones((32, 32), np.uint8))
    project.save_correction(Correction("edge", "s", Region(0, 0, 4, 4), 0.5, np.ones((4, 4), np.uint8)))
    project.add_slide_entries([SlideEntry("s", Path("/slides/s.svs"), 0.5, Size(10, 10))])
    (project.root / "labels" / "slide_labels.csv").write_text("s,tumor\n")
    project.masks(samples).finish_history()
    return project


def same_work(a: Project, b: Project) -> bool:
    return (
        a.masks("0001").content_hash() == b.masks("0001").content_hash()
        and a.corrections_parent() == b.corrections_parent()
        and a.classes == b.classes
        and (a.root / "labels/slide_labels.csv").read_text()
        == (b.root / "labels/slide_labels.csv").read_text()
    )


def test_a_backup_restores_into_a_new_folder(painted: Project, tmp_path: Path) -> None:
    target = tmp_path / "deep" / "work.zip"
    assert back_up(painted, target) == 5
    found = restore(target, tmp_path / "new").project
    assert same_work(painted, found)
    assert found.name == painted.name
    assert found.slide().path == Path("/slides/s.svs")
    assert found.painted("samples/0001") == [3, 9]


def test_a_backup_is_small_and_leaves_history_and_results_behind(painted: Project, tmp_path: Path) -> None:
    back_up(painted, tmp_path / "b.zip")
    names = zipfile.ZipFile(tmp_path / "b.zip").namelist()
    assert not [name for name in names if "history" in name or name.startswith(("samples", "runs"))]
    assert (tmp_path / "b.zip").stat().st_size < 5_000


def test_restoring_keeps_what_it_replaces(painted: Project, tmp_path: Path) -> None:
    back_up(painted, tmp_path / "b.zip")
    painted.save_mask("samples/0001", 3, np.zeros((32, 32), np.uint8))
    painted.save_correction(Correction("edge", "s", Region(0, 0, 4, 4), 0.5, np.full((4, 4), 2, np.uint8)))
    painted.save_mask("samples/0001", 11, np.ones((32, 32), np.uint8))
    (painted.root / "labels" / "slide_labels.csv").write_text("later\n")
    with pytest.raises(LabelError, match=r"1 masks were painted after .* such as 0001/00003\.npy"):
        restore(tmp_path / "b.zip", painted.root)
    assert painted.corrections()[0].mask[0, 0] == 2, "refused before anything was written"
    restore(tmp_path / "b.zip", painted.root, force=True)
    again = Project.open(painted.root)
    assert again.load_mask("samples/0001", 3)[0, 0] == 2
    store = again.masks("samples/0001")
    store.finish_history()
    assert [int(store.load_version(p)[0, 0]) for p in store.history(3)] == [1, 2, 0]
    assert again.painted("samples/0001") == [3, 9, 11], "what is newer than the backup stays"
    assert again.corrections()[0].mask[0, 0] == 1
    assert (again.root / "labels" / "slide_labels.csv").read_text() == "s,tumor\n"
    assert [p.read_text() for p in (again.root / "labels").glob("slide_labels.csv.before-*")] == ["later\n"]


def test_restoring_twice_changes_nothing(painted: Project, tmp_path: Path) -> None:
    back_up(painted, tmp_path / "b.zip")
    files = sorted(p for p in (painted.root / "labels").rglob("*"))
    restore(tmp_path / "b.zip", painted.root)
    assert sorted(p for p in (painted.root / "labels").rglob("*")) == files


def test_masks_of_other_samples_are_refused(painted: Project, tmp_path: Path) -> None:
    back_up(painted, tmp_path / "b.zip")
    other = Project.create(tmp_path / "other", classes=painted.classes)
    sampled(other, "others")
    with pytest.raises(LabelError, match="painted on other samples than samples/0001"):
        restore(tmp_path / "b.zip", other.root)
    assert other.masks("0001").indices() == []


def test_classes_that_were_added_since_stay(painted: Project, tmp_path: Path) -> None:
    back_up(painted, tmp_path / "b.zip")
    painted.set_classes(ClassTable.from_names(["glomerulus", "tubule", "vessel"]))
    restored = restore(tmp_path / "b.zip", painted.root)
    assert restored.project.classes.names == ("glomerulus", "tubule", "vessel")
    assert restored.notes == ("the backup does not know the classes vessel; the project keeps them",)


def test_classes_that_mean_something_else_are_refused(painted: Project, tmp_path: Path) -> None:
    back_up(painted, tmp_path / "b.zip")
    painted.set_classes(ClassTable.from_names(["tumor", "stroma", "fat"]))
    with pytest.raises(
        LabelError, match="has the classes glomerulus, tubule, the project tumor, stroma, fat"
    ):
        restore(tmp_path / "b.zip", painted.root)
    assert painted.classes.names == ("tumor", "stroma", "fat")


def test_a_backup_is_not_replaced_unasked(painted: Project, tmp_path: Path) -> None:
    back_up(painted, tmp_path / "b.zip")
    before = (tmp_path / "b.zip").read_bytes()
    with pytest.raises(ProjectError, match=r"exists already.*--force"):
        back_up(painted, tmp_path / "b.zip")
    assert (tmp_path / "b.zip").read_bytes() == before
    assert back_up(painted, tmp_path / "b.zip", force=True) == 5


def drawn(project: Project, seed: int, fitted: float | None = None) -> str:
    """Samples with styles and noise, from the newest generator; real patches if their noise is given."""
    config = SampleImagesConfig(seed=seed, count=16)
    rng = np.random.default_rng(seed)
    parents = [project.artifact("", "generator")]
    with project.new_artifact("samples", config, QuietReporter(), parents) as draft:
        group = zarr.open_group(str(draft.path / "samples.zarr"), mode="w")
        group.create_array("w", data=rng.normal(size=(16, 2, 4)).astype(np.float32))
        group.create_array("noise_seed", data=rng.integers(0, 1 << 40, 16))
        if fitted is not None:
            group.create_array("noise", data=np.full((16, 6), fitted, np.float32))
        (draft.path / "when").write_text(str(draft.number))
    return draft.result.id


def imported(project: Project, weights: str) -> None:
    with project.new_artifact("generator", ImportGanConfig(), QuietReporter()) as draft:
        (draft.path / "weights").write_text(weights)


def test_masks_find_their_samples_again_once_these_are_redrawn(tmp_path: Path) -> None:
    classes = ClassTable.from_names(["a", "b"])
    project = Project.create(tmp_path / "old", classes=classes)
    imported(project, "kidney")
    samples = drawn(project, 7)
    project.save_mask(samples, 3, np.ones((8, 8), np.uint8))
    project.save_mask(samples, 12, np.full((8, 8), 2, np.uint8))
    back_up(project, tmp_path / "b.zip")
    with zipfile.ZipFile(tmp_path / "b.zip") as bundle:
        latents = np.load(io.BytesIO(bundle.read("painted/0002.npz")))
    whole = zarr.open_group(str(project.artifact("", "samples").path / "samples.zarr"), mode="r")
    assert latents["index"].tolist() == [3, 12]
    assert np.array_equal(latents["w"], whole["w"][:][[3, 12]])
    assert np.array_equal(latents["noise_seed"], whole["noise_seed"][:][[3, 12]])

    first = restore(tmp_path / "b.zip", tmp_path / "new")
    (note,) = first.notes
    assert "2 masks wait for samples/0002, which this project lacks" in note
    assert f"generators/0001 with the hash {project.artifact('', 'generator').hash[:12]}" in note
    assert "sample-images PROJECT --count 16 --seed 7 --truncation" in note
    new = first.project
    imported(new, "kidney")
    assert "bring in" not in restore(tmp_path / "b.zip", new.root).notes[0]
    redrawn = drawn(new, 7)
    assert redrawn != samples
    assert restore(tmp_path / "b.zip", new.root).notes == ()
    assert new.painted(redrawn) == [3, 12]
    assert int(new.load_mask(redrawn, 12)[0, 0]) == 2


def test_samples_of_another_generator_or_seed_are_not_taken_for_the_same(tmp_path: Path) -> None:
    project = Project.create(tmp_path / "old", classes=ClassTable.from_names(["a", "b"]))
    imported(project, "kidney")
    project.save_mask(drawn(project, 7), 3, np.ones((8, 8), np.uint8))
    back_up(project, tmp_path / "b.zip")
    for name, weights, seed in (("other weights", "skin", 7), ("other seed", "kidney", 8)):
        other = Project.create(tmp_path / name, classes=project.classes)
        imported(other, weights)
        samples = drawn(other, seed)
        with pytest.raises(LabelError, match="painted on other samples"):
            restore(tmp_path / "b.zip", other.root)
        assert other.painted(samples) == []


def test_fitted_noise_of_real_patches_is_kept_and_must_agree(tmp_path: Path) -> None:
    project = Project.create(tmp_path / "old", classes=ClassTable.from_names(["a", "b"]))
    imported(project, "kidney")
    project.save_mask(drawn(project, 7, fitted=0.5), 3, np.ones((8, 8), np.uint8))
    back_up(project, tmp_path / "b.zip")
    with zipfile.ZipFile(tmp_path / "b.zip") as bundle:
        latents = np.load(io.BytesIO(bundle.read("painted/0002.npz")))
    assert latents["noise"].tolist() == [[0.5] * 6]
    for fitted, found in ((0.5, [3]), (0.25, []), (None, [])):
        other = Project.create(tmp_path / f"fitted {fitted}", classes=project.classes)
        imported(other, "kidney")
        drawn(other, 1)  # takes the number of the backup's samples away
        samples = drawn(other, 7, fitted=fitted)
        with suppress(LabelError):
            restore(tmp_path / "b.zip", other.root)
        assert other.painted(samples) == found


def forge(path: Path, entries: dict[str, bytes], manifest: dict | None = None) -> Path:
    told = {
        "format": 1,
        "name": "x",
        "classes": [{"index": 1, "name": "a"}],
        "samples": {},
        **(manifest or {}),
    }
    with zipfile.ZipFile(path, "w") as bundle:
        bundle.writestr("backup.json", json.dumps(told))
        bundle.writestr("slides.json", "[]")
        for name, data in entries.items():
            bundle.writestr(name, data)
    return path


@pytest.mark.parametrize(
    "name",
    ["../evil", "labels/../../evil", "/tmp/evil", "labels\\..\\evil", "C:/evil", "runs/0001/x", "labels/"],
)
def test_names_that_lead_elsewhere_are_refused_before_anything_is_written(tmp_path: Path, name: str) -> None:
    source = forge(tmp_path / "b.zip", {"labels/fine.csv": b"x", name: b"x"})
    with pytest.raises(ProjectDamaged, match="do not use this file"):
        restore(source, tmp_path / "new")
    assert [p.name for p in tmp_path.iterdir()] == ["b.zip"]


def npy(array: np.ndarray, **options) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, **options)
    return buffer.getvalue()


def test_masks_are_read_without_executing_anything(tmp_path: Path) -> None:
    pickled = npy(np.array([print], object), allow_pickle=True)
    for data in (b"", pickled, npy(np.zeros(3)), npy(np.full((2, 2), 9, np.uint8))):
        source = forge(tmp_path / "b.zip", {"labels/masks/0001/00001.npy": data})
        with pytest.raises((ProjectDamaged, LabelError)):
            restore(source, tmp_path / f"new{len(data)}{hash(data)}")


def test_mask_names_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    data = npy(np.zeros((2, 2), np.uint8))
    source = forge(tmp_path / "b.zip", {"labels/masks/0001/x.npy": data})
    with pytest.raises(ProjectDamaged, match=r"00042\.npy"):
        restore(source, tmp_path / "new")


def test_what_is_no_backup_is_named(tmp_path: Path, painted: Project) -> None:
    with pytest.raises(ProjectError, match="no backup"):
        restore(tmp_path / "nothing.zip", tmp_path / "new")
    (tmp_path / "a.zip").write_bytes(b"PK nonsense")
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as bundle:
        bundle.writestr("photo.jpg", "x")
    back_up(painted, tmp_path / "c.zip")
    data = (tmp_path / "c.zip").read_bytes()
    (tmp_path / "c.zip").write_bytes(data[: len(data) // 2])
    for name in "abc":
        with pytest.raises(ProjectDamaged, match="no backup"):
            restore(tmp_path / f"{name}.zip", tmp_path / "new")
    with pytest.raises(ProjectTooNew, match="format 2"):
        restore(forge(tmp_path / "d.zip", {}, {"format": 2}), tmp_path / "new")
    assert not (tmp_path / "new").exists()
