"""Every reader of files from elsewhere: whole files to start from, and how a user's program reads them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import label_readers
import numpy as np
import result_readers

Prepare = Callable[[Path], list[Path]]
"""Write whole files under a folder; return those that are damaged, one at a time."""


@dataclass(frozen=True)
class Reader:
    """A reader under fire.

    Parameters
    ----------
    prepare
        Writes whole files into a folder and returns those to damage.
    read
        Reads the one that was damaged (its folder mates stay whole), as the program does.
    """

    prepare: Prepare
    read: Callable[[Path], Any]


def _picture(side: int = 96) -> np.ndarray:
    y, x = np.mgrid[:side, :side]
    return np.stack([x * 2 % 256, y * 2 % 256, (x + y) % 256], axis=-1).astype(np.uint8)


def _tiff_slides(folder: Path) -> list[Path]:
    import tifffile

    picture, files = _picture(), []
    for compression in ("jpeg", "deflate", "lzw", None):
        path = folder / f"{compression}.tif"
        options: dict[str, Any] = {"compression": compression, "photometric": "rgb", "tile": (32, 32)}
        with tifffile.TiffWriter(path) as out:
            out.write(picture, resolution=(20000, 20000), resolutionunit="CENTIMETER", subifds=0, **options)
            out.write(picture[::2, ::2], subfiletype=1, **options)
        files.append(path)
    aperio = folder / "aperio.svs"
    text = "Aperio Image Library v10\r\n96x96 [0,0 96x96] (32x32) JPEG|AppMag = 20|MPP = 0.4990"
    tifffile.imwrite(aperio, picture, tile=(32, 32), compression="jpeg", photometric="rgb", description=text)
    return [*files, aperio]


def _pictures(folder: Path) -> list[Path]:
    from PIL import Image

    for suffix in ("png", "jpg"):
        Image.fromarray(_picture()).save(folder / f"picture.{suffix}")
    Image.fromarray(_picture()[..., 0]).save(folder / "grey.png")
    return sorted(folder.iterdir())


def _read_slide(path: Path) -> None:
    from napari_histogan.geometry import Region
    from napari_histogan.slides.reader import open_slide

    with open_slide(path, mpp=0.5) as slide:
        slide.thumbnail(32)
        height, width = slide.size.shape
        slide.read(Region(0, 0, min(height, 40), min(width, 40)))
        slide.fingerprint()


def _zarr_slide(folder: Path) -> list[Path]:
    from napari_histogan.geometry import Region, Size
    from napari_histogan.slides.zarr_pyramid import PyramidWriter

    root = folder / "map.zarr"
    writer = PyramidWriter(root, Size(160, 160), ["a", "b"], mpp=0.5, chunk=64)
    block = np.stack([_picture(64)[..., 0], _picture(64)[..., 1]])
    for y in (0, 64):
        for x in (0, 64):
            writer.write(Region(y, x, 64, 64), block)
    writer.close()
    return sorted(path for path in root.rglob("*") if path.is_file())


def _read_zarr(path: Path) -> None:
    from napari_histogan.slides.zarr_pyramid import done_blocks, open_pyramid

    root = next(parent for parent in path.parents if parent.name == "map.zarr")
    pyramid = open_pyramid(root)
    done_blocks(root)
    for level in pyramid.channel(0):
        np.asarray(level[:32, :32])


def _annotations(suffix: str) -> Prepare:
    def prepare(folder: Path) -> list[Path]:
        import shapely

        from napari_histogan.labels.annotation import Annotation
        from napari_histogan.labels.interchange import write_annotations

        hole = shapely.Polygon(
            [(0, 0), (90, 0), (90, 90), (0, 90)], [[(20, 20), (40, 20), (40, 40), (20, 40)]]
        )
        two = shapely.MultiPolygon([shapely.box(100, 0, 120, 9), shapely.box(140, 0, 160, 9)])
        outlines = [Annotation("gland", hole, "#aa0000"), Annotation("stroma", two, "#00aa00")]
        write_annotations(folder / f"outlines.{suffix}", outlines)
        return [folder / f"outlines.{suffix}"]

    return prepare


def _read_annotations(path: Path) -> None:
    from napari_histogan.labels.classes import ClassTable
    from napari_histogan.labels.interchange import read_annotations

    for annotation in read_annotations(path):
        _ = annotation.geometry.area, ClassTable


def _masks(folder: Path) -> list[Path]:
    from PIL import Image

    values = (_picture(48)[..., 0] % 3).astype(np.uint8)
    Image.fromarray(values).save(folder / "mask.png")
    indexed = Image.fromarray(values, mode="P")
    indexed.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0])
    indexed.save(folder / "indexed.png")
    return sorted(folder.iterdir())


def _read_mask(path: Path) -> None:
    from napari_histogan.labels.classes import ClassTable
    from napari_histogan.labels.interchange import read_png_mask

    read_png_mask(path, ClassTable.from_names(["gland", "stroma"]))


def _project(folder: Path) -> list[Path]:
    from tiny_project import make_tiny_project

    template = Path(__file__).parents[2] / "napari_histogan" / "demo_data" / "CMU-1-Small-Region.svs"
    project = make_tiny_project(folder / "project", template)
    names = {"project.toml", "slides.json", "artifact.json", "config.toml", "status.json", "events.jsonl"}
    return sorted(path for path in project.root.rglob("*") if path.name in names)


def _read_project(path: Path) -> None:
    from napari_histogan.jobs.runner import list_jobs
    from napari_histogan.project.overview import overview
    from napari_histogan.project.store import Project

    root = next(parent for parent in path.parents if parent.name == "project")
    project = Project.open(root)
    project.slides()
    for artifact in project.artifacts():
        project.family(artifact)
    overview(project)
    list_jobs(project.root)


def _backup(folder: Path) -> list[Path]:
    from napari_histogan.labels.classes import ClassTable
    from napari_histogan.project.backup import back_up
    from napari_histogan.project.store import Project

    project = Project.create(folder / "origin", classes=ClassTable.from_names(["gland", "stroma"]))
    masks = project.root / "labels" / "masks" / "0004"
    masks.mkdir(parents=True)
    np.save(masks / "00001.npy", (_picture(32)[..., 0] % 3).astype(np.uint8))
    back_up(project, folder / "work.zip")
    return [folder / "work.zip"]


def _read_backup(path: Path) -> None:
    from napari_histogan.project.backup import restore

    restore(path, path.parent / "restored")


def _generator(folder: Path) -> list[Path]:
    from napari_histogan.models.generator_file import save_generator
    from napari_histogan.models.stylegan2 import Generator, GeneratorSpec

    save_generator(folder / "generator.safetensors", Generator(_small_spec(GeneratorSpec)), {"mpp": 1.0})
    return sorted(folder.iterdir())


def _small_spec(kind: Any) -> Any:
    return kind(
        z_dim=8, c_dim=0, w_dim=8, img_resolution=16, mapping_layers=1, channel_base=64, channel_max=8
    )


def _read_generator(path: Path) -> None:
    from napari_histogan.models.generator_file import generator_info, load_generator

    generator_info(path.parent)
    load_generator(path.parent)


def _checkpoint(folder: Path) -> list[Path]:
    import torch

    from napari_histogan.training.checkpoint import CheckpointStore

    CheckpointStore(folder / "checkpoints", 2).save(3, {"w": torch.zeros(4), "step": 3, "names": ["a"]}, 0.5)
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _read_checkpoint(path: Path) -> None:
    from napari_histogan.training.checkpoint import CheckpointStore

    folder = next(parent for parent in path.parents if parent.name == "checkpoints")
    store = CheckpointStore(folder, 2)
    store.load_latest()
    store.best()


def _foreign(folder: Path) -> list[Path]:
    import sys

    sys.path.insert(0, str(Path(__file__).parents[1] / "models"))
    import torch
    from foreign_checkpoints import rosinality_state, write_snapshot

    from napari_histogan.models.stylegan2 import Generator, GeneratorSpec

    generator = Generator(_small_spec(GeneratorSpec))
    write_snapshot(folder / "snapshot.pkl", generator, None, "raise AssertionError")
    torch.save({"g_ema": rosinality_state(generator)}, folder / "rosinality.pt")
    return sorted(folder.iterdir())


def _read_foreign(path: Path) -> None:
    from napari_histogan.models.official_checkpoint import import_generator

    import_generator(path)


READERS: dict[str, Reader] = {
    "tiff": Reader(_tiff_slides, _read_slide),
    "picture": Reader(_pictures, _read_slide),
    "ome-zarr": Reader(_zarr_slide, _read_zarr),
    "geojson": Reader(_annotations("geojson"), _read_annotations),
    "aperio-xml": Reader(_annotations("xml"), _read_annotations),
    "png-mask": Reader(_masks, _read_mask),
    "project": Reader(_project, _read_project),
    "backup": Reader(_backup, _read_backup),
    "generator": Reader(_generator, _read_generator),
    "checkpoint": Reader(_checkpoint, _read_checkpoint),
    "foreign-checkpoint": Reader(_foreign, _read_foreign),
    "csv": Reader(label_readers.tables, label_readers.read_table),
    "block-labels": Reader(label_readers.block_labels, label_readers.read_block_labels),
    "picture-folder": Reader(label_readers.picture_folder, label_readers.read_picture_folder),
    "settings": Reader(label_readers.settings, label_readers.read_settings),
    "human-work": Reader(label_readers.human_work, label_readers.read_human_work),
    "nets": Reader(result_readers.nets, result_readers.read_net),
    "stores": Reader(result_readers.stores, result_readers.read_store),
}
"""Every reader by the name that the campaign takes."""
