"""Stages beside the main flow: what comes in where people bring it, one function per stage.

::

    invert_patches: real patches -> samples (then on as drawn ones: paint -> train_pixel_classifier ...)
    mix_samples: samples -> more samples, by mixing the styles of two or moving one
    import_block_labels -> (estimate) -> train_super_resolution: coarse labels -> a segmenter
    train_weakly: labels of whole slides -> a segmenter
    train_patch_gan -> predict_patch_map: few labeled pixels -> a patch classifier -> a heatmap

The functions are registered, and run, with those of :mod:`~napari_histogan.pipeline`.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from napari_histogan import config as c
from napari_histogan.block_inputs import HEATMAP, block_labels_of, block_training, write_sheet
from napari_histogan.errors import ConfigError, SlideNotFound, SlideTooSmall
from napari_histogan.geometry import Region
from napari_histogan.inference.mixing import mix_samples as run_mixing
from napari_histogan.inference.patch_map import predict_patch_map as run_patch_classifier
from napari_histogan.inference.real_patches import ReadPatch, quality
from napari_histogan.inference.real_patches import invert_patches as search_patches
from napari_histogan.inference.sampling import load_samples
from napari_histogan.models.generator_file import DISCRIMINATOR_FILE, load_discriminator, load_generator
from napari_histogan.patch_inputs import judge as judge_patches
from napari_histogan.patch_inputs import map_shower, patch_data
from napari_histogan.progress import Reporter
from napari_histogan.project.artifacts import Artifact, Parent
from napari_histogan.project.slide_labels import slide_labels_parent
from napari_histogan.project.store import Project
from napari_histogan.slide_label_inputs import judge, labeled_slides, labels_file, show_loss, slide_mapper
from napari_histogan.slides.patch_plan import PatchPlan
from napari_histogan.slides.picture import read_picture
from napari_histogan.slides.reader import PICTURE_SUFFIXES, SlideReader
from napari_histogan.stage_inputs import (
    generator_mpp,
    generator_of,
    numbers_of,
    open_entry,
    patch_stream,
    stage_input,
)
from napari_histogan.training.train_patch_gan import train_patch_gan as run_patch_training
from napari_histogan.training.train_super_resolution import train_super_resolution as run_super_resolution
from napari_histogan.training.train_weakly import train_weakly as run_weak_training

SUFFIXES = (*PICTURE_SUFFIXES, ".tif", ".tiff")
"""Of pictures in a folder."""


def invert_patches(project: Project, config: c.InvertPatchesConfig, reporter: Reporter) -> Artifact:
    """Find real patches in the generator, so that they are painted and used like drawn samples."""
    source = stage_input(project, reporter, config.generator, "generator")
    generator, mpp = load_generator(source.path), generator_mpp(source)
    side = generator.spec.img_resolution
    judge = source.path / DISCRIMINATOR_FILE
    parents: list[Artifact | Parent] = [source]
    with ExitStack() as held:
        if config.paths:
            read, count = _pictures(config.paths, side, reporter)
        elif config.places:
            slide = held.enter_context(open_entry(project.slide(config.slide)))
            read, count = _places(slide, config.centers(), side, mpp)
        else:
            planned = stage_input(project, reporter, config.patches, "patches")
            parents.append(planned)
            plan = replace(PatchPlan.load(planned.path), patch_px=side, mpp=mpp)
            plan_config = c.make_config(c.ExtractPatchesConfig, planned.config, planned.id)
            stream = held.enter_context(closing(patch_stream(plan, plan_config, config.seed, dihedral=False)))
            read, count = stream.patch, config.count
        out = search_patches(
            generator,
            read,
            count,
            config,
            reporter,
            discriminator=load_discriminator(judge) if judge.exists() else None,
            generator_hash=source.hash,
            mpp=mpp,
        )
    with project.new_artifact("samples", config, reporter, parents) as draft:
        draft.take(out)
        draft.summary.update(quality(draft.path))
    return draft.result


def mix_samples(project: Project, config: c.MixSamplesConfig, reporter: Reporter) -> Artifact:
    """Make new samples from old ones: every mix of two, or neighbors of one."""
    old = stage_input(project, reporter, config.samples, "samples")
    source = generator_of(project, old)
    samples = load_samples(old.path)
    out = run_mixing(load_generator(source.path), samples, config, reporter, generator_hash=source.hash)
    with project.new_artifact("samples", config, reporter, [source, old]) as draft:
        draft.take(out)
        count = len(load_samples(draft.path).w)
        draft.summary.update(count=count, truncation=samples.attributes.get("truncation"))
    return draft.result


def import_block_labels(project: Project, config: c.ImportBlockLabelsConfig, reporter: Reporter) -> Artifact:
    """Bring in coarse labels of a slide's blocks, or score the blocks with a net of the project."""
    entry = project.slide(config.slide)
    with open_entry(entry) as slide:
        labels, parents = block_labels_of(project, config, reporter, slide, entry.name)
        with project.new_artifact("block_labels", config, reporter, parents) as draft:
            labels.save(draft.path)
            write_sheet(draft.path, labels, slide, project.classes.names, config.seed)
            counts = zip(labels.values, labels.counts().tolist(), strict=True)
            draft.summary.update(slide=entry.name, block_um=labels.block_um, blocks=len(labels.places()))
            draft.summary["labels"] = ", ".join(f"{value}: {count}" for value, count in counts)
    return draft.result


