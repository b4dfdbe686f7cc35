"""The objects of a heatmap on disk: outlines for other programs, and a table of figures."""

from __future__ import annotations

from pathlib import Path

from napari_histogan.config import DetectObjectsConfig
from napari_histogan.errors import ConfigError, Stopped
from napari_histogan.inference.detections import (
    Detection,
    DetectionSettings,
    detections_to_annotations,
    find_objects,
    write_table,
)
from napari_histogan.labels.classes import ClassInfo, ClassTable
from napari_histogan.labels.interchange import write_annotations
from napari_histogan.progress import Reporter
from napari_histogan.slides.zarr_pyramid import open_pyramid

TABLE, OUTLINES = "objects.csv", "objects.geojson"


def write_objects(
    heatmap: Path,
    folder: Path,
    slide_mpp: float,
    classes: ClassTable,
    config: DetectObjectsConfig,
    reporter: Reporter,
) -> dict[str, int]:
    """Write a heatmap's objects as :data:`TABLE` and :data:`OUTLINES`.

    The heatmap is read in parts, so that memory grows with the objects and not with the slide.

    Parameters
    ----------
    heatmap
        An OME-Zarr pyramid of percent, one channel a class.
    folder
        Where the files go; rows and outlines are in one order, class by class and from top to bottom.
    slide_mpp
        Resolution of the slide's level 0 in um/px; outlines are in its pixels.
    classes
        Names and colors.
    config
        What counts as an object, and the classes that are wanted.
    reporter
        Told about the progress; hears stops.

    Returns
    -------
    dict
        Number of objects of each wanted class.

    Raises
    ------
    ConfigError
        If a wanted class is not in the heatmap, or the heatmap has other classes than the project.
    Stopped
        If the reporter asked for it.
    """
    pyramid = open_pyramid(heatmap)
    wanted = _wanted(config.classes, pyramid.channels, classes)
    settings = DetectionSettings(config.threshold, config.min_area_um2, config.max_hole_um2, config.smooth_um)
    found: list[Detection] = []
    counts: dict[str, int] = {}
    for number, info in enumerate(wanted):

        def seen(share: float, before: int = number) -> None:
            if reporter.should_stop():
                raise Stopped("stopped while looking for objects; nothing is kept")
            reporter.progress(before + share, len(wanted), "classes", "Looking for objects")

        there = find_objects(pyramid, info.index, settings, seen=seen)
        counts[info.name] = len(there)
        found += there
    write_table(folder / TABLE, found, classes)
    outlines = detections_to_annotations(found, classes, pyramid.mpp / slide_mpp)
    write_annotations(folder / OUTLINES, outlines)
    return counts


def _wanted(names: tuple[str, ...], channels: tuple[str, ...], classes: ClassTable) -> list[ClassInfo]:
    """Return the classes whose objects are wanted; refuse classes that the heatmap does not have."""
    if tuple(classes.names) != tuple(channels):
        raise ConfigError(
            f"the heatmap has the classes {', '.join(channels)}",
            f"the project's: {', '.join(classes.names)}",
            "make the heatmap again with a segmenter that was trained on these classes",
        )
    unknown = [name for name in names if name not in channels]
    if unknown:
        raise ConfigError(
            f"there is no class {unknown[0]!r}", f"one of {', '.join(channels)}", "check the name"
        )
    return [info for info in classes if not names or info.name in names]
