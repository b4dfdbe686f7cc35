"""One slide by two workers on this machine, over loopback."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from napari_histogan.config import PredictHeatmapConfig
from napari_histogan.errors import SlideError, Stopped
from napari_histogan.inference.heatmap import predict_heatmap
from napari_histogan.models.segmenter import save_segmenter
from napari_histogan.models.unet import UNet
from napari_histogan.progress import QuietReporter
from napari_histogan.slides.reader import open_slide
from napari_histogan.slides.zarr_pyramid import open_pyramid

distributed = pytest.importorskip("distributed", reason="distributed is in the extra [scale]")

HERE = PredictHeatmapConfig(device="cpu", threads=1, precision="float32", tile_px=128, tissue_only=True)
ROWS = 6


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A net, a slide of 6 x 2 blocks, and its map by one process."""
    folder = tmp_path_factory.mktemp("shared")
    torch.manual_seed(0)
    net = UNet(2, width=4, depth=2)
    with torch.no_grad():
        net.head.weight.mul_(10)
    save_segmenter(folder / "net", net, ("a", "b"), mpp=1.0)
    coarse = np.random.default_rng(0).integers(60, 200, (150, 30, 3), dtype=np.uint8)
    coarse[:, 20:] = 245  # glass
    picture = Image.fromarray(coarse).resize((600, 512 * ROWS - 30))
    tifffile.imwrite(
        folder / "slide.tif", np.asarray(picture), tile=(256, 256), compression="zlib", photometric="rgb"
    )
    predict(folder, folder / "alone", HERE)
    return folder


def predict(folder: Path, run_dir: Path, config: PredictHeatmapConfig, **options: Any) -> dict[str, Any]:
    reporter = options.pop("reporter", None) or QuietReporter(run_dir, **options)
    with open_slide(folder / "slide.tif", mpp=1.0) as slide:
        return predict_heatmap(slide, folder / "net", config, reporter, run_dir / "map.zarr")


def files(run_dir: Path) -> dict[str, bytes | list[bytes]]:
    """Return all that a map holds; blocks may be noted in any order."""
    found: dict[str, bytes | list[bytes]] = {}
    for path in sorted((run_dir / "map.zarr").rglob("*")):
        if path.is_file():
            lines = path.read_bytes()
            found[path.name if path.parent == run_dir else str(path.relative_to(run_dir))] = (
                sorted(lines.split()) if path.suffix == ".jsonl" else lines
            )
    return found


def test_workers_write_the_same_map_even_if_one_is_lost(cluster: Any, folder: Path, tmp_path: Path) -> None:
    victim = next(iter(cluster.workers.values())).pid

    class Killer(QuietReporter):
        """Kills a worker as soon as the first block is there."""

        def event(self, kind: str, **data: Any) -> None:
            if kind == "block" and not any(e["kind"] == "block" for e in self.events):
                os.kill(victim, signal.SIGKILL)
            super().event(kind, **data)

    reporter = Killer(tmp_path)
    config = HERE.model_copy(update={"scheduler": cluster.scheduler_address})
    summary = predict(folder, tmp_path, config, reporter=reporter)
    assert summary["blocks"] == 2 * ROWS
    told = [(e["y"], e["x"]) for e in reporter.events if e["kind"] == "block"]
    assert sorted(told) == [(512 * row, 512 * column) for row in range(ROWS) for column in (0, 1)]
    assert files(tmp_path) == files(folder / "alone")
    assert not (tmp_path / "heatmap-bands").exists()


def test_a_stopped_share_goes_on_in_one_process(cluster: Any, folder: Path, tmp_path: Path) -> None:
    here = HERE.model_copy(update={"tile_px": 64, "overlap": 0.75})  # long enough to be stopped amid
    predict(folder, tmp_path / "alone", here)
    config = here.model_copy(update={"scheduler": cluster.scheduler_address})
    stopping = QuietReporter(tmp_path, stop_when=lambda: any(e["kind"] == "block" for e in stopping.events))
    with pytest.raises(Stopped):
        predict(folder, tmp_path, config, reporter=stopping)
    assert 0 < len(open_pyramid(tmp_path / "map.zarr").done_blocks()) <= 2 * ROWS
    summary = predict(folder, tmp_path, here)
    assert summary["resumed_blocks"] > 0
    assert files(tmp_path) == files(tmp_path / "alone")


def test_a_hole_in_the_slide_costs_only_its_blocks(cluster: Any, folder: Path, tmp_path: Path) -> None:
    torn = tmp_path / "torn"
    torn.mkdir()
    (torn / "net").symlink_to(folder / "net")
    data = bytearray((folder / "slide.tif").read_bytes())
    with tifffile.TiffFile(folder / "slide.tif") as tiff:
        page = tiff.pages[0]
        start, length = page.dataoffsets[0], page.databytecounts[0]  # type: ignore[union-attr]
    data[start : start + length] = bytes(length)
    (torn / "slide.tif").write_bytes(data)
    config = HERE.model_copy(update={"scheduler": cluster.scheduler_address, "tissue_only": False})
    reporter = QuietReporter(tmp_path / "run")
    with pytest.raises(SlideError, match=r"1 blocks of slide.tif could not be read: \(y=0, x=0\)"):
        predict(torn, tmp_path / "run", config, reporter=reporter)
    assert [(e["y"], e["x"]) for e in reporter.events if e["kind"] == "block_failed"] == [(0, 0)]
    assert len(open_pyramid(tmp_path / "run" / "map.zarr").done_blocks()) == 2 * ROWS - 1
