"""Stages that follow a run when it has ended well: kept in its folder, so that they outlive any window."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from napari_histogan.config import STAGES, StageConfig, make_config
from napari_histogan.errors import HistoganError
from napari_histogan.project.atomic import read_json, storage_errors, write_json

FILE = "then.json"
STARTED = "then.started.json"


def write_chain(run_dir: Path, configs: Sequence[StageConfig]) -> None:
    """Note which stages follow a run, in order; none needs no file.

    Raises
    ------
    StorageError
        If the disk is full or read-only.
    """
    if not configs:
        return
    rows = [{"stage": config.stage, "config": config.model_dump(mode="json")} for config in configs]
    with storage_errors(run_dir, 4096):
        write_json(run_dir / FILE, rows)


def read_chain(run_dir: Path) -> list[StageConfig]:
    """Return the stages that still wait for a run; a file that cannot be understood holds none."""
    try:
        rows: Any = read_json(run_dir / FILE)
        return [make_config(STAGES[str(row["stage"])], dict(row["config"]), FILE) for row in rows]
    except (OSError, HistoganError, KeyError, TypeError, ValueError):
        return []


def take_chain(run_dir: Path) -> list[StageConfig]:
    """Return the stages that wait for a run, to start the first; nobody else is given them."""
    configs = read_chain(run_dir)
    if configs:
        try:
            os.rename(run_dir / FILE, run_dir / STARTED)
        except OSError:
            return []
    return configs


def give_chain_back(run_dir: Path) -> None:
    """Let the stages wait again, because the first could not be started."""
    with suppress(OSError):
        os.rename(run_dir / STARTED, run_dir / FILE)
