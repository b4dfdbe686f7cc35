"""Where a project stands: the state of each step, and the one thing to do next.  Knows no Qt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from napari_histogan.project.artifacts import Artifact
from napari_histogan.project.overview import PATCHES, SLIDES, coarse_way, wanting_estimates
from napari_histogan.project.painted_sets import count_painted
from napari_histogan.project.store import Project
from napari_histogan.widgets.stage_titles import title_of

StepState = Literal["missing", "there", "stale", "running"]

GOOD_START = 5
"""Masks after which training is worth trying."""


@dataclass(frozen=True, slots=True)
class Step:
    """One step of the way.

    Attributes
    ----------
    name
        Kind of artifact, or "masks" for the paint.
    title
        What people read.
    state
        "missing", "there", "stale" (something before it changed), or "running".
    detail
        What is there, or why it is stale.
    stage
        Stage that makes it, or "" for what people do.
    """

    name: str
    title: str
    state: StepState
    detail: str
    stage: str


@dataclass(frozen=True, slots=True)
class NextStep:
    """What to do next.

    Attributes
    ----------
    action
        One of the actions of the dock, such as "add_slides" or "train".
    title
        Text of the button.
    reason
        One sentence for people.
    """

    action: str
    title: str
    reason: str


_STEPS = (
    ("slides", "Slides", "add_slides"),
    ("patches", "Patches", "extract_patches"),
    ("generator", "Generator", "train_gan"),
    ("samples", "Samples", "sample_images"),
    ("masks", "Masks", ""),
    ("pixel_classifier", "Classifier", "train_pixel_classifier"),
    ("dataset", "Data set", "synthesize_dataset"),
    ("segmenter", "Net", "train_segmenter"),
    ("heatmap", "Heatmap", "predict_heatmap"),
)


def overview(project: Project, running: Sequence[str] = ()) -> list[Step]:
    """Return the state of every step.

    Parameters
    ----------
    project
        The open project.
    running
        Stages that work or wait now.
    """
    newest = {artifact.kind: artifact for artifact in project.artifacts()}
    stale = {item.artifact.kind: item.reason for item in project.stale()}
    steps = []
    for name, title, stage in _STEPS:
        if name == "slides":
            count = len(project.slides())
            state: StepState = "there" if count else "missing"
            detail = f"{count} slide{'s' if count != 1 else ''}" if count else "none yet"
        elif name == "masks":
            count = count_painted(project)
            state, detail = ("there" if count else "missing"), f"{count} painted" if count else "none yet"
        else:
            state, detail = _artifact_state(newest.get(name), stale.get(name, ""))
        if stage in running or (name == "generator" and "import_gan" in running):
            state = "running"
        steps.append(Step(name, title, state, detail, stage))
    return steps


def next_step(project: Project, steps: Sequence[Step], running: Sequence[str] = ()) -> NextStep:
    """Return the one thing that brings the project on."""
    state = {step.name: step.state for step in steps}
    painted = count_painted(project)
    if running:
        return NextStep("show_job", "Look at the running job", f"{title_of(running[0])}: at work.")
    if way := coarse_way(project):
        return _next_of_coarse(project, way, state)
    if state["generator"] == "missing":
        if state["slides"] == "missing":
            return NextStep("add_slides", "Add slides ...", "Everything begins with slides.")
        if state["patches"] == "missing":
            return NextStep(
                "extract_patches", "Find tissue ...", "The generator learns from patches of tissue."
            )
        return NextStep(
            "train_gan",
            "Train generator ...",
            "It learns to paint your tissue; hours on a CPU, fewer on a GPU.",
        )
    if state["samples"] == "missing":
        return NextStep("sample_images", "Draw samples", "Pictures that the generator invents, to paint on.")
    if not len(project.classes):
        return NextStep("add_class", "Name the classes", "Say what you want to tell apart.")
    if painted < GOOD_START and state["pixel_classifier"] == "missing":
        left = GOOD_START - painted
        return NextStep(
            "paint", "Paint the next sample", f"Paint what you are sure of; {left} more for a good start."
        )
    return _next_training(project, state)


def _next_of_coarse(project: Project, way: str, state: dict[str, StepState]) -> NextStep:
    """Return what to do in a project that has few or coarse labels, and no generator."""
    if way == PATCHES:
        if state["heatmap"] in ("missing", "stale"):
            return NextStep("show_patches", "Map a picture ...", "The patch classifier is ready.")
        return NextStep("show_patches", "Look at the map ...", "Paint more where it errs, and train again.")
    if corrections := uncounted_corrections(project):
        return _retraining(corrections)
    if state["segmenter"] == "missing" and way == SLIDES:
        return NextStep("show_labels", "Train on slide labels ...", "The slides' labels are enough.")
    if state["segmenter"] == "missing":
        if project.classes.num_classes < 2 or wanting_estimates(project):
            return NextStep(
                "show_blocks", "Estimate blocks ...", "Say how much of each class blocks of each label hold."
            )
        return NextStep("show_blocks", "Train on blocks ...", "Every label value has estimated blocks.")
    if state["segmenter"] == "stale":
        again = "show_labels" if way == SLIDES else "show_blocks"
        return NextStep(again, "Train again ...", "There are newer labels than the net has seen.")
    return _next_map(state)


def _retraining(corrections: int) -> NextStep:
    plural = "s" if corrections != 1 else ""
    return NextStep(
        "retrain", f"Retrain with {corrections} correction{plural}", "Your fixes make the next version."
    )


def _next_training(project: Project, state: dict[str, StepState]) -> NextStep:
    """Return what to do once there is paint."""
    corrections = uncounted_corrections(project)
    if corrections:
        return _retraining(corrections)
    if "missing" in (state["pixel_classifier"], state["dataset"], state["segmenter"]):
        return NextStep("train", "Train", "From your paint to a net for slides, in three steps.")
    if "stale" in (state["pixel_classifier"], state["dataset"], state["segmenter"]):
        newer_paint = state["pixel_classifier"] == "stale"
        reason = "newer paint than the net has seen" if newer_paint else "a newer result before the net"
        return NextStep("train", "Train again", f"There is {reason}.")
    if state["slides"] == "missing":
        return NextStep("add_slides", "Add slides ...", "The net is ready to run over slides.")
    return _next_map(state)


def _next_map(state: dict[str, StepState]) -> NextStep:
    """Return what to do once there is a net and a slide."""
    if state["heatmap"] == "missing":
        return NextStep("predict_heatmap", "Run on slide", "The net is ready.")
    if state["heatmap"] == "stale":
        return NextStep("predict_heatmap", "Run on slide again", "There is a newer net than the map.")
    return NextStep("look", "Look and correct", "Fixes on the slide train the next version.")


def uncounted_corrections(project: Project) -> int:
    """Return how many corrections the newest segmenter has not learned from; 0 if all or none."""
    corrections = project.corrections()
    if not corrections:
        return 0
    merged = _newest(project, "corrections")
    segmenter = _newest(project, "segmenter")
    if merged is None or segmenter is None or merged.number > segmenter.number:
        return len(corrections)
    return sum(correction.created > merged.created for correction in corrections)


def _artifact_state(artifact: Artifact | None, reason: str) -> tuple[StepState, str]:
    if artifact is None:
        return "missing", "none yet"
    return ("stale", reason) if reason else ("there", f"version {artifact.number}")


def _newest(project: Project, kind: str) -> Artifact | None:
    found = project.artifacts(kind)
    return found[-1] if found else None