def train_super_resolution(
    project: Project, config: c.TrainSuperResolutionConfig, reporter: Reporter
) -> Artifact:
    """Train a net that outlines classes from coarse labels of blocks alone."""
    with ExitStack() as held:
        found = block_training(project, config, reporter, held)
        folder = run_super_resolution(found.source, found.table, config, reporter, project.classes)
    with project.new_artifact("segmenter", config, reporter, found.parents) as draft:
        draft.take(folder)
        sources = ", ".join(parent.id for parent in found.parents)
        draft.summary.update(sources=sources, **numbers_of(draft.path / "segmenter.json"))
    return draft.result


def train_weakly(project: Project, config: c.TrainWeaklyConfig, reporter: Reporter) -> Artifact:
    """Train a net that outlines malign tissue from labels of whole slides alone, and score it."""
    with ExitStack() as held:
        slides = labeled_slides(project, config, reporter, held)
        parents = [slide_labels_parent(project)] if config.labels is None else []
        beta_1 = show_loss(config, reporter)
        folder = run_weak_training(slides, config, reporter, slide_mapper(config))
        figures = judge(slides, folder, config, reporter)
    with project.new_artifact("segmenter", config, reporter, parents) as draft:
        draft.take(folder)
        shutil.copyfile(labels_file(project, config), draft.path / "labels.csv")
        numbers = numbers_of(draft.path / "segmenter.json")
        draft.summary.update(sources=f"labels of {len(slides)} slides", beta_1=beta_1, **figures, **numbers)
    return draft.result


def train_patch_gan(project: Project, config: c.TrainPatchGanConfig, reporter: Reporter) -> Artifact:
    """Train a classifier of small patches from few labels, and score it by pictures kept back."""
    data = patch_data(project.classes.names, config, reporter)
    folder = run_patch_training(
        data.labels,
        config,
        reporter,
        mpp=data.mpp,
        preparation=data.preparation,
        show_map=map_shower(data, config),
    )
    figures = judge_patches(data, folder, config, reporter)
    with project.new_artifact("patch_classifier", config, reporter) as draft:
        draft.take(folder)
        draft.summary.update(
            pictures=len(data.learned),
            patches=len(data.labels.centers),
            adversarial=config.adversarial,
            channel=config.channel,
            mpp=data.mpp,
            **figures,
        )
    return draft.result


def predict_patch_map(project: Project, config: c.PredictPatchMapConfig, reporter: Reporter) -> Artifact:
    """Run a patch classifier over a slide; blocks appear in the run folder as they are done."""
    net = stage_input(project, reporter, config.patch_classifier, "patch_classifier")
    entry = project.slide(config.slide)
    out = reporter.run_dir / HEATMAP
    with open_entry(entry) as slide:
        summary = run_patch_classifier(slide, net.path, config, reporter, out)
    with project.new_artifact("heatmap", config, reporter, [net]) as draft:
        draft.take_whole(out)
        draft.summary.update(slide=entry.name, **summary)
    return draft.result


def _pictures(paths: tuple[Path, ...], side: int, reporter: Reporter) -> tuple[ReadPatch, int]:
    """Return the middles of pictures; refuse what is missing, unreadable, or too small."""
    files: list[Path] = []
    for path in paths:
        if not path.exists() or path == Path():
            raise ConfigError(f"there is no picture at {path}", "picture files or folders", "check the path")
        inside = (
            sorted(p for p in path.iterdir() if p.suffix.lower() in SUFFIXES) if path.is_dir() else [path]
        )
        if not inside:
            raise SlideNotFound(
                f"there are no pictures in {path}", "PNG, JPEG, or TIFF files", "choose another folder"
            )
        files += inside
    larger = 0
    for file in files:
        height, width = read_picture(file).shape[:2]
        if min(height, width) < side:
            raise SlideTooSmall(
                f"{file.name} has {height} x {width} pixels",
                f"at least {side} a side, the size that the generator paints",
                "cut it larger, or leave it out",
            )
        larger += max(height, width) > side
    if larger:
        reporter.warn(
            f"{larger} of {len(files)} pictures are larger than {side} px; the middle of each is taken, at "
            "the resolution that it has"
        )
    return (lambda k: _middle(read_picture(files[k]), side)), len(files)


def _middle(picture: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Cut the middle out of a picture (H, W, 3)."""
    y, x = (picture.shape[0] - side) // 2, (picture.shape[1] - side) // 2
    return picture[y : y + side, x : x + side]


def _places(
    slide: SlideReader, centers: list[tuple[float, float]], side: int, mpp: float
) -> tuple[ReadPatch, int]:
    """Return patches around places in a slide; refuse places outside of it."""
    slide.check_resolution(mpp)
    size = slide.size_at(mpp)
    regions = []
    for x, y in centers:
        if x >= size.width * mpp or y >= size.height * mpp:
            raise ConfigError(
                f"the place {x:g}, {y:g} um is outside of the slide {slide.path.name}",
                f"x below {size.width * mpp:.0f} and y below {size.height * mpp:.0f} um",
                "choose a place in the slide",
            )
        regions.append(Region(round(y / mpp) - side // 2, round(x / mpp) - side // 2, side, side))
    reads: list[Callable[[], NDArray[np.uint8]]] = [partial(slide.read_at, r, mpp) for r in regions]
    return (lambda k: reads[k]()), len(reads)
