"""The classifier behind the brush: what it keeps, and what a stroke costs."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_histogan.config import SampleImagesConfig, StageConfig
from napari_histogan.inference.sampling import load_samples, sample
from napari_histogan.jobs.live_classifier import LiveClassifier, probe_positions
from napari_histogan.labels.classes import ClassTable
from napari_histogan.models.device import resolve
from napari_histogan.models.stylegan2 import Generator, GeneratorSpec
from napari_histogan.progress import QuietReporter

SIDE = 32
CLASSES = ClassTable.from_names(["dark", "bright"])


@pytest.fixture
def live(tmp_path):
    torch.manual_seed(0)
    spec = GeneratorSpec(32, 0, 32, SIDE, mapping_layers=2, channel_base=512, channel_max=32)
    generator = Generator(spec).eval().requires_grad_(False)
    samples = load_samples(sample(generator, SampleImagesConfig(count=12), QuietReporter(tmp_path)))
    return LiveClassifier(generator, samples, resolve(StageConfig(threads=1)), tmp_path / "live")


def truth(live, index):
    threshold = np.median(live.samples.image[:])
    return (1 + (live.samples.image[index].mean(axis=2) > threshold)).astype(np.uint8)


def learn(live, masks, at_hand=-1):
    for _ in live.learn(masks, CLASSES, at_hand):
        pass


def look(live, indices):
    for _ in live.look_at(indices):
        pass


def passes(live, monkeypatch):
    """Count the passes of the generator from here on."""
    counted, features = [], live.generator.synthesis.features
    monkeypatch.setattr(
        live.generator.synthesis, "features", lambda *a, **k: counted.append(1) or features(*a, **k)
    )
    return counted


def test_held_out_samples_are_labelled(live):
    learn(live, {i: truth(live, i) for i in range(6)})
    assert (live.predict(0)[0] == truth(live, 0)).mean() > 0.9
    right = []
    for index in (8, 9, 10, 11):
        labels, uncertainty = live.predict(index)
        right.append((labels == truth(live, index)).mean())
        assert 0 <= uncertainty.min() <= uncertainty.max() <= 1
    assert np.mean(right) > 0.65  # the weights are random; half would be chance


def test_probes_are_judged_as_the_whole_image_is(live):
    learn(live, {i: truth(live, i) for i in range(4)})
    look(live, [5, 6])
    found = live.judge([5, 6])[0]
    for row, index in zip(found, (5, 6), strict=True):
        whole = live.predict(index)[0].ravel()[probe_positions(SIDE)]
        assert (row == whole).mean() > 0.97  # probes are kept in bfloat16


def test_stroke_in_the_open_sample_needs_no_pass_of_the_generator(live, monkeypatch):
    masks = {i: truth(live, i) for i in range(3)}
    learn(live, masks, 2)
    counted = passes(live, monkeypatch)
    masks[2] = np.where(np.arange(SIDE) < 16, masks[2], 0).astype(np.uint8)
    learn(live, masks, 2)
    live.predict(2)
    assert counted == []
    learn(live, {**masks, 3: truth(live, 3)}, 3)
    assert len(counted) == 1


def test_same_masks_are_not_learned_again(live):
    masks = {i: truth(live, i) for i in range(3)}
    learn(live, masks)
    net = live.net
    learn(live, masks)
    assert live.net is net


def test_erased_masks_are_forgotten(live):
    masks = {i: truth(live, i) for i in range(4)}
    learn(live, masks)
    wrong = {0: masks[0], 1: 3 - masks[1]}
    learn(live, {**masks, **wrong})
    live.forget()
    learn(live, masks)
    assert (live.predict(1)[0] == masks[1]).mean() > 0.8


def test_ranking_prefers_what_is_unlike_the_painted_and_the_chosen(live):
    masks = {i: truth(live, i) for i in range(3)}
    learn(live, masks)
    pool = list(range(3, 12))
    look(live, range(12))
    order, uncertainty = live.rank(pool, list(masks))
    assert sorted(order) == pool
    assert uncertainty.max() <= 1
    again = live.judge(order)[1]
    np.testing.assert_allclose(uncertainty, again)
    # A twin of the first choice comes last, however unsure the ensemble is of it.
    live.samples.w[11] = live.samples.w[order[0]]
    live.samples.noise_seed[11] = live.samples.noise_seed[order[0]]
    live._probes.pop(11)
    look(live, [11])
    ranked = live.rank(pool, list(masks))[0]
    twins = {order[0], 11} if order[0] != 11 else {11}
    if len(twins) == 2:
        assert {ranked[0], ranked[-1]} == twins
