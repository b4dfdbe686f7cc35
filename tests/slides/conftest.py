"""Slides in every format, made from one region of the demo slide."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr
from PIL import Image

import napari_histogan
from napari_histogan.geometry import Region
from napari_histogan.slides.reader import open_slide

DEMO = Path(napari_histogan.__file__).parent / "demo_data" / "CMU-1-Small-Region.svs"
REGION = Region(900, 500, 701, 1100)
MPP = 0.499


@pytest.fixture(scope="session")
def demo_path() -> Path:
    return DEMO


@pytest.fixture(scope="session")
def pixels() -> np.ndarray:
    """The region that the other slides show, (701, 1100, 3) uint8: odd on purpose."""
    with open_slide(DEMO) as slide:
        return slide.read(REGION)


def halved(picture: np.ndarray) -> np.ndarray:
    return np.array(Image.fromarray(picture).reduce(2))


@pytest.fixture(scope="session")
def made(tmp_path_factory, pixels) -> dict[str, Path]:
    """Paths of the same picture in each format; all are lossless."""
    folder = tmp_path_factory.mktemp("slides")
    levels = [pixels, halved(pixels), halved(halved(pixels))]
    paths = {
        "ome": folder / "region.ome.tif",
        "pages": folder / "pages.tif",
        "strips": folder / "strips.tif",
        "planes": folder / "planes.ome.tif",
        "png": folder / "region.png",
        "zarr": folder / "region.ome.zarr",
    }
    per_cm = (10_000 / MPP, 10_000 / MPP)
    tiles = {"tile": (128, 256), "compression": "zlib", "photometric": "rgb"}
    with tifffile.TiffWriter(paths["ome"], ome=True) as tiff:
        metadata = {
            "axes": "YXS",
            "PhysicalSizeX": MPP,
            "PhysicalSizeY": MPP,
            "PhysicalSizeXUnit": "µm",
            "PhysicalSizeYUnit": "µm",
        }
        tiff.write(levels[0], subifds=2, metadata=metadata, **tiles)
        for level in levels[1:]:
            tiff.write(level, subfiletype=1, **tiles)
    with tifffile.TiffWriter(paths["pages"]) as tiff:
        for k, level in enumerate(levels):
            tiff.write(level, subfiletype=int(k > 0), resolution=per_cm, resolutionunit="CENTIMETER", **tiles)
    tifffile.imwrite(paths["strips"], pixels, rowsperstrip=50, resolution=per_cm, resolutionunit="CENTIMETER")
    tifffile.imwrite(
        paths["planes"],
        np.moveaxis(pixels, -1, 0),
        ome=True,
        photometric="minisblack",
        metadata={"axes": "CYX", "PhysicalSizeX": MPP * 1000, "PhysicalSizeXUnit": "nm"},
    )
    Image.fromarray(pixels).save(paths["png"])
    write_ome_zarr(paths["zarr"], levels)
    return paths


def write_ome_zarr(path: Path, levels: list[np.ndarray]) -> None:
    group = zarr.create_group(path)
    datasets = []
    for k, level in enumerate(levels):
        array = group.create_array(str(k), shape=(3, *level.shape[:2]), chunks=(3, 128, 128), dtype=np.uint8)
        array[:] = np.moveaxis(level, -1, 0)
        scale = [1.0, MPP * 2**k, MPP * 2**k]
        datasets.append({"path": str(k), "coordinateTransformations": [{"type": "scale", "scale": scale}]})
    axes = [{"name": "c", "type": "channel"}]
    axes += [{"name": n, "type": "space", "unit": "micrometer"} for n in "yx"]
    group.attrs["ome"] = {
        "version": "0.5",
        "multiscales": [{"name": "region", "axes": axes, "datasets": datasets}],
    }
