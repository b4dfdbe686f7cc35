from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import zarr

from napari_histogan.config import TrainPixelClassifierConfig, dump_config, make_config
from napari_histogan.errors import (
    ConfigError,
    LabelError,
    ModelError,
    Stopped,
    StorageError,
    TrainingDiverged,
)
from napari_histogan.labels.classes import ClassTable
from napari_histogan.models.device import Compute
from napari_histogan.models.hypercolumns import upsample_and_concatenate
from napari_histogan.models.noise import noise_maps, noise_rows
from napari_histogan.models.pixel_classifier import PixelPredictor, load_pixel_classifier
from napari_histogan.models.stylegan2 import Generator, GeneratorSpec
from napari_histogan.progress import QuietReporter
from napari_histogan.training.feature_cache import FeatureCache
from napari_histogan.training.image_split import hold_out, split_images
from napari_histogan.training.labelled_pixels import choose_pixels, collect_pixels
from napari_histogan.training.train_pixel_classifier import (
    PaintedSamples,
    fit_pixel_classifier,
    train_pixel_classifier,
)

CLASSES = ClassTable.from_names(["dark", "middle", "bright"])
COMPUTE = Compute(torch.device("cpu"), torch.float32, 1)
SPEC = GeneratorSpec(z_dim=16, c_dim=0, w_dim=16, img_resolution=32, channel_base=512, channel_max=24)


@pytest.fixture(scope="module")
def generator() -> Generator:
    torch.manual_seed(0)
    net = Generator(SPEC).eval()
    for module in net.modules():
        if hasattr(module, "noise_strength"):
            module.noise_strength.data.fill_(0.2)
    return net


def samples(generator: Generator, n: int = 10) -> PaintedSamples:
    """Samples painted by their brightness, so that the right answer is known."""
    w = generator.mapping(torch.randn(n, 16, generator=torch.Generator().manual_seed(1))).detach()
    seeds = np.arange(100, 100 + n)
    with torch.no_grad():
        images = generator.synthesis(w, noise=noise_maps(SPEC, seeds.tolist())).mean(1).numpy()
    smooth = np.stack([cv2.GaussianBlur(i, (0, 0), 2) for i in images])
    masks = (np.digitize(smooth, np.quantile(smooth, [0.4, 0.7])) + 1).astype(np.uint8)
    return PaintedSamples(w.numpy(), seeds, masks)


def config(**fields: Any) -> TrainPixelClassifierConfig:
    defaults = {
        "threads": 1,
        "members": 3,
        "hidden": (32, 16),
        "epochs": 12,
        "batch": 512,
        "precision": "float32",
    }
    return TrainPixelClassifierConfig(**{**defaults, **fields})


def stopping_after(folder: Path, passes: int) -> QuietReporter:
    """A reporter that asks to stop once so many passes were told of."""

    def enough() -> bool:
        return len([e for e in reporter.events if e["kind"] == "metric"]) >= passes

    reporter = QuietReporter(folder, stop_when=enough)
    return reporter


def test_learns_what_was_painted(generator: Generator, tmp_path: Path) -> None:
    painted = samples(generator, 12)
    learned = PaintedSamples(painted.w[:10], painted.noise_seed[:10], painted.masks[:10])
    reporter = QuietReporter(tmp_path)
    folder = train_pixel_classifier(generator, learned, CLASSES, config(), reporter, generator_hash="h")
    net = load_pixel_classifier(folder)
    assert net.spec.generator_hash == "h"
    assert [c["name"] for c in net.spec.classes] == list(CLASSES.names)
    with torch.no_grad():
        noise = noise_maps(SPEC, painted.noise_seed[10:].tolist())
        maps = generator.synthesis.features(torch.from_numpy(painted.w[10:]), noise=noise)[1]
    accuracy = (net.predict(maps).labels.numpy() == painted.masks[10:]).mean()
    report = json.loads((folder / "classifier.json").read_text())
    assert accuracy > 0.7  # chance is 0.4
    assert abs(report["validation"]["pixel_accuracy"] - accuracy) < 0.15
    assert set(report["validation"]["dice"]) == set(CLASSES.names)
    assert report["images"] == 10
    epochs = [e for e in reporter.events if e["kind"] == "metric"]
    assert len(epochs) == report["epochs"]
    assert {"train_loss", "validation_loss", "validation_mean_iou", "dice/dark"} <= set(epochs[0])


