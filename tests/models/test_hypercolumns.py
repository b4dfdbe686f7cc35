from __future__ import annotations

import pytest
import torch

from napari_histogan.errors import ModelError
from napari_histogan.models.hypercolumn_projection import HypercolumnProjection
from napari_histogan.models.hypercolumns import (
    FeatureLayout,
    FeatureStatistics,
    gather_hypercolumns,
    layout_of,
    native_levels,
    select_blocks,
    upsample_and_concatenate,
)
from napari_histogan.models.stylegan2 import FeatureMap


def feature_maps(size: int, n: int = 2, channels: int = 6, seed: int = 0) -> list[FeatureMap]:
    """Two maps a block as a generator makes them, with unlike scales and offsets."""
    g = torch.Generator().manual_seed(seed)
    maps = []
    r = 4
    while r <= size:
        for conv in ("conv0", "conv1") if r > 4 else ("conv1",):
            x = torch.randn(n, channels + len(maps) % 3, r, r, generator=g)
            x = (x * 3 + 5).contiguous(memory_format=torch.channels_last)
            maps.append(FeatureMap(f"b{r}.{conv}", r, x))
        r *= 2
    return maps


def naive(maps: list[FeatureMap], weight: torch.Tensor, bias: torch.Tensor, mode: str) -> torch.Tensor:
    columns = upsample_and_concatenate(maps, maps[-1].block_resolution, mode)  # type: ignore[arg-type]
    return torch.einsum("nchw,cd->nhwd", columns.double(), weight.double()) + bias.double()


def projected(projection: HypercolumnProjection, maps: list[FeatureMap], pixels: int) -> torch.Tensor:
    levels = native_levels(maps, projection.layout, projection.dtype)
    n, size = maps[0].tensor.shape[0], projection.layout.size
    out = torch.empty(n, size, size, projection.width)
    for band in projection.bands(n, pixels):
        part = projection(levels, band).float()
        shape = (band.last - band.first, band.bottom - band.top, size, projection.width)
        out[band.first : band.last, band.top : band.bottom] = part.view(shape)
    return out


