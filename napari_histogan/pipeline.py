"""READ FIRST: the data flow, one function per stage.

::

    add_slides -> extract_patches -> train_gan (or import_gan) -> sample_images -> (paint)
        -> train_pixel_classifier -> synthesize_dataset -> train_segmenter -> predict_heatmap
        -> evaluate -> (correct) -> merge_corrections -> train_segmenter ...

Each function takes the project, its frozen config, and a reporter, and returns the
artifact that it made.  What it needs from earlier stages it finds in the project: the
newest of its kind, unless the config names one.  Everything that can be wrong with the
input is said before long work starts.  State that a stopped stage needs to go on lives
in ``reporter.run_dir``; the result enters the project by one rename at the end.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from napari_histogan import config as c
from napari_histogan.errors import ArtifactMissing, ConfigError, LabelError, ModelError, SlideError, Stopped
from napari_histogan.evaluation.heatmap_scores import evaluate_heatmap, scores_as_json
from napari_histogan.inference.heatmap import predict_heatmap as run_segmenter
from napari_histogan.inference.sampling import load_samples, sample
from napari_histogan.inference.synthetic_dataset import synthesize_dataset as make_pairs
from napari_histogan.labels.interchange import read_annotations
from napari_histogan.models.generator_file import generator_info, load_generator
from napari_histogan.models.official_checkpoint import import_generator
from napari_histogan.models.pixel_classifier import load_pixel_classifier
from napari_histogan.progress import Reporter
from napari_histogan.project.artifacts import Artifact, Parent
from napari_histogan.project.atomic import read_json
from napari_histogan.project.corrections import Correction
from napari_histogan.project.inputs import keep_inputs
from napari_histogan.project.slide_list import SlideEntry, unique_name
from napari_histogan.project.store import Project
from napari_histogan.slides.patch_plan import PatchPlan, plan_patches
from napari_histogan.slides.patches import PatchStream
from napari_histogan.slides.reader import SlideReader, find_slides, open_slide
from napari_histogan.training.datasets import SegmentationSource, ZarrPairs, write_pairs
from napari_histogan.training.region_patches import cut_region
from napari_histogan.training.train_gan import train_gan as run_gan_training
from napari_histogan.training.train_pixel_classifier import PaintedSamples
from napari_histogan.training.train_pixel_classifier import train_pixel_classifier as run_classifier_training
from napari_histogan.training.train_segmenter import train_segmenter as run_segmenter_training

THUMBNAIL_PX = 256
PAIRS = "pairs.zarr"
HEATMAP = "heatmap.zarr"


def add_slides(project: Project, config: c.AddSlidesConfig, reporter: Reporter) -> Artifact:
    """Register slides with their size, resolution, fingerprint, and a thumbnail."""
    files = find_slides(config.paths)
    known, entries = project.slides(), list[SlideEntry]()
    with project.new_artifact("slides", config, reporter) as draft:
        for done, path in enumerate(files):
            _check_stop(reporter)
            reporter.progress(done, len(files), "slides", "Looking at the slides")
            with open_slide(path, config.mpp) as slide:
                name = unique_name(path, [*known, *entries])
                entries.append(SlideEntry(name, path.resolve(), slide.mpp, slide.size, slide.fingerprint()))
                Image.fromarray(slide.thumbnail(THUMBNAIL_PX)).save(draft.path / f"{name}.png")
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
        readers = [_open(entry) for entry in entries]
        try:
            plan = plan_patches(readers, config.patch_px, config.mpp, draft.path, reporter=reporter)
        finally:
            for reader in readers:
                reader.close()
        with closing(_stream(plan, config, seed=config.seed)) as stream:
            _sheet(stream.next_batch(64)).save(draft.path / "examples.png")
        draft.summary.update(slides=len(entries), patch_px=config.patch_px, mpp=config.mpp)
    return draft.result


def train_gan(project: Project, config: c.TrainGanConfig, reporter: Reporter) -> Artifact:
    """Train StyleGAN2 on the stream of patches."""
    planned = _input(project, reporter, config.patches, "patches")
    plan = PatchPlan.load(planned.path)
    parents = [planned]
    init = None
    if config.init:
        parents.append(_input(project, reporter, config.init, "generator"))
        init = load_generator(parents[-1].path)
    plan_config = c.make_config(c.ExtractPatchesConfig, planned.config, planned.id)
    with closing(_stream(plan, plan_config, config.seed, dihedral=config.mirror_and_rotate)) as stream:
        folder = run_gan_training(stream, config, reporter, init)
    with project.new_artifact("generator", config, reporter, parents) as draft:
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
    imported = import_generator(config.path)
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
    source = _input(project, reporter, config.generator, "generator")
    generator, mpp = load_generator(source.path), _generator_mpp(source)
    out = sample(generator, config, reporter, generator_hash=source.hash, mpp=mpp)
    with project.new_artifact("samples", config, reporter, [source]) as draft:
        draft.take(out)
        draft.summary.update(count=config.count, truncation=config.truncation)
    return draft.result


def train_pixel_classifier(
    project: Project, config: c.TrainPixelClassifierConfig, reporter: Reporter
) -> Artifact:
    """Learn the classes from the painted samples and the generator's features."""
    samples = _input(project, reporter, config.samples, "samples")
    source = _generator_of(project, samples)
    painted = project.painted(samples)
    if not painted:
        raise LabelError(
            f"no sample of {samples.id} is painted", "one painted sample or more", "paint in the dock first"
        )
    parents: Sequence[Artifact | Parent] = (source, samples, project.masks_parent(samples))
    stored = load_samples(samples.path)
    masks = np.stack([_mask(project, samples, index) for index in painted])
    data = PaintedSamples(stored.w[painted], stored.noise_seed[painted], masks)
    folder = run_classifier_training(
        load_generator(source.path), data, project.classes, config, reporter, generator_hash=source.hash
    )
    with project.new_artifact("pixel_classifier", config, reporter, parents) as draft:
        draft.take(folder)
        draft.summary.update(painted=len(painted), **_numbers(draft.path / "classifier.json"))
    return draft.result


