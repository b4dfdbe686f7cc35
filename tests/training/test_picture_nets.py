"""Picture nets: what surrounds a pixel tells classes that the pixel alone does not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import zarr

from napari_histogan.config import SynthesizeDatasetConfig, TrainPixelClassifierConfig
from napari_histogan.errors import Stopped
from napari_histogan.inference.synthetic_dataset import synthesize_dataset
from napari_histogan.labels.classes import ClassTable
from napari_histogan.models.device import Compute
from napari_histogan.models.picture_bytes import as_bytes
from napari_histogan.models.picture_nets import (
    PictureNets,
    PictureOpinion,
    combine,
    entropy_of,
    load_picture_nets,
)
from napari_histogan.models.pixel_classifier import Prediction, load_pixel_classifier
from napari_histogan.models.stylegan2 import Generator, GeneratorSpec
from napari_histogan.models.uncertainty import ensemble_statistics
from napari_histogan.models.unet import UNet
from napari_histogan.progress import QuietReporter
from napari_histogan.training.labelled_pixels import PaintedSamples, rebuilt_pictures
from napari_histogan.training.train_pixel_classifier import train_pixel_classifier

CLASSES = ClassTable.from_names(["left", "right"])
COMPUTE = Compute(torch.device("cpu"), torch.float32, 1)
SPEC = GeneratorSpec(z_dim=16, c_dim=0, w_dim=16, img_resolution=32, channel_base=256, channel_max=16)


@pytest.fixture(scope="module")
def generator() -> Generator:
    torch.manual_seed(0)
    net = Generator(SPEC).eval()
    for module in net.modules():
        if hasattr(module, "noise_strength"):
            module.noise_strength.data.fill_(0.5)
    return net


@pytest.fixture(scope="module")
def painted(generator: Generator) -> PaintedSamples:
    """Painted by the brightness of a pixel's surroundings in the picture."""
    n = 12
    w = generator.mapping(torch.randn(n, 16, generator=torch.Generator().manual_seed(1))).detach().numpy()
    seeds = np.arange(50, 50 + n)
    samples = PaintedSamples(w, seeds, np.zeros((n, 32, 32), np.uint8))
    pictures = torch.from_numpy(rebuilt_pictures(generator, samples, torch.device("cpu"))).float()
    around = torch.nn.functional.avg_pool2d(pictures.mean(3)[:, None], 9, 1, 4)[:, 0]
    masks = 1 + (around > around.median()).to(torch.uint8)
    return PaintedSamples(w, seeds, masks.numpy())


def config(**fields: Any) -> TrainPixelClassifierConfig:
    usual = {"threads": 1, "members": 3, "hidden": (8,), "epochs": 1, "precision": "float32"}
    return TrainPixelClassifierConfig(**{**usual, "picture_nets": 2, "picture_steps": 40, **fields})


def trained(generator: Generator, painted: PaintedSamples, run: Path, **fields: Any) -> Path:
    return train_pixel_classifier(generator, painted, CLASSES, config(**fields), QuietReporter(run))


def report_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "classifier.json").read_text())["picture_nets"]


def test_nets_that_help_are_kept_and_label_pairs(
    generator: Generator, painted: PaintedSamples, tmp_path: Path
) -> None:
    folder = trained(generator, painted, tmp_path / "with")
    report = report_of(folder)
    assert report["held_out"] == 12
    assert report["kept"]
    assert report["mean_dice_both"] > report["mean_dice_features"] + 0.02
    nets = load_picture_nets(folder)
    assert len(nets) == 2
    wanted = SynthesizeDatasetConfig(count=16, drop_uncertain=0, threads=1, precision="float32")
    classifier = load_pixel_classifier(folder)
    masks = []
    for name, chosen in (("alone", []), ("both", nets)):
        (tmp_path / name).mkdir()
        out, _ = synthesize_dataset(
            generator, classifier, wanted, QuietReporter(tmp_path / name), picture_nets=chosen
        )
        masks.append(zarr.open_group(out / "pairs.zarr", mode="r")["masks"][:])
    assert 0.5 < (masks[0] == masks[1]).mean() < 1


