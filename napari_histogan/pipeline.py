"""READ FIRST: the data flow, one function per stage.

::

    add_slides -> extract_patches -> train_gan (or import_gan) -> sample_images -> (paint)
                                       real patches -> invert_patches -> (paint)
        -> train_pixel_classifier -> synthesize_dataset -> train_segmenter -> predict_heatmap
        -> evaluate -> (correct) -> merge_corrections -> train_segmenter ...

Each function takes the project, its frozen config, and a reporter, and returns the
artifact that it made.  What it needs from earlier stages it finds in the project: the
newest of its kind, unless the config names one; a classifier learns from all painted
sets of samples of one generator.  Side doors, such as ``invert_patches``, are functions
of :mod:`~napari_histogan.side_doors`.  Everything that can be wrong with the
input is said before long work starts.  State that a stopped stage needs to go on lives
in ``reporter.run_dir``; the result enters the project by one rename at the end.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from napari_histogan import config as c
from napari_histogan.block_inputs import HEATMAP
from napari_histogan.errors import ArtifactMissing, ConfigError, LabelError, SlideError
from napari_histogan.evaluation.classifier_scores import score_classifier
from napari_histogan.evaluation.heatmap_report import worst_and_best, write_heatmap_report
from napari_histogan.evaluation.heatmap_scores import score_slides, scores_as_json
from napari_histogan.evaluation_inputs import compared_heatmaps, count_slides, read_slide
from napari_histogan.inference.detected_objects import write_objects
from napari_histogan.inference.sampling import sample
from napari_histogan.inference.synthetic_dataset import synthesize_dataset as make_pairs
from napari_histogan.models.generator_file import generator_info, load_generator
from napari_histogan.models.picture_nets import load_picture_nets
from napari_histogan.models.pixel_classifier import load_pixel_classifier
from napari_histogan.progress import Reporter
from napari_histogan.project.artifacts import Artifact, Parent
from napari_histogan.project.inputs import keep_inputs
from napari_histogan.project.kept_back import LEARNED, kept_back
from napari_histogan.project.net_in_use import net_in_use
from napari_histogan.project.painted_sets import painted_sets
from napari_histogan.project.reads import settled
from napari_histogan.project.slide_list import SlideEntry, SlideNames, find_several, names_several
from napari_histogan.project.store import Project
from napari_histogan.side_doors import (
    import_block_labels,
    invert_patches,
    mix_samples,
    predict_patch_map,
    train_patch_gan,
    train_super_resolution,
    train_weakly,
)
from napari_histogan.slide_heatmaps import SlideHeatmap, SlideHeatmaps
from napari_histogan.slides.reader import find_slides, open_slide
from napari_histogan.slides.stain import stain_colors
from napari_histogan.slides.stored_colors import conversion
from napari_histogan.stage_inputs import (
    check_stop,
    default_mpp,
    earlier_classifier,
    gan_inputs,
    generator_mpp,
    generator_of,
    numbers_of,
    open_entry,
    open_generator,
    painted_samples,
    patch_stream,
    picture_sheet,
    planned_patches,
    stage_input,
)
from napari_histogan.studies import label_efficiency
from napari_histogan.training.datasets import write_pairs
from napari_histogan.training.feature_cache import FeatureCache
from napari_histogan.training.region_patches import cut_region
from napari_histogan.training.train_gan import train_gan as run_gan_training
from napari_histogan.training.train_pixel_classifier import train_pixel_classifier as run_classifier_training
from napari_histogan.training.train_segmenter import train_segmenter as run_segmenter_training
from napari_histogan.training_inputs import PAIRS, segmenter_inputs

THUMBNAIL_PX = 256
FEATURES = Path("cache", "features")


def add_slides(project: Project, config: c.AddSlidesConfig, reporter: Reporter) -> Artifact:
    """Register slides with their size, resolution, fingerprint, and a thumbnail."""
    files = find_slides(config.paths)
    names, entries = SlideNames(project.slides()), list[SlideEntry]()
    with project.new_artifact("slides", config, reporter) as draft:
        for done, path in enumerate(files):
            check_stop(reporter)
            reporter.progress(done, len(files), "slides", "Looking at the slides")
            with open_slide(path, config.mpp) as slide:
                name = names.take(path)
                thumbnail = slide.thumbnail(THUMBNAIL_PX)
                colors = stain_colors(thumbnail)
                stain = {"colors": list(colors)} if colors else None
                known = path.resolve(), slide.mpp, slide.size, slide.fingerprint(), stain
                entries.append(SlideEntry(name, *known))
                Image.fromarray(thumbnail).save(draft.path / f"{name}.png")
            if said := conversion(path):
                reporter.warn(f"{name} is stored as {said}.")
        draft.summary.update(slides=len(entries), names=", ".join(e.name for e in entries[:10]))
        project.add_slide_entries(entries)
    reporter.progress(len(files), len(files), "slides", "Looking at the slides")
    return draft.result


def extract_patches(project: Project, config: c.ExtractPatchesConfig, reporter: Reporter) -> Artifact:
    """Find the tissue of each slide and plan the stream of random patches; none is copied."""
    entries = [project.slide(name) for name in config.slides] if config.slides else project.slides()
    if not entries:
        raise ArtifactMissing("the project has no slides", "one slide or more", "run histogan add-slides")
    with project.new_artifact("patches", config, reporter) as draft:
        plan = planned_patches(entries, config, draft.path, reporter)
        with closing(patch_stream(plan, config, seed=config.seed)) as stream:
            picture_sheet(stream.next_batch(64)).save(draft.path / "examples.png")
        draft.summary.update(slides=len(entries), patch_px=config.patch_px, mpp=config.mpp)
    return draft.result


def train_gan(project: Project, config: c.TrainGanConfig, reporter: Reporter) -> Artifact:
    """Train StyleGAN2 on the stream of patches."""
    if not (reporter.run_dir / "config.toml").exists():  # a job's numbers were settled when it was started
        config = settled(project, config)
    with gan_inputs(project, config, reporter) as found:
        folder = run_gan_training(found.patches, config, reporter, found.init, found.init_discriminator)
    with project.new_artifact("generator", config, reporter, found.parents) as draft:
        draft.take(folder)
        info = generator_info(draft.path)
        draft.summary.update({k: v for k, v in info.items() if isinstance(v, int | float | str)})
    return draft.result


def import_gan(project: Project, config: c.ImportGanConfig, reporter: Reporter) -> Artifact:
    """Bring in a generator of this program or of another one; nothing that its file contains is run."""
    if not config.path.exists() or config.path == Path():
        raise ConfigError(
            f"there is no generator at {config.path}",
            "a folder or .safetensors file of this program, or a .pkl or .pt of another one",
            "check the path",
        )
    imported = open_generator(config.path, config.checkpoint)
    mpp = config.mpp or imported.info.get("mpp")
    if mpp is None:
        raise ConfigError(
            f"the generator {config.path} does not say its resolution", "um per pixel", "give it with --mpp"
        )
    with project.new_artifact("generator", config, reporter) as draft:
        imported.save(draft.path, mpp)
        draft.summary.update(resolution=imported.generator.spec.img_resolution, mpp=mpp)
    return draft.result


def sample_images(project: Project, config: c.SampleImagesConfig, reporter: Reporter) -> Artifact:
    """Draw samples to browse and paint."""
    source = stage_input(project, reporter, config.generator, "generator")
    generator, mpp = load_generator(source.path), generator_mpp(source)
    out = sample(generator, config, reporter, generator_hash=source.hash, mpp=mpp)
    with project.new_artifact("samples", config, reporter, [source]) as draft:
        draft.take(out)
        draft.summary.update(count=config.count, truncation=config.truncation)
    return draft.result


def train_pixel_classifier(
    project: Project, config: c.TrainPixelClassifierConfig, reporter: Reporter
) -> Artifact:
    """Learn the classes from the painted samples and the generator's features."""
    choose = partial(painted_sets, project, config.samples)
    sets = keep_inputs(project, reporter.run_dir, "samples", choose)
    source = generator_of(project, sets[0])
    parents: list[Artifact | Parent] = [source, *sets, *map(project.masks_parent, sets)]
    generator = load_generator(source.path)
    data = painted_samples(project, sets, generator.spec)
    before = earlier_classifier(project, reporter, config.init, source)
    cached = project.root / FEATURES / f"{source.hash[:16]}-{config.blocks}"
    folder = run_classifier_training(
        generator,
        data,
        project.classes,
        config,
        reporter,
        generator_hash=source.hash,
        init=before.path if before else None,
        cache=FeatureCache(cached) if config.feature_cache else None,
    )
    judged = score_classifier(folder, seed=config.seed)
    parents += [before] if before else []
    with project.new_artifact("pixel_classifier", config, reporter, parents) as draft:
        draft.take(folder)
        draft.summary.update(painted=len(data), **judged, **numbers_of(draft.path / "classifier.json"))
    return draft.result


