"""Stages that count instead of learning, for tests of how jobs run; the worker loads this file by its path.

``train_gan`` walks at random for ``kimg`` steps and keeps value, step, and random state
in a checkpoint, as a training loop does; ``seed`` of ``sample_images`` chooses an ending.
"""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np

from napari_histogan.config import SampleImagesConfig, TrainGanConfig
from napari_histogan.errors import LabelError, Stopped
from napari_histogan.progress import Reporter
from napari_histogan.project.artifacts import Artifact
from napari_histogan.project.store import Project

STEP_S = 0.01


def train_gan(project: Project, config: TrainGanConfig, reporter: Reporter) -> Artifact:
    """Walk; ``micro_batch`` is the step at which the process kills itself, once."""
    rng = np.random.default_rng(config.seed)
    checkpoint = reporter.run_dir / "checkpoints" / "state.json"
    state: dict[str, Any] = {"step": 0, "value": 0.0}
    if checkpoint.exists():
        state = json.loads(checkpoint.read_text())
        rng.bit_generator.state = state["rng"]
        reporter.event("resumed", step=state["step"])
    total = int(config.kimg)
    while state["step"] < total:
        if reporter.should_stop():
            raise Stopped
        state = {"step": state["step"] + 1, "value": state["value"] + rng.normal()}
        _replace(checkpoint, {**state, "rng": rng.bit_generator.state})
        reporter.progress(state["step"], total, "steps", "walking")
        reporter.metric(state["step"], value=state["value"])
        _kill_once(reporter.run_dir, state["step"] == config.micro_batch)
        time.sleep(STEP_S)
    with project.new_artifact("generator", config, reporter) as draft:
        (draft.path / "value.txt").write_text(repr(state["value"]))
    _kill_once(reporter.run_dir, config.z_dim == 99)
    return draft.result


def sample_images(project: Project, config: SampleImagesConfig, reporter: Reporter) -> Artifact:
    """End as the seed says."""
    if config.seed == 1:
        raise LabelError("nothing is painted", "a mask", "paint first")
    if config.seed == 2:
        np.zeros(1 << 60, np.uint8)
    if config.seed == 3:
        raise ZeroDivisionError("of all things")
    if config.seed == 4:
        os._exit(0)
    if config.seed == 5:
        reporter.progress(0, 1, "", "sleeping")
        time.sleep(60)  # deaf to the first request to stop
    with project.new_artifact("samples", config, reporter) as draft:
        (draft.path / "nice.txt").write_text(str(os.nice(0)))
    return draft.result


def _replace(path: Path, state: dict[str, Any]) -> None:
    temporary = path.with_suffix(".new")
    temporary.write_text(json.dumps(state))
    temporary.replace(path)


def _kill_once(run_dir: Path, now: bool) -> None:
    mark = run_dir / "was_killed"
    if now and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)


STAGES = {"train_gan": train_gan, "sample_images": sample_images}