def test_nets_that_do_not_help_are_left_out(
    generator: Generator, painted: PaintedSamples, tmp_path: Path
) -> None:
    reporter = QuietReporter(tmp_path)
    rng = np.random.default_rng(0)
    noise = PaintedSamples(painted.w, painted.noise_seed, rng.integers(1, 3, painted.masks.shape, np.uint8))
    folder = train_pixel_classifier(generator, noise, CLASSES, config(picture_steps=1), reporter)
    report = report_of(folder)
    assert report["kept"] == (report["mean_dice_both"] > report["mean_dice_features"])
    assert bool(load_picture_nets(folder)) == report["kept"]
    said = any("left out" in str(event) for event in reporter.events)
    assert said != report["kept"]


def test_goes_on_after_a_stop_to_the_same_nets(
    generator: Generator, painted: PaintedSamples, tmp_path: Path
) -> None:
    whole = trained(generator, painted, tmp_path / "whole", picture_steps=6)
    second = tmp_path / "stopped" / "picture_nets" / "1"
    reporter = QuietReporter(tmp_path / "stopped", stop_when=second.exists)
    with pytest.raises(Stopped):
        train_pixel_classifier(generator, painted, CLASSES, config(picture_steps=6), reporter)
    again = trained(generator, painted, tmp_path / "stopped", picture_steps=6)
    for a, b in zip(load_picture_nets(whole), load_picture_nets(again), strict=True):
        for name, value in a.state_dict().items():
            assert torch.equal(value, b.state_dict()[name]), name
    assert report_of(whole) == report_of(again)


def test_begins_anew_when_the_masks_changed(
    generator: Generator, painted: PaintedSamples, tmp_path: Path
) -> None:
    reporter = QuietReporter(tmp_path / "a", stop_when=(tmp_path / "a/picture_nets/1").exists)
    with pytest.raises(Stopped):
        train_pixel_classifier(generator, painted, CLASSES, config(picture_steps=6), reporter)
    turned = PaintedSamples(painted.w, painted.noise_seed, 3 - painted.masks)
    again = trained(generator, turned, tmp_path / "a", picture_steps=6)
    fresh = trained(generator, turned, tmp_path / "b", picture_steps=6)
    assert report_of(again) == report_of(fresh)


def test_large_pictures_are_judged_in_windows_as_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    nets = [UNet(3, width=4, depth=2).eval() for _ in range(2)]
    pictures = torch.randint(0, 256, (2, 3, 160, 160), dtype=torch.uint8)
    whole = PictureNets(nets, COMPUTE)(pictures)
    monkeypatch.setattr("napari_histogan.models.picture_nets.WINDOW_PX", 48)
    parts = PictureNets(nets, COMPUTE)(pictures)
    torch.testing.assert_close(parts.probabilities, whole.probabilities, atol=1e-5, rtol=0)
    torch.testing.assert_close(parts.entropy, whole.entropy, atol=1e-5, rtol=0)


def test_the_uncertainty_of_both_is_that_of_all_nets_together() -> None:
    """With as many nets of either kind the two kinds weigh as one ensemble does."""
    logits = torch.randn(6, 4, 50, generator=torch.Generator().manual_seed(0))
    mean, divergence = ensemble_statistics(logits)
    first, own_divergence = ensemble_statistics(logits[:3])
    p = logits[3:].softmax(dim=1)
    shape = (1, 4, 5, 10)
    features = Prediction(
        torch.zeros(1, 5, 10, dtype=torch.uint8), first.view(shape), own_divergence.view(1, 5, 10)
    )
    own = entropy_of(p, dim=1).mean(0).view(1, 5, 10)
    mixed = combine(features, PictureOpinion(p.mean(0).view(shape), own))
    torch.testing.assert_close(mixed.probabilities, mean.view(shape))
    torch.testing.assert_close(mixed.uncertainty, divergence.view(1, 5, 10), atol=1e-5, rtol=1e-4)
    assert torch.equal(mixed.labels, (mean.argmax(0) + 1).view(1, 5, 10).to(torch.uint8))


def test_bytes_are_those_of_pictures() -> None:
    ends = torch.tensor([-1.2, -1.0, 0.0, 1.0, 2.0])
    assert as_bytes(ends).tolist() == [0, 0, 128, 255, 255]


def test_one_net_is_refused() -> None:
    with pytest.raises(ValueError, match="picture_nets"):
        config(picture_nets=1)