def synthesize_dataset(project: Project, config: c.SynthesizeDatasetConfig, reporter: Reporter) -> Artifact:
    """Make image and mask pairs with the generator and the pixel classifier."""
    judge = _input(project, reporter, config.pixel_classifier, "pixel_classifier")
    source = _generator_of(project, judge)
    classifier = load_pixel_classifier(judge.path)
    out, summary = make_pairs(
        load_generator(source.path),
        classifier,
        config,
        reporter,
        generator_hash=source.hash,
        mpp=_generator_mpp(source),
    )
    with project.new_artifact("dataset", config, reporter, [source, judge]) as draft:
        draft.take(out)
        draft.summary.update(summary)
    return draft.result


def train_segmenter(project: Project, config: c.TrainSegmenterConfig, reporter: Reporter) -> Artifact:
    """Train the net that runs over slides, on synthetic pairs, corrections, or both."""
    choose = partial(_training_sources, project, config.sources)
    parents = keep_inputs(project, reporter.run_dir, "sources", choose)
    pairs: list[SegmentationSource] = [
        ZarrPairs(a.path / PAIRS, config.correction_weight if a.kind == "corrections" else 1.0)
        for a in parents
    ]
    init = None
    if config.init:
        parents.append(_input(project, reporter, config.init, "segmenter"))
        init = parents[-1].path
    classes = project.classes
    folder = run_segmenter_training(pairs, classes.num_classes, config, reporter, init, classes)
    with project.new_artifact("segmenter", config, reporter, parents) as draft:
        draft.take(folder)
        sources = ", ".join(p.id for p in parents)
        draft.summary.update(sources=sources, **_numbers(draft.path / "segmenter.json"))
    return draft.result


def predict_heatmap(project: Project, config: c.PredictHeatmapConfig, reporter: Reporter) -> Artifact:
    """Run a segmenter over a slide; blocks appear in the run folder as they are done."""
    net = _input(project, reporter, config.segmenter, "segmenter")
    entry = project.slide(config.slide)
    out = reporter.run_dir / HEATMAP
    with _open(entry) as slide:
        summary = run_segmenter(slide, net.path, config, reporter, out)
    with project.new_artifact("heatmap", config, reporter, [net]) as draft:
        draft.take_whole(out)
        draft.summary.update(slide=entry.name, **summary)
    return draft.result