@pytest.mark.parametrize("preset", ["datasetgan", "hdgan"])
def test_published_presets_learn(generator: Generator, tmp_path: Path, preset: str) -> None:
    rate = 0.02 if preset == "hdgan" else 1e-3
    chosen = config(preset=preset, learning_rate=rate, blocks=3, split="auto")
    folder = train_pixel_classifier(generator, samples(generator), CLASSES, chosen, QuietReporter(tmp_path))
    assert json.loads((folder / "classifier.json").read_text())["validation"]["pixel_accuracy"] > 0.6


@pytest.mark.parametrize("preset", ["plain", "hdgan"])
@pytest.mark.parametrize("stop_after", [1, 3])
def test_a_resumed_run_ends_as_an_uninterrupted_one(
    generator: Generator, tmp_path: Path, stop_after: int, preset: str
) -> None:
    painted, chosen = samples(generator), config(epochs=5, preset=preset, blocks=3)
    whole = train_pixel_classifier(generator, painted, CLASSES, chosen, QuietReporter(tmp_path / "whole"))
    stopping = stopping_after(tmp_path / "parts", stop_after)
    with pytest.raises(Stopped):
        train_pixel_classifier(generator, painted, CLASSES, chosen, stopping)
    resumed = QuietReporter(tmp_path / "parts")
    parts = train_pixel_classifier(generator, painted, CLASSES, chosen, resumed)
    assert len([e for e in resumed.events if e["kind"] == "metric"]) == 5 - stop_after
    assert (parts / "classifier.safetensors").read_bytes() == (whole / "classifier.safetensors").read_bytes()
    assert (parts / "classifier.json").read_text() == (whole / "classifier.json").read_text()


def test_repainting_while_stopped_begins_anew(generator: Generator, tmp_path: Path) -> None:
    painted = samples(generator)
    with pytest.raises(Stopped):
        train_pixel_classifier(generator, painted, CLASSES, config(epochs=4), stopping_after(tmp_path, 1))
    masks = painted.masks.copy()
    masks[0, :16] = 2
    reporter = QuietReporter(tmp_path)
    train_pixel_classifier(
        generator, PaintedSamples(painted.w, painted.noise_seed, masks), CLASSES, config(epochs=4), reporter
    )
    assert any("begins anew" in e.get("message", "") for e in reporter.events)
    assert [e["step"] for e in reporter.events if e["kind"] == "metric"] == [1, 2, 3, 4]


def test_a_few_strokes_are_enough(generator: Generator, tmp_path: Path) -> None:
    painted = samples(generator, 3)
    strokes = painted.masks.copy()
    strokes[:, np.arange(32) % 8 > 0] = 0
    sparse = PaintedSamples(painted.w, painted.noise_seed, strokes)
    folder = train_pixel_classifier(generator, sparse, CLASSES, config(), QuietReporter(tmp_path))
    report = json.loads((folder / "classifier.json").read_text())
    assert report["pixels"] == np.count_nonzero(strokes)
    assert report["validation"]["images"] == [0, 1, 2]
    assert (
        sum(map(sum, report["validation"]["confusion"])) == report["pixels"]
    )  # every image was held out once


def test_one_image_trains_without_validation(generator: Generator, tmp_path: Path) -> None:
    reporter = QuietReporter(tmp_path)
    folder = train_pixel_classifier(generator, samples(generator, 1), CLASSES, config(epochs=2), reporter)
    report = json.loads((folder / "classifier.json").read_text())
    assert report["validation"] == report["test"] == {}
    assert report["best_epoch"] == 2
    assert any("nothing checks it" in e.get("message", "") for e in reporter.events)


