from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from napari_histogan.errors import CheckpointError, ModelError
from napari_histogan.models.segmenter import (
    INFO_FILE,
    WEIGHTS_FILE,
    fold_batch_norm,
    load_segmenter,
    pixels_to_input,
    save_segmenter,
)
from napari_histogan.models.unet import UNet


@pytest.fixture
def net() -> UNet:
    """A net whose batch statistics and affine terms are not those of a fresh one."""
    torch.manual_seed(0)
    net = UNet(3, width=4, depth=2)
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.weight.uniform_(0.5, 1.5)
                module.bias.normal_()
        for _ in range(3):
            net(torch.randn(2, 3, 32, 32))
    return net.eval()


@pytest.mark.parametrize(("height", "width"), [(32, 32), (33, 47), (1, 5), (64, 16)])
def test_logits_have_the_size_of_the_input(net: UNet, height: int, width: int) -> None:
    assert net(torch.zeros(2, 3, height, width)).shape == (2, 3, height, width)


def test_folding_keeps_the_logits_and_removes_the_normalization(net: UNet) -> None:
    pixels = torch.randn(2, 3, 40, 24)
    folded = fold_batch_norm(net)
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in folded.modules())
    assert any(isinstance(module, torch.nn.BatchNorm2d) for module in net.modules())
    torch.testing.assert_close(folded(pixels), net(pixels), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_the_margin_is_exactly_how_far_an_output_pixel_sees(depth: int) -> None:
    torch.manual_seed(1)
    net = UNet(2, width=4, depth=depth).eval()
    for module in net.modules():  # without dead units and max pooling's choice, all inputs have a gradient
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.uniform_(module.weight, 0.1, 1.0)
    side = (4 * net.margin_px) // net.stride_px * net.stride_px
    farthest = 0
    for offset in range(net.stride_px):
        pixels = torch.rand(1, 3, side, side, requires_grad=True)
        at = side // 2 // net.stride_px * net.stride_px + offset
        net(pixels)[0, 0, at, at].backward()
        assert pixels.grad is not None
        rows = pixels.grad.abs().sum(dim=(0, 1, 3)).nonzero().flatten()
        farthest = max(farthest, at - int(rows.min()), int(rows.max()) - at)
    # A pooling window passes its gradient to its largest pixel only, which may lie one step inside.
    assert net.margin_px - net.stride_px < farthest <= net.margin_px


def test_pixels_are_scaled_to_minus_one_and_one() -> None:
    scaled = pixels_to_input(torch.tensor([0, 255], dtype=torch.uint8))
    torch.testing.assert_close(scaled, torch.tensor([-1.0, 1.0]))


def test_a_saved_net_comes_back_the_same(net: UNet, tmp_path: Path) -> None:
    written = save_segmenter(tmp_path, net, ("a", "b", "c"), mpp=1.0, patch_px=64, validation={"mcc": 0.5})
    loaded, info = load_segmenter(tmp_path)
    assert info == written
    assert (info.class_names, info.mpp, info.margin_px) == (("a", "b", "c"), 1.0, net.margin_px)
    pixels = torch.randn(1, 3, 32, 32)
    assert torch.equal(loaded(pixels), net(pixels))


def test_weights_of_another_shape_are_refused(net: UNet, tmp_path: Path) -> None:
    save_segmenter(tmp_path, net, ("a", "b", "c"), mpp=1.0)
    info = json.loads((tmp_path / INFO_FILE).read_text())
    (tmp_path / INFO_FILE).write_text(json.dumps({**info, "width": 8}))
    with pytest.raises(CheckpointError, match="width 8"):
        load_segmenter(tmp_path)


def test_a_file_from_before_there_was_another_net_is_read(net: UNet, tmp_path: Path) -> None:
    save_segmenter(tmp_path, net, ("a", "b", "c"), mpp=1.0)
    info = json.loads((tmp_path / INFO_FILE).read_text())
    for name in ("backbone", "output_stride", "context_px"):
        del info[name]
    (tmp_path / INFO_FILE).write_text(json.dumps(info))
    loaded = load_segmenter(tmp_path)[0]
    assert isinstance(loaded, UNet)
    assert (loaded.width, loaded.depth) == (4, 2)


@pytest.mark.parametrize("content", ["", "[]", '{"format": 99, "architecture": "unet"}', '{"format": 1}'])
def test_a_damaged_description_is_refused(net: UNet, tmp_path: Path, content: str) -> None:
    save_segmenter(tmp_path, net, ("a", "b", "c"), mpp=1.0)
    (tmp_path / INFO_FILE).write_text(content)
    with pytest.raises(CheckpointError, match=INFO_FILE):
        load_segmenter(tmp_path)


def test_cut_off_weights_are_refused(net: UNet, tmp_path: Path) -> None:
    save_segmenter(tmp_path, net, ("a", "b", "c"), mpp=1.0)
    weights = (tmp_path / WEIGHTS_FILE).read_bytes()
    (tmp_path / WEIGHTS_FILE).write_bytes(weights[: len(weights) // 2])
    with pytest.raises(CheckpointError, match=WEIGHTS_FILE):
        load_segmenter(tmp_path)


def test_one_class_is_refused() -> None:
    with pytest.raises(ModelError, match="at least 2 classes"):
        UNet(1)
