"""The data-set factory: images from the generator, masks from its own features (DatasetGAN, section 3.3).

What is on disk is told in :mod:`~napari_histogan.inference.pair_store`.
"""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch

from napari_histogan.config import SynthesizeDatasetConfig
from napari_histogan.errors import ConfigError, ModelError, Stopped
from napari_histogan.models.device import Compute, resolve
from napari_histogan.models.generator_file import GENERATOR_FILE, save_generator
from napari_histogan.models.picture_nets import save_picture_nets
from napari_histogan.models.pixel_classifier import PixelClassifier, save_pixel_classifier
from napari_histogan.models.segmenter import SegmenterNet
from napari_histogan.models.stylegan2 import Generator
from napari_histogan.progress import Reporter

from .contact_sheet import write_contact_sheet
from .pair_choice import choose_pairs, wanted_shares
from .pair_labels import PairLabeler
from .pair_store import PairStore, shard_size, write_shard
from .sampling import check_generator
from .shard_work import ShardTask, make_shard, run_task
from .workers import connect

_PHASE = "Making pairs"
_WHERE = {"device", "threads", "scheduler"}
"""Fields that say where to compute, not what; a run may go on elsewhere."""

Written = Callable[[range], None]
ShardMaker = Callable[[Sequence[range], int, Written], None]


def synthesize_dataset(
    generator: Generator,
    classifier: PixelClassifier,
    config: SynthesizeDatasetConfig,
    reporter: Reporter,
    *,
    generator_hash: str = "",
    mpp: float = 1.0,
    out: Path | None = None,
    picture_nets: Sequence[SegmenterNet] = (),
) -> tuple[Path, dict[str, float | int]]:
    """Make image and mask pairs, and mark those that are to be learned from as kept.

    So many more pairs are drawn that ``config.count`` are left after the most uncertain share is dropped.
    Where shares of the classes are wanted, more are drawn, round by round, until a choice has these shares
    or the limit is reached.  The same config gives the same data set, wherever it was interrupted and
    whoever made its shards: pair i is a function of the seed and i.  (To the bit on CPUs of one kind with
    one number of threads; others round differently.)

    Parameters
    ----------
    generator, classifier
        That fit together.
    config
        Of the stage.
    reporter
        Told about the progress; hears stops.
    generator_hash
        Of the generator, compared with the classifier's.
    mpp
        Microns per pixel of the images.
    out
        Folder to write to, or to go on in; ``run_dir/dataset`` if not given.
    picture_nets
        Nets of the classifier's folder that see the pictures.

    Returns
    -------
    tuple[Path, dict[str, float | int]]
        The folder, and figures for display.

    Raises
    ------
    ModelError
        If generator and classifier do not fit, or a weight is not finite.
    ConfigError
        If the wanted shares do not fit the classes.
    JobError
        If a scheduler was asked for and does not answer, or its workers cannot do it.
    Stopped
        If a stop was asked for; shards that are written stay.
    StorageError
        If the disk refuses.
    """
    _check(generator, classifier, config, generator_hash)
    wanted = wanted_shares(config.balance, config.class_shares, classifier.spec.num_classes)
    compute = resolve(config)
    generator, classifier = generator.to(compute.device).eval(), classifier.to(compute.device).eval()
    base = math.ceil(round(config.count / (1 - config.drop_uncertain), 6))
    shard = shard_size(config.shard, base, generator.spec.img_resolution)
    store = _store(
        out or reporter.run_dir / "dataset", generator, classifier, config, shard, generator_hash, mpp
    )
    make: ShardMaker
    if config.scheduler:
        make = _Elsewhere(store, generator, classifier, picture_nets, config, compute, reporter)
    else:
        make = _Here(store, generator, PairLabeler(classifier, picture_nets, compute), config, reporter)
    total, most = base, base
    if wanted is not None:  # rounds end where shards do
        total, most = _whole(base, shard), _whole(math.ceil(base * config.most_drawn), shard)
    while True:
        _make_missing(store, make, total, reporter)
        uncertainty, fractions = store.group["uncertainty"][:], store.group["class_fraction"][:]
        choice = choose_pairs(uncertainty, fractions, config.count, config.drop_uncertain, wanted)
        there = [k for k in choice.short if fractions[:, k].any()]
        if total >= most or not there:
            break
        total = min(total + _whole(math.ceil(base / 4), shard), most)
    store.keep(choice.kept, choice.certain)
    names = [str(row["name"]) for row in classifier.spec.classes]
    for k in choice.short:
        asked = 0.0 if wanted is None else float(wanted[k])
        reporter.warn(_shortfall(names[k], float(choice.shares[k]), asked, total, seen=k in there))
    reporter.progress(total, total, "pairs", _PHASE)
    reporter.preview("contact sheet", write_contact_sheet(store.folder))
    summary: dict[str, float | int] = {
        "pairs": int(choice.kept.sum()),
        "drawn": total,
        "mean_uncertainty": float(uncertainty[choice.kept].mean()),
    }
    shares = {f"share_{name}": float(share) for name, share in zip(names, choice.shares, strict=True)}
    return store.folder, summary | shares


