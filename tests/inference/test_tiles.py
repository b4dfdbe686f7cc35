from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from napari_histogan.config import PredictHeatmapConfig
from napari_histogan.errors import SlideError, SlideUnreadable, Stopped
from napari_histogan.geometry import Region, Size
from napari_histogan.inference.net_tiles import NetTiles as GpuTiles
from napari_histogan.inference.tiles import TilesSummary, run_tiles
from napari_histogan.inference.window_grid import WindowGrid
from napari_histogan.models.device import resolve
from napari_histogan.models.segmenter import fold_batch_norm, pixels_to_input
from napari_histogan.models.unet import UNet
from napari_histogan.progress import QuietReporter
from napari_histogan.slides.reader import SlideReader, open_slide
from napari_histogan.slides.zarr_pyramid import PyramidWriter, open_pyramid

CHUNK = 128


class NetTiles:
    """A small U-Net with random weights, in float32, as the engine wants a model."""

    def __init__(self, mpp: float = 1.0, depth: int = 2) -> None:
        torch.manual_seed(0)
        net = UNet(3, width=4, depth=depth)
        with torch.no_grad():
            net.head.weight.mul_(20)  # far from 1/3 each, so that errors show
            for _ in range(5):
                net(torch.randn(2, 3, 32, 32))
        self.net = fold_batch_norm(net)
        self.mpp, self.num_classes = mpp, 3
        self.margin_px, self.stride_px = net.margin_px, net.stride_px
        self.calls = 0

    @torch.inference_mode()
    def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
        self.calls += len(pixels)
        assert pixels.dtype == torch.uint8
        assert pixels.is_contiguous(memory_format=torch.channels_last)
        return self.net(pixels_to_input(pixels)).softmax(dim=1)


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory, demo_slide: Path) -> Path:
    """A part of the demo slide, 420 x 300 px, as a picture of 1 um/px."""
    from PIL import Image

    with open_slide(demo_slide) as reader:
        pixels = reader.read(Region(1200, 900, 420, 300))
    path = tmp_path_factory.mktemp("slide") / "part.png"
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture
def reader(slide: Path) -> SlideReader:
    return open_slide(slide, mpp=1.0)


def writer_for(path: Path, reader: SlideReader, mpp: float = 1.0) -> PyramidWriter:
    return PyramidWriter(path, reader.size_at(mpp), ("a", "b", "c"), np.uint8, mpp=mpp, chunk=CHUNK)


def run(
    path: Path, reader: SlideReader, model: NetTiles, reporter: QuietReporter | None = None, **options: object
) -> TilesSummary:
    settings = {"tile_px": 96, "overlap": 0.5, "batch": 3, **options}
    writer = writer_for(path, reader, model.mpp)
    return run_tiles(reader, model, writer, reporter or QuietReporter(), **settings)  # type: ignore[arg-type]


def percent(path: Path) -> np.ndarray:
    return np.asarray(open_pyramid(path).levels[0][:])


def in_one_piece(reader: SlideReader, model: NetTiles, margin: int = 64) -> np.ndarray:
    """Predict the whole slide, with white around it, in one pass."""
    size = reader.size_at(model.mpp)
    pixels = reader.read_at(Region(0, 0, size.height, size.width).grown(margin), model.mpp)
    probabilities = model(torch.from_numpy(pixels)[None].permute(0, 3, 1, 2))[0].numpy()
    return np.rint(100 * probabilities[:, margin:-margin, margin:-margin]).astype(np.uint8)


def test_tiles_equal_one_piece_when_the_overlap_holds_the_margin(tmp_path: Path, reader: SlideReader) -> None:
    model = NetTiles()
    assert 2 * model.margin_px < 64
    run(tmp_path / "map.zarr", reader, model, tile_px=128)
    difference = np.abs(percent(tmp_path / "map.zarr").astype(int) - in_one_piece(reader, model))
    assert difference.max() <= 1  # rounding of 0.5 percent either way
    assert (difference > 0).mean() < 1e-3


