"""``histogan demo``: the whole program on the slide that ships, by the same jobs that people start.

The demo is a user, not a stage: it creates a project, starts every stage as a job, puts
the shipped human work (painted samples, outlined real patches) where the dock would put
it, and reads the artifacts for its report.  Run again, it goes on where it stopped.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from rich.box import SIMPLE
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table as RichTable

from napari_histogan import config as c
from napari_histogan.demo_report import Row, compare_nets, write_demo_report
from napari_histogan.errors import JobError, ModelError, Stopped
from napari_histogan.evaluation.report import Table
from napari_histogan.geometry import Region
from napari_histogan.jobs.runner import list_jobs, run_job_and_wait, with_absolute_paths
from napari_histogan.labels.classes import ClassInfo, ClassTable
from napari_histogan.labels.interchange import read_annotations, read_png_mask
from napari_histogan.labels.outlines import rasterize
from napari_histogan.project.artifacts import Artifact
from napari_histogan.project.corrections import Correction
from napari_histogan.project.store import Project

DATA = Path(__file__).parent / "demo_data"
SLIDE = DATA / "CMU-1-Small-Region.svs"
GENERATOR = DATA / "generator"
PAINTED = DATA / "painted"
REFERENCE = DATA / "reference.geojson"
REAL_PATCHES = DATA / "real_patches.geojson"

CLASSES = ClassTable(
    (
        ClassInfo(1, "epidermis", "#0072b2", "1"),
        ClassInfo(2, "dermis", "#e69f00", "2"),
        ClassInfo(3, "keratin", "#cc79a7", "3"),
        ClassInfo(4, "glass", "#009e73", "4"),
    )
)
"""What a pathologist would tell apart on this slide; colors of Okabe and Ito, safe for color blindness."""

PATCH_FRAME = "patch"


@dataclass(frozen=True)
class DemoPlan:
    """How much of everything; the defaults take under 10 minutes on 2 CPU cores.

    Attributes
    ----------
    pairs
        Synthetic pairs to make.
    steps, transfer_steps
        Training steps of the segmentation nets, and of going on with real patches.
    members, epochs
        Of the pixel classifier.
    kimg
        Length of the generator's training, with ``--from gan`` only.
    """

    pairs: int = 2000
    steps: int = 900
    transfer_steps: int = 300
    members: int = 10
    epochs: int = 60
    kimg: float = 170.0


def run_demo(
    folder: Path,
    from_gan: bool = False,
    open_viewer: bool = True,
    console: Console | None = None,
    plan: DemoPlan | None = None,
) -> Path:
    """Run the demo and return its ``report.html``; the project's folder if it ends before the report.

    Parameters
    ----------
    folder
        The project to make; one that an earlier demo left unfinished is completed.
    from_gan
        Train the generator too.  Its samples are new, so they need new masks: the demo
        then ends with the samples, and says how to paint them and go on.
    open_viewer
        Open napari with the project at the end, if there is a display.
    console
        Where progress is shown.
    plan
        How much of everything.

    Raises
    ------
    JobError
        A stage failed; its log is named.
    Stopped
        The user asked a stage to stop; the same command goes on.
    """
    console, plan = console or Console(), plan or DemoPlan()
    project = _open_or_create(folder)
    stages = _Stages(project, console, total=16)
    stages.run("Looking at the slide", c.AddSlidesConfig(paths=(SLIDE,)))
    stages.run("Finding tissue", c.ExtractPatchesConfig(patch_px=64, mpp=1.0, min_tissue=0.2))
    if from_gan:
        generator = stages.run("Training the generator (an hour or more)", _gan_config(plan))
    else:
        generator = stages.run("Loading the generator", c.ImportGanConfig(path=GENERATOR))
    drawn_from = {"generator": generator.id}
    samples = stages.run("Drawing samples", _sample_config().model_copy(update=drawn_from))
    if from_gan and not project.painted(samples):
        console.print(
            f"Your own generator is trained, and {samples.summary['count']} samples are drawn.\n"
            "They are new, so the shipped masks do not fit them: paint some, then go on.\n"
            f"  histogan open {project.root}\n  histogan demo {project.root} --from gan"
        )
        return project.root
    if not from_gan:
        _place_painted_masks(project, samples)
    _place_real_patches(project)
    classifier, dataset, rows = _train_and_compare(stages, plan, samples)
    report = write_demo_report(project, samples, classifier, dataset, rows, REFERENCE)
    _print_table(console, compare_nets(rows, project.classes))
    console.print(f"\nReport:   {report}\nFigures:  {report.parent}\nProject:  {project.root}")
    console.print(f"Open it:  histogan open {project.root}")
    if open_viewer and _has_display():
        subprocess.Popen(
            [sys.executable, "-m", "napari_histogan", "open", str(project.root)], start_new_session=True
        )
    return report


def _train_and_compare(
    stages: _Stages, plan: DemoPlan, samples: Artifact
) -> tuple[Artifact, Artifact, list[Row]]:
    """Train three nets; return classifier, synthetic pairs, and the nets with their scores."""
    classifier = stages.run(
        "Training the pixel classifier",
        c.TrainPixelClassifierConfig(members=plan.members, epochs=plan.epochs, samples=samples.id),
    )
    dataset = stages.run(
        "Making labeled synthetic images",
        c.SynthesizeDatasetConfig(count=plan.pairs, truncation=1.0, pixel_classifier=classifier.id),
    )
    real = stages.run("Cutting the real patches", c.MergeCorrectionsConfig(patch_px=64, mpp=1.0))
    control = stages.run(
        "Training on real patches", c.TrainSegmenterConfig(steps=plan.steps, sources=(real.id,))
    )
    synthetic = stages.run(
        "Training on synthetic images", c.TrainSegmenterConfig(steps=plan.steps, sources=(dataset.id,))
    )
    transfer = stages.run(
        "Going on with real patches",
        c.TrainSegmenterConfig(
            steps=plan.transfer_steps,
            sources=(real.id,),
            init=synthetic.id,
            rehearsal=0.0,  # real patches alone, as in the paper's Transfer
            learning_rate=5e-4,
        ),
    )
    count = int(classifier.summary.get("painted", 0))
    nets = (
        (f"Synthetic: {count} painted samples", synthetic),
        (f"Control: {_number_of_patches()} outlined real patches", control),
        ("Transfer: synthetic, then the real patches", transfer),
    )
    rows = []
    for title, net in nets:
        heatmap = stages.run("Running over the slide", c.PredictHeatmapConfig(segmenter=net.id))
        scores = stages.run(
            "Comparing with the reference",
            c.EvaluateConfig(reference=REFERENCE, ignore=REAL_PATCHES, heatmap=heatmap.id),
        )
        rows.append(Row(title, net, heatmap, scores))
    return classifier, dataset, rows


class _Stages:
    """Runs stages as jobs, one progress line each; a stage whose result is there is not run again."""

    def __init__(self, project: Project, console: Console, total: int) -> None:
        self.project, self.console, self.total, self.number = project, console, total, 0

    def run(self, title: str, config: c.StageConfig) -> Artifact:
        """Return the artifact of a stage with this config, made now or earlier."""
        self.number += 1
        label = f"[{self.number:2d}/{self.total}] {title}"
        if (found := self._made_earlier(config)) is not None:
            self.console.print(f"{label}: done earlier ({found.id})")
            return found
        try:
            with self._bar(label) as show:
                status = run_job_and_wait(self.project.root, config, show)
        except KeyboardInterrupt:
            list_jobs(self.project.root)[-1].request_stop()
            raise Stopped from None
        if status.state == "stopped":
            raise Stopped
        if status.state != "done":
            message = (status.error or {}).get("message", "it ended without a word")
            log = (
                self.project.root
                / "runs"
                / f"{status.number:04d}-{config.stage.replace('_', '-')}"
                / "log.txt"
            )
            raise JobError(f"{title} failed: {message}", "", f"read {log}, then run the demo again")
        return self.project.find(status.artifact)

    def _made_earlier(self, config: c.StageConfig) -> Artifact | None:
        wanted = with_absolute_paths(config).model_dump(mode="json")
        made = [a for a in self.project.artifacts(config.result) if a.stage == config.stage]
        return next((a for a in reversed(made) if a.config == wanted), None)

    @contextmanager
    def _bar(self, label: str) -> Iterator[Any]:
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.percentage:>3.0f} %"),
            TextColumn("{task.fields[left]}"),
            TimeElapsedColumn(),
        )
        with Progress(*columns, console=self.console) as progress:
            task = progress.add_task(label, total=1.0, left="")

            def show(event: dict[str, Any]) -> None:
                if event["kind"] == "progress" and event.get("total"):
                    left = event.get("seconds_left")
                    shown = f"{left:.0f} s left" if isinstance(left, int | float) and left >= 1 else ""
                    progress.update(task, completed=event["done"] / event["total"], left=shown)
                elif event["kind"] == "warning":
                    progress.console.print(f"      note: {event['message']}")

            yield show
            progress.update(task, completed=1.0, left="")


def _print_table(console: Console, table: Table) -> None:
    """Print the comparison; the class's name alone heads its Dice, to fit a narrow terminal."""
    title = "How good is it on the slide? MCC, and the Dice of each class"
    shown = RichTable(
        title=title, title_justify="left", caption=table.caption, caption_justify="left", box=SIMPLE
    )
    for number, heading in enumerate(table.header):
        justify: Literal["left", "right"] = "right" if number else "left"
        shown.add_column(heading.removeprefix("Dice "), justify=justify, no_wrap=number > 0)
    for cells in table.rows:
        shown.add_row(*(f"{cell:.3f}" if isinstance(cell, float) else str(cell) for cell in cells))
    console.print()
    console.print(shown)


