from __future__ import annotations

import copy
import csv
import errno
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import zarr

from napari_histogan.config import SynthesizeDatasetConfig
from napari_histogan.errors import ConfigError, ModelError, Stopped, StorageError
from napari_histogan.inference.contact_sheet import write_contact_sheet
from napari_histogan.inference.pair_choice import keep_certain
from napari_histogan.inference.pair_export import export_png
from napari_histogan.inference.pair_store import shard_size
from napari_histogan.inference.sampling import rebuild
from napari_histogan.inference.synthetic_dataset import synthesize_dataset
from napari_histogan.labels.classes import ClassTable
from napari_histogan.models.hypercolumns import layout_of
from napari_histogan.models.noise import noise_maps
from napari_histogan.models.pixel_classifier import PixelClassifier, PixelClassifierSpec
from napari_histogan.models.stylegan2 import Generator, GeneratorSpec
from napari_histogan.models.uncertainty import image_uncertainty
from napari_histogan.progress import QuietReporter
from napari_histogan.training.datasets import ZarrPairs

CLASSES = ClassTable.from_names(["dermis", "keratin"])


@pytest.fixture(scope="module")
def generator() -> Generator:
    torch.manual_seed(0)
    return Generator(GeneratorSpec(16, 0, 16, 16, channel_base=256, channel_max=16)).eval()


@pytest.fixture(scope="module")
def classifier(generator: Generator) -> PixelClassifier:
    """Random weights make masks of both classes and uncertainties that differ."""
    with torch.no_grad():
        maps = generator.synthesis.features(generator.mapping(torch.randn(2, 16)))[1]
    spec = PixelClassifierSpec(layout_of(maps, 16), tuple(CLASSES.to_dicts()), "g" * 64, 4, (16, 8))
    return PixelClassifier(spec, seed=1).eval()


def config(**fields: Any) -> SynthesizeDatasetConfig:
    return SynthesizeDatasetConfig(
        **{"count": 90, "shard": 32, "batch": 8, "threads": 1, "precision": "float32", **fields}
    )


def contents(folder: Path) -> dict[str, np.ndarray[Any, Any]]:
    group: Any = zarr.open_group(str(folder / "pairs.zarr"), mode="r")
    return {name: group[name][:] for name in sorted(group)}


@torch.no_grad()
def test_pairs_are_what_generator_and_classifier_say(
    generator: Generator, classifier: PixelClassifier, tmp_path: Path
) -> None:
    reporter = QuietReporter(tmp_path)
    folder, summary = synthesize_dataset(
        generator, classifier, config(), reporter, generator_hash="g" * 64, mpp=1.5
    )
    made = contents(folder)
    assert (summary["pairs"], summary["drawn"]) == (90, 100)
    assert made["kept"].sum() == 90
    assert made["uncertainty"][made["kept"]].max() <= made["uncertainty"][~made["kept"]].min()
    some = slice(32, 40)
    np.testing.assert_array_equal(
        rebuild(generator, made["w"][some], made["noise_seed"][some]), made["images"][some]
    )
    noise = noise_maps(generator.spec, made["noise_seed"][some].tolist())
    maps = generator.synthesis.features(torch.from_numpy(made["w"][some]), noise=noise)[1]
    expected = classifier.predict(maps)
    np.testing.assert_array_equal(expected.labels, made["masks"][some])
    np.testing.assert_allclose(
        image_uncertainty(expected.uncertainty), made["uncertainty"][some], rtol=1e-4, atol=1e-6
    )
    share = (made["masks"] == 2).mean(axis=(1, 2))
    np.testing.assert_allclose(made["class_fraction"][:, 1], share, atol=1e-6)
    np.testing.assert_allclose(made["class_fraction"].sum(axis=1), 1, atol=1e-6)
    assert summary["share_keratin"] == pytest.approx(share[made["kept"]].mean(), abs=1e-6)
    assert any(e["kind"] == "preview" for e in reporter.events)


def test_training_reads_the_kept_pairs(
    generator: Generator, classifier: PixelClassifier, tmp_path: Path
) -> None:
    folder, _ = synthesize_dataset(generator, classifier, config(), QuietReporter(tmp_path), mpp=1.5)
    pairs, made = ZarrPairs(folder / "pairs.zarr"), contents(folder)
    assert (len(pairs), pairs.mpp, pairs.patch_px) == (90, 1.5, 16)
    images, masks = pairs.batch([0, 89])
    rows = np.flatnonzero(made["kept"])[[0, 89]]
    np.testing.assert_array_equal(images, made["images"][rows])
    np.testing.assert_array_equal(masks, made["masks"][rows])