def test_a_smaller_overlap_differs_little_and_has_no_seams(tmp_path: Path, reader: SlideReader) -> None:
    model = NetTiles(depth=3)
    summary = run(tmp_path / "map.zarr", reader, model, tile_px=128, overlap=0.25)
    got, whole = percent(tmp_path / "map.zarr").astype(int), in_one_piece(reader, model).astype(int)
    assert np.abs(got - whole).mean() < 1
    grid = WindowGrid(reader.size, 128, 0.25, model.margin_px, model.stride_px)
    error = np.abs(np.diff(got - whole, axis=2)).mean(axis=(0, 1))
    seams = [grid.window(0, k).x + grid.overlap_px // 2 for k in range(1, grid.counts[1])]
    assert summary.windows == grid.counts[0] * grid.counts[1]
    assert error[[x - 1 for x in seams]].max() < 1.0


def test_another_resolution_is_read_at_the_models(tmp_path: Path, reader: SlideReader) -> None:
    model = NetTiles(mpp=2.0)
    run(tmp_path / "map.zarr", reader, model, tile_px=128)
    assert percent(tmp_path / "map.zarr").shape == (3, 210, 150)
    assert open_pyramid(tmp_path / "map.zarr").mpp == 2.0
    difference = np.abs(percent(tmp_path / "map.zarr").astype(int) - in_one_piece(reader, model))
    assert difference.max() <= 1


def test_every_block_is_announced_once_it_is_on_disk(tmp_path: Path, reader: SlideReader) -> None:
    path = tmp_path / "map.zarr"

    class Watching(QuietReporter):
        def event(self, kind: str, **data: int) -> None:
            super().event(kind, **data)
            if kind == "block":
                there = Region(data["y"], data["x"], data["height"], data["width"])
                assert there in open_pyramid(path).done_blocks()
                assert (open_pyramid(path).levels[0][(slice(None), *there.slices)].sum(axis=0) >= 98).all()

    reporter = Watching()
    summary = run(path, reader, NetTiles(), reporter)
    announced = [(e["y"], e["x"]) for e in reporter.events if e["kind"] == "block"]
    assert sorted(announced) == [(y, x) for y in range(0, 420, CHUNK) for x in range(0, 300, CHUNK)]
    assert summary.blocks == len(announced)


def test_a_stopped_run_goes_on_where_it_was(tmp_path: Path, reader: SlideReader) -> None:
    whole = run(tmp_path / "whole.zarr", reader, NetTiles())
    path, model = tmp_path / "map.zarr", NetTiles()
    stopping = QuietReporter(stop_when=lambda: sum(e["kind"] == "block" for e in stopping.events) >= 3)
    with pytest.raises(Stopped, match="are kept"):
        run(path, reader, model, stopping)
    done = len(open_pyramid(path).done_blocks())
    assert 3 <= done < 12
    model = NetTiles()
    summary = run(path, reader, model)
    assert (summary.resumed_blocks, summary.blocks) == (done, 12 - done)
    assert model.calls < whole.windows  # windows that have a say in finished blocks only are not repeated
    assert np.abs(percent(path).astype(int) - percent(tmp_path / "whole.zarr")).max() <= 1
    assert run(path, reader, NetTiles()).windows == 0


def test_windows_without_tissue_are_skipped(tmp_path: Path, reader: SlideReader) -> None:
    model = NetTiles()
    left = Region(0, 0, 420, CHUNK)
    summary = run(tmp_path / "map.zarr", reader, model, wanted=left.intersects)
    assert summary.skipped_windows > 0
    assert summary.windows == model.calls
    got = percent(tmp_path / "map.zarr")
    assert (got[:, :, 2 * CHUNK :] == 0).all()
    assert np.abs(got[:, :, :CHUNK].astype(int) - in_one_piece(reader, model)[:, :, :CHUNK]).max() <= 1
    assert len(open_pyramid(tmp_path / "map.zarr").done_blocks()) == 12


def test_a_hole_in_the_slide_costs_only_its_blocks(
    tmp_path: Path, reader: SlideReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(tmp_path / "whole.zarr", reader, NetTiles())
    hole, read_at = Region(200, 10, 4, 4), reader.read_at

    def torn(region: Region, mpp: float) -> np.ndarray:
        if region.intersects(hole):
            raise SlideUnreadable("the tile at (200, 10) is damaged")
        return read_at(region, mpp)

    monkeypatch.setattr(reader, "read_at", torn)
    reporter = QuietReporter()
    with pytest.raises(SlideError, match=r"blocks of part.png could not be read: .*y=128, x=0"):
        run(tmp_path / "map.zarr", reader, NetTiles(), reporter)
    failed = {(e["y"], e["x"]) for e in reporter.events if e["kind"] == "block_failed"}
    done = open_pyramid(tmp_path / "map.zarr").done_blocks()
    assert (128, 0) in failed
    assert len(failed) + len(done) == 12
    assert len(done) >= 6
    got, whole = percent(tmp_path / "map.zarr").astype(int), percent(tmp_path / "whole.zarr").astype(int)
    for region in done:
        there = (slice(None), *region.slices)
        assert np.abs(got[there] - whole[there]).max() <= 1
    monkeypatch.undo()
    summary = run(tmp_path / "map.zarr", reader, NetTiles())
    assert (summary.blocks, summary.resumed_blocks) == (len(failed), len(done))


def test_no_thread_is_left_behind(tmp_path: Path, reader: SlideReader) -> None:
    before = threading.active_count()
    with pytest.raises(Stopped):
        run(tmp_path / "map.zarr", reader, NetTiles(), QuietReporter(stop_when=lambda: True))
    assert threading.active_count() == before


@pytest.mark.parametrize(
    ("height", "width", "tile", "overlap", "margin", "stride"),
    [(100, 130, 32, 0.5, 3, 4), (7, 5, 64, 0.25, 20, 16), (300, 64, 64, 0.0, 10, 8), (65, 65, 50, 0.8, 2, 2)],
)
def test_weights_add_up_to_one_and_keep_off_the_rim(
    height: int, width: int, tile: int, overlap: float, margin: int, stride: int
) -> None:
    size = Size(height, width)
    grid = WindowGrid(size, tile, overlap, margin, stride)
    total = torch.zeros(height, width)
    for row in range(grid.counts[0]):
        for column in range(grid.counts[1]):
            window, weights = grid.window(row, column), grid.weights(row, column)
            assert window.y % stride == window.x % stride == 0
            inside = window.clipped(size)
            y, x = inside.y - window.y, inside.x - window.x
            total[inside.slices] += weights[y : y + inside.height, x : x + inside.width]
            support = grid.support(row, column)
            outside = weights.clone()
            y, x = support.y - window.y, support.x - window.x
            outside[y : y + support.height, x : x + support.width] = 0
            assert not outside.any()
    torch.testing.assert_close(total, torch.ones(height, width))


def test_the_windows_over_a_region_are_those_with_a_say_in_it() -> None:
    size = Size(200, 150)
    grid = WindowGrid(size, 32, 0.5, 3, 4)
    windows = [(row, column) for row in range(grid.counts[0]) for column in range(grid.counts[1])]
    for region in (
        Region(0, 0, 40, 40),
        Region(64, 64, 1, 1),
        Region(190, 140, 10, 10),
        Region(33, 15, 17, 50),
    ):
        expected = [window for window in windows if grid.support(*window).intersects(region)]
        assert list(grid.over(region)) == expected


def test_a_model_that_computes_elsewhere_is_given_windows_before_the_last_are_waited_for(
    tmp_path: Path, reader: SlideReader
) -> None:
    class Elsewhere(NetTiles):
        """Computes when it is waited for, and keeps what happened."""

        def __init__(self) -> None:
            super().__init__()
            self.order: list[str] = []

        def begin(self, pixels: torch.Tensor) -> Callable[[], torch.Tensor]:
            number = sum(each.startswith("begun") for each in self.order)
            self.order.append(f"begun {number}")

            def wait() -> torch.Tensor:
                self.order.append(f"waited for {number}")
                return self(pixels)

            return wait

    model = Elsewhere()
    summary = run(tmp_path / "elsewhere.zarr", reader, model)
    run(tmp_path / "here.zarr", reader, NetTiles())
    np.testing.assert_array_equal(percent(tmp_path / "elsewhere.zarr"), percent(tmp_path / "here.zarr"))
    assert model.calls == summary.windows
    assert model.order[:4] == ["begun 0", "begun 1", "waited for 0", "begun 2"]
    assert model.order[-1] == f"waited for {len(model.order) // 2 - 1}"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_windows_begun_on_a_gpu_come_back_as_they_are_called(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = UNet(3, width=8, depth=2)
    model = GpuTiles(net, 1.0, resolve(PredictHeatmapConfig(device="cuda", precision="float32")))
    batches = [torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8) for _ in range(5)]
    waiting = [model.begin(batch) for batch in batches]
    for wait, batch in zip(waiting, batches, strict=True):
        torch.testing.assert_close(wait(), model(batch))
