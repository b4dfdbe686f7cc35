"""What an evaluation compares: heatmaps of the project, and outlines of their slides."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np
from numpy.typing import NDArray

from napari_histogan import config as c
from napari_histogan.errors import ConfigError
from napari_histogan.evaluation.heatmap_scores import HeatmapAndOutlines, SlideCounts, count_slide
from napari_histogan.geometry import Region
from napari_histogan.labels.interchange import read_annotations
from napari_histogan.progress import Reporter
from napari_histogan.project.artifacts import Artifact, Parent
from napari_histogan.project.compared_heatmaps import heatmaps_to_compare, outlines_in, slide_of
from napari_histogan.project.inputs import keep_inputs
from napari_histogan.project.outside_files import file_parent
from napari_histogan.project.store import Project
from napari_histogan.stage_inputs import check_stop, open_entry


def compared_heatmaps(
    project: Project, config: c.EvaluateConfig, reporter: Reporter
) -> tuple[list[Artifact], list[Parent]]:
    """Return the heatmaps to evaluate, and the files of outlines that they are compared with.

    Raises
    ------
    ArtifactMissing, ConfigError
        If a heatmap or a file is not there; see :func:`.project.compared_heatmaps.heatmaps_to_compare`.
    """
    for path in (config.reference, config.ignore):
        if path is not None and not (path.is_file() or (path.is_dir() and path.name)):
            raise ConfigError(
                f"there are no outlines at {path}", "a GeoJSON file, or a folder with them", "check the path"
            )
    choose = partial(heatmaps_to_compare, project, config.heatmap, config.reference)
    heatmaps = keep_inputs(project, reporter.run_dir, "heatmap", choose)
    if config.ignore and len(heatmaps) > 1 and config.ignore.is_file():
        raise ConfigError(
            f"one file {config.ignore.name} to ignore was given for {len(heatmaps)} slides",
            "a folder with SLIDE.geojson for the slides where something is left out",
        )
    files = []
    for heatmap in heatmaps:
        for path in filter(None, (config.reference, config.ignore)):
            found = outlines_in(path, slide_of(heatmap))
            files += [file_parent(found)] if found else []
    return heatmaps, files


def count_slides(
    project: Project, heatmaps: list[Artifact], config: c.EvaluateConfig, reporter: Reporter, name: str
) -> Iterator[SlideCounts]:
    """Compare each heatmap with the outlines of its slide, part by part.

    Parameters
    ----------
    project, heatmaps, config, reporter
        Of the evaluation.
    name
        Of a map in its artifact.
    """
    for number, heatmap in enumerate(heatmaps):
        check_stop(reporter)
        reporter.progress(number, len(heatmaps), "slides", "Comparing")
        slide = slide_of(heatmap)
        said = outlines_in(config.reference, slide)
        ignored = outlines_in(config.ignore, slide) if config.ignore else None
        compared = HeatmapAndOutlines(
            heatmap.path / name,
            read_annotations(said) if said else [],
            read_annotations(ignored) if ignored else [],
            project.classes,
            project.slide(slide).mpp,
        )
        yield count_slide(slide, compared, project.classes, config)


def read_slide(
    project: Project, heatmaps: list[Artifact], number: int, region: Region, mpp: float
) -> NDArray[np.uint8]:
    """Return pixels of the slide of a heatmap, given the heatmap's number."""
    with open_entry(project.slide(slide_of(heatmaps[number]))) as slide:
        return slide.read_at(region, mpp)
