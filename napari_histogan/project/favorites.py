"""Which samples people liked: one small file for each set of samples, replaced whole at each change."""

from __future__ import annotations

from napari_histogan.project.artifacts import Artifact
from napari_histogan.project.atomic import read_json, storage_errors, write_json
from napari_histogan.project.store import Project

FAVORITES = "labels/favorites"


def favorites(project: Project, samples: Artifact) -> set[int]:
    """Return the numbers of the favorite samples of a set; a file that is no list holds none."""
    path = project.root / FAVORITES / f"{samples.number:04d}.json"
    if not path.is_file():
        return set()
    told = read_json(path)
    listed = told.get("samples", ()) if isinstance(told, dict) else ()
    return {index for index in listed if isinstance(index, int) and index >= 0}


def set_favorite(project: Project, samples: Artifact, index: int, liked: bool) -> set[int]:
    """Note that a sample is a favorite, or is none any more; returns all of the set.

    Raises
    ------
    ProjectLocked
        If the project is open read-only.
    StorageError
        If the disk is full or read-only.
    """
    project.require_writable()
    now = favorites(project, samples)
    now = now | {index} if liked else now - {index}
    path = project.root / FAVORITES / f"{samples.number:04d}.json"
    with storage_errors(path, 4096):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, {"samples": sorted(now)})
    return now