def _check(
    generator: Generator, classifier: PixelClassifier, config: SynthesizeDatasetConfig, generator_hash: str
) -> None:
    """Refuse what cannot work, before long work starts."""
    check_generator(generator)
    classifier.check_generator(generator_hash)
    for name, value in classifier.state_dict().items():
        if not bool(torch.isfinite(value).all()):
            raise ModelError(f"{name} of the classifier holds NaN or infinity", "numbers", "train it again")
    spec, size = classifier.spec, generator.spec.img_resolution
    if spec.layout.size != size:
        raise ModelError(
            f"the classifier reads features of {spec.layout.size} px images, the generator makes {size} px",
            "the generator that the classifier was trained on",
            "choose them together",
        )
    if config.class_shares and len(config.class_shares) != spec.num_classes:
        names = ", ".join(str(row["name"]) for row in spec.classes)
        raise ConfigError(
            f"class_shares has {len(config.class_shares)} numbers",
            f"{spec.num_classes}, one for each of: {names}",
            "give one share for each class, in this order",
        )


def _store(
    folder: Path,
    generator: Generator,
    classifier: PixelClassifier,
    config: SynthesizeDatasetConfig,
    shard: int,
    generator_hash: str,
    mpp: float,
) -> PairStore:
    """Begin a data set, or open one that was begun in the same way."""
    spec, size = generator.spec, generator.spec.img_resolution
    attributes = {"mpp": mpp, "classes": list(classifier.spec.classes), "generator_hash": generator_hash}
    mark = {**attributes, "config": json.loads(config.model_dump_json(exclude=_WHERE)), "shard": shard}
    shapes: dict[str, tuple[tuple[int, ...], Any]] = {
        "images": ((size, size, 3), np.uint8),
        "masks": ((size, size), np.uint8),
        "w": ((spec.num_ws, spec.w_dim), np.float32),
        "noise_seed": ((), np.int64),
        "uncertainty": ((), np.float32),
        "class_fraction": ((classifier.spec.num_classes,), np.float32),
        "kept": ((), np.bool_),
    }
    return PairStore(folder, mark, shapes, attributes, shard)


def _make_missing(store: PairStore, make: ShardMaker, total: int, reporter: Reporter) -> None:
    """Make the shards of the first ``total`` pairs that are not there."""
    missing = store.missing(total)
    started, before = time.monotonic(), sum(len(pairs) for pairs in missing)
    left = before

    def written(pairs: range) -> None:
        nonlocal left
        store.note(pairs)
        left -= len(pairs)
        reporter.metric(total - left, pairs_per_second=(before - left) / (time.monotonic() - started))

    if missing:
        make(missing, total, written)


