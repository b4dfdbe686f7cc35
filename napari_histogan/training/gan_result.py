"""What a GAN training hands over: the averaged generator, last and best, and which is which."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from napari_histogan.models.generator_file import DISCRIMINATOR_FILE, GENERATOR_FILE
from napari_histogan.models.official_checkpoint import ImportedGenerator
from napari_histogan.models.stylegan2 import (
    Discriminator,
    DiscriminatorSpec,
    Generator,
    GeneratorSpec,
    save_discriminator,
    save_generator,
)
from napari_histogan.training.checkpoint import State
from napari_histogan.training.gan_run import GanRun

BEST_FILE, LAST_FILE = "best.safetensors", "last.safetensors"
NOTE = "checkpoints.json"


def write_result(run: GanRun, mpp: float | None, folder: Path) -> None:
    """Write the averaged generator of this moment, and once more where it is the best so far."""
    folder.mkdir(parents=True, exist_ok=True)
    quality = {"kimg": run.images / 1000, "sliced_wasserstein": run.score}
    save_generator(folder / GENERATOR_FILE, run.average, {"mpp": mpp, **quality})
    save_discriminator(folder / DISCRIMINATOR_FILE, run.discriminator)
    note = read_note(folder)
    note[GENERATOR_FILE] = {"which": "last", **quality}
    if run.score is not None and (run.best_score is None or run.score <= run.best_score):
        run.best_score = run.score
        save_generator(folder / BEST_FILE, run.average, {"mpp": mpp, **quality})
        note[BEST_FILE] = {"which": "best", **quality}
    _write_note(folder, note)


def finish_result(run: GanRun, mpp: float | None, folder: Path) -> None:
    """Give the generator that the config takes the name that other stages read; keep the other beside it."""
    if read_note(folder).get(GENERATOR_FILE, {}).get("which") == "best":
        return  # the training was done before; only its result had not been taken over
    write_result(run, mpp, folder)
    note = read_note(folder)
    best = note.get(BEST_FILE)
    if best is None or best["kimg"] == note[GENERATOR_FILE]["kimg"]:
        _remove(folder / BEST_FILE)
        note = {GENERATOR_FILE: note[GENERATOR_FILE] | {"which": "last" if best is None else "last and best"}}
    elif run.config.take == "best":
        _rename(folder / GENERATOR_FILE, folder / LAST_FILE)
        _rename(folder / BEST_FILE, folder / GENERATOR_FILE)
        note = {GENERATOR_FILE: best, LAST_FILE: note[GENERATOR_FILE]}
    _write_note(folder, note)


def networks_of(state: State) -> ImportedGenerator:
    """Build the averaged generator and the discriminator that a checkpoint's state holds, for evaluation."""
    generator = Generator(GeneratorSpec.from_dict(state["spec"]))
    generator.load_state_dict(state["average"])
    spec = generator.spec
    values = state.get("discriminator_spec")
    judge = (
        DiscriminatorSpec.from_dict(values)
        if values
        else DiscriminatorSpec(
            img_resolution=spec.img_resolution,
            channel_base=spec.channel_base,
            channel_max=spec.channel_max,
            conv_clamp=spec.conv_clamp,
        )
    )
    discriminator = Discriminator(judge)
    discriminator.load_state_dict(state["discriminator"])
    info = {"mpp": state.get("mpp"), "kimg": state["images"] / 1000, "sliced_wasserstein": state["score"]}
    return ImportedGenerator(
        generator.eval().requires_grad_(False), discriminator.eval().requires_grad_(False), info
    )


def read_note(folder: Path) -> dict[str, dict[str, Any]]:
    """Return ``which`` (last, best), ``kimg``, and ``sliced_wasserstein`` of a result's files, by file."""
    try:
        note: dict[str, dict[str, Any]] = json.loads((folder / NOTE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return note


def _write_note(folder: Path, note: dict[str, dict[str, Any]]) -> None:
    temporary = folder / f".{NOTE}.{os.getpid()}.tmp"
    temporary.write_text(json.dumps(note, indent=1), encoding="utf-8")
    os.replace(temporary, folder / NOTE)


def _rename(source: Path, target: Path) -> None:
    for suffix in (".safetensors", ".json"):
        os.replace(source.with_suffix(suffix), target.with_suffix(suffix))


def _remove(path: Path) -> None:
    for suffix in (".safetensors", ".json"):
        path.with_suffix(suffix).unlink(missing_ok=True)
