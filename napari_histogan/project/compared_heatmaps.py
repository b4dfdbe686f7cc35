"""Which heatmaps are compared with which outlines: one with a file, or several with a folder of files."""

from __future__ import annotations

from pathlib import Path

from napari_histogan.errors import ConfigError
from napari_histogan.project.artifacts import Artifact
from napari_histogan.project.store import Project

SUFFIXES = (".geojson", ".json", ".xml")
"""Of outlines in a folder."""


def outlines_in(path: Path, slide: str) -> Path | None:
    """Return the outlines of a slide: the file, or that of the slide's name in a folder, if there is one."""
    if not path.is_dir():
        return path
    return next((file for suffix in SUFFIXES if (file := path / f"{slide}{suffix}").is_file()), None)


def heatmaps_to_compare(project: Project, named: str, reference: Path) -> list[Artifact]:
    """Return the heatmaps that are meant, one a slide.

    Parameters
    ----------
    project
        Where the heatmaps are.
    named
        References divided by commas; "" takes the newest, or with a folder the newest of each slide in it.
    reference
        A file with outlines of one slide, or a folder with a file of each slide's name.

    Raises
    ------
    ArtifactMissing
        If there is no such heatmap.
    ConfigError
        If outlines are missing, or two heatmaps are of one slide.
    """
    names = [name.strip() for name in named.split(",") if name.strip()]
    if reference == Path() or not reference.is_dir():
        if len(names) > 1:
            raise ConfigError(
                f"{len(names)} heatmaps and one file {reference.name} were given",
                "a folder with SLIDE.geojson for each slide",
                "put each slide's outlines into a file of its name, and give the folder",
            )
        return [project.artifact(named, "heatmap")]
    if names:
        chosen = [project.artifact(name, "heatmap") for name in names]
    else:
        project.artifact("", "heatmap")  # there is one at all
        newest = {slide_of(heatmap): heatmap for heatmap in project.artifacts("heatmap")}
        chosen = [heatmap for slide, heatmap in sorted(newest.items()) if outlines_in(reference, slide)]
    slides = [slide_of(heatmap) for heatmap in chosen]
    missing = [slide for slide in slides if outlines_in(reference, slide) is None]
    if missing or not chosen:
        raise ConfigError(
            f"{reference} has no outlines of {missing[0] if missing else 'any slide that has a heatmap'}",
            "SLIDE.geojson for each slide, by the slide's name in the project",
            "name the files as histogan status names the slides",
        )
    twice = [slide for slide in slides if slides.count(slide) > 1]
    if twice:
        raise ConfigError(f"two of the heatmaps are of {twice[0]}", "one heatmap a slide", "leave one out")
    return chosen


def slide_of(heatmap: Artifact) -> str:
    """Return the name of the slide that a heatmap is of."""
    return str(heatmap.summary["slide"])