def synthesize_dataset(project: Project, config: c.SynthesizeDatasetConfig, reporter: Reporter) -> Artifact:
    """Make image and mask pairs with the generator and the pixel classifier."""
    judge = stage_input(project, reporter, config.pixel_classifier, "pixel_classifier")
    source = generator_of(project, judge)
    classifier = load_pixel_classifier(judge.path)
    out, summary = make_pairs(
        load_generator(source.path),
        classifier,
        config,
        reporter,
        generator_hash=source.hash,
        mpp=generator_mpp(source),
        picture_nets=load_picture_nets(judge.path),
    )
    with project.new_artifact("dataset", config, reporter, [source, judge]) as draft:
        draft.take(out)
        draft.summary.update(summary)
    return draft.result


def train_segmenter(project: Project, config: c.TrainSegmenterConfig, reporter: Reporter) -> Artifact:
    """Train the net that runs over slides, on pairs, outlines on slides, folders, or a mix of them."""
    with segmenter_inputs(project, config, reporter) as found:
        classes = project.classes
        parts = found.sources, classes.num_classes, config, reporter, found.init, classes
        folder = run_segmenter_training(*parts)
    with project.new_artifact("segmenter", config, reporter, found.parents) as draft:
        draft.take(folder)
        sources = ", ".join([*(p.id for p in found.results), *config.sources])
        draft.summary.update(sources=sources, **numbers_of(draft.path / "segmenter.json"))
    return draft.result


