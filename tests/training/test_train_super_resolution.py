"""Super-resolution learns outlines that nobody drew, resumes exactly, and refuses what cannot work."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_histogan.config.block_labels import TrainSuperResolutionConfig
from napari_histogan.config.files import make_config
from napari_histogan.errors import ConfigError, Stopped, TrainingError
from napari_histogan.labels.block_labels import binned
from napari_histogan.labels.calibration import CalibrationTable, table_of
from napari_histogan.models.segmenter import load_segmenter, pixels_to_input
from napari_histogan.progress import QuietReporter
from napari_histogan.training.block_sources import ArrayBlocks, GroupSampler
from napari_histogan.training.checkpoint import CheckpointStore
from napari_histogan.training.train_super_resolution import _in_fours, train_super_resolution

SIDE = 24
EDGES = (0, 20, 50, 80, 100)
TINY = {"width": 4, "depth": 2, "groups": 3, "per_group": 6, "context_px": 0, "threads": 1, "augment": False}


def discs(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Pictures of dark purple discs on pink ground, with their masks."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:SIDE, :SIDE]
    masks = np.zeros((count, SIDE, SIDE), bool)
    for mask in masks:
        for _ in range(rng.integers(0, 4)):
            center, radius = rng.uniform(0, SIDE, 2), rng.uniform(4, 13)
            mask |= (y - center[0]) ** 2 + (x - center[1]) ** 2 < radius**2
    color = np.where(masks[..., None], [120, 80, 150], [225, 170, 200])
    return np.clip(color + rng.normal(0, 25, color.shape), 0, 255).astype(np.uint8), masks


def blocks(count: int = 240, seed: int = 0) -> tuple[ArrayBlocks, CalibrationTable]:
    """Blocks with a label by bins of the discs' share, and the table of 12 blocks of each."""
    images, masks = discs(count, seed)
    shares = masks.mean(axis=(1, 2))
    labels = binned(100 * shares, EDGES).astype(np.int64)
    names = tuple(map(str, range(len(EDGES) - 1)))
    looked_at = {n: [(s, 1 - s) for s in shares[labels == int(n)][:12]] for n in names}
    return ArrayBlocks(images, labels, 1.0, SIDE), table_of(looked_at, names, ("disc", "ground"))


def predicted_discs(folder, images: np.ndarray) -> np.ndarray:
    net, _ = load_segmenter(folder)
    with torch.inference_mode():
        logits = net(pixels_to_input(torch.from_numpy(images).permute(0, 3, 1, 2)))
    return (logits.argmax(1) == 0).numpy()


def test_outlines_come_from_labels_of_blocks_alone(tmp_path):
    source, table = blocks()
    reporter = QuietReporter(tmp_path)
    config = TrainSuperResolutionConfig(steps=120, validate_every=40, learning_rate=1e-2, **TINY)
    folder = train_super_resolution(source, table, config, reporter)
    images, masks = discs(60, seed=9)
    found = predicted_discs(folder, images)
    dice = 2 * (found & masks).sum() / (found.sum() + masks.sum())
    # The best that blocks alone can say: whole blocks, by their true majority.
    whole = np.broadcast_to((masks.mean(axis=(1, 2)) > 0.5)[:, None, None], masks.shape)
    blocky = 2 * (whole & masks).sum() / (whole.sum() + masks.sum())
    assert dice > max(0.8, blocky + 0.05)
    info = load_segmenter(folder)[1]
    assert info.class_names == ("disc", "ground")
    assert info.validation["share_error"] < 0.15
    assert np.array_equal(CalibrationTable.load(folder / "calibration.json").eta, table.eta)
    metrics = [e for e in reporter.events if e["kind"] == "metric" and "val_loss" in e]
    assert len(metrics) == 3


def test_stopped_and_resumed_is_the_same_as_never_stopped(tmp_path):
    source, table = blocks(60)
    config = TrainSuperResolutionConfig(steps=6, validate_every=3, **{**TINY, "augment": True})
    whole = train_super_resolution(source, table, config, QuietReporter(tmp_path / "a"))

    class StopAt(QuietReporter):
        def progress(self, done, *rest):
            self.stop = done >= 3
            super().progress(done, *rest)

        def should_stop(self):
            return getattr(self, "stop", False)

    with pytest.raises(Stopped):
        train_super_resolution(source, table, config, StopAt(tmp_path / "b"))
    assert CheckpointStore(tmp_path / "b" / "checkpoints").steps() == [3]
    resumed = train_super_resolution(source, table, config, QuietReporter(tmp_path / "b"))
    first, second = load_segmenter(whole)[0].state_dict(), load_segmenter(resumed)[0].state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_training_ends_when_validation_gets_no_better(tmp_path):
    source, table = blocks(200)
    reporter = QuietReporter(tmp_path)
    config = TrainSuperResolutionConfig(
        steps=200, validate_every=1, patience=2, validation_share=0.2, learning_rate=0.9, ema=0.0, **TINY
    )
    train_super_resolution(source, table, config, reporter)
    steps = [e["step"] for e in reporter.events if e["kind"] == "metric"]
    assert max(steps) < 200


