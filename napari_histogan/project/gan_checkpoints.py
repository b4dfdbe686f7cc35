"""The checkpoints of a generator's training: which there are, and how good each is."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from napari_histogan.errors import ConfigError


@dataclass(frozen=True, slots=True)
class GanCheckpoint:
    """A state of the averaged generator that can be used.

    Attributes
    ----------
    which
        "last" or "best" of the run so far, or "checkpoint" for another moment.
    kimg
        Thousands of images seen.
    quality
        Sliced Wasserstein distance to real patches, the lower the better; None if it was not measured.
    path
        The generator (.safetensors), or the whole state of training (.pt).
    """

    which: Literal["last", "best", "checkpoint"]
    kimg: float
    quality: float | None
    path: Path


def list_checkpoints(run_dir: Path) -> list[GanCheckpoint]:
    """Return the checkpoints of a run folder, or the generators of a result's folder, by kimg.

    Reads small notes only, needs no torch, and works while the training goes on. The entries "last" and
    "best" come from the reports of training and say the quality at that moment; each appears once, and both
    point to the same file where the last is the best.  Once a run is done, its result is found where it was
    handed over to.
    """
    run_dir = Path(run_dir)
    handed_over = run_dir.parent.parent / "generators" / run_dir.name[:4]
    places = [run_dir / "result", run_dir, handed_over if run_dir.parent.name == "runs" else run_dir]
    result = next((place for place in places if (place / "checkpoints.json").exists()), run_dir)
    found: list[GanCheckpoint] = []
    for name, entry in _read(result / "checkpoints.json").items():
        if (result / name).exists():
            for which in ("last", "best"):
                if which in str(entry.get("which", "")):
                    quality = entry.get("sliced_wasserstein")
                    found.append(GanCheckpoint(which, float(entry["kimg"]), quality, result / name))
    scores = _read(run_dir / "checkpoints" / "scores.json")
    for path in (run_dir / "checkpoints").glob("step-*.pt"):
        step = int(path.stem.removeprefix("step-"))
        found.append(GanCheckpoint("checkpoint", step / 1000, scores.get(str(step)), path))
    return sorted(found, key=lambda c: (c.kimg, c.which))


def choose_checkpoint(folder: Path, name: str) -> GanCheckpoint:
    """Return the checkpoint that is called "last" or "best", or that has so many kimg.

    Raises
    ------
    ConfigError
        If there is none; says which there are.
    """
    there = list_checkpoints(folder)
    if name in ("last", "best"):
        matching = [c for c in there if c.which == name]
        if not matching and name == "last":
            matching = there[-1:]
    else:
        try:
            matching = [c for c in there if abs(c.kimg - float(name)) < 5e-4]
        except ValueError:
            matching = []
    if not matching:
        known = sorted({f"{c.kimg:g}" for c in there}, key=float)
        raise ConfigError(
            f"{folder} has no checkpoint {name!r}",
            f"last, best, or one of {', '.join(known)} (kimg)" if known else "a run that has saved one",
            "choose one of these" if known else "wait for the first checkpoint, or choose another run",
        )
    return matching[0]


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
