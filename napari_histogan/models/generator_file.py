"""Networks on disk: weights as safetensors, and beside them a JSON plan to build the network by."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from napari_histogan.errors import CheckpointError
from napari_histogan.models.stylegan2_discriminator import Discriminator
from napari_histogan.models.stylegan2_generator import Generator
from napari_histogan.models.stylegan2_spec import DiscriminatorSpec, GeneratorSpec
from napari_histogan.models.weights import filled

FORMAT = 1
GENERATOR_FILE = "generator.safetensors"
DISCRIMINATOR_FILE = "discriminator.safetensors"


def save_generator(
    path: Path, generator: Generator, extra: dict[str, Any] | None = None, *, half: bool = False
) -> None:
    """Write a generator, replacing an older file at once or not at all.

    Parameters
    ----------
    path
        The .safetensors file; a .json file of the same name goes beside it.
    generator
        Its weights are stored under the official names.
    extra
        JSON values to keep beside the weights, for example mpp, kimg, and metrics.
    half
        Store float16, half the size; pictures change by less than a gray level.
    """
    _save(Path(path), generator, generator.spec.to_dict(), "generator", extra or {}, half)


def load_generator(path: Path) -> Generator:
    """Read a generator; in evaluation mode, on the CPU, float32.

    Parameters
    ----------
    path
        The .safetensors file, or the folder that holds generator.safetensors.

    Raises
    ------
    CheckpointError
        If a file is missing or damaged, or weights and plan do not fit.
    """
    path = _file(Path(path))
    spec = GeneratorSpec.from_dict(_read_plan(path, "generator")["spec"])
    return filled(lambda: Generator(spec), path).requires_grad_(False)


def generator_info(path: Path) -> dict[str, Any]:
    """Return what was stored as `extra` beside a generator.

    Raises
    ------
    CheckpointError
        If the JSON file is missing or damaged.
    """
    return dict(_read_plan(_file(Path(path)), "generator").get("extra", {}))


def save_discriminator(path: Path, discriminator: Discriminator) -> None:
    """Write a discriminator as `save_generator` writes a generator."""
    _save(Path(path), discriminator, discriminator.spec.to_dict(), "discriminator", {}, False)


def load_discriminator(path: Path) -> Discriminator:
    """Read a discriminator; in evaluation mode, on the CPU, float32.

    Raises
    ------
    CheckpointError
        If a file is missing or damaged, or weights and plan do not fit.
    """
    path = Path(path)
    spec = DiscriminatorSpec.from_dict(_read_plan(path, "discriminator")["spec"])
    return filled(lambda: Discriminator(spec), path).requires_grad_(False)


def _file(path: Path) -> Path:
    return path / GENERATOR_FILE if path.is_dir() else path


def _save(
    path: Path, network: nn.Module, spec: dict[str, Any], kind: str, extra: dict[str, Any], half: bool
) -> None:
    dtype = torch.float16 if half else torch.float32
    tensors = {k: v.detach().to("cpu", dtype).contiguous() for k, v in network.state_dict().items()}
    plan = {"format": FORMAT, "kind": kind, "spec": spec, "extra": extra}
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    save_file(tensors, temporary, metadata={"kind": kind})
    temporary.chmod(0o644)  # safetensors makes files that only their owner can read
    notes = temporary.with_suffix(".json")
    notes.write_text(json.dumps(plan, indent=1), encoding="utf-8")
    for source, target in ((temporary, path), (notes, path.with_suffix(".json"))):
        with source.open("rb+") as handle:
            os.fsync(handle.fileno())
        os.replace(source, target)


def _read_plan(path: Path, kind: str) -> dict[str, Any]:
    notes = path.with_suffix(".json")
    try:
        plan: dict[str, Any] = json.loads(notes.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(f"there is no {notes}", f"a {kind}'s .json beside {path.name}") from error
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{notes} is damaged: {error}", "JSON", "copy the file again") from error
    if not isinstance(plan, dict) or plan.get("kind") != kind or not isinstance(plan.get("spec"), dict):
        raise CheckpointError(f"{notes} does not describe a {kind}", f"a file written for a {kind}")
    if not isinstance(plan.get("format", 0), int) or not isinstance(plan.get("extra", {}), dict):
        raise CheckpointError(f"{notes} is damaged", "an integer format, and notes by name")
    if plan.get("format", 0) > FORMAT:
        raise CheckpointError(
            f"{notes} has format {plan['format']}", f"at most {FORMAT}", "update napari-histogan"
        )
    return plan
