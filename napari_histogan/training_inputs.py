"""What the training of a segmenter learns from: the sources that its config names, opened."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from napari_histogan import config as c
from napari_histogan.config.training_sources import SourceName, parse_source
from napari_histogan.errors import ConfigError
from napari_histogan.inference.sampling import load_samples
from napari_histogan.labels.interchange import read_annotations
from napari_histogan.progress import Reporter
from napari_histogan.project.artifacts import Artifact, Parent
from napari_histogan.project.inputs import keep_inputs
from napari_histogan.project.outside_files import file_parent
from napari_histogan.project.store import Project
from napari_histogan.slides.shelf import SlideShelf
from napari_histogan.stage_inputs import (
    generator_mpp,
    open_entry,
    painted_mask,
    stage_input,
    training_sources,
)
from napari_histogan.training.annotated_slides import AnnotatedSlide
from napari_histogan.training.datasets import SAME_MPP, ArrayPairs, SegmentationSource, ZarrPairs
from napari_histogan.training.picture_folders import PictureFolder

PAIRS = "pairs.zarr"


@dataclass(frozen=True, slots=True)
class SegmenterInputs:
    """What the training of a segmenter starts from.

    Attributes
    ----------
    sources
        What it learns from.
    results
        The project's results that it starts from: data sets, corrections, and an earlier net.
    init
        Folder of the earlier net, or None.
    parents
        The results, and the outline files by their content.
    """

    sources: list[SegmentationSource]
    results: list[Artifact]
    init: Path | None
    parents: list[Artifact | Parent]


@contextmanager
def segmenter_inputs(
    project: Project, config: c.TrainSegmenterConfig, reporter: Reporter
) -> Iterator[SegmenterInputs]:
    """Open the sources of a segmenter's training; slides stay open until the end.

    Raises
    ------
    ArtifactMissing, ConfigError, LabelError, SlideError
        If a source is not there or not usable, or the resolution is not known.
    """
    named = [parse_source(text) for text in config.sources]
    results = [source for source in named if source.kind == "artifact"]
    parents: list[Artifact] = []
    if results or not named:
        choose = partial(training_sources, project, tuple(source.name for source in results))
        parents = keep_inputs(project, reporter.run_dir, "sources", choose)
    weights = [source.weight for source in results] or [None] * len(parents)
    pairs: list[SegmentationSource] = []
    for artifact, weight in zip(parents, weights, strict=True):
        usual = config.correction_weight if artifact.kind == "corrections" else 1.0
        pairs.append(ZarrPairs(artifact.path / PAIRS, usual if weight is None else weight))
    painted = _painted_behind(project, config, parents)
    if painted:
        pairs.append(_painted_pairs(project, painted, pairs, config.painted_share))
    with closing(SlideShelf()) as shelf:
        others = [source for source in named if source.kind != "artifact"]
        if others:
            side = pairs[0].patch_px if pairs else config.patch_px
            mpp = config.mpp or (pairs[0].mpp if pairs else _usual_mpp(project))
            pairs += [_open(project, config, source, side, mpp, shelf) for source in others]
        init = None
        if config.init:
            earlier = stage_input(project, reporter, config.init, "segmenter")
            init, known = earlier.path, partial(_learned_earlier, project, earlier, parents)
            old = keep_inputs(project, reporter.run_dir, "rehearsed", known) if config.rehearsal else []
            pairs += _rehearsed_pairs(old, pairs, config.rehearsal, reporter)
            parents = [*parents, earlier, *old]
        outlines = [file_parent(source.path) for source in others if source.kind == "outlines"]
        masks = map(project.masks_parent, painted)
        yield SegmenterInputs(pairs, parents, init, [*parents, *painted, *masks, *outlines])


def _learned_earlier(project: Project, net: Artifact, sources: list[Artifact]) -> list[Artifact]:
    """Return what a net learned from, itself or as the net that it began with, beside the sources."""
    there = {item.id: item for item in project.artifacts()}
    known, waiting, found = {item.id for item in sources}, [net], list[Artifact]()
    while waiting:
        for parent in waiting.pop().parents:
            item = there.get(parent.id)
            if item is None or item.id in known or item.hash != parent.hash:
                continue
            known.add(item.id)
            if item.kind == "segmenter":
                waiting.append(item)
            elif item.kind in ("dataset", "corrections"):
                found.append(item)
    return found


def _rehearsed_pairs(
    old: list[Artifact], new: list[SegmentationSource], share: float, reporter: Reporter
) -> list[SegmentationSource]:
    """Open what the earlier net learned from, weighing so much that it is this share of all draws."""
    opened = [ZarrPairs(item.path / PAIRS) for item in old]
    fit = [p for p in opened if p.patch_px == new[0].patch_px and abs(p.mpp / new[0].mpp - 1) <= SAME_MPP]
    if len(fit) < len(opened):
        reporter.warn("what the earlier net learned from has patches of another size; it is not rehearsed")
    for pairs in fit:
        pairs.weight = _weight_for(share, new, sum(map(len, fit)))
    return list(fit)


def _weight_for(share: float, others: list[SegmentationSource], count: int) -> float:
    """Return the weight with which so many patches are this share of all draws, beside other sources."""
    drawn = sum(source.weight * len(source) for source in others)
    return share / (1 - share) * drawn / count


def _painted_behind(
    project: Project, config: c.TrainSegmenterConfig, sources: list[Artifact]
) -> list[Artifact]:
    """Return the painted samples that the data sets go back to, as far as they are there."""
    if not config.painted_share:
        return []
    there = {item.id: item for item in project.artifacts()}
    datasets = [source for source in sources if source.kind == "dataset"]
    judges = [there[p.id] for source in datasets for p in source.parents if p.id in there]
    behind = {p.id: there[p.id] for judge in judges for p in judge.parents if p.id in there}
    return [item for item in behind.values() if item.kind == "samples" and project.painted(item)]


def _painted_pairs(
    project: Project, sets: list[Artifact], others: list[SegmentationSource], share: float
) -> ArrayPairs:
    """Return painted samples with their masks, weighing so much that they are this share of all draws."""
    images, masks = [], []
    for samples in sets:
        indices, stored = project.painted(samples), load_samples(samples.path)
        images += [stored.image[index] for index in indices]
        masks += [painted_mask(project, samples, index) for index in indices]
    weight = _weight_for(share, others, len(images))
    return ArrayPairs(np.stack(images), np.stack(masks), others[0].mpp, weight)


def _open(
    project: Project,
    config: c.TrainSegmenterConfig,
    source: SourceName,
    side: int,
    mpp: float,
    shelf: SlideShelf,
) -> SegmentationSource:
    """Open outlines on a slide, or a folder."""
    weight = 1.0 if source.weight is None else source.weight
    if source.kind == "folder":
        found = source.mpp or mpp
        return PictureFolder(source.path, found, project.classes, side, mpp, weight, config.accept_far_mpp)
    slide = shelf.keep(open_entry(project.slide(source.name)))
    return AnnotatedSlide(
        slide,
        read_annotations(source.path),
        project.classes,
        side,
        mpp,
        config.downsamples,
        weight,
        config.accept_far_mpp,
    )


def _usual_mpp(project: Project) -> float:
    """Return the newest generator's resolution; a project without one has to be told."""
    generators = project.artifacts("generator")
    if not generators:
        raise ConfigError(
            "nothing says at which resolution the net is to work", "um per pixel", "give it with --mpp"
        )
    return generator_mpp(generators[-1])
