"""The weakly supervised U-Net: any size in, the stated margin, and an auto-encoder that fits it."""

from __future__ import annotations

import pytest
import torch

from napari_histogan.errors import ModelError
from napari_histogan.models.segmenter import fold_batch_norm, load_segmenter, save_segmenter
from napari_histogan.models.weak_unet import WeakUNet


def trained(**values) -> WeakUNet:
    """Return a net whose batch statistics are not those of a fresh one."""
    torch.manual_seed(0)
    net = WeakUNet(**{"width": 4, "depth": 2, **values})
    with torch.no_grad():
        for _ in range(3):
            net(torch.randn(2, 3, 32, 32))
    return net.eval()


@pytest.mark.parametrize(("height", "width"), [(32, 32), (33, 47), (1, 5)])
def test_any_size_goes_in_and_comes_out(height, width):
    assert trained()(torch.zeros(1, 3, height, width)).shape == (1, 2, height, width)
    assert trained(num_classes=3, lateral=False)(torch.zeros(1, 3, height, width)).shape[-1] == width


@pytest.mark.parametrize("lateral", [True, False])
@pytest.mark.parametrize("depth", [1, 2])
def test_nothing_beyond_the_margin_counts_and_its_edge_is_reached(depth, lateral):
    net = trained(depth=depth, lateral=lateral)
    for module in net.modules():  # without dead units every input counts
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.uniform_(module.weight, 0.1, 1.0)
    side = 6 * net.margin_px // net.stride_px * net.stride_px
    farthest = 0
    for offset in range(net.stride_px):
        pixels = torch.rand(1, 3, side, side, requires_grad=True)
        at = side // 2 // net.stride_px * net.stride_px + offset
        net(pixels)[0, 0, at, at].backward()
        rows = pixels.grad.abs().sum(dim=(0, 1, 3)).nonzero().flatten()
        farthest = max(farthest, at - int(rows.min()), int(rows.max()) - at)
    assert net.margin_px - net.stride_px < farthest <= net.margin_px


def test_the_docstring_states_the_margin_of_the_usual_net():
    assert f": {WeakUNet(width=1).margin_px} of" in str(WeakUNet.margin_px.__doc__)


def test_an_auto_encoder_has_no_way_around_its_bottleneck_and_fits_the_segmenter():
    encoder, net = trained(num_classes=3, lateral=False), trained()
    head = net.head.weight.clone()
    net.load_encoded(encoder.state_dict())
    assert torch.equal(net.decoders[0].norm1.running_mean, encoder.decoders[0].norm1.running_mean)
    assert torch.equal(net.head.weight, head)
    net.laterals.apply(lambda m: m.weight.data.zero_() if isinstance(m, torch.nn.Conv2d) else None)
    x = torch.randn(1, 3, 16, 16)
    seen = []
    for each in (net, encoder):
        each.head.register_forward_hook(lambda module, given, out: seen.append(given[0]))
        each(x)
    torch.testing.assert_close(seen[0], seen[1])
    with pytest.raises(ModelError, match="width 8"):
        trained(width=8).load_encoded(encoder.state_dict())


def test_it_is_saved_and_folded_like_every_segmenter(tmp_path):
    net = trained()
    info = save_segmenter(tmp_path, net, ("benign", "malign"), mpp=1.0)
    loaded, read = load_segmenter(tmp_path)
    x = torch.randn(1, 3, 24, 40)
    assert read == info
    assert isinstance(loaded, WeakUNet)
    assert torch.equal(loaded(x), net(x))
    torch.testing.assert_close(fold_batch_norm(loaded)(x), net(x), rtol=1e-4, atol=1e-4)