class _Here:
    """Makes shards in this process; one is packed and written while the next is made."""

    def __init__(
        self,
        store: PairStore,
        generator: Generator,
        labeler: PairLabeler,
        config: SynthesizeDatasetConfig,
        reporter: Reporter,
    ) -> None:
        self._folder, self._generator, self._config = store.folder, generator, config
        self._labeler, self._reporter = labeler, reporter

    def __call__(self, missing: Sequence[range], total: int, written: Written) -> None:
        """Make these shards in order."""
        waiting: tuple[range, Future[None]] | None = None
        done = total - sum(len(pairs) for pairs in missing)

        def before(first: int) -> None:
            if self._reporter.should_stop():
                raise Stopped(f"stopped before pair {first} of {total}")
            self._reporter.progress(done + first - pairs.start, total, "pairs", _PHASE)

        with ThreadPoolExecutor(1) as writer:
            try:
                for pairs in missing:
                    parts = self._generator, self._labeler, self._config, pairs
                    batch = make_shard(*parts, before)
                    if waiting is not None:
                        previous, waiting = waiting, None
                        previous[1].result()
                        written(previous[0])
                    waiting = pairs, writer.submit(write_shard, self._folder, pairs, batch)
                    done += len(pairs)
            finally:
                if waiting is not None:
                    waiting[1].result()
                    written(waiting[0])


class _Elsewhere:
    """Lets the workers of a scheduler make the shards; they read the models from the run folder."""

    def __init__(
        self,
        store: PairStore,
        generator: Generator,
        classifier: PixelClassifier,
        picture_nets: Sequence[SegmenterNet],
        config: SynthesizeDatasetConfig,
        compute: Compute,
        reporter: Reporter,
    ) -> None:
        # What this process resolved "auto" to holds for all: a store of two precisions is no one's.
        precision = "bfloat16" if compute.dtype == torch.bfloat16 else "float32"
        self._config = config.model_copy(update={"precision": precision})
        self._folder, self._reporter = store.folder.resolve(), reporter
        self._generator, self._classifier, self._picture_nets = generator, classifier, picture_nets

    def __call__(self, missing: Sequence[range], total: int, written: Written) -> None:
        """Make these shards in any order."""
        models = self._folder.with_name(f"{self._folder.name}-models")
        done = total - sum(len(pairs) for pairs in missing)
        tasks = [ShardTask(models, self._folder, self._config, pairs) for pairs in missing]

        def ended(task: ShardTask) -> None:
            nonlocal done
            written(task.pairs)
            done += len(task.pairs)
            self._reporter.progress(done, total, "pairs", _PHASE)

        with connect(self._config.scheduler) as workers:
            workers.check(self._folder)
            models.mkdir(exist_ok=True)
            try:
                save_generator(models / GENERATOR_FILE, self._generator)
                save_pixel_classifier(models, self._classifier)
                save_picture_nets(models, self._picture_nets)
                self._reporter.progress(done, total, "pairs", _PHASE)
                workers.map(run_task, tasks, ended, self._reporter.should_stop)
            finally:
                shutil.rmtree(models, ignore_errors=True)


def _whole(pairs: int, shard: int) -> int:
    """Return the pairs of the shards that hold so many."""
    return -(-pairs // shard) * shard


def _shortfall(name: str, share: float, wanted: float, drawn: int, *, seen: bool) -> str:
    """Say which share a class has, why it is not more, and what helps."""
    if not seen:
        return (
            f"no pixel of {name} is in any of {drawn} drawn pairs, so its wanted share of {wanted:.1%} "
            "cannot be reached; paint more of it, or raise truncation"
        )
    return (
        f"{name} has {share:.1%} of the pixels, {wanted:.1%} were wanted: the generator paints it "
        f"too rarely in {drawn} drawn pairs; raise most_drawn or truncation, lower drop_uncertain, or ask "
        "for less"
    )
