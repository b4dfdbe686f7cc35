"""Stages that compare ways of training: how far painted synthetic images go (paper 000, Table 1).

::

    painted samples -> classifier -> synthetic pairs -> net (Synthetic) -> real patches, too (Transfer)
    annotated pictures -> m patches -> net (Control), and more of them -> net (Control+)
    every net -> the same test pictures -> confusion matrices -> table, plots, intervals

Each arm of each seed is kept as soon as it is tested, so that a stopped study goes on.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from napari_histogan import config as c
from napari_histogan.errors import ConfigError, LabelError
from napari_histogan.evaluation.label_efficiency import (
    Arm,
    ArmSummary,
    Effort,
    efficiency_sections,
    summarize,
)
from napari_histogan.evaluation.report import write_report
from napari_histogan.inference.net_tiles import SegmenterTiles
from napari_histogan.inference.synthetic_dataset import synthesize_dataset
from napari_histogan.metrics import confusion_matrix
from napari_histogan.models.device import resolve
from napari_histogan.models.generator_file import load_generator
from napari_histogan.models.picture_nets import load_picture_nets
from napari_histogan.models.pixel_classifier import load_pixel_classifier
from napari_histogan.progress import PartReporter, Reporter
from napari_histogan.project.artifacts import Artifact
from napari_histogan.project.inputs import keep_inputs
from napari_histogan.project.painted_sets import painted_sets
from napari_histogan.project.store import Project
from napari_histogan.stage_inputs import check_stop, generator_mpp, generator_of, painted_samples
from napari_histogan.training.datasets import ArrayPairs, SegmentationSource, ZarrPairs
from napari_histogan.training.labelled_pixels import PaintedSamples, rebuilt_pictures
from napari_histogan.training.picture_folders import PictureFolder
from napari_histogan.training.train_pixel_classifier import train_pixel_classifier
from napari_histogan.training.train_segmenter import train_segmenter

ARMS = ("Synthetic", "Control", "Control+", "Transfer")
RESULT = "label_efficiency.json"
PAIRS = Path("pairs/dataset/pairs.zarr")
"""In the folder of an arm."""


def label_efficiency(project: Project, config: c.LabelEfficiencyConfig, reporter: Reporter) -> Artifact:
    """Fill the renal paper's table for a project: four ways to spend annotation, tested alike."""
    sets = keep_inputs(project, reporter.run_dir, "samples", lambda: painted_sets(project, config.samples))
    source = generator_of(project, sets[0])
    generator = load_generator(source.path)
    side, mpp = generator.spec.img_resolution, generator_mpp(source)
    painted = painted_samples(project, sets, generator.spec)
    if len(painted) < config.painted:
        raise LabelError(
            f"{len(painted)} samples are painted", f"{config.painted} or more", "paint more, or ask for fewer"
        )
    annotated, test = (
        _open_folder(folder, what, config, project, side, mpp)
        for folder, what in ((config.annotated, "annotated"), (config.test, "test"))
    )
    if len(annotated) < config.control_plus:
        raise LabelError(
            f"{config.annotated} gives {len(annotated)} patches of {side} px at {mpp:g} um/px",
            f"{config.control_plus} or more",
            "annotate more pictures, or lower control and control_plus",
        )
    study = _Study(project, config, source, painted, annotated, test, side, mpp)
    found: dict[str, list[NDArray[np.int64]]] = {arm: [] for arm in ARMS}
    efforts: dict[str, list[Effort]] = {arm: [] for arm in ARMS}
    for seed in range(config.seeds):
        for arm in ARMS:
            counts, effort = study.run(arm, seed, reporter)
            found[arm].append(counts)
            efforts[arm].append(effort)
    arms = [Arm(arm, _mean_effort(efforts[arm]), np.stack(found[arm])) for arm in ARMS]
    summaries = summarize(arms, config.bootstrap, config.seed)
    with project.new_artifact("study", config, reporter, [source, *sets]) as draft:
        (draft.path / RESULT).write_text(json.dumps(_plain(summaries), indent=1), encoding="utf-8")
        lead = f"Tested on {arms[0].counts.shape[1]} pictures, {config.seeds} seeds."
        write_report(draft.path / "report.html", "Label efficiency", efficiency_sections(summaries), lead)
        for summary in summaries:
            draft.summary[f"mcc_{summary.arm.name.lower().replace('+', '_plus')}"] = summary.mcc.value
    return draft.result


