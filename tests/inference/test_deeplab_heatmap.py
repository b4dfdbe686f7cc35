"""A DeepLab runs over a slide like any net."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from napari_histogan.config import PredictHeatmapConfig
from napari_histogan.geometry import Region
from napari_histogan.inference.heatmap import predict_heatmap
from napari_histogan.inference.net_tiles import NetTiles
from napari_histogan.inference.tiles import run_tiles
from napari_histogan.models.deeplab import DeepLab
from napari_histogan.models.device import Compute
from napari_histogan.models.segmenter import save_segmenter
from napari_histogan.progress import QuietReporter
from napari_histogan.slides.reader import open_slide
from napari_histogan.slides.zarr_pyramid import PyramidWriter, open_pyramid


def test_a_deeplab_runs_over_a_slide(tmp_path: Path) -> None:
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (70, 90, 3), dtype=np.uint8)).save(tmp_path / "slide.png")
    save_segmenter(tmp_path / "net", DeepLab(2, "resnet18", 16, 64), ["a", "b"], mpp=1.0, patch_px=64)
    config = PredictHeatmapConfig(tile_px=64, device="cpu", threads=1)
    with open_slide(tmp_path / "slide.png", mpp=1.0) as slide:
        done = predict_heatmap(
            slide, tmp_path / "net", config, QuietReporter(tmp_path), tmp_path / "map.zarr"
        )
    assert done["windows"] > 1
    percent = np.asarray(open_pyramid(tmp_path / "map.zarr").levels[0][:])
    assert percent.shape == (2, 70, 90)
    assert (np.abs(percent.astype(int).sum(axis=0) - 100) <= 1).all()
    assert percent[0].std() > 0


def test_tiles_of_a_deeplab_equal_one_piece_when_the_overlap_holds_the_margin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("napari_histogan.models.deeplab._RATES", (2, 3, 4))  # a smaller margin is quicker
    torch.manual_seed(0)
    rng = np.random.default_rng(1)
    coarse = rng.integers(0, 256, (6, 13, 3), dtype=np.uint8)
    Image.fromarray(coarse).resize((208, 96)).save(tmp_path / "slide.png")
    net = DeepLab(2, "resnet18", 16, 32).train()
    with torch.no_grad():
        for _ in range(3):  # statistics of the normalizations
            net(torch.randn(2, 3, 64, 64))
        net.head.weight.mul_(20)  # far from 1/2 each, so that errors show
    model = NetTiles(net.eval(), 1.0, Compute(torch.device("cpu"), torch.float32, 1))
    shared = -(-(2 * model.margin_px + 2) // 32) * 32
    side = shared + 112
    with open_slide(tmp_path / "slide.png", mpp=1.0) as slide:
        writer = PyramidWriter(tmp_path / "map.zarr", slide.size, ["a", "b"], np.uint8, mpp=1.0, chunk=128)
        settings = {"tile_px": side, "overlap": shared / side, "batch": 1}
        done = run_tiles(slide, model, writer, QuietReporter(tmp_path), **settings)
        border = -(-model.margin_px // 16 + 1) * 16
        pixels = slide.read_at(Region(0, 0, *slide.size.shape).grown(border), 1.0)
    assert done.windows == 2
    whole = model(torch.from_numpy(pixels)[None].permute(0, 3, 1, 2))[0].numpy()
    expected = np.rint(100 * whole[:, border:-border, border:-border])
    percent = np.asarray(open_pyramid(tmp_path / "map.zarr").levels[0][:]).astype(int)
    assert expected.std() > 5
    assert np.abs(percent - expected).max() <= 1
