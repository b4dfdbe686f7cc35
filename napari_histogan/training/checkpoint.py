"""Checkpoints of training: everything that a stopped run needs to go on as if it had never stopped.

A checkpoint is one file, written under another name, flushed to the disk, and renamed, so that the newest
file is whole whenever the machine stops. It holds plain tensors, numbers and strings, and is read without
executing anything.
"""

from __future__ import annotations

import json
import logging
import os
import pickle
import random
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from napari_histogan.errors import DAMAGE, CheckpointError, StorageError

logger = logging.getLogger("napari_histogan")

State = dict[str, Any]
_BEST = "best.json"
_SCORES = "scores.json"


class _Loaded(State):
    """A state that was read; what it lacks is told as what it is: the work of another version."""

    def __init__(self, state: State, path: Path) -> None:
        super().__init__(state)
        self._path = path

    def __missing__(self, key: str) -> Any:
        raise CheckpointError(
            f"the checkpoint {self._path} does not hold {key!r}; another version of this program wrote it",
            "a checkpoint of this version",
            "start the stage anew (--new), or go on with the version that began it",
        )


class Checkpoint(NamedTuple):
    """A state that was loaded, and the step after which it was saved."""

    step: int
    state: State


class CheckpointStore:
    """A folder of checkpoints: the newest few and the best.

    Parameters
    ----------
    folder
        Made if missing.
    keep
        Newest checkpoints to keep; the best is kept besides.
    """

    def __init__(self, folder: Path, keep: int = 2) -> None:
        self.folder, self.keep = Path(folder), keep
        self.folder.mkdir(parents=True, exist_ok=True)

    def save(self, step: int, state: State, score: float | None = None) -> Path:
        """Write a checkpoint and drop those that are no longer needed.

        Parameters
        ----------
        step
            Steps done; a checkpoint of the same step is replaced.
        state
            Nested dicts and lists of tensors, numbers, strings and None.
        score
            The lower the better; None never counts as best.

        Raises
        ------
        StorageError
            If the disk refuses, or what it holds is not what was written; older checkpoints
            are still there then.
        """
        path = self._path(step)
        _replace(
            path,
            lambda temporary: torch.save({"step": step, "state": dict(state)}, temporary),
            _require_whole,
        )
        best = self._read_best()
        if score is not None and (best is None or score <= best[1]):
            self._write_json(_BEST, {"step": step, "score": score})
        self._prune(step)
        there = {str(step) for step in self.steps()}
        scores = {k: v for k, v in (self.scores() | {str(step): score}).items() if k in there}
        self._write_json(_SCORES, scores)
        return path

    def scores(self) -> dict[str, float | None]:
        """Return the scores of the checkpoints by their steps, as far as they are known."""
        try:
            content = json.loads((self.folder / _SCORES).read_text(encoding="utf-8"))
        except DAMAGE:
            return {}
        return content if isinstance(content, dict) else {}

    def steps(self) -> list[int]:
        """Return the steps of the checkpoints that are there, oldest first."""
        return sorted(int(p.stem.removeprefix("step-")) for p in self.folder.glob("step-*.pt"))

    def load_latest(self) -> Checkpoint | None:
        """Read the newest checkpoint that is whole, or return None where there is none.

        Raises
        ------
        CheckpointError
            If there are checkpoints, but all are damaged.
        """
        problem: CheckpointError | None = None
        for step in reversed(self.steps()):
            try:
                return self._read(step)
            except CheckpointError as error:
                problem = problem or error
                logger.warning("%s; looking for an older one", error.found)
        if problem is not None:
            raise problem
        return None

    def best(self) -> Checkpoint | None:
        """Read the checkpoint with the lowest score, or return None where none has a score.

        Raises
        ------
        CheckpointError
            If it is damaged.
        """
        best = self._read_best()
        return None if best is None else self._read(best[0])

    def load(self, step: int) -> Checkpoint:
        """Read the checkpoint of a step.

        Raises
        ------
        CheckpointError
            If it is damaged or not there.
        """
        return self._read(step)

    def clear(self) -> None:
        """Delete every checkpoint, as before a new beginning in the same folder."""
        for step in self.steps():
            self._path(step).unlink(missing_ok=True)

    def _path(self, step: int) -> Path:
        return self.folder / f"step-{step:09d}.pt"

    def _read(self, step: int) -> Checkpoint:
        path = self._path(step)
        try:
            _require_whole(path)
            content = torch.load(path, map_location="cpu", weights_only=True)
            return Checkpoint(int(content["step"]), _Loaded(content["state"], path))
        except (pickle.UnpicklingError, *DAMAGE) as error:
            raise CheckpointError(
                f"the checkpoint {path} is damaged ({error})",
                "a file written by this program",
                "delete it to go on from an older one",
            ) from error

    def _write_json(self, name: str, content: object) -> None:
        text = json.dumps(content)
        _replace(self.folder / name, lambda temporary: temporary.write_text(text, encoding="utf-8"))

    def _read_best(self) -> tuple[int, float] | None:
        try:
            content = json.loads((self.folder / _BEST).read_text(encoding="utf-8"))
            step, score = int(content["step"]), float(content["score"])
            return (step, score) if self._path(step).exists() else None
        except DAMAGE:
            return None

    def _prune(self, saved: int) -> None:
        """Drop what is older than the newest few up to the step just saved, and damaged ones after it."""
        best = self._read_best()
        steps = self.steps()
        needless = [step for step in steps if step <= saved][: -self.keep]
        needless += [step for step in steps if step > saved and not _is_whole(self._path(step))]
        for step in needless:
            if best is None or step != best[0]:
                self._path(step).unlink(missing_ok=True)