def test_warm_start_begins_where_the_last_round_ended(generator: Generator, tmp_path: Path) -> None:
    painted = samples(generator)
    first = train_pixel_classifier(generator, painted, CLASSES, config(), QuietReporter(tmp_path / "1"))
    cold, warm = QuietReporter(tmp_path / "2"), QuietReporter(tmp_path / "3")
    train_pixel_classifier(generator, painted, CLASSES, config(epochs=1), cold)
    train_pixel_classifier(generator, painted, CLASSES, config(epochs=1), warm, init=first)
    losses = [next(e["train_loss"] for e in r.events if e["kind"] == "metric") for r in (cold, warm)]
    assert losses[1] < 0.8 * losses[0]
    with pytest.raises(ConfigError, match="other features, members"):
        train_pixel_classifier(
            generator, painted, CLASSES, config(members=4), QuietReporter(tmp_path / "4"), init=first
        )


def test_collected_features_are_those_of_the_plain_way(generator: Generator) -> None:
    painted = samples(generator, 3)
    pixels = collect_pixels(generator, painted, COMPUTE, QuietReporter(), pixels_per_image=200)
    with torch.no_grad():
        noise = noise_maps(SPEC, painted.noise_seed.tolist())
        maps = generator.synthesis.features(torch.from_numpy(painted.w), noise=noise)[1]
    columns = upsample_and_concatenate(maps, 32).permute(0, 2, 3, 1).reshape(3, 1024, -1)
    assert torch.bincount(pixels.image).tolist() == [200, 200, 200]
    for i in range(3):
        chosen = choose_pixels(painted.masks[i], 200, i)
        torch.testing.assert_close(pixels.x[pixels.image == i], columns[i, chosen], rtol=1e-3, atol=1e-4)
        label = torch.from_numpy(painted.masks[i].ravel()[chosen]).long() - 1
        assert torch.equal(pixels.label[pixels.image == i], label)
    torch.testing.assert_close(pixels.mean[-24:].mean(), maps[-1].tensor.mean(), rtol=0.5, atol=0.2)


def test_rare_classes_are_chosen_first() -> None:
    mask = np.ones((20, 20), np.uint8)
    mask[0, :5] = 2
    mask[5] = 0
    chosen = choose_pixels(mask, 50, seed=0)
    values = mask.ravel()[chosen]
    assert (len(chosen), (values == 2).sum(), (values == 0).sum()) == (50, 5, 0)
    assert len(np.unique(chosen)) == 50


def masks_showing(*classes: tuple[int, ...]) -> np.ndarray[Any, np.dtype[np.uint8]]:
    masks = np.zeros((len(classes), 4, 4), np.uint8)
    for mask, shown in zip(masks, classes, strict=True):
        mask.ravel()[: len(shown)] = shown
    return masks


def test_many_images_are_split_alike_for_all_members() -> None:
    learns = hold_out(masks_showing(*[(1, 2)] * 20), 2, 0.2, 5, seed=0)
    assert (learns == learns[0]).all()
    assert (~learns[0]).sum() == 4
    assert not np.array_equal(learns, hold_out(masks_showing(*[(1, 2)] * 20), 2, 0.2, 5, seed=1))


def test_few_images_are_dealt_into_folds() -> None:
    learns = hold_out(masks_showing(*[(1, 2)] * 5), 2, 0.2, 10, seed=0)
    assert (~learns).sum(axis=1).tolist() == [1] * 10  # each member leaves one image out
    assert (~learns).sum(axis=0).tolist() == [2] * 5  # each image is left out by two members


def test_by_default_dozens_of_images_are_all_learned_from_and_all_checked() -> None:
    split = split_images(masks_showing(*[(1, 2)] * 24), 2, TrainPixelClassifierConfig())
    assert split.learns.any(axis=0).all()
    assert split.validates.any(axis=0).all()
    assert (split.learns.sum(axis=1) >= 21).all()


