"""The patch classifier learns from few labels, resumes exactly, stops at NaN, and shows what it does."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from napari_histogan.config.files import dump_config, make_config
from napari_histogan.config.patch_gan import TrainPatchGanConfig
from napari_histogan.errors import CheckpointError, ConfigError, LabelError, Stopped, TrainingDiverged
from napari_histogan.labels.centers import balanced, free_places, skeleton_places
from napari_histogan.models.device import resolve
from napari_histogan.models.patch_gan import PatchClassifier
from napari_histogan.models.patch_gan_file import load_patch_classifier
from napari_histogan.models.segmenter import pixels_to_input
from napari_histogan.progress import QuietReporter
from napari_histogan.slides.channels import Preparation
from napari_histogan.slides.patch_views import PatchViews
from napari_histogan.training.checkpoint import CheckpointStore
from napari_histogan.training.patch_gan_state import turned
from napari_histogan.training.train_patch_gan import PatchLabels, train_patch_gan

TINY = {
    "patch_px": 32,
    "width": 4,
    "noise": 16,
    "batch": 16,
    "threads": 1,
    "precision": "float32",
    "mpp": 1.0,
}
PREPARED = Preparation("green", clahe=False)
NAMES = ("vessel", "ground")


def vessels(seed: int, side: int = 160) -> tuple[np.ndarray, np.ndarray]:
    """A noisy picture with dark curved lines, and where they are."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side]
    mask = np.zeros((side, side), bool)
    for _ in range(5):
        a, b, c = rng.uniform(-1, 1, 3)
        mask |= np.abs(y * a + x * b - side * c / 2 + 8 * np.sin(x / 15)) < 2.5
    gray = np.where(mask, 90, 160) + rng.normal(0, 18, mask.shape)
    return np.clip(gray, 0, 255).astype(np.uint8)[..., None], mask


def labels(count: int = 128, free: int = 0, seeds: tuple[int, ...] = (0, 1)) -> PatchLabels:
    pictures, masks = zip(*map(vessels, seeds), strict=True)
    inside = [np.ones(m.shape, bool) for m in masks]
    centers = balanced(skeleton_places(masks, inside, 3), NAMES, count, seed=0)
    return PatchLabels(PatchViews(pictures, 32), centers, NAMES, free_places(inside, free, 1))


def train(found, config, reporter, **more):
    return train_patch_gan(found, config, reporter, mpp=1.0, preparation=PREPARED, **more)


def accuracy(net: PatchClassifier, found: PatchLabels) -> float:
    with torch.inference_mode():
        logits = net(pixels_to_input(torch.from_numpy(found.views.gather(found.centers.places))))
    return float((logits[:, :2].argmax(1).numpy() == found.centers.classes).mean())


@pytest.mark.parametrize(
    "settings",
    [
        {"adversarial": False},
        {},
        {"normalization": "instance"},
        {"conditional": True, "unlabelled": 64},
    ],
    ids=["cnn", "gan", "instance", "options"],
)
def test_vessels_are_learned_from_few_patches(tmp_path, settings):
    config = TrainPatchGanConfig(epochs=16, learning_rate=3e-3, preview_every=64, **TINY, **settings)
    reporter = QuietReporter(tmp_path)
    folder = train(labels(free=config.unlabelled), config, reporter)
    net, info = load_patch_classifier(folder)
    assert accuracy(net, labels(seeds=(7, 8))) > 0.75  # pictures that it never saw
    assert info.class_names == NAMES
    assert (info.patches, info.channel, info.clahe) == (128, "green", False)
    assert info.shape.fake == config.adversarial
    metrics = [e for e in reporter.events if e["kind"] == "metric"]
    assert metrics[-1]["class_loss"] < 0.5
    assert metrics[-1]["patches_per_second"] > 0
    adversarial = {"real_loss", "fake_loss", "generator_loss"}
    assert adversarial <= metrics[-1].keys() or not config.adversarial
    previews = [e["path"] for e in reporter.events if e["kind"] == "preview"]
    assert len(previews) == 2 * config.adversarial
    assert (folder / "patch_generator.safetensors").exists() == config.adversarial
    for path in previews:
        with Image.open(path) as sheet:
            assert sheet.size == (8 * 32, 8 * 32)


class StopAfter(QuietReporter):
    """Asks to stop after a number of steps."""

    def __init__(self, run_dir, steps):
        super().__init__(run_dir)
        self.left = steps

    def progress(self, *args):
        self.left -= 1

    def should_stop(self):
        return self.left <= 0


