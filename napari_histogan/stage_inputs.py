"""What the stages find in a project: their inputs, checked before long work starts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from napari_histogan import config as c
from napari_histogan.errors import ArtifactMissing, ConfigError, LabelError, ModelError, SlideError, Stopped
from napari_histogan.inference.sampling import load_samples
from napari_histogan.inference.shared_plan import SlideToPlan, share_plan
from napari_histogan.models.generator_file import (
    DISCRIMINATOR_FILE,
    GENERATOR_FILE,
    generator_info,
    load_discriminator,
    load_generator,
)
from napari_histogan.models.official_checkpoint import ImportedGenerator, import_generator
from napari_histogan.models.stylegan2 import Discriminator, Generator, GeneratorSpec
from napari_histogan.progress import Reporter
from napari_histogan.project.artifacts import Artifact
from napari_histogan.project.atomic import read_json
from napari_histogan.project.corrections import Correction
from napari_histogan.project.gan_checkpoints import choose_checkpoint
from napari_histogan.project.inputs import keep_inputs
from napari_histogan.project.slide_list import SlideEntry
from napari_histogan.project.store import Project
from napari_histogan.slides.patch_plan import PatchPlan, plan_patches
from napari_histogan.slides.patches import PatchStream
from napari_histogan.slides.reader import SlideReader, open_slide
from napari_histogan.slides.shelf import SlideShelf
from napari_histogan.training.checkpoint import CheckpointStore
from napari_histogan.training.gan_result import NOTE, networks_of
from napari_histogan.training.labelled_pixels import PaintedSamples

_FROM_SLIDES = ("extract_patches", "import_block_labels", "train_weakly", "merge_corrections")


def open_entry(entry: SlideEntry) -> SlideReader:
    """Open a slide of the project; refuse one that was replaced since it was added."""
    slide = open_slide(entry.path, entry.mpp)
    if entry.fingerprint and slide.fingerprint() != entry.fingerprint:
        slide.close()
        raise SlideError(
            f"the file of slide {entry.name} ({entry.path}) is not the one that was added",
            "the same content as when it was added",
            "put the old file back, or add the slide again",
        )
    return slide


def require_unchanged(entry: SlideEntry) -> None:
    """Refuse what was made of a slide whose file was replaced meanwhile: parts of it show another one.

    A file that is gone was whole as long as it was read.
    """
    if entry.path.exists():
        open_entry(entry).close()


def planned_patches(
    entries: Sequence[SlideEntry], config: c.ExtractPatchesConfig, folder: Path, reporter: Reporter
) -> PatchPlan:
    """Find the tissue of slides, here or by the workers of a scheduler, and write the plan to a folder."""
    if config.scheduler:
        wanted = [SlideToPlan(entry.name, entry.path, entry.mpp, entry.fingerprint) for entry in entries]
        return share_plan(wanted, config.patch_px, config.mpp, folder, config.scheduler, reporter)
    with closing(SlideShelf()) as shelf:
        readers = [shelf.keep(open_entry(entry)) for entry in entries]
        return plan_patches(readers, config.patch_px, config.mpp, folder, reporter=reporter)


def patch_stream(
    plan: PatchPlan, config: c.ExtractPatchesConfig, seed: int, dihedral: bool = True
) -> PatchStream:
    """Return the endless random patches of a plan; ``dihedral`` turns and mirrors them."""
    return PatchStream(plan, seed, min_tissue=config.min_tissue, dihedral=dihedral)


@dataclass(frozen=True, slots=True)
class GanInputs:
    """What the training of a generator starts from."""

    patches: PatchStream
    init: Generator | None
    init_discriminator: Discriminator | None
    parents: list[Artifact]


@contextmanager
def gan_inputs(project: Project, config: c.TrainGanConfig, reporter: Reporter) -> Iterator[GanInputs]:
    """Open the patches of a generator's training, and the networks that it starts from."""
    planned = stage_input(project, reporter, config.patches, "patches")
    parents, init, opponent = [planned], None, None
    if config.init:
        parents.append(stage_input(project, reporter, config.init, "generator"))
        init = load_generator(parents[-1].path)
        beside = parents[-1].path / DISCRIMINATOR_FILE
        opponent = load_discriminator(beside) if beside.exists() else None
    plan_config = c.make_config(c.ExtractPatchesConfig, planned.config, planned.id)
    plan = PatchPlan.load(planned.path)
    with closing(patch_stream(plan, plan_config, config.seed, dihedral=config.mirror_and_rotate)) as stream:
        yield GanInputs(stream, init, opponent, parents)


