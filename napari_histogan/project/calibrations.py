"""Estimates of how much of each class a block holds: human work, kept with every change.

One JSON file for the block labels of a slide, ``labels/calibration/0007.json``, is replaced whole at each
estimate, so that nothing is lost whenever the window closes. An estimate that is replaced or taken back
stays in the file, under ``earlier``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from napari_histogan.errors import (
    DAMAGE,
    ArtifactMissing,
    ConfigError,
    LabelError,
    ProjectDamaged,
)
from napari_histogan.labels.block_labels import BlockLabels
from napari_histogan.labels.calibration import check_shares, read_estimates
from napari_histogan.project.artifacts import Artifact, Parent
from napari_histogan.project.atomic import read_bytes, storage_errors, write_json
from napari_histogan.project.locks import now
from napari_histogan.project.store import Project

CALIBRATIONS = "labels/calibration"
_FORMAT = 1


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a person said of one block.

    Parameters
    ----------
    row, column
        Of the block.
    label
        Its label value.
    shares
        By class name, 0..1, summing to 1.
    created
        When, UTC, ISO 8601.
    """

    row: int
    column: int
    label: str
    shares: dict[str, float]
    created: str = ""


class Calibration:
    """The estimates for the block labels of one artifact.

    Parameters
    ----------
    project
        Where they are kept.
    block_labels
        The artifact or its id.
    """

    def __init__(self, project: Project, block_labels: Artifact | str) -> None:
        identity = block_labels if isinstance(block_labels, str) else block_labels.id
        self.number = int(identity.rpartition("/")[2])
        self.id = f"{CALIBRATIONS}/{self.number:04d}"
        self.path = project.root / CALIBRATIONS / f"{self.number:04d}.json"
        self._project = project

    def estimates(self) -> dict[tuple[int, int], Estimate]:
        """Return the present estimates by row and column; raises ``ProjectDamaged``."""
        return {(e.row, e.column): e for e in self._read()[0]}

    def estimate(self, row: int, column: int, label: str, shares: Mapping[str, float]) -> None:
        """Keep what a person says of a block; it replaces what was said before.

        Raises
        ------
        LabelError
            If the shares do not sum to 1.
        ProjectLocked
            If the project is open read-only.
        StorageError
            If the disk is full; what was kept before is untouched.
        """
        named = {str(name): float(share) for name, share in shares.items()}
        check_shares(np.array(list(named.values())), f"the block in row {row}, column {column}")
        self._replace((row, column), Estimate(row, column, label, named, now()))

    def take_back(self, row: int, column: int) -> None:
        """Forget the estimate of a block; it stays under ``earlier`` in the file."""
        self._replace((row, column), None)

    def shares(self, classes: Sequence[str]) -> dict[str, list[list[float]]]:
        """Return the shares of each label value's blocks, ``(n, K)`` lists; other classes' are left out."""
        found: dict[str, list[list[float]]] = {}
        for estimate in self.estimates().values():
            if set(estimate.shares) == set(classes):
                found.setdefault(estimate.label, []).append([estimate.shares[name] for name in classes])
        return found

    def content_hash(self) -> str | None:
        """Return sha256 in hex over the estimates; None if there is no file."""
        if not self.path.exists():
            return None
        rows = sorted((e.row, e.column, e.label, sorted(e.shares.items())) for e in self.estimates().values())
        return hashlib.sha256(json.dumps(rows).encode()).hexdigest()

    def as_parent(self) -> Parent:
        """Return what an artifact made from the estimates records."""
        return Parent(self.id, self.content_hash() or "")

    def _replace(self, place: tuple[int, int], estimate: Estimate | None) -> None:
        """Put an estimate in the place of another, in one rename."""
        self._project.require_writable()
        with self._project.write_lock():
            present, earlier = self._read()
            before = [e for e in present if (e.row, e.column) == place]
            kept = [e for e in present if (e.row, e.column) != place] + ([estimate] if estimate else [])
            with storage_errors(self.path):
                self.path.parent.mkdir(parents=True, exist_ok=True)
            stored = {
                "format": _FORMAT,
                "estimates": [asdict(e) for e in kept],
                "earlier": earlier + [asdict(e) for e in before],
            }
            write_json(self.path, stored)

    def _read(self) -> tuple[list[Estimate], list[dict[str, Any]]]:
        """Return the present estimates, and the earlier ones as they are stored."""
        try:
            stored = json.loads(read_bytes(self.path))
            if stored["format"] != _FORMAT:
                raise ValueError(f"format {stored['format']}")
            estimates = [Estimate(**entry) for entry in stored["estimates"]]
            for e in estimates:
                if not (isinstance(e.row, int) and isinstance(e.column, int) and isinstance(e.label, str)):
                    raise ValueError(f"an estimate of {e.label!r} in row {e.row!r}, column {e.column!r}")
                check_shares(np.array(list(e.shares.values())), f"row {e.row}, column {e.column}")
            return estimates, list(stored["earlier"])
        except FileNotFoundError:
            return [], []
        except DAMAGE as error:
            raise ProjectDamaged(
                f"{self.path} cannot be read: {error}",
                "the estimates of a calibration",
                "restore it from a backup",
            ) from error


