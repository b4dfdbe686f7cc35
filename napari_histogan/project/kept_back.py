"""Corrections that judge nets instead of teaching them, and which corrections a net has learned from."""

from __future__ import annotations

from collections.abc import Sequence

from napari_histogan.project.artifacts import Artifact
from napari_histogan.project.corrections import Correction
from napari_histogan.project.store import Project

LEARNED = "learned"
"""Key in the summary of merged corrections: the names of the regions that training patches were cut from."""


def kept_back(corrections: Sequence[Correction], one_in: int) -> set[str]:
    """Return the names of the corrections that are kept back to judge nets.

    They are every ``one_in``-th in the order in which they were made, so what was kept back once is kept
    back in every later round, and what was learned once never judges.

    Parameters
    ----------
    corrections
        All of a project.
    one_in
        0 keeps none back.
    """
    if not one_in:
        return set()
    made = sorted(corrections, key=lambda each: (each.created, each.name))
    return {each.name for number, each in enumerate(made, 1) if number % one_in == 0}


def learned_from(project: Project, net: str) -> set[str]:
    """Return the names of the corrections that a net learned from, itself or as the net that it began with.

    Of corrections that were merged by a version that did not note their names, all that were there count.

    Parameters
    ----------
    project
        Where the net is.
    net
        Its id; an unknown one has learned from nothing.
    """
    known = {a.id: a for kind in ("segmenter", "corrections") for a in project.artifacts(kind)}
    names: set[str] = set()
    waiting, seen = [net], set()
    while waiting:
        artifact = known.get(identity := waiting.pop())
        if artifact is None or identity in seen:
            continue
        seen.add(identity)
        if artifact.kind == "corrections":
            names |= _names(project, artifact)
        waiting += [parent.id for parent in artifact.parents]
    return names


def _names(project: Project, merged: Artifact) -> set[str]:
    noted = merged.summary.get(LEARNED)
    if isinstance(noted, list):
        return {str(name) for name in noted}
    chosen = merged.config.get("regions")
    if chosen:
        return {str(name) for name in chosen}
    return {each.name for each in project.corrections() if each.created <= merged.created}