@pytest.mark.parametrize("calls", [1, 7, 12])
def test_an_interrupted_run_ends_with_the_same_data_set(
    generator: Generator, classifier: PixelClassifier, tmp_path: Path, calls: int
) -> None:
    whole, _ = synthesize_dataset(generator, classifier, config(), QuietReporter(tmp_path / "whole"))
    asked = iter(range(1, 1000))
    stopping = QuietReporter(tmp_path / "parts", stop_when=lambda: next(asked) == calls)
    with pytest.raises(Stopped):
        synthesize_dataset(generator, classifier, config(), stopping)
    resumed = QuietReporter(tmp_path / "parts")
    parts, _ = synthesize_dataset(generator, classifier, config(), resumed)
    first = next(e["done"] for e in resumed.events if e["kind"] == "progress")
    assert first == (calls - 1) // 4 * 32  # shards that were written are not made again
    for name, value in contents(whole).items():
        np.testing.assert_array_equal(contents(parts)[name], value)
    assert (parts / "contact_sheet.png").read_bytes() == (whole / "contact_sheet.png").read_bytes()


def test_a_folder_of_another_data_set_is_refused(
    generator: Generator, classifier: PixelClassifier, tmp_path: Path
) -> None:
    synthesize_dataset(generator, classifier, config(), QuietReporter(tmp_path))
    with pytest.raises(StorageError, match="begun with another config"):
        synthesize_dataset(generator, classifier, config(seed=1), QuietReporter(tmp_path))


def test_nothing_is_dropped_if_not_asked(
    generator: Generator, classifier: PixelClassifier, tmp_path: Path
) -> None:
    folder, summary = synthesize_dataset(
        generator, classifier, config(count=20, drop_uncertain=0), QuietReporter(tmp_path)
    )
    assert (summary["pairs"], summary["drawn"]) == (20, 20)
    assert contents(folder)["kept"].all()


def test_contact_sheet_shows_kept_and_dropped(
    generator: Generator, classifier: PixelClassifier, tmp_path: Path
) -> None:
    folder, _ = synthesize_dataset(generator, classifier, config(), QuietReporter(tmp_path))
    sheet = cv2.imread(str(write_contact_sheet(folder, columns=5, rows=2, side=64)))
    # The classes' key; a title, and two rows of tiles with captions, for the kept and the dropped ones.
    assert sheet.shape == (30 + 2 * 34 + 4 * (64 + 18 + 6), 5 * (64 + 6) + 6, 3)
    made = contents(folder)
    mixed = (made["masks"] == 1).any(axis=(1, 2)) & (made["masks"] == 2).any(axis=(1, 2))
    assert mixed.any()
    outline = sheet[..., ::-1].reshape(-1, 3)
    colors = CLASSES.color_lut()
    assert any((outline == colors[k]).all(axis=1).any() for k in (1, 2))


def test_export_for_other_programs(generator: Generator, classifier: PixelClassifier, tmp_path: Path) -> None:
    folder, _ = synthesize_dataset(generator, classifier, config(), QuietReporter(tmp_path / "run"))
    assert export_png(folder, tmp_path / "png") == 90
    made = contents(folder)
    with (tmp_path / "png" / "pairs.csv").open() as handle:
        rows = list(csv.DictReader(handle))
    assert [int(r["index"]) for r in rows] == np.flatnonzero(made["kept"]).tolist()
    row = rows[50]
    i = int(row["index"])
    mask = cv2.imread(str(tmp_path / "png" / row["mask"]), cv2.IMREAD_UNCHANGED)
    image = cv2.imread(str(tmp_path / "png" / row["image"]))[..., ::-1]
    np.testing.assert_array_equal(mask, made["masks"][i])
    np.testing.assert_array_equal(image, made["images"][i])
    assert float(row["keratin"]) == pytest.approx((mask == 2).mean(), abs=1e-4)
    assert int(row["noise_seed"]) == made["noise_seed"][i]


def test_ties_keep_the_first() -> None:
    assert keep_certain(np.array([0.2, 0.1, 0.2, 0.3], np.float32), 2).tolist() == [True, True, False, False]


@pytest.mark.parametrize(("wanted", "total", "size"), [(1024, 50, 64), (1024, 5, 64), (16, 9999, 4096)])
def test_shards_hold_whole_chunks_and_fit_in_memory(wanted: int, total: int, size: int) -> None:
    shard = shard_size(wanted, total, size)
    assert 1 <= shard <= max(wanted, 1)
    assert shard * size * size * 4 <= 2**28


