"""From what each result came, and which results are behind what they were made from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from napari_histogan.project.artifacts import KINDS, Artifact
from napari_histogan.project.outside_files import PREFIX

ContentHash = Callable[[str], str | None]
"""Gives the present hash of an id, of an artifact or of human work; None if it is gone."""


@dataclass(frozen=True, slots=True)
class FamilyNode:
    """One member of a family tree.

    Attributes
    ----------
    id
        Artifact or human work.
    stage, created
        What made it and when; empty for human work.
    state
        "" if it still is what was used, else "changed since" or "missing".
    parents
        What it was made from.
    """

    id: str
    stage: str
    created: str
    state: str
    parents: tuple[FamilyNode, ...]

    def lines(self, indent: int = 0) -> list[str]:
        """Return the tree as indented lines."""
        what = f" ({self.stage})" if self.stage else ""
        state = f"  [{self.state}]" if self.state else ""
        own = f"{'  ' * indent}{self.id}{what}{state}"
        return [own, *(line for parent in self.parents for line in parent.lines(indent + 1))]


@dataclass(frozen=True, slots=True)
class Stale:
    """A newest artifact that is behind, and why."""

    artifact: Artifact
    reason: str


def family_tree(artifact: Artifact, artifacts: Sequence[Artifact], present: ContentHash) -> FamilyNode:
    """Return an artifact with all its ancestors."""
    by_id = {item.id: item for item in artifacts}

    def node(identity: str, used_hash: str, above: frozenset[str]) -> FamilyNode:
        item = by_id.get(identity)
        now = present(identity)
        state = "missing" if now is None else "" if now == used_hash else "changed since"
        if item is None or identity in above:
            return FamilyNode(identity, "", "", state, ())
        parents = tuple(node(p.id, p.hash, above | {identity}) for p in item.parents)
        return FamilyNode(identity, item.stage, item.created, state, parents)

    return node(artifact.id, artifact.hash, frozenset())


def stale_artifacts(artifacts: Sequence[Artifact], present: ContentHash) -> list[Stale]:
    """Return the newest artifacts of each kind whose sources have moved on, in the order of the data flow."""
    newest = {a.kind: a for a in sorted(artifacts, key=lambda a: a.number)}
    by_id = {item.id: item for item in artifacts}
    found: dict[str, Stale] = {}
    for kind in KINDS:
        artifact = newest.get(kind)
        reason = artifact and _reason(artifact, by_id, newest, set(found), present)
        if artifact and reason:
            found[artifact.id] = Stale(artifact, reason)
    # Corrections feed segmenters, so a kind late in the flow can make an earlier one stale.
    for artifact in newest.values():
        reason = _reason(artifact, by_id, newest, set(found), present)
        if reason and artifact.id not in found:
            found[artifact.id] = Stale(artifact, reason)
    order = list(KINDS)
    return sorted(found.values(), key=lambda stale: order.index(stale.artifact.kind))


def _reason(
    artifact: Artifact,
    by_id: dict[str, Artifact],
    newest: dict[str, Artifact],
    behind: set[str],
    present: ContentHash,
) -> str:
    """Say why an artifact is behind, or nothing."""
    own = {parent.id for parent in artifact.parents}
    for parent in artifact.parents:
        item = by_id.get(parent.id)
        if item is None:
            now = present(parent.id)
            outside = parent.id.startswith(PREFIX)
            if outside and now is None:
                continue  # a project that was moved keeps its results
            if now != parent.hash:
                kept = outside or parent.id.startswith("labels/")
                changed = "changed since" if kept else "was painted on since"
                return f"{parent.id} {'is gone' if now is None else changed}"
        elif item.kind != artifact.kind and newest[item.kind].id not in {item.id, *own}:
            return f"{newest[item.kind].id} is newer than {item.id}"
        elif parent.id in behind:
            return f"{parent.id}, from which it was made, is out of date too"
    return ""