@dataclass(frozen=True)
class _Study:
    """What all arms of a study share."""

    project: Project
    config: c.LabelEfficiencyConfig
    generator: Artifact
    painted: PaintedSamples
    annotated: PictureFolder
    test: PictureFolder
    side: int
    mpp: float

    def run(self, arm: str, seed: int, reporter: Reporter) -> tuple[NDArray[np.int64], Effort]:
        """Train and test one arm, or read what an earlier run of it found."""
        check_stop(reporter)
        folder = reporter.run_dir / f"seed-{seed}" / arm.lower()
        kept = folder / "counts.npz"
        if kept.exists():
            stored = np.load(kept)
            return stored["counts"], Effort(int(stored["images"]), float(stored["area_mm2"]))
        done = seed * len(ARMS) + ARMS.index(arm)
        part = PartReporter(reporter, folder, done, self.config.seeds * len(ARMS), f"{arm}, seed {seed + 1}")
        net, effort = self._train(arm, seed, part)
        counts = self._judge(net)
        with kept.with_suffix(".part").open("wb") as file:
            np.savez(file, counts=counts, images=effort.images, area_mm2=effort.area_mm2)
        kept.with_suffix(".part").replace(kept)
        return counts, effort

    def _train(self, arm: str, seed: int, part: PartReporter) -> tuple[Path, Effort]:
        """Return the folder of an arm's net, and what its annotation cost."""
        rng = np.random.default_rng([self.config.seed, seed])
        chosen = rng.permutation(len(self.painted))[: self.config.painted]
        order = self._patches_to_annotate(rng)
        if arm == "Synthetic":
            painted = self.painted.subset(np.sort(chosen))
            self._synthesize(painted, seed, part)
            net = self._segmenter(self._synthetic(painted, part.run_dir), seed, part)
            return net, self._effort(painted.masks)
        patches = order[: self.config.control_plus if arm == "Control+" else self.config.control]
        images, masks = self.annotated.batch(patches)
        groups = self.annotated.groups[patches]
        real: list[SegmentationSource] = [ArrayPairs(images, masks, self.mpp, groups=groups)]
        if arm != "Transfer":
            return self._segmenter(real, seed, part), self._effort(masks)
        synthetic = part.run_dir.parent / ARMS[0].lower()
        painted = self.painted.subset(np.sort(chosen))
        both = np.concatenate([painted.masks, masks])
        again = self._synthetic(painted, synthetic) if self.config.rehearsal else []
        drawn = sum(source.weight * len(source) for source in again)
        share = self.config.rehearsal
        real[0].weight = (1 - share) / share * drawn / len(patches) if again else 1.0
        return self._segmenter([*real, *again], seed, part, synthetic / "segmenter"), self._effort(both)

    def _synthetic(self, painted: PaintedSamples, arm: Path) -> list[SegmentationSource]:
        """Return the pairs made by the arm in this folder, and the painted samples as pairs of their own."""
        pairs = ZarrPairs(arm / PAIRS)
        share = self.config.painted_share
        if not share:
            return [pairs]
        images = rebuilt_pictures(load_generator(self.generator.path), painted, resolve(self.config).device)
        weight = share / (1 - share) * len(pairs) / len(painted)
        return [pairs, ArrayPairs(images, painted.masks, self.mpp, weight)]

    def _synthesize(self, painted: PaintedSamples, seed: int, part: PartReporter) -> None:
        """Label as many synthetic images as asked for."""
        config, classes = self.config, self.project.classes
        shared = {"seed": seed, "device": config.device, "precision": config.precision}
        generator = load_generator(self.generator.path)
        folder = train_pixel_classifier(
            generator,
            painted,
            classes,
            c.TrainPixelClassifierConfig(
                threads=config.threads,
                picture_nets=config.picture_nets,
                picture_steps=config.picture_steps,
                **shared,
            ),
            part.within("classifier"),
            generator_hash=self.generator.hash,
        )
        wanted = c.SynthesizeDatasetConfig(
            count=config.pairs, truncation=config.truncation, threads=config.threads, **shared
        )
        synthesize_dataset(
            generator,
            load_pixel_classifier(folder),
            wanted,
            part.within("pairs"),
            picture_nets=load_picture_nets(folder),
            generator_hash=self.generator.hash,
            mpp=self.mpp,
        )

    def _segmenter(
        self, sources: Sequence[SegmentationSource], seed: int, part: PartReporter, init: Path | None = None
    ) -> Path:
        """Train a net; returns its folder."""
        config, classes = self.config, self.project.classes
        wanted = c.TrainSegmenterConfig(
            steps=config.steps,
            batch=config.batch,
            width=config.width,
            learning_rate=config.transfer_rate if init else config.learning_rate,
            validate_every=max(1, config.steps // 4),
            seed=seed,
            device=config.device,
            precision=config.precision,
            threads=config.threads,
        )
        return train_segmenter(list(sources), classes.num_classes, wanted, part, init, classes)

    def _judge(self, net: Path) -> NDArray[np.int64]:
        """Return the confusion matrix of each whole test picture, ``(cases, K + 1, K + 1)``."""
        predict = SegmenterTiles(net, resolve(self.config))
        classes = self.project.classes.num_classes
        counts = []
        for number in range(self.test.pictures):
            image, mask = self.test.picture(number)
            tall, wide = (-n % predict.stride_px for n in mask.shape)
            padded = np.pad(image, ((0, tall), (0, wide), (0, 0)), mode="edge")
            pixels = torch.from_numpy(padded).permute(2, 0, 1)[None]
            found = predict(pixels)[0].argmax(0).numpy()[: mask.shape[0], : mask.shape[1]] + 1
            counts.append(confusion_matrix(mask, found.astype(np.uint8), classes))
        return np.stack(counts)

    def _patches_to_annotate(self, rng: np.random.Generator) -> NDArray[np.int64]:
        """Return the patches in random order, those with several classes first: a person picks them, too."""
        order = rng.permutation(len(self.annotated))
        classes = [len(np.unique(mask[mask > 0])) for mask in self.annotated.batch(order)[1]]
        return order[np.argsort(np.array(classes) < 2, kind="stable")]

    def _effort(self, masks: NDArray[np.uint8]) -> Effort:
        return Effort(len(masks), float(np.count_nonzero(masks)) * (self.mpp / 1000) ** 2)


def _open_folder(
    folder: Path, what: str, config: c.LabelEfficiencyConfig, project: Project, side: int, mpp: float
) -> PictureFolder:
    """Open a folder of pictures and masks; an empty path is a field that nobody filled in."""
    if folder == Path() or not folder.is_dir():
        raise ConfigError(
            f"there is no folder {folder} of {what} pictures",
            "a folder with pictures and masks/ of the same names",
            f"give it with --{what}",
        )
    return PictureFolder(folder, config.picture_mpp, project.classes, side, mpp)


def _mean_effort(efforts: Sequence[Effort]) -> Effort:
    return Effort(efforts[0].images, float(np.mean([effort.area_mm2 for effort in efforts])))


def _plain(summaries: Sequence[ArmSummary]) -> list[dict[str, object]]:
    """Return what JSON can hold: every figure of every arm."""
    return [
        {
            "arm": summary.arm.name,
            "images": summary.arm.effort.images,
            "area_mm2": summary.arm.effort.area_mm2,
            "mcc": [summary.mcc.value, summary.mcc.low, summary.mcc.high],
            "mcc_by_seed": list(summary.by_seed),
            "mean_dice": summary.mean_dice,
            "ahead_of": {name: [d.value, d.low, d.high] for name, d in summary.ahead_of.items()},
        }
        for summary in summaries
    ]
