"""Which net runs over slides: the newest, or an older one that somebody went back to."""

from __future__ import annotations

from napari_histogan.project.document import read_document
from napari_histogan.project.store import Project

_KEY = "net_in_use"


def net_in_use(project: Project) -> str:
    """Return the id of the net that runs over slides where none is named; "" if there is no net.

    It is the newest, or an older one that somebody went back to since the newest was trained: whoever
    trains a net wants to see it at work.
    """
    nets = [net.id for net in project.artifacts("segmenter")]
    told = read_document(project.root)[0].get(_KEY)
    if isinstance(told, dict) and nets and told.get("newest") == nets[-1] and told.get("net") in nets:
        return str(told["net"])
    return nets[-1] if nets else ""


def use_net(project: Project, reference: str = "") -> str:
    """Let a net run over slides until a newer one is trained; returns its id.

    Parameters
    ----------
    project
        Where the net is.
    reference
        Such as "segmenters/0003" or "3"; "" goes back to the newest.

    Raises
    ------
    ArtifactMissing
        If there is no such net.
    ProjectLocked
        If the project is read-only.
    """
    chosen = project.artifact(reference, "segmenter").id
    newest = project.artifact("", "segmenter").id
    project.set_values(**{_KEY: {"net": chosen, "newest": newest}})
    return chosen
