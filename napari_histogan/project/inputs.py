"""The inputs of a run: chosen once, and kept when the run is resumed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from napari_histogan.project.artifacts import Artifact
from napari_histogan.project.atomic import read_json, write_json
from napari_histogan.project.store import Project

FILE = "inputs.json"


def keep_inputs(
    project: Project, run_dir: Path, name: str, choose: Callable[[], list[Artifact]]
) -> list[Artifact]:
    """Return the inputs that a run began with; at its beginning, choose them.

    "The newest net" may mean another one when a stopped run goes on; half a heatmap of
    each would be neither's.

    Parameters
    ----------
    project
        Where the artifacts are.
    run_dir
        The run folder; remembers the choice in ``inputs.json``.
    name
        What the inputs are to the stage, such as "segmenter".
    choose
        Called only when the run begins.

    Raises
    ------
    ArtifactMissing
        If there is nothing to choose, or what the run began with is gone.
    """
    path = run_dir / FILE
    known: dict[str, list[str]] = read_json(path) if path.exists() else {}
    if name not in known:
        chosen = choose()
        write_json(path, {**known, name: [artifact.id for artifact in chosen]})
        return chosen
    return [project.find(identity) for identity in known[name]]
