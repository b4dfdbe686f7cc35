"""A trained patch classifier on disk: weights, what it was trained on, and how pixels are prepared for it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from napari_histogan.errors import DAMAGE, CheckpointError, ConfigError
from napari_histogan.models.patch_gan import PatchClassifier, PatchGenerator, PatchNetShape
from napari_histogan.models.weights import filled

WEIGHTS_FILE = "patch_classifier.safetensors"
GENERATOR_WEIGHTS = "patch_generator.safetensors"
INFO_FILE = "patch_classifier.json"
_FORMAT = 1


@dataclass(frozen=True, slots=True)
class PatchClassifierInfo:
    """What the JSON file says beside the weights.

    Attributes
    ----------
    shape
        Sizes of the networks.
    class_names
        Of the K classes.
    mpp
        Microns per pixel that it was trained at.
    channel, clahe, clip_limit
        How pixels are prepared; see :class:`napari_histogan.slides.channels.Preparation`.
    noise, conditional
        Of the generator; noise 0 if there is none.
    patches
        Labeled patches that it learned from.
    validation
        Figures of pictures kept back; empty if there were none.
    """

    shape: PatchNetShape
    class_names: tuple[str, ...]
    mpp: float
    channel: str
    clahe: bool
    clip_limit: float
    noise: int = 0
    conditional: bool = False
    patches: int = 0
    validation: dict[str, float] = field(default_factory=dict)


def save_patch_classifier(
    folder: Path, net: PatchClassifier, info: PatchClassifierInfo, generator: PatchGenerator | None = None
) -> None:
    """Write the files of a patch classifier, and of its generator if there is one, into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, module in ((WEIGHTS_FILE, net), (GENERATOR_WEIGHTS, generator)):
        if module is not None:
            weights = {k: v.detach().cpu().contiguous() for k, v in module.state_dict().items()}
            save_file(weights, folder / name)
    write_info(folder, info)


def write_info(folder: Path, info: PatchClassifierInfo) -> None:
    """Write the JSON file."""
    document = {"format": _FORMAT, **asdict(info)}
    (folder / INFO_FILE).write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


def load_info(folder: Path) -> PatchClassifierInfo:
    """Read the JSON file; raise ``CheckpointError`` if it is missing, damaged, or of another kind."""
    path = folder / INFO_FILE
    try:
        document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if document.pop("format") != _FORMAT:
            raise ValueError("it is of another version")
        document["shape"] = PatchNetShape(**document["shape"])
        document["class_names"] = tuple(document["class_names"])
        return PatchClassifierInfo(**document)
    except (ConfigError, *DAMAGE) as error:
        raise CheckpointError(
            f"the description {path} cannot be used: {error}",
            f"a folder with {INFO_FILE} and {WEIGHTS_FILE}",
            "choose the folder of a trained patch classifier",
        ) from error


def load_patch_classifier(folder: Path) -> tuple[PatchClassifier, PatchClassifierInfo]:
    """Read what :func:`save_patch_classifier` wrote; the net comes in evaluation mode, on the CPU.

    Raises
    ------
    CheckpointError
        If a file is missing or damaged, or weights and JSON do not fit together.
    """
    info = load_info(folder)
    return filled(lambda: PatchClassifier(info.shape), folder / WEIGHTS_FILE, INFO_FILE), info
