"""What a stage made: from what, with which config, and whether it is still whole."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from napari_histogan import __version__
from napari_histogan.config import STAGES, StageConfig
from napari_histogan.errors import DAMAGE, ArtifactMissing, ConfigError, ProjectDamaged, ProjectError
from napari_histogan.project.atomic import (
    remove_half_written,
    storage_errors,
    sync_folder,
    sync_tree,
    temporary_sibling,
    write_json,
)
from napari_histogan.project.locks import now

KINDS: dict[str, str] = {
    "slides": "slides",
    "patches": "patches",
    "generator": "generators",
    "samples": "samples",
    "pixel_classifier": "pixel_classifiers",
    "dataset": "datasets",
    "block_labels": "block_labels",
    "segmenter": "segmenters",
    "patch_classifier": "patch_classifiers",
    "heatmap": "heatmaps",
    "objects": "objects",
    "evaluation": "evaluations",
    "corrections": "corrections",
    "study": "studies",
}
"""Folder of each kind of artifact, in the order of the data flow."""

RECORD = "artifact.json"
_RECORD_TYPES: dict[str, type] = {
    **dict.fromkeys(("kind", "stage", "hash", "created", "program_version"), str),
    **dict.fromkeys(("config", "files", "summary"), dict),
    "parents": list,
    "seed": int,
}


def stages_making(kind: str) -> list[str]:
    """Return the stages whose result is of a kind, such as train_gan and import_gan."""
    return [name for name, model in STAGES.items() if model.result == kind]


@dataclass(frozen=True, slots=True)
class Parent:
    """Something that an artifact was made from.

    Parameters
    ----------
    id
        An artifact's id, "masks/0004" or "labels/corrections" for human work, or "file:PATH".
    hash
        Its content hash at that time, sha256 in hex.
    """

    id: str
    hash: str


@dataclass(frozen=True, slots=True)
class Artifact:
    """The result of one run of a stage; its folder never changes.

    Attributes
    ----------
    id
        Kind folder and number of the run, such as "generators/0003".
    kind, number
        One of :data:`KINDS`, and the number of the run that made it.
    path
        Its folder.
    stage, config, seed
        What made it, and how.
    parents
        What it was made from.
    files, hash
        sha256 of each file by its path relative to the folder; and over kind and files, the content's hash.
    summary
        Free numbers and strings for display.
    created, program_version
        When (UTC, ISO 8601), and by which version.
    """

    id: str
    kind: str
    number: int
    path: Path
    stage: str
    config: dict[str, Any]
    seed: int
    parents: tuple[Parent, ...]
    files: dict[str, str]
    hash: str
    summary: dict[str, Any]
    created: str
    program_version: str

    def stage_config(self) -> StageConfig:
        """Return the config as its stage's model.

        Raises
        ------
        ProjectDamaged
            If this version does not know the stage or a field.
        """
        try:
            return STAGES[self.stage](**self.config)
        except (KeyError, ValueError, ConfigError) as error:
            raise ProjectDamaged(
                f"the config of {self.id} is not one of this version: {error}", f"a config of {self.stage}"
            ) from error

    def as_parent(self) -> Parent:
        """Return what an artifact made from this one records."""
        return Parent(self.id, self.hash)


@dataclass(slots=True)
class ArtifactDraft:
    """An artifact that is being made.

    Attributes
    ----------
    path
        Write the files here; renamed when done.
    summary
        Fill in what people should see: plain numbers and strings.
    number
        Number of the run.
    result
        The artifact, once the block is left without an error.
    """

    path: Path
    number: int
    summary: dict[str, Any] = field(default_factory=dict)
    _result: Artifact | None = None
    _taken: list[tuple[Path, Path]] = field(default_factory=list)

    @property
    def result(self) -> Artifact:
        """The finished artifact; only after the block.

        Raises
        ------
        ProjectError
            Inside the block.
        """
        if self._result is None:
            raise ProjectError("the artifact is not finished", "a look after the with block has ended")
        return self._result

    def take(self, source: Path) -> None:
        """Move a file, or all that a folder holds, into the draft; a rename on the same disk.

        If the artifact is not finished after all, it is moved back.
        """
        source = Path(source)
        for entry in sorted(source.iterdir()) if source.is_dir() else [source]:
            self.take_whole(entry)

    def take_whole(self, source: Path) -> None:
        """Move a file or a folder, under its own name, into the draft; moved back after an error."""
        target = self.path / source.name
        shutil.move(str(source), str(target))
        self._taken.append((source, target))

    def _put_back(self) -> None:
        """Return what was taken, so that a later try finds it where it was."""
        for source, target in reversed(self._taken):
            with suppress(OSError):
                shutil.move(str(target), str(source))


def read_artifact(path: Path) -> Artifact:
    """Read the artifact in a folder.

    Raises
    ------
    ProjectDamaged
        If its record is missing or incomplete.
    """
    try:
        record = json.loads((path / RECORD).read_bytes())
        for name, kind in _RECORD_TYPES.items():
            if not isinstance(record[name], kind):
                raise TypeError(f"{name} is a {type(record[name]).__name__}")
        if not all(isinstance(p[key], str) for p in record["parents"] for key in ("id", "hash")):
            raise TypeError("a parent is not named by text")
        return Artifact(
            id=f"{path.parent.name}/{path.name}",
            kind=record["kind"],
            number=int(path.name),
            path=path,
            stage=record["stage"],
            config=record["config"],
            seed=record["seed"],
            parents=tuple(Parent(p["id"], p["hash"]) for p in record["parents"]),
            files=record["files"],
            hash=record["hash"],
            summary=record["summary"],
            created=record["created"],
            program_version=record["program_version"],
        )
    except DAMAGE as error:
        raise ProjectDamaged(
            f"the record of {path} cannot be read ({error!r})",
            RECORD,
            "restore it from a backup, or remove the folder and run its stage again",
        ) from error


def list_artifacts(root: Path, kind: str) -> list[Artifact]:
    """Return the artifacts of a kind, oldest first."""
    return [read_artifact(path) for path in artifact_folders(root, kind)]


def pick_artifact(found: Sequence[Artifact], reference: str, kind: str | None = None) -> Artifact:
    """Return the artifact that a reference names.

    Parameters
    ----------
    found
        Artifacts of ``kind``, or of all kinds if it is None; oldest first.
    reference
        "" for the newest, "3", "0003", or "generators/0003".
    kind
        What is looked for.

    Raises
    ------
    ArtifactMissing
        Saying which stage makes it, and what there is.
    """
    stages = stages_making(kind) if kind else list(STAGES)[:1]
    verbs = " or ".join(f"histogan {stage.replace('_', '-')}" for stage in stages)
    what = kind.replace("_", " ") if kind else "result"
    if not found:
        raise ArtifactMissing(f"the project has no {what} yet", "", f"run {verbs} first")
    parts = re.fullmatch(r"(?:([a-z_]+)/)?(\d+)", reference.strip().rstrip("/"))
    for artifact in reversed(found):
        folders = (None, artifact.path.parent.name, artifact.kind)
        named = parts and artifact.number == int(parts.group(2)) and parts.group(1) in folders
        if not reference or named:
            return artifact
    ids = ", ".join(artifact.id for artifact in found)
    raise ArtifactMissing(f"there is no {what} {reference!r}", f"one of {ids}", "check the number")


def artifact_folders(root: Path, kind: str) -> list[Path]:
    """Return the folders of a kind's artifacts, oldest first; half-written ones are no artifacts."""
    folder = root / KINDS[kind]
    if not folder.is_dir():
        return []
    found = [path for path in folder.iterdir() if path.name.isdecimal() and path.is_dir()]
    return sorted(found, key=lambda path: int(path.name))