def test_parts_that_do_not_fit_are_refused(
    generator: Generator, classifier: PixelClassifier, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match="choose the generator that made the painted samples"):
        synthesize_dataset(generator, classifier, config(), QuietReporter(tmp_path), generator_hash="x" * 64)
    larger = Generator(GeneratorSpec(16, 0, 16, 32, channel_base=256, channel_max=16))
    with pytest.raises(ModelError, match="reads features of 16 px"):
        synthesize_dataset(larger, classifier, config(), QuietReporter(tmp_path))
    assert not list(tmp_path.iterdir())


def test_a_disk_that_refuses(generator: Generator, classifier: PixelClassifier, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match="resume"):
        synthesize_dataset(
            generator, classifier, config(), QuietReporter(tmp_path / "run"), out=tmp_path / "file" / "data"
        )


def test_a_rare_class_reaches_the_share_that_was_asked_for(
    generator: Generator, classifier: PixelClassifier, tmp_path: Path
) -> None:
    wishes: dict[str, Any] = {"count": 40, "shard": 16, "class_shares": (0.5, 0.5), "most_drawn": 4}
    folder, summary = synthesize_dataset(
        generator, classifier, config(**wishes), QuietReporter(tmp_path / "a")
    )
    made = contents(folder)
    plain = made["class_fraction"][:45].mean(axis=0)
    assert min(summary["share_dermis"], summary["share_keratin"]) > min(plain)
    assert min(summary["share_dermis"], summary["share_keratin"]) >= 0.475
    assert made["kept"].sum() == summary["pairs"] == 40
    assert len(made["kept"]) == summary["drawn"] <= 4 * 45 + 16
    stopping = QuietReporter(tmp_path / "b", stop_when=iter([False] * 3 + [True] * 99).__next__)
    with pytest.raises(Stopped):
        synthesize_dataset(generator, classifier, config(**wishes), stopping)
    resumed, _ = synthesize_dataset(generator, classifier, config(**wishes), QuietReporter(tmp_path / "b"))
    for name, value in made.items():
        np.testing.assert_array_equal(contents(resumed)[name], value)


def test_a_share_out_of_reach_is_told(
    generator: Generator, classifier: PixelClassifier, tmp_path: Path
) -> None:
    reporter = QuietReporter(tmp_path)
    wishes: dict[str, Any] = {"count": 20, "shard": 16, "class_shares": (0.0, 1.0), "most_drawn": 1}
    synthesize_dataset(generator, classifier, config(**wishes), reporter)
    told = [e["message"] for e in reporter.events if e["kind"] == "warning"]
    assert len(told) == 1
    assert "keratin has" in told[0]
    assert "100.0% were wanted" in told[0]
    with pytest.raises(ConfigError, match="one for each of: dermis, keratin"):
        synthesize_dataset(generator, classifier, config(class_shares=(1,)), reporter)


def test_a_full_disk_loses_nothing(
    generator: Generator, classifier: PixelClassifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, _ = synthesize_dataset(generator, classifier, config(), QuietReporter(tmp_path / "whole"))
    real, calls = zarr.storage.LocalStore.set, iter(range(1000))

    async def full(self: Any, key: str, value: Any) -> None:
        if key.startswith("images/c/") and next(calls) >= 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        await real(self, key, value)

    with monkeypatch.context() as patched:
        patched.setattr(zarr.storage.LocalStore, "set", full)
        with pytest.raises(StorageError, match=r"is full.*free some space and resume"):
            synthesize_dataset(generator, classifier, config(), QuietReporter(tmp_path / "parts"))
    resumed = QuietReporter(tmp_path / "parts")
    parts, _ = synthesize_dataset(generator, classifier, config(), resumed)
    assert next(e["done"] for e in resumed.events if e["kind"] == "progress") == 64
    for name, value in contents(whole).items():
        np.testing.assert_array_equal(contents(parts)[name], value)


def test_a_classifier_with_nan_is_refused(
    generator: Generator, classifier: PixelClassifier, tmp_path: Path
) -> None:
    broken = copy.deepcopy(classifier)
    with torch.no_grad():
        broken.weights[0][0, 0, 0] = float("nan")
    with pytest.raises(ModelError, match="holds NaN"):
        synthesize_dataset(generator, broken, config(), QuietReporter(tmp_path))
    assert not list(tmp_path.iterdir())