def relative_error(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found.double() - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize("mode", ["bilinear", "nearest"])
@pytest.mark.parametrize("fuse", [0, 1, 2, 3, None])
@pytest.mark.parametrize("size", [64, 256])
def test_equals_upsample_and_concatenate(size: int, fuse: int | None, mode: str) -> None:
    maps = feature_maps(size)
    layout = layout_of(maps, size)
    weight, bias = torch.randn(layout.channels, 12), torch.randn(12)
    projection = HypercolumnProjection(layout, weight, bias, mode=mode, fuse=fuse)  # type: ignore[arg-type]
    assert relative_error(projected(projection, maps, 16384), naive(maps, weight, bias, mode)) < 1e-6


@pytest.mark.parametrize("rows", [1, 3, 5, 16, 33, 64])
@pytest.mark.parametrize("fuse", [0, 2, 5])
def test_every_cut_into_bands_gives_the_same(rows: int, fuse: int) -> None:
    maps = feature_maps(64, n=1)
    layout = layout_of(maps, 64)
    weight, bias = torch.randn(layout.channels, 5), torch.randn(5)
    projection = HypercolumnProjection(layout, weight, bias, fuse=fuse)
    assert (
        relative_error(projected(projection, maps, rows * 64), naive(maps, weight, bias, "bilinear")) < 1e-6
    )


@pytest.mark.parametrize("blocks", [1, 2, 3, 4])
@pytest.mark.parametrize("fuse", [0, 1])
def test_last_blocks(blocks: int, fuse: int) -> None:
    maps = select_blocks(feature_maps(64), blocks)
    assert {m.block_resolution for m in maps} == {64 >> k for k in range(blocks)}
    layout = layout_of(maps, 64)
    weight, bias = torch.randn(layout.channels, 5), torch.randn(5)
    projection = HypercolumnProjection(layout, weight, bias, fuse=fuse)
    assert relative_error(projected(projection, maps, 1024), naive(maps, weight, bias, "bilinear")) < 1e-6


@pytest.mark.parametrize("dropped", [1, 2, 3])
def test_maps_coarser_than_the_image(dropped: int) -> None:
    maps = [m for m in feature_maps(64) if m.block_resolution <= 64 >> dropped]
    layout = layout_of(maps, 64)
    weight, bias = torch.randn(layout.channels, 5), torch.randn(5)
    columns = upsample_and_concatenate(maps, 64)
    expected = torch.einsum("nchw,cd->nhwd", columns.double(), weight.double()) + bias
    found = projected(HypercolumnProjection(layout, weight, bias), maps, 640)
    assert relative_error(found, expected) < 1e-6


def test_standardization_is_folded_in() -> None:
    maps = feature_maps(64)
    layout = layout_of(maps, 64)
    statistics = FeatureStatistics(layout)
    statistics.update(maps)
    mean, std = statistics.mean(), statistics.std()
    weight, bias = torch.randn(layout.channels, 8), torch.randn(8)
    columns = (upsample_and_concatenate(maps, 64) - mean[:, None, None]) / std[:, None, None]
    expected = torch.einsum("nchw,cd->nhwd", columns.double(), weight.double()) + bias
    exact = HypercolumnProjection(layout, weight, bias, mean, std)
    assert relative_error(projected(exact, maps, 4096), expected) < 1e-5
    rounded = HypercolumnProjection(layout, weight, bias, mean, std, dtype=torch.bfloat16)
    assert relative_error(projected(rounded, maps, 4096), expected) < 0.02


def test_statistics_do_not_depend_on_batches() -> None:
    maps = feature_maps(32, n=6)
    layout = layout_of(maps, 32)
    whole, parts = FeatureStatistics(layout), FeatureStatistics(layout)
    whole.update(maps)
    for cut in (slice(0, 1), slice(1, 4), slice(4, 6)):
        parts.update([m._replace(tensor=m.tensor[cut]) for m in maps])
    first = maps[3].tensor
    start = sum(m.tensor.shape[1] for m in maps[:3])
    torch.testing.assert_close(parts.mean(), whole.mean())
    torch.testing.assert_close(parts.std(), whole.std())
    torch.testing.assert_close(
        whole.mean()[start : start + first.shape[1]], first.mean(dim=(0, 2, 3)), rtol=1e-5, atol=1e-5
    )
    torch.testing.assert_close(
        whole.std()[start : start + first.shape[1]], first.transpose(0, 1).flatten(1).std(1, correction=0)
    )


def test_a_constant_channel_keeps_its_scale() -> None:
    maps = [FeatureMap("b4.conv1", 4, torch.full((2, 3, 4, 4), 7.0))]
    statistics = FeatureStatistics(layout_of(maps, 4))
    statistics.update(maps)
    assert statistics.std().tolist() == [1.0, 1.0, 1.0]
    assert statistics.mean().tolist() == [7.0, 7.0, 7.0]


@pytest.mark.parametrize("mode", ["bilinear", "nearest"])
@pytest.mark.parametrize("size", [64, 256])
def test_gather_reads_the_same_columns(size: int, mode: str) -> None:
    maps = feature_maps(size)
    g = torch.Generator().manual_seed(1)
    image = torch.randint(0, 2, (500,), generator=g)
    y, x = torch.randint(0, size, (2, 500), generator=g)
    y[:4], x[:4] = torch.tensor([0, 0, size - 1, size - 1]), torch.tensor([0, size - 1, 0, size - 1])
    levels = native_levels(maps, layout_of(maps, size), torch.float32)
    found = gather_hypercolumns(levels, image, y, x, size, mode)  # type: ignore[arg-type]
    expected = upsample_and_concatenate(maps, size, mode)[image, :, y, x]  # type: ignore[arg-type]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_a_layout_survives_json() -> None:
    layout = layout_of(feature_maps(32), 32)
    assert FeatureLayout.from_dict(layout.to_dict()) == layout


def test_what_does_not_fit_is_refused() -> None:
    maps = feature_maps(32)
    layout = layout_of(maps, 32)
    with pytest.raises(ModelError, match="last 9 blocks"):
        select_blocks(maps, 9)
    with pytest.raises(ModelError, match="generator that the classifier was trained on"):
        native_levels(feature_maps(64), layout, torch.float32)
    with pytest.raises(ModelError, match="larger by a power of two"):
        layout_of(maps, 48)
    with pytest.raises(ModelError, match="first layer has weights"):
        HypercolumnProjection(layout, torch.zeros(3, 4), torch.zeros(4))
