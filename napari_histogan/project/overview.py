"""What a project has, what is behind, and what to do next, in the order of the data flow."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from napari_histogan.labels.block_labels import BlockLabels
from napari_histogan.labels.calibration import LEAST
from napari_histogan.project.artifacts import KINDS, Artifact, stages_making
from napari_histogan.project.calibrations import Calibration, chosen_block_labels
from napari_histogan.project.painted_sets import count_painted
from napari_histogan.project.slide_labels import has_both, slide_labels
from napari_histogan.project.store import Project

PAINT = "paint"
ESTIMATE = "estimate"
BLOCKS, SLIDES, PATCHES = "blocks", "slides", "patches"
"""The ways on which no generator is needed: from labels of blocks, of whole slides, and of few pixels."""

_ON_THE_OWN_WAY = ("segmenter", "heatmap")
_MAPS_OF_PATCHES = "predict_patch_map"
_FROM_COARSE = {"train_super_resolution": BLOCKS, "train_weakly": SLIDES}
OPTIONAL = {"block_labels", "patch_classifier", "objects", "evaluation", "corrections", "study"}
"""Kinds that the flow goes on without."""


@dataclass(frozen=True, slots=True)
class StageState:
    """One line of the overview.

    Attributes
    ----------
    stage
        Stage (the first one that makes the kind), or "paint" for human work.
    kind
        Kind of artifact; "" for human work.
    count
        How many there are; for painting, how many samples are painted.
    newest
        Id of the newest; "" if there is none.
    summary
        Of the newest.
    behind
        Why the newest is behind what it was made from; "" if it is not.
    """

    stage: str
    kind: str
    count: int
    newest: str
    summary: dict[str, Any]
    behind: str


@dataclass(frozen=True, slots=True)
class Overview:
    """What :func:`overview` returns: the stages in order, and the next step as a sentence."""

    stages: tuple[StageState, ...]
    next_stage: str
    next_step: str


def overview(project: Project) -> Overview:
    """Look at a project as a whole; reads records only, no results."""
    behind = {stale.artifact.id: stale.reason for stale in project.stale()}
    stages: list[StageState] = []
    for kind in KINDS:
        artifacts = project.artifacts(kind)
        stages.append(_state(kind, artifacts, behind))
        if kind == "samples":
            stages.append(_painting(project, artifacts))
    stage, step = _next(project, stages)
    return Overview(tuple(stages), stage, step)


def _state(kind: str, artifacts: list[Artifact], behind: dict[str, str]) -> StageState:
    """Return the line of one kind."""
    stage = stages_making(kind)[0]
    if not artifacts:
        return StageState(stage, kind, 0, "", {}, "")
    newest = artifacts[-1]
    return StageState(
        newest.stage, kind, len(artifacts), newest.id, newest.summary, behind.get(newest.id, "")
    )


def _painting(project: Project, samples: list[Artifact]) -> StageState:
    """Return the line of the masks that a classifier would learn from."""
    painted = project.painted(samples[-1]) if samples else []
    older = {a.id: len(project.painted(a)) for a in samples[:-1]}
    corrected = len(project.corrections())
    newest = f"masks/{samples[-1].number:04d}" if painted else ""
    count = count_painted(project)  # as a classifier would: all sets of the newest samples' generator
    return StageState(PAINT, "", count, newest, _painting_summary(corrected, older), "")


def _painting_summary(corrected: int, older: dict[str, int]) -> dict[str, Any]:
    """Return what the line of the painting says: corrections, and masks of older samples."""
    told: dict[str, Any] = {"corrections": corrected}
    told.update({f"on {identity}": count for identity, count in older.items() if count})
    return told


def _stay_behind(project: Project) -> str:
    """Say how many masks lie on the newest samples, whose generator is no longer the newest; or nothing."""
    samples = project.artifacts("samples")[-1]
    count = len(project.painted(samples))
    if not count:
        return ""
    masks = f"{count} mask{'s' if count > 1 else ''}"
    made_by = next((p.id for p in samples.parents if p.id.startswith("generators/")), "its generator")
    return (
        f" The {masks} painted on {samples.id} stay there and stay usable with {made_by}: "
        f"histogan train-pixel-classifier PROJECT --samples {samples.id}"
    )


def coarse_way(project: Project) -> str:
    """Return the way of a project that has few or coarse labels and nothing of a generator; "" for others.

    Returns
    -------
    str
        :data:`BLOCKS`, :data:`SLIDES`, :data:`PATCHES`, or "".
    """
    if any(project.artifacts(kind) for kind in ("patches", "generator", "samples", "dataset")):
        return ""
    nets = project.artifacts("segmenter")
    if nets:
        return _FROM_COARSE.get(nets[-1].stage, "")
    if project.artifacts("block_labels"):
        return BLOCKS
    if has_both(slide_labels(project)):
        return SLIDES
    return PATCHES if project.artifacts("patch_classifier") else ""


def wanting_estimates(project: Project) -> list[str]:
    """Return the label values with two blocks or more of which fewer than two were estimated.

    Raises
    ------
    ArtifactMissing, LabelError, ProjectDamaged
        If there are no block labels, or they or estimates cannot be read.
    """
    blocks: Counter[str] = Counter()
    estimated: Counter[str] = Counter()
    for artifact in chosen_block_labels(project, ()):
        labels = BlockLabels.load(artifact.path)
        blocks.update(dict(zip(labels.values, labels.counts().tolist(), strict=True)))
        shares = Calibration(project, artifact).shares(project.classes.names)
        estimated.update({value: len(found) for value, found in shares.items()})
    return [value for value, count in blocks.items() if count >= LEAST > estimated[value]]


def _next_of_coarse(project: Project, way: str, stages: list[StageState]) -> tuple[str, str]:
    """Return the next stage on the way from coarse labels to a heatmap."""
    if way == PATCHES:
        return _next_of_patches(project, stages)
    net = next(state for state in stages if state.kind == "segmenter")
    if not net.count and way == SLIDES:
        return "train_weakly", "Next: histogan train-weakly PROJECT"
    if not net.count:
        if project.classes.num_classes < 2:
            return ESTIMATE, "Name the classes that blocks hold, in the dock (tab Blocks)."
        if wanting := wanting_estimates(project):
            listed = ", ".join(wanting)
            return ESTIMATE, f"Estimate blocks of {listed}: histogan open PROJECT, or histogan estimate"
        return "train_super_resolution", "Next: histogan train-super-resolution PROJECT"
    for state in stages:
        if state.kind in _ON_THE_OWN_WAY and (state.behind or not state.count):
            verb = f"histogan {state.stage.replace('_', '-')} PROJECT"
            reason = f"{state.newest} is behind ({state.behind}): {verb}" if state.behind else f"Next: {verb}"
            return state.stage, reason
    return "", "Everything is up to date. Look at the heatmap and correct it: histogan open PROJECT"


def _next_of_patches(project: Project, stages: list[StageState]) -> tuple[str, str]:
    """Return the next stage of a project whose nets are patch classifiers."""
    if not project.slides():
        return "add_slides", "Add a picture or slide to map: histogan add-slides PROJECT --paths FILE"
    heatmap = next(state for state in stages if state.kind == "heatmap")
    verb = "histogan predict-patch-map PROJECT"
    if heatmap.behind:
        return _MAPS_OF_PATCHES, f"{heatmap.newest} is behind ({heatmap.behind}): {verb}"
    if not heatmap.count:
        return _MAPS_OF_PATCHES, f"Next: {verb}"
    return "", "Everything is up to date. Look at the map: histogan open PROJECT"


def _next(project: Project, stages: list[StageState]) -> tuple[str, str]:
    """Return the stage to run next and a sentence that says so."""
    if way := coarse_way(project):
        return _next_of_coarse(project, way, stages)
    if not project.slides() and not any(state.count for state in stages):
        return "add_slides", "Add slides: histogan add-slides PROJECT --paths FILE"
    if project.classes.num_classes < 2 and any(s.kind == "samples" and s.count for s in stages):
        return PAINT, "Define two classes or more, in the dock or with histogan new --classes."
    has_generator = any(s.kind == "generator" and s.count for s in stages)
    for state in stages:
        verb = f"histogan {state.stage.replace('_', '-')} PROJECT"
        needless = has_generator and state.kind in ("slides", "patches")
        if state.kind in OPTIONAL or (needless and not state.count):
            continue
        if state.count == 0:
            if state.stage == PAINT:
                return PAINT, "Paint some samples: histogan open PROJECT"
            return state.stage, f"Next: {verb}"
        if state.behind:
            left = _stay_behind(project) if state.kind == "samples" else ""
            return state.stage, f"{state.newest} is behind ({state.behind}): {verb}.{left}".removesuffix(".")
    return "", "Everything is up to date. Look at the heatmap and correct it: histogan open PROJECT"
