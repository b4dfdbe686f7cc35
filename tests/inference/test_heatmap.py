from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from napari_histogan.config import PredictHeatmapConfig
from napari_histogan.errors import CheckpointError, ConfigError, SlideError, SlideHasNoMpp
from napari_histogan.geometry import Region
from napari_histogan.inference.heatmap import predict_heatmap
from napari_histogan.inference.net_tiles import SegmenterTiles, tiling
from napari_histogan.models.device import resolve
from napari_histogan.models.segmenter import save_segmenter
from napari_histogan.models.unet import UNet
from napari_histogan.progress import QuietReporter
from napari_histogan.slides.reader import open_slide
from napari_histogan.slides.tissue import tissue_mask
from napari_histogan.slides.zarr_pyramid import open_pyramid

SETTINGS = {"device": "cpu", "threads": 1, "accept_far_mpp": True}
CONFIG = PredictHeatmapConfig(**SETTINGS)


@pytest.fixture(scope="module")
def segmenter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("segmenter")
    net = UNet(3, width=4, depth=2)
    with torch.no_grad():
        net.head.weight.mul_(10)
    save_segmenter(folder, net, ("a", "b", "c"), mpp=4.0)
    return folder


def test_a_heatmap_of_the_demo_slide(segmenter: Path, demo_slide: Path, tmp_path: Path) -> None:
    config = PredictHeatmapConfig(**SETTINGS, tile_px=128)
    reporter = QuietReporter()
    with open_slide(demo_slide) as reader:
        summary = predict_heatmap(reader, segmenter, config, reporter, tmp_path / "heatmap.zarr")
        size = reader.size_at(4.0)
    written = open_pyramid(tmp_path / "heatmap.zarr")
    assert written.channels == ("a", "b", "c")
    assert written.mpp == 4.0
    assert written.levels[0].shape == (3, *size.shape)
    total = np.asarray(written.levels[0][:]).sum(axis=0)
    assert total.min() >= 98
    assert total.max() <= 102
    assert (summary["height"], summary["width"], summary["classes"]) == (*size.shape, ["a", "b", "c"])
    assert sum(event["kind"] == "block" for event in reporter.events) == summary["blocks"]


def test_glass_is_skipped_when_asked(segmenter: Path, demo_slide: Path, tmp_path: Path) -> None:
    config = PredictHeatmapConfig(**SETTINGS, tile_px=32, tissue_only=True)
    with open_slide(demo_slide) as reader:
        summary = predict_heatmap(reader, segmenter, config, QuietReporter(), tmp_path / "heatmap.zarr")
        tissue = tissue_mask(reader)
    assert summary["skipped_windows"] > 0
    total = np.asarray(open_pyramid(tmp_path / "heatmap.zarr").levels[0][:]).sum(axis=0)
    for y in range(0, total.shape[0] - 16, 16):
        for x in range(0, total.shape[1] - 16, 16):
            if tissue.fraction(Region(y, x, 16, 16), 4.0) == 1:
                assert total[y : y + 16, x : x + 16].min() >= 98
    assert (total == 0).any()


def test_bfloat16_and_folding_stay_close_to_float32(segmenter: Path, demo_slide: Path) -> None:
    with open_slide(demo_slide) as reader:
        pixels = torch.from_numpy(reader.read_at(Region(100, 100, 128, 128), 4.0))[None].permute(0, 3, 1, 2)
    exact, fast = (
        SegmenterTiles(segmenter, resolve(PredictHeatmapConfig(**SETTINGS, precision=precision)))(pixels)
        for precision in ("float32", "bfloat16")
    )
    assert (exact - fast).abs().max() < 0.05
    assert (exact - fast).abs().mean() < 0.005
    assert exact.std() > 0.05


def test_flips_average_the_four_mirror_images(segmenter: Path) -> None:
    compute = resolve(PredictHeatmapConfig(**SETTINGS, precision="float32"))
    pixels = torch.randint(
        0, 256, (1, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(1)
    )
    plain, flipped = SegmenterTiles(segmenter, compute), SegmenterTiles(segmenter, compute, flips=True)
    expected = sum(plain(pixels.flip(axes)).flip(axes) for axes in ((), (2,), (3,), (2, 3))) / 4
    torch.testing.assert_close(flipped(pixels), expected)
    torch.testing.assert_close(flipped(pixels.flip((3,))), flipped(pixels).flip((3,)))


def test_a_slide_that_is_too_coarse_is_refused_before_any_work(
    segmenter: Path, demo_slide: Path, tmp_path: Path
) -> None:
    with open_slide(demo_slide, mpp=20.0) as reader, pytest.raises(SlideError, match="4 um/px was asked"):
        predict_heatmap(
            reader, segmenter, PredictHeatmapConfig(**SETTINGS), QuietReporter(), tmp_path / "m.zarr"
        )
    assert not (tmp_path / "m.zarr").exists()


def test_a_slide_without_resolution_is_refused(segmenter: Path, tmp_path: Path) -> None:
    from PIL import Image

    Image.new("RGB", (64, 64)).save(tmp_path / "photo.png")
    with open_slide(tmp_path / "photo.png") as reader, pytest.raises(SlideHasNoMpp):
        predict_heatmap(
            reader, segmenter, PredictHeatmapConfig(**SETTINGS), QuietReporter(), tmp_path / "m.zarr"
        )


def test_a_much_finer_slide_is_taken_only_if_that_is_meant(
    segmenter: Path, demo_slide: Path, tmp_path: Path
) -> None:
    reporter = QuietReporter()
    asking = CONFIG.model_copy(update={"accept_far_mpp": False})
    with open_slide(demo_slide, mpp=0.5) as reader, pytest.raises(ConfigError, match="set accept_far_mpp"):
        predict_heatmap(reader, segmenter, asking, reporter, tmp_path / "m.zarr")
    assert not (tmp_path / "m.zarr").exists()
    with open_slide(demo_slide, mpp=1.0) as reader:  # a factor of 4 is near enough
        predict_heatmap(reader, segmenter, asking, reporter, tmp_path / "near.zarr")
    assert not any(e["kind"] == "warning" for e in reporter.events)
    with open_slide(demo_slide, mpp=0.5) as reader:
        predict_heatmap(reader, segmenter, CONFIG, reporter, tmp_path / "m.zarr")
    assert any(e["kind"] == "warning" and "4 um/px" in e["message"] for e in reporter.events)


def test_a_folder_without_segmenter_is_refused(demo_slide: Path, tmp_path: Path) -> None:
    with open_slide(demo_slide) as reader, pytest.raises(CheckpointError, match=r"segmenter\.json"):
        predict_heatmap(
            reader, tmp_path, PredictHeatmapConfig(**SETTINGS), QuietReporter(), tmp_path / "m.zarr"
        )


@pytest.mark.parametrize(("tile_px", "windows"), [(256, 4), (512, 1), (1024, 1), (128, 16)])
def test_a_pass_on_a_cpu_holds_as_many_pixels_whatever_the_window(tile_px: int, windows: int) -> None:
    assert tiling(PredictHeatmapConfig(device="cpu", tile_px=tile_px))["batch"] == windows
    assert tiling(PredictHeatmapConfig(device="cpu", tile_px=tile_px, batch=3))["batch"] == 3