def capture_rng() -> State:
    """Return the states of the random generators of torch (all devices), numpy and Python."""
    legacy: Any = np.random.get_state(legacy=True)
    name, keys, position, has_gauss, gauss = legacy
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "numpy": [
            str(name),
            torch.from_numpy(keys.astype(np.int64)),
            int(position),
            int(has_gauss),
            float(gauss),
        ],
        "python": repr(random.getstate()[1]) + "|" + repr(random.getstate()[2]),
    }


def restore_rng(state: State) -> None:
    """Bring the random generators back to a state of `capture_rng`.

    States of GPUs are restored where their number is the same.
    """
    torch.set_rng_state(state["torch"])
    if torch.cuda.is_available() and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])
    name, keys, position, has_gauss, gauss = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), position, has_gauss, gauss))
    words, gauss_next = state["python"].split("|")
    numbers = tuple(int(word) for word in words.strip("()").split(","))
    random.setstate((3, numbers, None if gauss_next == "None" else float(gauss_next)))


def _is_whole(path: Path) -> bool:
    """Whether every part of a checkpoint has the checksum that was recorded when it was written."""
    try:
        with zipfile.ZipFile(path) as bundle:
            return bundle.testzip() is None
    except (OSError, ValueError, EOFError, RuntimeError, zipfile.BadZipFile):
        return False


def _require_whole(path: Path) -> None:
    """Raise OSError if a checkpoint is not what was written; torch would read on."""
    if not path.exists():
        raise FileNotFoundError(f"there is no {path.name}")
    if not _is_whole(path):
        raise OSError("it is not what was written")


def _replace(path: Path, write: Callable[[Path], Any], check: Callable[[Path], Any] | None = None) -> None:
    """Write a file beside `path`, flush it to the disk, check it, and rename it."""
    temporary = path.with_name(f".{path.name}.tmp-{os.getpid()}-0")
    try:
        write(temporary)
        with temporary.open("rb+") as handle:
            os.fsync(handle.fileno())
        if check is not None:
            check(temporary)
        os.replace(temporary, path)
    except (OSError, RuntimeError) as error:
        temporary.unlink(missing_ok=True)
        raise StorageError(
            f"the checkpoint {path} could not be written ({error})",
            "a writable folder with free space",
            "free some space and resume; the checkpoint before is kept",
        ) from error
    if os.name == "posix":
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
