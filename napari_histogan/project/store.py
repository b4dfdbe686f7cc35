"""A project: one folder on disk that holds everything but the slides."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_histogan.config import StageConfig
from napari_histogan.errors import (
    ArtifactMissing,
    LabelError,
    ProjectError,
    ProjectLocked,
)
from napari_histogan.labels.classes import ClassTable
from napari_histogan.progress import Reporter
from napari_histogan.project import outside_files, runs, slide_list
from napari_histogan.project.artifacts import (
    KINDS,
    Artifact,
    ArtifactDraft,
    Parent,
    draft_artifact,
    list_artifacts,
    pick_artifact,
)
from napari_histogan.project.atomic import require_space, storage_errors
from napari_histogan.project.corrections import (
    CORRECTIONS,
    Correction,
    corrections_parent,
    load_corrections,
    save_correction,
)
from napari_histogan.project.document import (
    FILE,
    classes_of,
    keep_old_document,
    new_document,
    read_document,
    write_document,
)
from napari_histogan.project.family import ContentHash, FamilyNode, Stale, family_tree, stale_artifacts
from napari_histogan.project.locks import ProjectLock
from napari_histogan.project.masks import MASKS, MaskStore
from napari_histogan.project.slide_list import SlideEntry

WRITE_WAIT_S = 10.0


class Project:
    """A project folder; made by :meth:`create` or :meth:`open`.

    Any number of processes may have one folder open.  Results appear by one rename;
    files that are rewritten (``project.toml``, ``slides.json``) are written under the
    write lock, whole.

    Attributes
    ----------
    root
        The folder, absolute.
    read_only
        True if nothing may be written, as for the second dock on one project.
    """

    def __init__(self, root: Path, document: dict[str, Any], read_only: bool = False) -> None:
        self.root = root
        self.read_only = read_only
        self._document = document
        self._masks: dict[int, MaskStore] = {}
        self._write = ProjectLock(root, "write", "is writing to")
        self._jobs = ProjectLock(root, "jobs", "runs a job in")
        self._studio = ProjectLock(root, "studio", "has opened, for writing,")
        self._classes = classes_of(document, root)

    @classmethod
    def create(cls, root: Path | str, name: str | None = None, classes: ClassTable | None = None) -> Project:
        """Make a project in a new or empty folder.

        Parameters
        ----------
        root
            The folder; made with its parents.
        name
            What people read; the folder's name if not given.
        classes
            The classes to paint; can be set later.

        Raises
        ------
        ProjectError
            If the folder holds anything.
        StorageError
            If the disk is full or read-only.
        """
        root = Path(os.path.abspath(Path(root).expanduser()))
        if root.exists() and not (root.is_dir() and slide_list.only_begun(root)):
            kind = "holds a project already" if (root / FILE).exists() else "is not an empty folder"
            raise ProjectError(f"{root} {kind}", "a new or an empty folder", "choose another folder")
        document = new_document(name or root.name, classes or ClassTable())
        with storage_errors(root, 4096):
            root.mkdir(parents=True, exist_ok=True)
        slide_list.write_slides(root, [])
        write_document(root, document)
        return cls(root, document)

    @classmethod
    def open(cls, root: Path | str, read_only: bool = False) -> Project:
        """Open a project; an older layout is upgraded, its ``project.toml`` kept beside the new one.

        Raises
        ------
        ProjectNotFound
            If the folder holds no project.
        ProjectTooNew
            If a newer version wrote it.
        ProjectDamaged
            If ``project.toml`` cannot be read.
        """
        root = Path(os.path.abspath(Path(root).expanduser()))
        document, is_old = read_document(root)
        project = cls(root, document, read_only or not os.access(root, os.W_OK))
        if is_old and not project.read_only:
            with project.write_lock():
                keep_old_document(root)
                write_document(root, document)
        return project

    @property
    def name(self) -> str:
        """What people read."""
        return str(self._document.get("name", self.root.name))

    @property
    def classes(self) -> ClassTable:
        """The classes as of opening or the last :meth:`set_classes` here."""
        return self._classes

    @property
    def default_mpp(self) -> float | None:
        """Microns per pixel that new forms begin with, if set."""
        value = self._document.get("default_mpp")
        return float(value) if isinstance(value, (int, float)) else None

    @property
    def launcher(self) -> str:
        """Where jobs run, in the words of :mod:`napari_histogan.jobs.launchers`."""
        return str(self._document.get("launcher", "") or "local")

    def set_classes(self, table: ClassTable) -> None:
        """Replace the classes.

        Raises
        ------
        LabelError
            If a mask or correction uses a class that would vanish.
        ProjectLocked
            If the project is read-only, or another process writes for too long.
        """
        stores = [MaskStore(folder) for folder in sorted((self.root / MASKS).glob("*"))]
        painted = [int(correction.mask.max(initial=0)) for correction in self.corrections()]
        used = max([0, *painted, *(store.largest_value() for store in stores)])
        if used > table.num_classes:
            raise LabelError(
                f"class {used} is painted in a mask, and the new table ends at {table.num_classes}",
                f"at least {used} classes",
                "rename the class instead, or repaint its pixels first",
            )
        self.set_values(classes=table.to_dicts())
        self._classes = table

    def set_values(self, **values: Any) -> None:
        """Change keys of ``project.toml``; all others, known or not, stay as they are."""
        self.require_writable()
        with self.write_lock():
            document = {**read_document(self.root)[0], **values}
            write_document(self.root, document)
        self._document = document

    def reload(self) -> None:
        """Read ``project.toml`` again, as after a change by another process."""
        self._document = read_document(self.root)[0]
        self._classes = classes_of(self._document, self.root)

    # Slides

    def slides(self) -> list[SlideEntry]:
        """Return the slides in the order in which they were added."""
        return slide_list.read_slides(self.root)

    def slide(self, name: str = "") -> SlideEntry:
        """Return the slide called ``name``; "" is the first.  Raises ``SlideNotFound``."""
        return slide_list.find_slide(self.slides(), name)

    def add_slide_entries(self, entries: Iterable[SlideEntry]) -> None:
        """Register slides; an entry of the same name is replaced."""
        self.require_writable()
        with self.write_lock():
            slide_list.write_slides(self.root, slide_list.merged(self.slides(), entries))

    # Results

    def artifacts(self, kind: str | None = None) -> list[Artifact]:
        """Return the artifacts of a kind, or of all kinds, oldest first.

        Raises
        ------
        ArtifactMissing
            If there is no such kind.
        """
        if kind is not None and kind not in KINDS:
            raise ArtifactMissing(f"there is no kind of artifact {kind!r}", ", ".join(KINDS))
        kinds = [kind] if kind else list(KINDS)
        found = [artifact for each in kinds for artifact in list_artifacts(self.root, each)]
        return sorted(found, key=lambda artifact: artifact.number)

    def artifact(self, reference: str, kind: str) -> Artifact:
        """Return one artifact of a kind.

        Parameters
        ----------
        reference
            "" for the newest, "3", "0003", or "generators/0003".
        kind
            One of ``KINDS``.

        Raises
        ------
        ArtifactMissing
            Saying which stage makes it.
        """
        return pick_artifact(self.artifacts(kind), reference, kind)

    def find(self, reference: str) -> Artifact:
        """Return the artifact that "generators/0003", "0003", or "3" names; "" is the newest of all."""
        return pick_artifact(self.artifacts(), reference)

    @contextmanager
    def new_artifact(
        self,
        kind: str,
        config: StageConfig,
        reporter: Reporter,
        parents: Sequence[Artifact | Parent] = (),
        needs_bytes: int = 0,
    ) -> Iterator[ArtifactDraft]:
        """Make an artifact: fill ``draft.path`` and ``draft.summary`` in the block.

        A clean end hashes the files and renames the folder into place, once.  An error
        removes it and leaves everything made earlier untouched.

        Parameters
        ----------
        kind
            One of ``KINDS``.
        config, reporter
            What the stage was called with.  If the reporter works in a run folder of this
            project, the artifact carries its number, otherwise the next free one.
        parents
            Artifacts and human work that it is made from.
        needs_bytes
            Size to expect, so that a full disk is noticed before the work.

        Raises
        ------
        StorageError
            Naming free and needed bytes.
        ProjectError
            If the run has a result already.
        """
        self.require_writable()
        require_space(self.root, needs_bytes)
        sources = [p if isinstance(p, Parent) else p.as_parent() for p in parents]
        number = runs.run_number(self.root, Path(reporter.run_dir))
        with ExitStack() as stack:
            if number is None:
                number = stack.enter_context(runs.run_without_worker(self.root, kind, config))
            yield stack.enter_context(draft_artifact(self.root, kind, number, config, sources, needs_bytes))

    def new_run(self, config: StageConfig) -> Path:
        """Allocate the next number; returns ``runs/0007-train-gan`` with config and status "queued"."""
        self.require_writable()
        return runs.create_run(self.root, config)

    def runs(self) -> list[Path]:
        """Return the run folders, oldest first."""
        return runs.run_folders(self.root)

    def family(self, artifact: Artifact) -> FamilyNode:
        """Return an artifact with all that it was made from."""
        return family_tree(artifact, items := self.artifacts(), _present_hashes(self, items))

    def stale(self) -> list[Stale]:
        """Return the newest artifacts of each kind whose sources have moved on."""
        return stale_artifacts(items := self.artifacts(), _present_hashes(self, items))

    # What people painted

    def masks(self, samples: Artifact | str) -> MaskStore:
        """Return the masks of a samples artifact, given itself or its id."""
        number = _samples_number(samples if isinstance(samples, str) else samples.id)
        if number not in self._masks:
            self._masks[number] = MaskStore(self.root / MASKS / f"{number:04d}")
        return self._masks[number]

    def save_mask(self, samples: Artifact | str, index: int, mask: NDArray[np.uint8]) -> bool:
        """Keep a mask, ``(R, R)`` uint8; see :meth:`MaskStore.save`."""
        self.require_writable()
        return self.masks(samples).save(index, mask, self._classes)

    def load_mask(self, samples: Artifact | str, index: int) -> NDArray[np.uint8] | None:
        """Return a mask, ``(R, R)`` uint8, or None if there is none."""
        return self.masks(samples).load(index)

    def painted(self, samples: Artifact | str) -> list[int]:
        """Return the samples with at least one labeled pixel."""
        return self.masks(samples).painted()

    def masks_parent(self, samples: Artifact | str) -> Parent:
        """Return what an artifact made from the masks of these samples records."""
        return self.masks(samples).as_parent()

    def save_correction(self, correction: Correction) -> None:
        """Keep a corrected region; see :func:`napari_histogan.project.corrections.save_correction`."""
        self.require_writable()
        save_correction(self.root, correction, self._classes)

    def corrections(self) -> list[Correction]:
        """Return the corrected regions by name."""
        return load_corrections(self.root)

    def corrections_parent(self) -> Parent:
        """Return what an artifact made from all corrections records."""
        return corrections_parent(self.root)

    # Locks

    def write_lock(self, timeout: float = WRITE_WAIT_S) -> AbstractContextManager[None]:
        """Hold the lock for rewriting files, for milliseconds.  Raises ``ProjectLocked``."""
        return self._write.hold("writing", timeout)

    def job_lock(self, stage: str = "", timeout: float = 0.0) -> AbstractContextManager[None]:
        """Hold the lock of the one job that runs.  Raises ``ProjectLocked``."""
        return self._jobs.hold(stage, timeout)

    def studio_lock(self) -> AbstractContextManager[None]:
        """Hold the lock of the one dock that may write; others open read-only.  Raises ``ProjectLocked``."""
        return self._studio.hold("dock")

    # Parts

    def require_writable(self) -> None:
        """Raise ProjectLocked if the project was opened read-only."""
        if self.read_only:
            raise ProjectLocked(
                f"the project {self.root} is open read-only",
                "a project that may be written to",
                "close the other window that has it open, or check the folder's permissions",
            )


def _present_hashes(project: Project, items: list[Artifact]) -> ContentHash:
    """Return what gives the present content hash of an artifact or of human work; None if it is gone."""
    known = {artifact.id: artifact.hash for artifact in items}

    def present(identity: str) -> str | None:
        if identity.startswith(("labels/", outside_files.PREFIX)):
            return _hash_of_labels(project, identity)
        return project.masks(identity).content_hash() if identity[:6] == "masks/" else known.get(identity)

    return present


def _hash_of_labels(project: Project, identity: str) -> str | None:
    """Return the present hash of outside files, corrections, slide labels, or a calibration; None if gone."""
    if identity.startswith(outside_files.PREFIX):
        return outside_files.present_hash(identity)
    if identity == CORRECTIONS:
        return project.corrections_parent().hash
    from napari_histogan.project.calibrations import Calibration
    from napari_histogan.project.slide_labels import SLIDE_LABELS, slide_labels_hash

    if identity == SLIDE_LABELS:
        return slide_labels_hash(project)

    return Calibration(project, identity).content_hash()


def _samples_number(name: str) -> int:
    """Return 4 for "4", "samples/0004", or "masks/0004"."""
    folder, _, digits = name.rpartition("/")
    if folder not in ("", "samples", "masks") or not digits.isdecimal():
        raise ArtifactMissing(f"{name!r} names no samples", 'an id such as "samples/0004"')
    return int(digits)