def predict_heatmap(project: Project, config: c.PredictHeatmapConfig, reporter: Reporter) -> Artifact:
    """Run a segmenter over one slide, or several; blocks appear in the run folder as they are done."""
    net = stage_input(project, reporter, config.segmenter or net_in_use(project), "segmenter")
    slides = find_several(project.slides(), config.slide)
    if names_several(project.slides(), config.slide):
        return SlideHeatmaps(project, net, slides, config, reporter).run()
    heatmap = SlideHeatmap(project, net, slides[0], config, reporter)
    return heatmap.finish(heatmap.predict(), config, reporter)


def detect_objects(project: Project, config: c.DetectObjectsConfig, reporter: Reporter) -> Artifact:
    """Turn a heatmap into outlines and a table of their figures."""
    heatmap = stage_input(project, reporter, config.heatmap, "heatmap")
    entry = project.slide(str(heatmap.summary["slide"]))
    with project.new_artifact("objects", config, reporter, [heatmap]) as draft:
        out = heatmap.path / HEATMAP, draft.path
        counts = write_objects(*out, entry.mpp, project.classes, config, reporter)
        draft.summary.update(slide=entry.name, heatmap=heatmap.id, objects=sum(counts.values()))
        draft.summary.update({f"objects_{name}": count for name, count in counts.items()})
    return draft.result


def evaluate(project: Project, config: c.EvaluateConfig, reporter: Reporter) -> Artifact:
    """Compare heatmaps with reference outlines: MCC, per-class Dice, objects, intervals."""
    heatmaps, outlines = compared_heatmaps(project, config, reporter)
    slides = list(count_slides(project, heatmaps, config, reporter, HEATMAP))
    scores = score_slides(slides, project.classes, config)
    try:
        pictures = worst_and_best(slides, partial(read_slide, project, heatmaps), project.classes)
    except SlideError as error:
        reporter.warn(f"the report has no pictures: {error}")
        pictures = []
    with project.new_artifact("evaluation", config, reporter, [*heatmaps, *outlines]) as draft:
        (draft.path / "evaluation.json").write_text(scores_as_json(scores, slides), encoding="utf-8")
        which, where = ", ".join(a.id for a in heatmaps), ", ".join(slide.name for slide in slides)
        write_heatmap_report(draft.path / "report.html", f"{which} on {where}", scores, pictures, slides)
        draft.summary.update(heatmap=which, slide=where, slides=len(slides), **scores.summary())
    return draft.result


def merge_corrections(project: Project, config: c.MergeCorrectionsConfig, reporter: Reporter) -> Artifact:
    """Cut corrected regions of slides into training patches."""
    parent = project.corrections_parent()
    known = {correction.name: correction for correction in project.corrections()}
    missing = [name for name in config.regions if name not in known]
    if missing or not known:
        raise LabelError(
            f"there is no corrected region {missing[0]!r}" if missing else "nothing was corrected yet",
            "one of " + ", ".join(known) if known else "one corrected region or more",
            "correct a region in the dock first",
        )
    back = set() if config.regions else kept_back(list(known.values()), config.keep_back)
    chosen = [known[name] for name in config.regions or known if name not in back]
    mpp = config.mpp or default_mpp(project, chosen)
    images, masks, groups = [], [], []
    for number, correction in enumerate(chosen):
        check_stop(reporter)
        reporter.progress(number, len(chosen), "regions", "Reading corrected regions")
        with open_entry(project.slide(correction.slide)) as slide:
            region = correction.region, correction.mask, correction.mpp
            cut = cut_region(slide, *region, config.patch_px, mpp, config.overlap)
        images.append(cut[0])
        masks.append(cut[1])
        groups.append(np.full(len(cut[0]), number))
    with project.new_artifact("corrections", config, reporter, [parent]) as draft:
        stacked = np.concatenate(images), np.concatenate(masks)
        write_pairs(draft.path / PAIRS, *stacked, mpp, np.concatenate(groups))
        draft.summary.update(regions=len(chosen), patches=len(stacked[0]), mpp=mpp)
        draft.summary.update({LEARNED: [each.name for each in chosen], "kept_back": len(back)})
    return draft.result


STAGE_FUNCTIONS: dict[str, Callable[[Project, Any, Reporter], Artifact]] = {
    function.__name__: function
    for function in (
        add_slides,
        extract_patches,
        train_gan,
        import_gan,
        sample_images,
        invert_patches,
        mix_samples,
        train_pixel_classifier,
        synthesize_dataset,
        train_segmenter,
        import_block_labels,
        train_super_resolution,
        train_weakly,
        train_patch_gan,
        predict_heatmap,
        predict_patch_map,
        detect_objects,
        evaluate,
        merge_corrections,
        label_efficiency,
    )
}
"""Every stage's function by its name, in the order of the data flow."""
