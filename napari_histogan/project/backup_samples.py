"""Which samples the masks of a backup lie on: kept small, found again, or told as missing."""

from __future__ import annotations

import io
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from napari_histogan.errors import DAMAGE, LabelError, ProjectDamaged
from napari_histogan.project.artifacts import Artifact
from napari_histogan.project.masks import MASKS
from napari_histogan.project.store import Project

PAINTED = "painted"
STYLE_TOLERANCE = 1e-3
"""Styles that two machines compute from the same latent differ by less than this."""

Latents = Mapping[str, NDArray[Any]]


def made_from(project: Project) -> dict[str, Any]:
    """Return, for each samples artifact by its number, the generator and the settings it was drawn with."""
    told = {}
    for artifact in project.artifacts("samples"):
        generator = next((p for p in artifact.parents if p.id.startswith("generators/")), None)
        told[f"{artifact.number:04d}"] = {
            "generator": generator.id if generator else "",
            "generator_hash": generator.hash if generator else "",
            "config": artifact.config,
            "painted": project.painted(artifact),
        }
    return told


def painted_latents(project: Project) -> Iterator[tuple[str, bytes]]:
    """Yield name and content of ``painted/0004.npz`` of every samples artifact that was painted on.

    Yields
    ------
    str, bytes
        The npz holds ``index`` (n,) int64, ``w`` (n, num_ws, w_dim) float32, and ``noise_seed``
        (n,) int64 of the painted samples; where real patches are among the samples, also their fitted
        ``noise`` (n, P) float32, without which they could not be rebuilt.
    """
    for artifact in project.artifacts("samples"):
        latents = _latents_of(artifact, np.array(project.painted(artifact), np.int64))
        if latents is not None and len(latents["index"]):
            buffer = io.BytesIO()
            np.savez(buffer, allow_pickle=False, **latents)
            yield f"{PAINTED}/{artifact.number:04d}.npz", buffer.getvalue()


def places_of_masks(
    project: Project, manifest: dict[str, Any], read: Callable[[str], bytes]
) -> dict[str, str]:
    """Return, for samples of a backup by number, the number under which the project has the same ones.

    Samples are the same if their content is, or if they came from the same generator and
    styles and noise of all painted ones agree, as after drawing them again.
    """
    found = {}
    for number, content in manifest["samples"].items():
        made = manifest.get("made_from", {}).get(number, {})
        stored = _read_latents(read, number)
        for artifact in project.artifacts("samples"):
            if _is_the_same(artifact, content, made.get("generator_hash", ""), stored):
                found[number] = f"{artifact.number:04d}"
                if found[number] == number:
                    break
    return found


def refuse_other_samples(project: Project, manifest: dict[str, Any], places: dict[str, str]) -> None:
    """Raise if the project has other samples under a number of the backup, and nowhere the same ones."""
    for artifact in project.artifacts("samples"):
        number = f"{artifact.number:04d}"
        if number in manifest["samples"] and number not in places:
            raise LabelError(
                f"the backup's masks were painted on other samples than {artifact.id} of this project",
                "the same samples",
                "restore into a new folder, or into the project that the backup was made from",
            )


def missing_samples(
    project: Project, manifest: dict[str, Any], names: list[str], places: dict[str, str]
) -> Iterator[str]:
    """Yield a sentence for each samples artifact that the project lacks, with the way to come by it."""
    generators = {artifact.hash for artifact in project.artifacts("generator")}
    masks = [PurePosixPath(name) for name in names if PurePosixPath(name).is_relative_to(MASKS)]
    for number, count in sorted(Counter(mask.parent.name for mask in masks).items()):
        if number in places:
            continue
        made = manifest.get("made_from", {}).get(number, {})
        waiting = (
            f"{count} mask{'s' if count > 1 else ''} wait for samples/{number}, which this project lacks"
        )
        if not made.get("generator_hash"):
            yield f"{waiting}; the backup does not tell their generator, so copy that folder here"
            continue
        settings = made.get("config", {})
        options = " ".join(
            f"--{name.replace('_', '-')} {settings[name]}"
            for name in ("count", "seed", "truncation")
            if name in settings
        )
        bring = f"bring in the generator {made['generator']} with the hash {made['generator_hash'][:12]}, "
        known = made["generator_hash"] in generators
        yield (
            f"{waiting}; copy that folder here, or {'' if known else bring}draw them again by "
            f"histogan sample-images PROJECT {options}, and restore once more"
        )


def _latents_of(artifact: Artifact, rows: NDArray[np.int64]) -> dict[str, NDArray[Any]] | None:
    """Return index, styles, noise seeds, and fitted noise of some samples; None if they cannot be read."""
    with suppress(*DAMAGE):
        group: Any = zarr.open_group(str(artifact.path / "samples.zarr"), mode="r")
        noise_seed = group["noise_seed"][:]
        rows = rows[rows < len(noise_seed)]
        latents = {"index": rows, "w": group["w"][:][rows], "noise_seed": noise_seed[rows]}
        if (noise := group.get("noise")) is not None:
            latents["noise"] = np.array([noise[int(row)] for row in rows], np.float32)
        return latents
    return None


def _read_latents(read: Callable[[str], bytes], number: str) -> Latents | None:
    """Return the painted samples of a backup; None if it holds none, as one of an older version."""
    try:
        with np.load(io.BytesIO(read(f"{PAINTED}/{number}.npz")), allow_pickle=False) as content:
            needed = {name: content[name] for name in ("index", "w", "noise_seed")}
            return needed | ({"noise": content["noise"]} if "noise" in content else {})
    except (ProjectDamaged, zipfile.BadZipFile, *DAMAGE):
        return None


def _is_the_same(artifact: Artifact, content: str, generator_hash: str, stored: Latents | None) -> bool:
    """Whether an artifact holds the painted samples of a backup, at the same places and of one generator."""
    drawn_from = {parent.hash for parent in artifact.parents if parent.id.startswith("generators/")}
    if generator_hash and generator_hash not in drawn_from:
        return False
    if artifact.hash == content:
        return True
    if stored is None or not generator_hash:
        return False
    present = _latents_of(artifact, np.asarray(stored["index"], np.int64))
    if present is None or present.keys() != stored.keys() or present["w"].shape != stored["w"].shape:
        return False
    if "noise" in stored and not np.array_equal(present["noise"], stored["noise"]):
        return False
    return bool(
        np.array_equal(present["noise_seed"], stored["noise_seed"])
        and np.allclose(present["w"], stored["w"], atol=STYLE_TOLERANCE)
    )
