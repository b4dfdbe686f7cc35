"""Maps of patch classifiers are those of the plain loop over patches, on pictures and on slides."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from napari_histogan.config.patch_gan import PredictPatchMapConfig
from napari_histogan.errors import ConfigError, SlideError
from napari_histogan.inference.patch_map import PatchMapper, predict_patch_map
from napari_histogan.models.device import resolve
from napari_histogan.models.patch_gan import PatchClassifier, PatchNetShape
from napari_histogan.models.patch_gan_file import PatchClassifierInfo, save_patch_classifier
from napari_histogan.models.segmenter import pixels_to_input
from napari_histogan.progress import QuietReporter
from napari_histogan.slides import channels
from napari_histogan.slides.channels import Preparation
from napari_histogan.slides.reader import open_slide
from napari_histogan.slides.zarr_pyramid import open_pyramid

CPU = resolve(PredictPatchMapConfig(precision="float32", threads=1, device="cpu"))
NAMES = ("vessel", "ground")


def network(**values) -> PatchClassifier:
    """A net whose random weights make probabilities of all sizes."""
    torch.manual_seed(3)
    shape = {"patch_px": 32, "channels": 1, "num_classes": 2, "fake": True, "width": 4, **values}
    net = PatchClassifier(PatchNetShape(**shape)).eval()
    torch.nn.init.normal_(net.head.weight, std=0.2)
    return net


def picture(height: int, width: int, bands: int = 1) -> np.ndarray:
    """Blobs of noise, ``(C, H, W)``."""
    rng = np.random.default_rng(5)
    coarse = rng.integers(0, 256, (bands, height // 4 + 1, width // 4 + 1), np.uint8)
    return coarse.repeat(4, 1).repeat(4, 2)[:, :height, :width].copy()


@torch.inference_mode()
def plain_loop(net: PatchClassifier, pixels: np.ndarray) -> np.ndarray:
    """Cut and classify one patch after the other, as one would write it down first."""
    side, half = net.shape.patch_px, net.shape.patch_px // 2
    padded = np.pad(pixels, ((0, 0), (half, half), (half, half)), mode="edge")
    out = np.empty((net.shape.num_classes, *pixels.shape[1:]), np.float32)
    for y in range(pixels.shape[1]):
        for x in range(pixels.shape[2]):
            patch = torch.from_numpy(padded[None, :, y : y + side, x : x + side].copy())
            logits = net(pixels_to_input(patch))
            out[:, y, x] = logits[0, : net.shape.num_classes].softmax(0).numpy()
    return out


@pytest.mark.parametrize(
    ("normalization", "bands", "fake"), [("channel", 1, True), ("channel", 3, False), ("instance", 1, True)]
)
def test_the_map_is_that_of_the_plain_loop(normalization, bands, fake):
    net = network(normalization=normalization, channels=bands, fake=fake)
    pixels = picture(37, 45, bands)
    expected = plain_loop(net, pixels)
    found = PatchMapper(net, CPU).of_picture(pixels)
    assert found.shape == (2, 37, 45)
    np.testing.assert_allclose(found, expected, atol=2e-5)
    assert expected[0].std() > 0.05  # there is something to tell apart
    np.testing.assert_allclose(found.sum(axis=0), 1, atol=1e-5)


@pytest.mark.parametrize("normalization", ["channel", "instance"])
@pytest.mark.parametrize("stride", [2, 4, 8])
def test_a_stride_computes_some_patches_exactly_and_interpolates_between(normalization, stride):
    net = network(normalization=normalization)
    pixels = picture(38, 45)
    exact = PatchMapper(net, CPU).of_picture(pixels)
    found = PatchMapper(net, CPU, stride).of_picture(pixels)
    assert found.shape == exact.shape
    np.testing.assert_allclose(found[:, ::stride, ::stride], exact[:, ::stride, ::stride], atol=2e-5)
    middle = (found[:, 0, 0] + found[:, 0, stride]) / 2
    np.testing.assert_allclose(found[:, 0, stride // 2], middle, atol=1e-5)


def test_large_pictures_are_computed_part_by_part(monkeypatch):
    net, pixels = network(), picture(70, 90)
    whole = PatchMapper(net, CPU, 2).of_picture(pixels)
    monkeypatch.setattr("napari_histogan.inference.patch_map._DENSE_SIDE", 11)
    np.testing.assert_allclose(PatchMapper(net, CPU, 2).of_picture(pixels), whole, atol=2e-5)


def test_a_stride_that_skips_too_much_is_refused():
    with pytest.raises(ConfigError, match=r"stride of 16 px .* patches have 32 px"):
        PatchMapper(network(), CPU, 16)


def written(tmp_path, net, clahe=False, channel="green"):
    info = PatchClassifierInfo(net.shape, NAMES, 0.5, channel, clahe, 0.01)
    save_patch_classifier(tmp_path / "net", net, info)
    pixels = np.random.default_rng(1).integers(0, 256, (170, 211, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    return pixels


def run(tmp_path, **values):
    config = PredictPatchMapConfig(precision="float32", threads=1, tile_px=128, **values)
    out = tmp_path / "map.zarr"
    with open_slide(tmp_path / "a.png", 0.5) as slide:
        summary = predict_patch_map(slide, tmp_path / "net", config, QuietReporter(tmp_path / "run"), out)
    return np.asarray(open_pyramid(out).levels[0]), summary


@pytest.mark.parametrize(("stride", "clahe", "normalization"), [(1, False, "channel"), (4, True, "instance")])
def test_the_tiling_engine_writes_the_same_map(tmp_path, stride, clahe, normalization):
    net = network(normalization=normalization)
    pixels = written(tmp_path, net, clahe)
    percent, summary = run(tmp_path, stride=stride)
    prepared = Preparation("green", clahe)(pixels).transpose(2, 0, 1)
    whole = PatchMapper(net, CPU, stride).of_picture(prepared)
    assert percent.shape == (2, 170, 211)
    assert np.abs(percent - 100 * whole)[:, : 170 - stride, : 211 - stride].max() < 0.51
    assert summary["classes"] == list(NAMES)
    assert summary["windows"] > 1


def test_a_region_alone_is_mapped(tmp_path):
    net = network()
    written(tmp_path, net)
    percent, summary = run(tmp_path, region_um=(0.0, 0.0, 10.0, 10.0))
    assert percent[:, :20, :20].sum(axis=0).min() >= 99
    assert summary["skipped_windows"] > 0
    with pytest.raises(ConfigError, match="85 x 106 um"):
        run(tmp_path, region_um=(900.0, 0.0, 10.0, 10.0))


def test_a_slide_too_large_for_equalizing_is_refused(tmp_path, monkeypatch):
    written(tmp_path, network(), clahe=True)
    monkeypatch.setattr(channels, "MAX_EQUALIZED_PX", 1000)
    with pytest.raises(SlideError, match="too many to equalize"):
        run(tmp_path)


def test_several_stains_fit_the_engine_as_one_channel(tmp_path):
    net = network()
    pixels = written(tmp_path, net, channel="hematoxylin")
    percent, _ = run(tmp_path, stride=2)
    whole = PatchMapper(net, CPU, 2).of_picture(Preparation("hematoxylin", False)(pixels).transpose(2, 0, 1))
    assert np.abs(percent - 100 * whole)[:, :168, :208].max() < 0.51
