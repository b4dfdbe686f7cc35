from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from napari_histogan.errors import CheckpointError, ConfigError, ModelError
from napari_histogan.models import resnet
from napari_histogan.models.deeplab import DeepLab
from napari_histogan.models.resnet import ResNet, load_imagenet
from napari_histogan.models.segmenter import (
    INFO_FILE,
    NetShape,
    fold_batch_norm,
    load_segmenter,
    new_net,
    save_segmenter,
)


def lively(net: nn.Module) -> nn.Module:
    """Give batch normalization statistics and affine terms that a fresh net does not have."""
    torch.manual_seed(0)
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.uniform_(0.5, 1.0)
                module.bias.uniform_(-0.1, 0.1)
                module.running_mean.uniform_(-0.1, 0.1)
                module.running_var.uniform_(0.8, 1.2)
    return net.eval()


@pytest.mark.parametrize(
    ("name", "weights"),
    # The known sizes of the classifiers, less their last layer (1000 x features + 1000).
    [
        ("resnet18", 11_689_512 - 513_000),
        ("resnet34", 21_797_672 - 513_000),
        ("resnet50", 25_557_032 - 2_049_000),
        ("resnet101", 44_549_160 - 2_049_000),
    ],
)
def test_backbones_have_the_sizes_of_the_published_ones(name: str, weights: int) -> None:
    with torch.device("meta"):
        net = ResNet(name)
    assert sum(p.numel() for p in net.parameters()) == weights


def test_backbone_weights_have_the_names_of_the_communitys_files() -> None:
    with torch.device("meta"):
        shapes = {name: tuple(value.shape) for name, value in ResNet("resnet50").state_dict().items()}
    assert len(shapes) == 318  # 53 convolutions, and 5 tensors for each of their normalizations
    assert shapes["conv1.weight"] == (64, 3, 7, 7)
    assert shapes["bn1.running_var"] == (64,)
    assert shapes["layer1.0.downsample.0.weight"] == (256, 64, 1, 1)
    assert shapes["layer1.0.downsample.1.num_batches_tracked"] == ()
    assert shapes["layer3.5.conv2.weight"] == (256, 256, 3, 3)
    assert shapes["layer4.2.bn3.bias"] == (2048,)
    with torch.device("meta"):
        small = ResNet("resnet18").state_dict()
    assert "layer1.0.downsample.0.weight" not in small
    assert tuple(small["layer2.0.downsample.0.weight"].shape) == (128, 64, 1, 1)


@pytest.mark.parametrize("output_stride", [8, 16])
def test_the_output_stride_changes_the_grid_but_not_the_weights(output_stride: int) -> None:
    net = ResNet("resnet18", output_stride).eval()
    with torch.no_grad():
        low, high = net(torch.randn(1, 3, 64, 96))
    assert low.shape == (1, 64, 16, 24)
    assert high.shape == (1, 512, 64 // output_stride, 96 // output_stride)
    net.load_state_dict(ResNet("resnet18", 24 - output_stride).state_dict())


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_community_file_loads_and_its_last_layer_is_left_out(tmp_path: Path, suffix: str) -> None:
    weights = {name: value.clone() for name, value in ResNet("resnet18").state_dict().items()}
    weights |= {"fc.weight": torch.zeros(1000, 512), "fc.bias": torch.zeros(1000)}
    path = tmp_path / f"weights{suffix}"
    torch.save(weights, path) if suffix == ".pth" else save_file(weights, path)
    net = new_net(NetShape("deeplab", backbone="resnet18", output_stride=16, context_px=64), 3, 1, str(path))
    assert torch.equal(net.state_dict()["backbone.layer4.1.conv2.weight"], weights["layer4.1.conv2.weight"])


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return print, ("executed",)


@pytest.mark.parametrize("content", ["other net", "garbage", "code", "list"])
def test_files_that_are_not_the_backbones_weights_are_refused(
    tmp_path: Path, content: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "weights.pth"
    if content == "garbage":
        path.write_bytes(b"no weights")
    else:
        torch.save({"other net": {"a": torch.ones(1)}, "code": Evil(), "list": [1]}[content], path)
    with pytest.raises(CheckpointError, match="resnet18"):
        load_imagenet(ResNet("resnet18"), path)
    assert "executed" not in capsys.readouterr().out


def test_weights_are_downloaded_once_and_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save(ResNet("resnet18").state_dict(), tmp_path / "weights")
    name = f"resnet18-{hashlib.sha256((tmp_path / 'weights').read_bytes()).hexdigest()[:8]}.pth"
    served = (tmp_path / "weights").rename(tmp_path / name)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "cache"))
    monkeypatch.setitem(resnet.DOWNLOADS, "resnet18", served.as_uri())
    net = ResNet("resnet18")
    load_imagenet(net, "download")
    served.unlink()
    load_imagenet(ResNet("resnet18"), "download")
    (tmp_path / "cache" / "checkpoints" / name).write_bytes(b"damaged")
    with pytest.raises(ConfigError, match="could not be downloaded"):
        load_imagenet(net, "download")