@contextmanager
def draft_artifact(
    root: Path, kind: str, number: int, config: StageConfig, parents: Sequence[Parent], needs_bytes: int
) -> Iterator[ArtifactDraft]:
    """Make an artifact in a temporary folder that one rename turns into a result.

    Raises
    ------
    StorageError
        If the disk is or becomes full; everything made earlier stays as it was.
    ProjectError
        If the run has a result already.
    """
    if kind not in KINDS:
        raise ProjectError(f"there is no kind of artifact {kind!r}", ", ".join(KINDS))
    final = root / KINDS[kind] / f"{number:04d}"
    if final.exists():
        raise ProjectError(f"run {number} has its result {final} already", "one result a run")
    temporary = temporary_sibling(final)
    draft = ArtifactDraft(temporary, number)
    with storage_errors(root, needs_bytes):
        final.parent.mkdir(exist_ok=True)
        temporary.mkdir()
    with storage_errors(root, needs_bytes, only_full=True):
        try:
            yield draft
            remove_half_written(temporary)
            _write_record(draft, kind, config, parents)
            sync_tree(temporary)
            os.rename(temporary, final)
        except BaseException:
            draft._put_back()
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        sync_folder(final.parent)
    draft._result = read_artifact(final)


def _write_record(draft: ArtifactDraft, kind: str, config: StageConfig, parents: Sequence[Parent]) -> None:
    """Write ``artifact.json`` into a draft."""
    files = hash_files(draft.path)
    write_json(
        draft.path / RECORD,
        {
            "id": f"{KINDS[kind]}/{draft.number:04d}",
            "kind": kind,
            "stage": config.stage,
            "number": draft.number,
            "created": now(),
            "program_version": __version__,
            "config": config.model_dump(mode="json"),
            "seed": config.seed,
            "parents": [{"id": parent.id, "hash": parent.hash} for parent in parents],
            "files": files,
            "hash": content_hash(kind, files),
            "summary": _plain(draft.summary),
        },
    )


def hash_files(folder: Path) -> dict[str, str]:
    """Return sha256 in hex of each file below a folder, without its record, by relative path."""
    hashes = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and name != RECORD and not path.is_symlink():
            with path.open("rb") as file:
                hashes[name] = hashlib.file_digest(file, "sha256").hexdigest()
    return hashes


def content_hash(kind: str, files: dict[str, str]) -> str:
    """Return one sha256 in hex for a kind and the hashes of its files."""
    lines = [kind, *(f"{digest}  {name}" for name, digest in sorted(files.items()))]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def verify_artifact(artifact: Artifact) -> list[str]:
    """Compare an artifact's files with their recorded hashes.

    Returns
    -------
    list of str
        One clause for each file that is missing, changed, or not recorded; empty if it is whole.
    """
    present = hash_files(artifact.path)
    problems = [f"{name} is missing" for name in artifact.files if name not in present]
    problems += [
        f"{name} was changed"
        for name, digest in artifact.files.items()
        if present.get(name, digest) != digest
    ]
    problems += [f"{name} is not recorded" for name in present if name not in artifact.files]
    if content_hash(artifact.kind, artifact.files) != artifact.hash:
        problems.append(f"{RECORD} was changed")
    return problems


def verify_all(root: Path) -> dict[str, list[str]]:
    """Return the problems of every artifact of a project by its id; also of those that cannot be read."""
    found = {}
    for kind, folder in KINDS.items():
        for path in artifact_folders(root, kind):
            try:
                problems = verify_artifact(read_artifact(path))
            except ProjectDamaged as error:
                problems = [error.found]
            found[f"{folder}/{path.name}"] = problems
    return found


def _plain(value: Any) -> Any:
    """Turn numpy numbers, paths, and tuples into what JSON holds; NaN becomes None."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return None
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return str(value)
