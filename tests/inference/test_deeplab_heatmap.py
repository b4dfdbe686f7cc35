"""A DeepLab runs over a slide like any net."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from napari_histogan.config import PredictHeatmapConfig
from napari_histogan.inference.heatmap import predict_heatmap
from napari_histogan.models.deeplab import DeepLab
from napari_histogan.models.segmenter import save_segmenter
from napari_histogan.progress import QuietReporter
from napari_histogan.slides.reader import open_slide
from napari_histogan.slides.zarr_pyramid import open_pyramid


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
