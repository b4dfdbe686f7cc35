"""Contracts of GAN training: resumes bit for bit, stops on request, reports, refuses what cannot be."""

import numpy as np
import pytest
import torch

from napari_histogan.config import TrainGanConfig
from napari_histogan.errors import ConfigError, Stopped, TrainingDiverged
from napari_histogan.models.stylegan2 import generator_info, load_discriminator, load_generator
from napari_histogan.progress import QuietReporter
from napari_histogan.training.checkpoint import CheckpointStore
from napari_histogan.training.train_gan import train_gan


class Ramps:
    """Patches that are a pure function of their number: two colors and a gradient."""

    patch_px = 16
    mpp = 1.0

    def __init__(self, broken_at: int | None = None) -> None:
        self.position, self.broken_at = 0, broken_at

    def next_batch(self, n: int) -> np.ndarray:
        out = np.empty((n, 16, 16, 3), np.uint8)
        for i in range(n):
            rng = np.random.default_rng(self.position + i)
            colors = rng.integers(0, 256, (2, 3))
            out[i] = np.linspace(colors[0], colors[1], 16)[:, None].astype(np.uint8)
        self.position += n
        return out

    def state_dict(self) -> dict:
        return {"position": self.position}

    def load_state_dict(self, state: dict) -> None:
        self.position = state["position"]


@pytest.fixture
def config():
    return TrainGanConfig(
        kimg=0.048,
        batch=8,
        z_dim=8,
        w_dim=8,
        mapping_layers=2,
        channel_base=128,
        channel_max=8,
        path_length_weight=2.0,
        r1_every=2,
        path_length_every=2,
        tick_kimg=0.016,
        ada_target=0.0,
        threads=1,
        precision="float32",
    )


def stop_after(images: int, patches: Ramps):
    return lambda: patches.position >= images


def checkpoint(run_dir):
    return CheckpointStore(run_dir / "checkpoints").load_latest()


def assert_same(first, second):
    assert type(first) is type(second)
    if isinstance(first, dict):
        assert first.keys() == second.keys()
        for key in first:
            assert_same(first[key], second[key])
    elif isinstance(first, list | tuple):
        assert len(first) == len(second)
        for a, b in zip(first, second, strict=True):
            assert_same(a, b)
    elif isinstance(first, torch.Tensor):
        assert torch.equal(first, second)
    else:
        assert first == second


@pytest.mark.parametrize(
    "values",
    [{}, {"precision": "bfloat16"}, {"ada_target": 0.01, "ada_kimg": 0.05}],
    ids=["float32", "bfloat16", "augmented"],
)
def test_stopped_and_resumed_equals_uninterrupted_bit_for_bit(config, tmp_path, values):
    config = config.model_copy(update=values)
    train_gan(Ramps(), config, QuietReporter(tmp_path / "whole"))

    patches = Ramps()
    with pytest.raises(Stopped, match="resume"):
        train_gan(patches, config, QuietReporter(tmp_path / "parts", stop_after(24, patches)))
    assert checkpoint(tmp_path / "parts").step == 24
    torch.manual_seed(999)
    folder = train_gan(Ramps(), config, QuietReporter(tmp_path / "parts"))

    whole, parts = checkpoint(tmp_path / "whole"), checkpoint(tmp_path / "parts")
    assert whole.step == parts.step == 48
    assert_same(whole.state, parts.state)
    first = (tmp_path / "whole" / "result" / "generator.safetensors").read_bytes()
    assert first == (folder / "generator.safetensors").read_bytes()


def test_result_and_reports(config, tmp_path):
    reporter = QuietReporter(tmp_path)
    folder = train_gan(Ramps(), config, reporter)
    generator = load_generator(folder)
    assert generator.spec.img_resolution == 16
    assert generator_info(folder)["mpp"] == 1.0
    assert generator_info(folder)["kimg"] == pytest.approx(0.048)
    assert load_discriminator(folder / "discriminator.safetensors").spec.img_resolution == 16
    metrics = [e for e in reporter.events if e["kind"] == "metric"]
    assert [m["step"] for m in metrics] == [16, 32, 48]
    names = {
        "kimg",
        "seconds_per_kimg",
        "score_fake",
        "score_real",
        "r1",
        "ada_p",
        "sliced_wasserstein",
        "spread",
    }
    assert names <= metrics[-1].keys()
    assert all(np.isfinite(v) for m in metrics for k, v in m.items() if k in names)
    assert len(list((tmp_path / "previews").glob("*.png"))) >= 1
    assert len([e for e in reporter.events if e["kind"] == "preview"]) == 3
    progress = [e for e in reporter.events if e["kind"] == "progress"]
    assert progress[-1]["done"] == progress[-1]["total"] == 0.048