@pytest.mark.parametrize("preset", ["plain", "hdgan"])
def test_scale_of_the_channels(generator: Generator, tmp_path: Path, preset: str) -> None:
    painted = samples(generator, 4)
    chosen = config(epochs=1, members=1, preset=preset, blocks=2, split="auto", validation_share=0)
    folder = train_pixel_classifier(generator, painted, CLASSES, chosen, QuietReporter(tmp_path))
    net = load_pixel_classifier(folder)
    own = collect_pixels(generator, painted, COMPUTE, QuietReporter(), blocks=2, pixels_per_image=16)
    expected = own.std if preset == "hdgan" else own.std.square().mean().sqrt().expand(len(own.std))
    torch.testing.assert_close(net.std, expected)
    torch.testing.assert_close(net.mean, own.mean)
    assert own.std.max() > 1.2 * own.std.min()


def test_few_of_many_held_out_pixels_judge_a_pass(
    generator: Generator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("napari_histogan.training.train_pixel_classifier.HELD_PIXELS", 100)
    painted = samples(generator, 4)
    pixels = collect_pixels(generator, painted, COMPUTE, QuietReporter())
    learns = hold_out(painted.masks, 3, 0.2, 3, seed=0)
    fitted = fit_pixel_classifier(pixels, learns, CLASSES, config(epochs=2), QuietReporter(), COMPUTE)
    assert np.sum(fitted.validation["confusion"]) == 100


@pytest.mark.parametrize("n", [4, 12])
def test_the_only_image_of_a_class_is_always_learned(n: int) -> None:
    masks = masks_showing((1, 2, 3), *[(1, 2)] * (n - 1))
    for seed in range(5):
        learns = hold_out(masks, 3, 0.5, 4, seed)
        assert learns[:, 0].all()
        assert not learns.all()


def test_unpainted_images_do_not_count() -> None:
    learns = hold_out(masks_showing((1, 2), (), (), (1, 2)), 2, 0.5, 4, seed=0)
    assert learns[:, 1:3].all()
    assert (~learns).sum(axis=1).tolist() == [1] * 4


def test_masks_that_cannot_be_learned_from(generator: Generator) -> None:
    good = samples(generator, 3)

    def train(masks: np.ndarray[Any, Any], classes: ClassTable = CLASSES) -> None:
        data = PaintedSamples(good.w, good.noise_seed, masks)
        train_pixel_classifier(generator, data, classes, config(), QuietReporter())

    with pytest.raises(LabelError, match=r"shape \(3, 16, 16\).*\(n, 32, 32\)"):
        train(good.masks[:, :16, :16])
    with pytest.raises(LabelError, match="all that is painted is dark"):
        train((good.masks == 1).astype(np.uint8))
    with pytest.raises(LabelError, match="no pixel is painted"):
        train(np.zeros_like(good.masks))
    with pytest.raises(LabelError, match="holds the value 9"):
        train(np.where(good.masks == 3, 9, good.masks).astype(np.uint8))
    with pytest.raises(LabelError, match="there is 1 class"):
        train(np.ones_like(good.masks), ClassTable.from_names(["all"]))


def test_a_class_in_one_image_is_warned_of(generator: Generator, tmp_path: Path) -> None:
    good = samples(generator, 4)
    masks = good.masks.copy()
    masks[1:][masks[1:] == 3] = 0
    reporter = QuietReporter(tmp_path)
    data = PaintedSamples(good.w, good.noise_seed, masks)
    train_pixel_classifier(generator, data, CLASSES, config(epochs=1), reporter)
    assert any("bright is painted in one image only" in e.get("message", "") for e in reporter.events)


def test_samples_of_another_generator_are_refused(generator: Generator) -> None:
    good = samples(generator, 2)
    with pytest.raises(ModelError, match="use the generator that made the samples"):
        train_pixel_classifier(
            generator,
            PaintedSamples(good.w[:, :-1], good.noise_seed, good.masks),
            CLASSES,
            config(),
            QuietReporter(),
        )


def test_damaged_weights_are_refused(tmp_path: Path) -> None:
    torch.manual_seed(0)
    broken = Generator(SPEC).eval()
    painted = samples(broken, 2)
    broken.synthesis.b16.conv0.weight.data[0, 0, 0, 0] = float("nan")
    with pytest.raises(ModelError, match="NaN or infinity"):
        train_pixel_classifier(broken, painted, CLASSES, config(), QuietReporter(tmp_path))


def test_divergence_is_reported(generator: Generator, tmp_path: Path) -> None:
    with pytest.raises(TrainingDiverged, match="lower learning_rate"):
        train_pixel_classifier(
            generator,
            samples(generator, 2),
            CLASSES,
            config(preset="hdgan", blocks=3, learning_rate=0.99, weight_decay=1e6, epochs=30),
            QuietReporter(tmp_path),
        )


def test_a_class_that_is_painted_nowhere_is_told_and_not_found(generator: Generator, tmp_path: Path) -> None:
    good = samples(generator, 3)
    data = PaintedSamples(good.w, good.noise_seed, np.where(good.masks == 3, 2, good.masks).astype(np.uint8))
    reporter = QuietReporter(tmp_path)
    folder = train_pixel_classifier(generator, data, CLASSES, config(epochs=3), reporter)
    assert any("no pixel is painted as bright" in e.get("message", "") for e in reporter.events)
    report = json.loads((folder / "classifier.json").read_text())
    assert len(report["spec"]["classes"]) == 3
    assert set(report["validation"]["class_accuracy"]) == {"dark", "middle"}


def test_the_papers_split_keeps_test_images_out_of_training(generator: Generator, tmp_path: Path) -> None:
    painted = samples(generator, 9)
    chosen = config(split="16/4/16", epochs=2)
    split = split_images(painted.masks, 3, chosen)
    assert (split.learns[0].sum(), split.validates[0].sum(), split.tests.sum()) == (4, 1, 4)
    folder = train_pixel_classifier(generator, painted, CLASSES, chosen, QuietReporter(tmp_path / "a"))
    report = json.loads((folder / "classifier.json").read_text())
    assert report["test"]["images"] == np.flatnonzero(split.tests).tolist()
    assert report["validation"]["images"] == np.flatnonzero(split.validates[0]).tolist()
    assert np.sum(report["test"]["confusions"]) == 4 * 32 * 32  # every painted pixel, not a choice of them
    assert np.sum(report["test"]["confusions"], axis=0).tolist() == report["test"]["confusion"]
    # What is painted on test images changes nothing about the weights.
    masks = painted.masks.copy()
    masks[split.tests] = masks[split.tests][:, ::-1]
    other = PaintedSamples(painted.w, painted.noise_seed, masks)
    again = train_pixel_classifier(generator, other, CLASSES, chosen, QuietReporter(tmp_path / "b"))
    assert (again / "classifier.safetensors").read_bytes() == (folder / "classifier.safetensors").read_bytes()
    assert json.loads((again / "classifier.json").read_text())["test"] != report["test"]


def test_the_split_of_36_images_is_that_of_the_paper() -> None:
    split = split_images(masks_showing(*[(1, 2)] * 36), 2, TrainPixelClassifierConfig(split="16/4/16"))
    assert [int(part.sum()) for part in (split.learns[0], split.validates[0], split.tests)] == [16, 4, 16]


def test_presets_set_the_papers_numbers_where_nothing_is_given() -> None:
    hdgan = TrainPixelClassifierConfig(preset="hdgan")
    assert (hdgan.blocks, hdgan.learning_rate, hdgan.split) == (5, 1e-4, "16/4/16")
    assert "learning_rate = 0.0001" in dump_config(hdgan)
    assert TrainPixelClassifierConfig(preset="hdgan", blocks=3).blocks == 3
    published = TrainPixelClassifierConfig(preset="datasetgan")
    assert (published.hidden, published.learning_rate, published.weight_decay) == ((128, 32), 1e-3, 0.0)
    assert make_config(TrainPixelClassifierConfig, hdgan.model_dump()) == hdgan


def test_nets_trained_on_directions_do_as_well_as_on_all_channels(
    generator: Generator, tmp_path: Path
) -> None:
    painted, accuracy = samples(generator, 8), {}
    for count in (0, 48):
        folder = train_pixel_classifier(
            generator,
            painted,
            CLASSES,
            config(directions=count, seed=3),
            QuietReporter(tmp_path / str(count)),
        )
        net = load_pixel_classifier(folder)
        assert net.weights[0].shape[1] == net.spec.layout.channels > 48
        accuracy[count] = json.loads((folder / "classifier.json").read_text())["validation"]["pixel_accuracy"]
    assert accuracy[48] > accuracy[0] - 0.05


def test_finished_nets_share_directions(generator: Generator, tmp_path: Path) -> None:
    painted, accuracy = samples(generator, 8), {}
    for count in (0, 24):
        folder = train_pixel_classifier(
            generator,
            painted,
            CLASSES,
            config(shared_directions=count, seed=3),
            QuietReporter(tmp_path / str(count)),
        )
        accuracy[count] = json.loads((folder / "classifier.json").read_text())["validation"]["pixel_accuracy"]
    net = load_pixel_classifier(folder)
    assert PixelPredictor(net).projection.width == 24
    assert accuracy[24] == pytest.approx(accuracy[0], abs=0.03)


def test_cached_features_give_the_same_classifier(
    generator: Generator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    painted, chosen = samples(generator, 3), config(epochs=2)
    cache = FeatureCache(tmp_path / "cache")

    def weights(name: str, kept: FeatureCache | None) -> bytes:
        reporter = QuietReporter(tmp_path / name)
        folder = train_pixel_classifier(generator, painted, CLASSES, chosen, reporter, cache=kept)
        return (folder / "classifier.safetensors").read_bytes()

    plain, first = weights("plain", None), weights("first", cache)
    passes: list[int] = []
    monkeypatch.setattr(
        generator.synthesis, "features", lambda *a, **k: passes.append(1) or pytest.fail("rebuilt")
    )
    assert weights("second", cache) == first == plain
    monkeypatch.undo()
    group = zarr.open_group(str(tmp_path / "cache" / painted.key(0)), mode="r")
    assert group["level32"].shape[:3] == (1, 32, 32)  # an ordinary zarr group
    chunk = tmp_path / "cache" / painted.key(1) / "level16" / "c" / "0" / "0" / "0" / "0"
    chunk.write_bytes(chunk.read_bytes()[:-4])
    assert cache.load(painted.key(1)) is None
    assert weights("third", cache) == plain  # rebuilt and mended
    assert cache.load(painted.key(1)) is not None


def test_a_cache_that_cannot_be_written_is_told(generator: Generator, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(StorageError, match="feature_cache off"):
        train_pixel_classifier(
            generator,
            samples(generator, 2),
            CLASSES,
            config(),
            QuietReporter(tmp_path / "run"),
            cache=FeatureCache(tmp_path / "cache"),
        )


def test_fitted_noise_is_taken_where_there_is_some(generator: Generator) -> None:
    painted = samples(generator, 2)
    rows = noise_rows(SPEC, painted.noise_seed.tolist())
    fitted = PaintedSamples(painted.w, np.zeros(2, np.int64), painted.masks, rows)
    fitted.check(SPEC, CLASSES)
    both = [collect_pixels(generator, s, COMPUTE, QuietReporter(), blocks=1).x for s in (painted, fitted)]
    assert torch.equal(*both)
    with pytest.raises(ModelError, match="fitted noise has shape"):
        PaintedSamples(painted.w, painted.noise_seed, painted.masks, rows[:, :-1]).check(SPEC, CLASSES)
