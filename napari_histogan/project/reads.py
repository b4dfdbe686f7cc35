"""Which results of earlier stages a config takes; asked before a job starts, and by dry runs."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar, cast

from napari_histogan.config import StageConfig, TrainGanConfig
from napari_histogan.config.gan_presets import settle
from napari_histogan.config.training_sources import parse_source
from napari_histogan.errors import ConfigError, LabelError
from napari_histogan.labels.slide_labels import UNKNOWN, require_both
from napari_histogan.project.artifacts import KINDS
from napari_histogan.project.calibrations import block_labels_on, chosen_block_labels
from napari_histogan.project.compared_heatmaps import heatmaps_to_compare
from napari_histogan.project.kept_back import kept_back
from napari_histogan.project.net_in_use import net_in_use
from napari_histogan.project.painted_sets import painted_sets
from napari_histogan.project.slide_labels import SLIDE_LABELS, slide_labels
from napari_histogan.project.slide_list import find_several
from napari_histogan.project.store import Project
from napari_histogan.slides.reader import SLIDE_SUFFIXES, find_slides, open_slide

C = TypeVar("C", bound=StageConfig)

_NAMED_BY_FIELD = {
    "train_gan": ("patches",),
    "sample_images": ("generator",),
    "invert_patches": ("generator",),
    "mix_samples": ("samples",),
    "synthesize_dataset": ("pixel_classifier",),
    "predict_patch_map": ("patch_classifier",),
    "detect_objects": ("heatmap",),
}
"""Fields that name an artifact of the kind of the same name; empty takes the newest."""

_STARTS_FROM = {
    "train_gan": "generator",
    "train_segmenter": "segmenter",
    "train_pixel_classifier": "pixel_classifier",
}
"""Kind of the artifact that the field ``init`` may name."""


def what_it_reads(project: Project, config: StageConfig) -> list[str]:
    """Return what a stage would read, one clause each.

    Parameters
    ----------
    project
        Where the stage would run.
    config
        Its config.

    Raises
    ------
    ArtifactMissing
        If an earlier stage has to run first.
    ConfigError
        If a file that the config names is not there.
    LabelError
        If something must be painted or corrected first.
    SlideNotFound
        If there is no such slide.
    """
    values = dict(config)
    reads = [
        project.artifact(values[kind], kind).id
        for kind in _NAMED_BY_FIELD.get(config.stage, ())
        if kind in KINDS
    ]
    if config.stage == "predict_heatmap":
        reads.append(project.artifact(values["segmenter"] or net_in_use(project), "segmenter").id)
    if values.get("init"):
        named = "" if values["init"] == "newest" else values["init"]
        reads.append(project.artifact(named, _STARTS_FROM[config.stage]).id)
    if config.stage == "add_slides":
        _require_slides(values["paths"])
    reads += _slides(project, config)
    if config.stage == "train_pixel_classifier":
        reads += _painted(project, values["samples"])
    if config.stage == "train_segmenter":
        reads += _sources(project, values["sources"])
    if config.stage == "import_block_labels":
        reads += _block_source(project, config)
    if config.stage == "predict_heatmap" and values["blocks"]:
        for entry in find_several(project.slides(), values["slide"]):
            reads.append(block_labels_on(project, entry.name, values["blocks"]).id)
    if config.stage == "evaluate":
        reads += [a.id for a in heatmaps_to_compare(project, values["heatmap"], values["reference"])]
    if config.stage == "train_weakly" and values["labels"] is None:
        reads += _kept_labels(project)
    if config.stage == "train_super_resolution":
        reads += [artifact.id for artifact in chosen_block_labels(project, values["blocks"])]
    if config.stage == "merge_corrections":
        reads += _corrections(project, values["regions"], values["keep_back"])
    return reads + _files(config)


def settled(project: Project, config: C) -> C:
    """Return the config with the numbers that its preset chooses for what the project has.

    Only the training of a generator has a preset; see :func:`napari_histogan.config.gan_presets.suggest`.
    Without planned patches the config stays as it is.
    """
    if not isinstance(config, TrainGanConfig) or config.preset == "plain":
        return config
    if not config.patches and not project.artifacts("patches"):
        return config
    summary = project.artifact(config.patches, "patches").summary
    return cast(C, settle(config, int(summary["patch_px"]), int(summary["slides"])))


def _require_slides(paths: tuple[Path, ...]) -> None:
    """Refuse an empty list, empty folders, and files of an unknown kind that are no slides."""
    if not paths:
        raise ConfigError(
            "add_slides was given no file", "one slide or folder, or more", "name them: --paths FILE"
        )
    if not all(path.exists() for path in paths):
        return  # told with the other files
    for path in find_slides(paths):
        if path.suffix.lower() not in SLIDE_SUFFIXES:
            open_slide(path, mpp=1.0).close()


def _slides(project: Project, config: StageConfig) -> list[str]:
    """Return the slides that a stage opens."""
    values = dict(config)
    if config.stage == "train_weakly":
        entries = project.slides() or [project.slide()]
        return [f"slide {entry.name} ({entry.path})" for entry in entries]
    if config.stage == "extract_patches":
        entries = [project.slide(name) for name in values["slides"]] or project.slides() or [project.slide()]
        return [f"slide {entry.name} ({entry.path})" for entry in entries]
    if config.stage == "predict_heatmap":
        entries = find_several(project.slides(), values["slide"])
        return [f"slide {entry.name} ({entry.path})" for entry in entries]
    if config.stage in ("predict_patch_map", "import_block_labels"):
        entry = project.slide(values["slide"])
        return [f"slide {entry.name} ({entry.path})"]
    if config.stage == "invert_patches" and not values["paths"]:
        if not values["places"]:
            return [project.artifact(values["patches"], "patches").id]
        entry = project.slide(values["slide"])
        return [f"slide {entry.name} ({entry.path})"]
    return []


def _painted(project: Project, samples: str) -> list[str]:
    """Return the samples, and how many masks there are to learn from."""
    sets = painted_sets(project, samples)
    counts = [(len(project.painted(a)), a.id) for a in sets]
    return [a.id for a in sets] + [f"{count} painted masks of {name}" for count, name in counts if count]


def _sources(project: Project, references: tuple[str, ...]) -> list[str]:
    """Return the training sources of the segmenter."""
    if not references:
        newest = [found[-1].id for kind in ("dataset", "corrections") if (found := project.artifacts(kind))]
        return newest or [project.artifact("", "dataset").id]
    reads = []
    for source in map(parse_source, references):
        if source.kind == "artifact":
            artifact = project.find(source.name)
            if artifact.kind not in ("dataset", "corrections"):
                raise ConfigError(f"{artifact.id} is a {artifact.kind}", "a data set or merged corrections")
            reads.append(artifact.id)
            continue
        if not (source.path.is_file() if source.kind == "outlines" else source.path.is_dir()):
            raise ConfigError(f"there is nothing at {source.path}", f"the {source.kind}", "check the path")
        if source.kind == "outlines":
            entry = project.slide(source.name)
            reads.append(f"slide {entry.name} ({entry.path})")
        reads.append(f"{source.kind} {source.path}")
    return reads


def _block_source(project: Project, config: StageConfig) -> list[str]:
    """Return the heatmap or segmenter that block labels come from; refuse no source at all."""
    values = dict(config)
    named = [(kind, values[kind]) for kind in ("heatmap", "segmenter") if values[kind]]
    if not named and values["path"] is None:
        raise ConfigError(
            "nothing says where the block labels are", "a file, a heatmap, or a segmenter", "give --path FILE"
        )
    return [project.artifact("" if name == "newest" else name, kind).id for kind, name in named]


def _kept_labels(project: Project) -> list[str]:
    """Return how many slides are labeled in the project; refuse labels of one kind alone."""
    labels = slide_labels(project)
    require_both(labels)
    known = sum(label != UNKNOWN for label in labels.values())
    return [f"the labels of {known} slides ({SLIDE_LABELS})"]


def _corrections(project: Project, names: tuple[str, ...], one_in: int) -> list[str]:
    """Return the corrected regions."""
    known = [correction.name for correction in project.corrections()]
    missing = [name for name in names if name not in known]
    if missing or not known:
        raise LabelError(
            f"there is no corrected region {missing[0]!r}" if missing else "nothing was corrected yet",
            f"one of {', '.join(known)}" if known else "one corrected region or more",
            "correct a region in the dock first",
        )
    back = set() if names else kept_back(project.corrections(), one_in)
    return [f"corrected region {name}" for name in names or known if name not in back]


def _files(config: StageConfig) -> list[str]:
    """Return the files outside of the project that a config names."""
    paths: list[Path] = []
    for value in dict(config).values():
        paths += [v for v in (value if isinstance(value, tuple) else (value,)) if isinstance(v, Path)]
    for path in paths:
        if path == Path() or not path.exists():
            raise ConfigError(
                f"there is no file {path}" if path != Path() else f"{config.stage} was given no file",
                "a file that exists",
                "check the path",
            )
    return [str(path) for path in paths]