def test_training_brings_samples_toward_the_patches(config, tmp_path):
    reporter = QuietReporter(tmp_path)
    values = {"kimg": 1.6, "tick_kimg": 0.4, "batch": 16, "path_length_weight": 0.0, "r1_every": 16}
    train_gan(Ramps(), config.model_copy(update=values), reporter)
    distances = [e["sliced_wasserstein"] for e in reporter.events if e["kind"] == "metric"]
    assert distances[-1] < 0.7 * distances[0]


def test_micro_batches_give_the_same_number_of_images(config, tmp_path):
    folder = train_gan(Ramps(), config.model_copy(update={"micro_batch": 4}), QuietReporter(tmp_path))
    assert generator_info(folder)["kimg"] == pytest.approx(0.048)
    with pytest.raises(ConfigError, match="micro_batch"):
        train_gan(Ramps(), config.model_copy(update={"micro_batch": 3}), QuietReporter(tmp_path / "b"))


def test_training_goes_on_from_a_given_generator(config, tmp_path):
    first = load_generator(train_gan(Ramps(), config, QuietReporter(tmp_path / "a")))
    values = {"kimg": 0.008, "channel_max": 4, "learning_rate": 1e-6}
    folder = train_gan(Ramps(), config.model_copy(update=values), QuietReporter(tmp_path / "b"), init=first)
    second = load_generator(folder)
    assert second.spec == first.spec
    assert (second.synthesis.b16.conv1.weight - first.synthesis.b16.conv1.weight).abs().max() < 1e-4
    other = Ramps()
    other.patch_px = 8
    with pytest.raises(ConfigError, match=r"paints 16 px .* patches have 8 px"):
        train_gan(other, config, QuietReporter(tmp_path / "c"), init=first)


def test_checkpoints_of_the_first_format_still_load(config, tmp_path):
    patches = Ramps()
    with pytest.raises(Stopped):
        train_gan(patches, config, QuietReporter(tmp_path, stop_after(24, patches)))
    store = CheckpointStore(tmp_path / "checkpoints")
    state = store.load_latest().state
    for name in ("chance", "discriminator_spec", "best_score", "warmup_images", "ema_rampup", "mpp"):
        del state[name]
    store.save(24, state)
    folder = train_gan(Ramps(), config, QuietReporter(tmp_path))
    assert generator_info(folder)["kimg"] == pytest.approx(0.048)
    assert checkpoint(tmp_path).state["iteration"] == 6


def test_checkpoints_of_other_sizes_are_refused(config, tmp_path):
    train_gan(Ramps(), config, QuietReporter(tmp_path))
    with pytest.raises(ConfigError, match="other sizes"):
        train_gan(Ramps(), config.model_copy(update={"w_dim": 16}), QuietReporter(tmp_path))


def test_divergence_ends_training_and_keeps_the_checkpoint(config, tmp_path):
    patches = Ramps()
    with pytest.raises(Stopped):
        train_gan(patches, config, QuietReporter(tmp_path, stop_after(16, patches)))
    with pytest.raises(TrainingDiverged, match="not finite"):
        train_gan(
            Ramps(),
            config.model_copy(update={"r1_gamma": 1e38}),
            QuietReporter(tmp_path),
        )
    assert checkpoint(tmp_path).step == 16
    assert all(v.isfinite().all() for v in checkpoint(tmp_path).state["generator"].values())


def test_augmentation_rises_while_the_discriminator_is_too_sure(config, tmp_path):
    reporter = QuietReporter(tmp_path)
    values = {
        "kimg": 0.32,
        "tick_kimg": 0.064,
        "ada_target": 0.01,
        "ada_kimg": 0.3,
        "path_length_weight": 0.0,
    }
    train_gan(Ramps(), config.model_copy(update=values), reporter)
    metrics = [e for e in reporter.events if e["kind"] == "metric"]
    assert 0 < metrics[-1]["ada_p"] <= 0.32 / 0.3
    assert metrics[0]["ada_p"] != metrics[-1]["ada_p"]
