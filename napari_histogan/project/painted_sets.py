"""Which sets of samples a classifier learns from: one, several, or all painted ones of a generator."""

from __future__ import annotations

from napari_histogan.errors import ArtifactMissing, ConfigError, LabelError
from napari_histogan.project.artifacts import Artifact
from napari_histogan.project.store import Project


def painted_sets(project: Project, references: str = "") -> list[Artifact]:
    """Return the sets of samples to learn from.

    Parameters
    ----------
    project
        Where they are.
    references
        Their ids, divided by commas.  Empty takes the newest set and all painted sets that were made with
        the same generator, so that paint on drawn samples and on real patches counts together.

    Returns
    -------
    list[Artifact]
        Oldest first; at least one is painted.

    Raises
    ------
    ArtifactMissing
        If there is no such set, or none at all.
    ConfigError
        If the named sets were made with different generators.
    LabelError
        If none of them is painted.
    """
    names = [name.strip() for name in references.split(",") if name.strip()]
    if names:
        named = {a.id: a for a in (project.artifact(name, "samples") for name in names)}
        sets = sorted(named.values(), key=lambda a: a.number)
        if len({_made_with(a) for a in sets}) > 1:
            raise ConfigError(
                "the samples " + ", ".join(f"{a.id} (of {_made_with(a)})" for a in sets) + " have different "
                "generators",
                "sets of one generator: features of different ones cannot be mixed",
                "name the sets of one of them",
            )
    else:
        newest = project.artifact("", "samples")
        same = [a for a in project.artifacts("samples") if _made_with(a) == _made_with(newest)]
        sets = [a for a in same if a.id == newest.id or project.painted(a)]
    if not any(project.painted(a) for a in sets):
        ids = ", ".join(a.id for a in sets)
        raise LabelError(
            f"no sample of {ids} is painted", "one painted sample or more", "paint in the dock first"
        )
    return sets


def count_painted(project: Project) -> int:
    """Return how many painted samples a classifier would learn from now, of all sets; 0 if there are none."""
    try:
        return sum(len(project.painted(samples)) for samples in painted_sets(project))
    except (ArtifactMissing, LabelError):
        return 0


def _made_with(samples: Artifact) -> str:
    """Return the id of the generator of a set; empty if it names none."""
    return next((parent.id for parent in samples.parents if parent.id.startswith("generators/")), "")