@pytest.mark.parametrize("settings", [{"adversarial": False}, {"conditional": True}], ids=["cnn", "gan"])
def test_stopped_and_resumed_is_the_same_as_never_stopped(tmp_path, settings):
    free = 0 if "adversarial" in settings else 40
    config = TrainPatchGanConfig(epochs=2, unlabelled=free, decay_epochs=1, **TINY, **settings)
    found = labels(64, free)
    whole = train(found, config, QuietReporter(tmp_path / "a"))
    with pytest.raises(Stopped, match="3 of 8"):
        train(found, config, StopAfter(tmp_path / "b", 3))
    assert CheckpointStore(tmp_path / "b" / "checkpoints").steps() == [3]
    resumed = train(found, config, QuietReporter(tmp_path / "b"))
    for name in ("patch_classifier.safetensors", "patch_generator.safetensors"):
        if (whole / name).exists():
            assert (whole / name).read_bytes() == (resumed / name).read_bytes()


def test_a_run_does_not_go_on_with_other_labels_or_networks(tmp_path):
    config = TrainPatchGanConfig(epochs=2, **TINY)
    with pytest.raises(Stopped):
        train(labels(64), config, StopAfter(tmp_path, 2))
    with pytest.raises(LabelError, match="not those that this run began with"):
        train(labels(64, seeds=(3, 4)), config, QuietReporter(tmp_path))
    with pytest.raises(CheckpointError, match="other networks"):
        train(labels(64), config.model_copy(update={"width": 5}), QuietReporter(tmp_path))


def test_training_ends_where_numbers_end(tmp_path):
    config = TrainPatchGanConfig(epochs=2, checkpoint_minutes=1e-9, **TINY)
    found = labels(64)

    nets = []
    forward = PatchClassifier.forward

    def watched(self, patches):
        nets.append(self)
        return forward(self, patches)

    class Poison(QuietReporter):
        looks = 0

        def should_stop(self):
            self.looks += 1
            if self.looks == 4:  # before step 3, after its checkpoint
                nets[0].head.weight.data.fill_(float("nan"))
            return False

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PatchClassifier, "forward", watched)
        with pytest.raises(TrainingDiverged, match=r"at step 3 .*nan"):
            train(found, config, Poison(tmp_path))
    last = CheckpointStore(tmp_path / "checkpoints").load_latest()
    assert last is not None
    assert last.step == 3
    assert all(torch.isfinite(weights).all() for weights in last.state["net"].values())


def test_too_few_labels_for_a_batch_are_refused(tmp_path):
    with pytest.raises(LabelError, match="there are 8 labeled patches"):
        train(labels(8), TrainPatchGanConfig(**TINY), QuietReporter(tmp_path))


def test_turning_changes_no_pixel_values_and_takes_all_eight_ways():
    patch = torch.arange(9.0).reshape(1, 1, 3, 3)
    found = turned(patch.expand(400, 1, 3, 3), np.random.default_rng(0))
    ways = {tuple(p.flatten().tolist()) for p in found}
    assert len(ways) == 8
    assert all(sorted(way) == list(range(9)) for way in ways)
    assert all(p[0, 1, 1] == 4 for p in found)


def test_the_preset_is_the_paper_s_and_settings_that_clash_are_refused():
    config = make_config(TrainPatchGanConfig, {"preset": "paper", "mpp": 1.0, "batch": 32})
    assert (config.normalization, config.learning_rate, config.noise) == ("instance", 1e-4, 300)
    assert (config.decay, config.decay_epochs, config.patch_px, config.batch) == (0.8, 20, 64, 32)
    assert config.clahe
    assert not config.mirror_and_rotate
    assert "instance" in dump_config(config)
    with pytest.raises(ConfigError, match="32, 64, or 128 px, got 63"):
        make_config(TrainPatchGanConfig, {"patch_px": 63})
    with pytest.raises(ConfigError, match="only with adversarial on"):
        make_config(TrainPatchGanConfig, {"adversarial": False, "unlabelled": 5})


def test_the_map_is_drawn_by_whoever_can(tmp_path):
    config = TrainPatchGanConfig(epochs=1, **TINY)
    reporter, seen = QuietReporter(tmp_path), []

    def show(net):
        seen.append(resolve(config).device)
        assert not net.training
        return np.zeros((4, 6, 3), np.uint8)

    train(labels(32), config, reporter, show_map=show)
    assert len(seen) == 1
    assert [e["name"] for e in reporter.events if e["kind"] == "preview"] == ["samples", "map"]