def evaluate(project: Project, config: c.EvaluateConfig, reporter: Reporter) -> Artifact:
    """Compare a heatmap with reference outlines: MCC, per-class Dice, intervals."""
    for path in (config.reference, config.ignore):
        if path is not None and not path.is_file():
            raise ConfigError(f"there are no outlines at {path}", "a GeoJSON file", "check the path")
    heatmap = _input(project, reporter, config.heatmap, "heatmap")
    entry = project.slide(str(heatmap.summary["slide"]))
    reference = read_annotations(config.reference)
    ignored = read_annotations(config.ignore) if config.ignore else []
    with project.new_artifact("evaluation", config, reporter, [heatmap]) as draft:
        bootstrap = config.block_um, config.bootstrap, config.seed
        scores = evaluate_heatmap(
            heatmap.path / HEATMAP, reference, ignored, project.classes, entry.mpp, *bootstrap
        )
        (draft.path / "evaluation.json").write_text(scores_as_json(scores), encoding="utf-8")
        draft.summary.update(heatmap=heatmap.id, slide=entry.name, **scores.summary())
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
    chosen = [known[name] for name in config.regions] if config.regions else list(known.values())
    mpp = config.mpp or _default_mpp(project, chosen)
    images, masks, groups = [], [], []
    for number, correction in enumerate(chosen):
        _check_stop(reporter)
        reporter.progress(number, len(chosen), "regions", "Reading corrected regions")
        with _open(project.slide(correction.slide)) as slide:
            region = correction.region, correction.mask, correction.mpp
            cut = cut_region(slide, *region, config.patch_px, mpp, config.overlap)
        images.append(cut[0])
        masks.append(cut[1])
        groups.append(np.full(len(cut[0]), number))
    with project.new_artifact("corrections", config, reporter, [parent]) as draft:
        stacked = np.concatenate(images), np.concatenate(masks)
        write_pairs(draft.path / PAIRS, *stacked, mpp, np.concatenate(groups))
        draft.summary.update(regions=len(chosen), patches=len(stacked[0]), mpp=mpp)
    return draft.result


STAGE_FUNCTIONS: dict[str, Callable[[Project, Any, Reporter], Artifact]] = {
    function.__name__: function
    for function in (
        add_slides,
        extract_patches,
        train_gan,
        import_gan,
        sample_images,
        train_pixel_classifier,
        synthesize_dataset,
        train_segmenter,
        predict_heatmap,
        evaluate,
        merge_corrections,
    )
}
"""Every stage's function by its name, in the order of the data flow."""


def _open(entry: SlideEntry) -> SlideReader:
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


def _stream(plan: PatchPlan, config: c.ExtractPatchesConfig, seed: int, dihedral: bool = True) -> PatchStream:
    return PatchStream(plan, seed, min_tissue=config.min_tissue, dihedral=dihedral)


def _sheet(patches: np.ndarray[Any, np.dtype[np.uint8]], columns: int = 8) -> Image.Image:
    """Lay ``(N, S, S, 3)`` patches out in rows of ``columns``."""
    n, side = patches.shape[:2]
    rows = patches[: n // columns * columns].reshape(-1, columns, side, side, 3)
    return Image.fromarray(rows.transpose(0, 2, 1, 3, 4).reshape(-1, columns * side, 3))


def _input(project: Project, reporter: Reporter, reference: str, kind: str) -> Artifact:
    """Return the artifact that is named, or the newest; a resumed run keeps the one that it began with."""
    return keep_inputs(project, reporter.run_dir, kind, lambda: [project.artifact(reference, kind)])[0]


def _check_stop(reporter: Reporter) -> None:
    if reporter.should_stop():
        raise Stopped


def _generator_of(project: Project, artifact: Artifact) -> Artifact:
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


def _generator_mpp(generator: Artifact) -> float:
    mpp = generator_info(generator.path).get("mpp")
    if mpp is None:
        raise ModelError(
            f"{generator.id} does not say its resolution", "um per pixel", "import it with --mpp"
        )
    return float(mpp)


def _mask(project: Project, samples: Artifact, index: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    mask = project.load_mask(samples, index)
    if mask is None:
        raise LabelError(f"the mask of sample {index} of {samples.id} vanished", "a mask", "paint it again")
    return mask


def _training_sources(project: Project, references: tuple[str, ...]) -> list[Artifact]:
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


def _default_mpp(project: Project, corrections: list[Correction]) -> float:
    """Return the newest generator's resolution, or that of the first correction."""
    generators = project.artifacts("generator")
    return _generator_mpp(generators[-1]) if generators else corrections[0].mpp


def _numbers(path: Path) -> dict[str, float | int | str]:
    """Return the plain numbers that a network's JSON file holds, for display."""
    values = read_json(path)
    found: dict[str, float | int | str] = {}
    for key, value in {**values, **values.get("validation", {})}.items():
        if isinstance(value, int | float | str) and not isinstance(value, bool):
            found[key] = value
    return found