def test_a_missing_file_is_said() -> None:
    with pytest.raises(ConfigError, match="no weights at"):
        load_imagenet(ResNet("resnet18"), "/nowhere/weights.pth")


@pytest.mark.parametrize(("height", "width", "stride"), [(64, 64, 16), (33, 47, 16), (40, 24, 8)])
def test_logits_have_the_size_of_the_input(height: int, width: int, stride: int) -> None:
    net = DeepLab(5, "resnet18", stride).eval()
    with torch.no_grad():
        assert net(torch.zeros(1, 3, height, width)).shape == (1, 5, height, width)


def test_folding_keeps_the_logits_and_removes_the_normalization() -> None:
    net = lively(DeepLab(3, "resnet50", 16, 64))
    pixels = torch.rand(1, 3, 64, 64) * 2 - 1
    folded = fold_batch_norm(net)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    with torch.no_grad():
        expected = net(pixels)
        scale = float(expected.abs().max())
        assert float((folded(pixels) - expected).abs().max()) < 1e-4 * scale
        last = folded.bfloat16().to(memory_format=torch.channels_last)
        half = last(pixels.bfloat16().contiguous(memory_format=torch.channels_last))
        assert float((half.float() - expected).abs().max()) < 0.05 * scale


@pytest.mark.parametrize(
    ("stride", "context"), [(16, 32), (16, 1024), (8, 64)], ids=["narrow", "wide", "fine"]
)
def test_the_margin_is_how_far_an_output_pixel_sees(stride: int, context: int) -> None:
    """What the averaging branch sees ends at its window, so that the margin is finite."""
    torch.manual_seed(0)
    net = DeepLab(2, "resnet18", stride, context).eval()
    for module in net.modules():  # without dead units, all inputs have a gradient
        if isinstance(module, nn.Conv2d):
            nn.init.uniform_(module.weight, 0.1, 1.0)
            module.weight.data /= module.weight[0].numel()
    side = (2 * net.margin_px + 64) // 32 * 32
    farthest = 0
    for offset in (0, stride // 2, stride - 1):
        strip = torch.rand(1, 3, side, stride, requires_grad=True)
        at = side // 2 // stride * stride + offset
        net(strip)[0, 0, at, 0].backward()
        assert strip.grad is not None
        rows = strip.grad.abs().sum(dim=(0, 1, 3)).nonzero().flatten()
        farthest = max(farthest, at - int(rows.min()), int(rows.max()) - at)
    # A pooling window passes its gradient to its largest pixel only, which may lie some pixels inside.
    assert net.margin_px - 16 < farthest <= net.margin_px


def test_shifts_by_the_stride_shift_the_logits_beyond_the_margin() -> None:
    net = lively(DeepLab(2, "resnet18", 8, 16))
    margin = -(-net.margin_px // 8) * 8
    strip = torch.rand(1, 3, 2 * margin + 64, 8) * 2 - 1
    with torch.no_grad():
        whole, part = net(strip), net(strip[:, :, 24:])
    torch.testing.assert_close(whole[:, :, 24 + margin : -margin], part[:, :, margin:-margin])


def test_a_saved_net_comes_back_the_same(tmp_path: Path) -> None:
    net = lively(DeepLab(4, "resnet18", 8, 96))
    written = save_segmenter(tmp_path, net, "abcd", mpp=0.5, patch_px=96)
    loaded, info = load_segmenter(tmp_path)
    assert isinstance(loaded, DeepLab)
    assert info == written
    assert info.shape == NetShape("deeplab", backbone="resnet18", output_stride=8, context_px=96)
    assert (info.margin_px, info.stride_px) == (net.margin_px, 8)
    pixels = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(loaded(pixels), net(pixels))
    document = json.loads((tmp_path / INFO_FILE).read_text())
    (tmp_path / INFO_FILE).write_text(json.dumps({**document, "backbone": "resnet34"}))
    with pytest.raises(CheckpointError, match="resnet34"):
        load_segmenter(tmp_path)
    (tmp_path / INFO_FILE).write_text(json.dumps({**document, "backbone": "resnet9"}))
    with pytest.raises(CheckpointError, match="resnet9"):
        load_segmenter(tmp_path)


def test_nets_that_there_are_not_are_refused() -> None:
    with pytest.raises(ModelError, match="resnet9"):
        DeepLab(2, "resnet9")
    with pytest.raises(ModelError, match="output stride 4"):
        DeepLab(2, "resnet18", 4)
    with pytest.raises(ModelError, match="at least 2 classes"):
        DeepLab(1, "resnet18")


def test_weights_are_grouped_from_the_input_to_the_output() -> None:
    with torch.device("meta"):
        net = DeepLab(2, "resnet18")
    groups = net.layers()
    assert groups[0][0] is net.backbone.conv1.weight
    assert sum(len(group) for group in groups) == len(list(net.parameters()))