def _open_or_create(folder: Path) -> Project:
    folder = Path(folder)
    if (folder / "project.toml").exists():
        return Project.open(folder)
    return Project.create(folder, "HistoGAN demo", CLASSES)


def _gan_config(plan: DemoPlan) -> c.TrainGanConfig:
    """Return the settings of the shipped generator."""
    sizes: dict[str, Any] = {"batch": 16, "channel_base": 2048, "channel_max": 64}
    return c.TrainGanConfig(kimg=plan.kimg, r1_gamma=0.1, ada_target=0.0, seed=1, **sizes)


def _sample_config() -> c.SampleImagesConfig:
    """Return the settings with which the painted samples were drawn."""
    return c.SampleImagesConfig(**json.loads((PAINTED / "samples.json").read_text(encoding="utf-8")))


def _place_painted_masks(project: Project, samples: Artifact) -> None:
    """Save the shipped masks as if they had been painted in the dock.

    Raises
    ------
    ModelError
        The samples drawn here are not those that were painted.
    """
    from napari_histogan.inference.sampling import load_samples

    drawn = load_samples(samples.path).w
    with np.load(PAINTED / "w.npz") as painted:
        numbers, styles = painted["index"], painted["w"]
    for index, w in zip(numbers, styles, strict=True):
        if not np.allclose(drawn[index, 0], w, atol=2e-3):
            raise ModelError(
                f"sample {index} is not the one that was painted",
                "the styles that the shipped generator gave",
                "reinstall the package: generator and masks belong together",
            )
        mask = read_png_mask(PAINTED / f"{index:04d}.png", project.classes)
        if project.load_mask(samples, int(index)) is None:
            project.save_mask(samples, int(index), mask)


def _place_real_patches(project: Project) -> None:
    """Save the shipped outlines of real patches as corrected regions of the slide."""
    have = {correction.name for correction in project.corrections()}
    slide = project.slides()[0]
    annotations = read_annotations(REAL_PATCHES)
    frames = [a for a in annotations if a.class_name == PATCH_FRAME]
    for frame in frames:
        number = int(frame.properties["patch"])
        name = f"patch-{number:02d}"
        if name in have:
            continue
        x0, y0, _x1, _y1 = (v * slide.mpp for v in frame.geometry.bounds)
        region = Region(round(y0), round(x0), 64, 64)
        outlines = [a for a in annotations if a.properties.get("patch") == number and a is not frame]
        mask = rasterize(outlines, region, 1.0 / slide.mpp, project.classes)
        project.save_correction(Correction(name, slide.name, region, 1.0, mask, author="demo"))


def _number_of_patches() -> int:
    return sum(a.class_name == PATCH_FRAME for a in read_annotations(REAL_PATCHES))


def _has_display() -> bool:
    """Whether a window can be opened: always on Windows and macOS, by DISPLAY elsewhere."""
    if sys.platform in ("win32", "darwin"):
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