def test_groups_hold_one_label_and_held_out_blocks_are_never_drawn():
    labels = np.array([0] * 30 + [1] * 10 + [2] * 1)
    sampler = GroupSampler(labels, 5, 0.2, seed=3)
    assert {v: len(b) for v, b in sampler.training.items()} == {0: 24, 1: 8}
    assert sampler.held_out_count == 8
    held_out, times = set(np.concatenate(list(sampler.held_out.values())).tolist()), np.zeros(2)
    for step in range(200):
        drawn, values = sampler.draw(step, 4)
        assert (labels[drawn] == values[:, None]).all()
        assert all(len(set(row)) == 5 for row in drawn.tolist())
        assert not held_out & set(drawn.ravel().tolist())
        times += np.bincount(values, minlength=2)
    assert times[0] / times[1] == pytest.approx(3, rel=0.25)
    again, _ = GroupSampler(labels, 5, 0.2, seed=3).draw(7, 4)
    assert np.array_equal(again, sampler.draw(7, 4)[0])
    with pytest.raises(TrainingError, match="two blocks of one label"):
        GroupSampler(np.arange(5), 5, 0.2, seed=0)


def test_the_preset_is_the_paper_s():
    config = make_config(TrainSuperResolutionConfig, {"preset": "paper", "width": 8})
    assert (config.groups, config.per_group, config.learning_rate) == (2, 15, 1e-3)
    assert (config.optimizer, config.matching, config.block_px, config.width) == (
        "rmsprop",
        "overlap",
        240,
        8,
    )
    intra = make_config(TrainSuperResolutionConfig, {"preset": "paper", "model": "intra"})
    assert (intra.groups * intra.per_group, intra.learning_rate) == (30, 1e-5)
    with pytest.raises(ConfigError, match="per_group is 2 or more"):
        make_config(TrainSuperResolutionConfig, {"model": "inter", "per_group": 1})


def test_the_paper_s_settings_train(tmp_path):
    source, table = blocks(60)
    for model in ("intra", "inter"):
        settings = {"preset": "paper", "model": model, "steps": 2, "width": 4, "depth": 1, "threads": 1}
        config = make_config(TrainSuperResolutionConfig, settings)
        folder = train_super_resolution(source, table, config, QuietReporter(tmp_path / model))
        assert predicted_discs(folder, source.images[:2]).shape == (2, SIDE, SIDE)


def test_blocks_are_compared_one_by_one_while_it_warms_up(tmp_path):
    source, table = blocks(60)

    def weights(name: str, **given) -> dict[str, torch.Tensor]:
        config = TrainSuperResolutionConfig(steps=4, **TINY, **given)
        train_super_resolution(source, table, config, QuietReporter(tmp_path / name))
        return CheckpointStore(tmp_path / name / "checkpoints").load_latest().state["net"]

    intra, warming = weights("intra", model="intra"), weights("warming", model="inter", warm_up=1.0)
    assert all(torch.equal(warming[name], value) for name, value in intra.items())
    turned, inter = weights("turned", model="inter", warm_up=0.5), weights("inter", model="inter")
    for other in (intra, inter):
        assert not torch.equal(turned["head.weight"], other["head.weight"])


def test_blocks_that_a_net_sees_two_by_two_come_back_in_their_order():
    """A net that looks at single pixels says the same of blocks laid together as of blocks alone."""
    net = torch.nn.Conv2d(3, 4, 1)
    pixels = torch.randn(2 * 6, 3, 5, 5, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(_in_fours(net, pixels, 2), net(pixels))
    wide = torch.nn.Conv2d(3, 4, 3, padding=1)
    laid, alone = _in_fours(wide, pixels, 2), wide(pixels)
    torch.testing.assert_close(laid[..., 1:-1, 1:-1], alone[..., 1:-1, 1:-1])
    assert not torch.allclose(laid, alone), "at the edges there is another block instead of padding"
