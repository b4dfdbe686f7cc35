"""The frame of a slide that is being corrected and not accepted yet: one file, replaced at every stroke."""

from __future__ import annotations

import io
import json
from contextlib import suppress
from pathlib import Path

import numpy as np

from napari_histogan.errors import DAMAGE, ProjectDamaged
from napari_histogan.project.atomic import storage_errors, write_bytes
from napari_histogan.project.corrections import Correction, correction_from
from napari_histogan.project.locks import now

DRAFT = "drafts/frame.npz"


def save_draft(root: Path, frame: Correction) -> None:
    """Keep a frame as it is; the one before is replaced.

    Raises
    ------
    StorageError
        If the disk is full or read-only; the draft before is untouched.
    """
    place = json.dumps({**frame.region_dict(), "created": frame.created or now()})
    packed = io.BytesIO()
    np.savez(packed, mask=np.asarray(frame.mask, np.uint8), place=np.array(place))
    path = root / DRAFT
    with storage_errors(path, frame.mask.nbytes):
        path.parent.mkdir(exist_ok=True)
        write_bytes(path, packed.getvalue(), durable=False)


def load_draft(root: Path) -> Correction | None:
    """Return the frame that was not accepted, or None; a file that cannot be read holds none."""
    try:
        with np.load(root / DRAFT, allow_pickle=False) as packed:
            place, mask = json.loads(str(packed["place"])), packed["mask"]
        return correction_from("draft", place, np.asarray(mask, np.uint8))
    except (ProjectDamaged, *DAMAGE):
        return None


def drop_draft(root: Path) -> None:
    """Forget the frame: it was accepted, or somebody threw it away."""
    with suppress(OSError):
        (root / DRAFT).unlink()