def open_generator(path: Path, checkpoint: str) -> ImportedGenerator:
    """Read a generator, or a checkpoint of a training or its result ("last", "best", or its kimg)."""
    training = path.is_dir() and ((path / "checkpoints").is_dir() or (path / NOTE).exists())
    if not training or (not checkpoint and (path / GENERATOR_FILE).exists()):
        if checkpoint:
            raise ConfigError(
                f"{path} is one generator, and checkpoint {checkpoint!r} was asked for",
                "the run folder of a training, or its result",
                "leave checkpoint empty, or name a run folder",
            )
        return import_generator(path)
    chosen = choose_checkpoint(path, checkpoint or "last")
    if chosen.path.suffix == ".safetensors":
        return import_generator(chosen.path)
    store = CheckpointStore(chosen.path.parent)
    return networks_of(store.load(round(chosen.kimg * 1000)).state)


def picture_sheet(patches: np.ndarray[Any, np.dtype[np.uint8]], columns: int = 8) -> Image.Image:
    """Lay ``(N, S, S, 3)`` patches out in rows of ``columns``."""
    n, side = patches.shape[:2]
    rows = patches[: n // columns * columns].reshape(-1, columns, side, side, 3)
    return Image.fromarray(rows.transpose(0, 2, 1, 3, 4).reshape(-1, columns * side, 3))


def stage_input(project: Project, reporter: Reporter, reference: str, kind: str) -> Artifact:
    """Return the artifact that is named, or the newest; a resumed run keeps the one that it began with."""
    return keep_inputs(project, reporter.run_dir, kind, lambda: [project.artifact(reference, kind)])[0]


def check_stop(reporter: Reporter) -> None:
    """Raise ``Stopped`` if the reporter was asked to stop."""
    if reporter.should_stop():
        raise Stopped


def generator_of(project: Project, artifact: Artifact) -> Artifact:
    """Return the generator that an artifact was made with; refuse one whose content changed."""
    for parent in artifact.parents:
        if parent.id.startswith("generators/"):
            generator = project.artifact(parent.id, "generator")
            if generator.hash != parent.hash:
                raise ModelError(
                    f"{generator.id} is not the generator that {artifact.id} was made with",
                    "the same weights: features of another generator do not match",
                    "restore the generator, or run the stages after it again",
                )
            return generator
    raise ArtifactMissing(f"{artifact.id} does not say its generator", "a generator among its parents")


def earlier_classifier(
    project: Project, reporter: Reporter, reference: str, generator: Artifact
) -> Artifact | None:
    """Return the pixel classifier to start from: the named one, or the newest that fits; None if not asked.

    Raises
    ------
    ConfigError
        If none has features of this generator and the project's classes.
    """

    def choose() -> list[Artifact]:
        newest = reference == "newest"
        found = (
            project.artifacts("pixel_classifier")
            if newest
            else [project.artifact(reference, "pixel_classifier")]
        )
        fitting = [artifact for artifact in found if _same_task(project, artifact, generator)]
        if not fitting:
            what = "no pixel classifier" if newest else f"{found[0].id} is not one that"
            raise ConfigError(
                f"{what} reads features of {generator.id} and knows the classes "
                f"{', '.join(project.classes.names)}",
                "an earlier round with the same generator and classes",
                "leave init empty to start anew",
            )
        return [fitting[-1]]

    return keep_inputs(project, reporter.run_dir, "init", choose)[0] if reference else None


def _same_task(project: Project, classifier: Artifact, generator: Artifact) -> bool:
    """Whether a classifier was trained on features of this generator for the project's classes."""
    if all(parent.hash != generator.hash for parent in classifier.parents):
        return False
    classes = read_json(classifier.path / "classifier.json")["spec"]["classes"]
    return [entry["name"] for entry in classes] == list(project.classes.names)


def generator_mpp(generator: Artifact) -> float:
    """Return a generator's resolution in um/px; raise ``ModelError`` if it does not say one."""
    mpp = generator_info(generator.path).get("mpp")
    if mpp is None:
        raise ModelError(
            f"{generator.id} does not say its resolution", "um per pixel", "import it with --mpp"
        )
    return float(mpp)


def painted_samples(project: Project, sets: Sequence[Artifact], spec: GeneratorSpec) -> PaintedSamples:
    """Return all painted samples of sets that one generator made, with their masks.

    Raises
    ------
    LabelError
        If a mask vanished.
    StorageError
        If samples cannot be read.
    """
    parts, fitted = [], False
    for samples in sets:
        painted, stored = project.painted(samples), load_samples(samples.path)
        if painted:
            masks = np.stack([painted_mask(project, samples, index) for index in painted])
            noise = stored.noise_rows(spec, painted)
            parts.append((stored.w[painted], stored.noise_seed[painted], masks, noise))
            fitted |= stored.noise is not None and bool(stored.real[painted].any())
    w, seeds, masks, noise = (np.concatenate(part) for part in zip(*parts, strict=True))
    return PaintedSamples(w, seeds, masks, noise if fitted else None)


def painted_mask(project: Project, samples: Artifact, index: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Return the mask of a painted sample, ``(S, S) uint8``; raise ``LabelError`` if it vanished."""
    mask = project.load_mask(samples, index)
    if mask is None:
        raise LabelError(f"the mask of sample {index} of {samples.id} vanished", "a mask", "paint it again")
    return mask


def is_usual_slide(project: Project, net: Artifact, entry: SlideEntry) -> bool:
    """Return whether a net's coarser resolution was chosen with slides such as this one at hand.

    So it was if the net goes back to slides of this project, and another of them is within a factor of 4 of
    this one, or there is no other.  Then it need not be asked again whether reducing it is meant.
    """
    by_id, waiting, ours = {item.id: item for item in project.artifacts()}, [net.id], False
    while waiting and not ours:
        item = by_id.pop(waiting.pop(), None)
        if item is not None:
            ours = item.stage in _FROM_SLIDES
            waiting += [parent.id for parent in item.parents]
    others = [other.mpp for other in project.slides() if other.name != entry.name] or [entry.mpp]
    return ours and any(0.25 <= mpp / entry.mpp <= 4 for mpp in others)


def training_sources(project: Project, references: tuple[str, ...]) -> list[Artifact]:
    """Return the named data sets and corrections, or the newest of each that there are."""
    if not references:
        newest = [found[-1] for kind in ("dataset", "corrections") if (found := project.artifacts(kind))]
        return newest or [project.artifact("", "dataset")]
    sources = [project.find(reference) for reference in references]
    for source in sources:
        if source.kind not in ("dataset", "corrections"):
            raise ConfigError(
                f"{source.id} is a {source.kind}", "a data set or merged corrections", "name another source"
            )
    return sources


def default_mpp(project: Project, corrections: list[Correction]) -> float:
    """Return the newest generator's resolution, or that of the first correction."""
    generators = project.artifacts("generator")
    return generator_mpp(generators[-1]) if generators else corrections[0].mpp


def numbers_of(path: Path) -> dict[str, float | int | str]:
    """Return the plain numbers that a network's JSON file holds, for display."""
    values = read_json(path)
    found: dict[str, float | int | str] = {}
    for key, value in {**values, **values.get("validation", {})}.items():
        if isinstance(value, int | float | str) and not isinstance(value, bool):
            found[key] = value
    return found