def take_sheet(project: Project, block_labels: Artifact, sheet: Path) -> dict[str, int]:
    """Keep the estimates of a filled-in sheet; see :func:`.labels.calibration.read_estimates`.

    Returns
    -------
    dict
        How many blocks of each label value are estimated now; 0 where none is.

    Raises
    ------
    LabelError
        Naming the line, if a block has another label or none, or shares do not sum to 1; nothing is
        kept then.
    """
    labels, calibration = BlockLabels.load(block_labels.path), Calibration(project, block_labels)
    found = read_estimates(sheet, project.classes.names)
    for where, (row, column), value, _ in found:
        inside = 0 <= row < labels.grid.shape[0] and 0 <= column < labels.grid.shape[1]
        z = int(labels.grid[row, column]) if inside else -1
        if z < 0 or labels.values[z] != value:
            has = f"the label value {labels.values[z]!r}" if z >= 0 else "no label"
            raise LabelError(
                f"{where}: the block in row {row}, column {column} has {has}",
                f"{value!r}, as the line says",
                f"use the sheet of {block_labels.id}",
            )
    for _, (row, column), value, shares in found:
        calibration.estimate(row, column, value, shares)
    present = [estimate.label for estimate in calibration.estimates().values()]
    return {value: present.count(value) for value in labels.values}


def chosen_block_labels(project: Project, references: Sequence[str]) -> list[Artifact]:
    """Return the named block labels, or the newest of each slide.

    Raises
    ------
    ArtifactMissing
        If there are none.
    """
    if references:
        return [project.artifact(reference, "block_labels") for reference in references]
    newest = {str(a.summary["slide"]): a for a in project.artifacts("block_labels")}
    if not newest:
        raise ArtifactMissing(
            "the project has no block labels", "one set or more", "run histogan import-block-labels"
        )
    return list(newest.values())


def damaged_calibrations(project: Project) -> dict[str, list[str]]:
    """Return the calibrations that cannot be read, by id, with what is wrong."""
    found = {}
    for path in sorted((project.root / CALIBRATIONS).glob("[0-9]*.json")):
        calibration = Calibration(project, path.stem.split(".")[0])
        try:
            calibration.estimates()
        except ProjectDamaged as error:
            found[calibration.id] = [error.found]
    return found


def block_labels_on(project: Project, slide: str, reference: str) -> Artifact:
    """Return the named block labels of a slide, or its newest.

    Parameters
    ----------
    project, slide
        The project, and the name of its slide.
    reference
        An id, or "newest".

    Raises
    ------
    ArtifactMissing
        If there are none.
    ConfigError
        If the named ones are another slide's.
    """
    if reference == "newest":
        found = [a for a in chosen_block_labels(project, ()) if a.summary["slide"] == slide]
        if not found:
            raise ArtifactMissing(
                f"there are no block labels of {slide}", "one set or more", "run histogan import-block-labels"
            )
        return found[0]
    artifact = project.artifact(reference, "block_labels")
    if artifact.summary["slide"] != slide:
        raise ConfigError(
            f"{artifact.id} are of the slide {artifact.summary['slide']}",
            f"block labels of {slide}",
            "name those of the slide, or newest",
        )
    return artifact
