"""Train the net that runs over slides.

Every random choice of a step is a function of the seed and the step's number, so that a
run that was stopped and resumed makes the same steps as one that was not.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from napari_histogan import metrics
from napari_histogan.config import TrainSegmenterConfig
from napari_histogan.errors import LabelError, Stopped
from napari_histogan.labels.classes import ClassTable
from napari_histogan.models.device import Compute, resolve
from napari_histogan.models.segmenter import SegmenterNet, pixels_to_input, save_segmenter
from napari_histogan.progress import Reporter
from napari_histogan.training.augment import augment
from napari_histogan.training.checkpoint import CheckpointStore
from napari_histogan.training.datasets import PairPool, SegmentationSource
from napari_histogan.training.segmenter_state import new_state, schedule
from napari_histogan.training.team import SilentReporter, Team

_MOST_VALIDATION_PAIRS = 512
_METRIC_EVERY = 20
_WORSE = 0.02
LEAST_TO_CHOOSE_BY = 16
"""Held-out pairs from which on validation chooses the weights that are kept."""


def train_segmenter(
    sources: Sequence[SegmentationSource],
    num_classes: int,
    config: TrainSegmenterConfig,
    reporter: Reporter,
    init: Path | None = None,
    classes: ClassTable | None = None,
) -> Path:
    """Train a net on pairs, and keep the averaged weights that validated best.

    With fewer than :data:`LEAST_TO_CHOOSE_BY` held-out pairs the last weights are kept: a choice by a
    few pairs is a choice by chance.

    A run whose ``run_dir`` holds a checkpoint goes on from it.  With several devices each process
    calls this with the same arguments; the first alone reports and writes.  Each normalizes its share
    of the batch by itself, so N processes do not take exactly the steps of one.

    Parameters
    ----------
    sources
        Pairs to learn from, of one size and resolution.
    num_classes
        K; masks hold 0..K.
    config
        See :class:`TrainSegmenterConfig`.
    reporter
        Gets the metrics ``loss``, ``learning_rate``, ``val_mcc``, ``val_dice_<class>``, and
        ``val_score`` (the mean of MCC and mean Dice, which picks the weights that are kept),
        and a preview of held-out pairs (image, truth, prediction) at each validation.
    init
        Folder of a segmenter to start from; its last layer is dropped if it has another
        number of classes.
    classes
        Names and colors.

    Returns
    -------
    Path
        Folder with ``segmenter.safetensors`` and ``segmenter.json``.

    Raises
    ------
    LabelError
        If the sources do not fit together, hold a class beyond K, or hold fewer than two
        classes.  A single absent class is warned about: the net will never predict it.
    ModelError
        If ``init`` has another shape than the config asks for.
    TrainingDiverged
        If the loss or the gradient stops being finite; the last checkpoint is kept.
    Stopped
        If the reporter asked for it; the state is saved.
    """
    classes = classes or ClassTable.from_names(f"class {k}" for k in range(1, num_classes + 1))
    team = Team.start(config.devices, resolve(config))
    if not team.leads:
        reporter = SilentReporter(reporter.run_dir)
    pool = PairPool(sources, config.validation_share, config.seed, config.revisit_hard)
    absent = _absent_classes(sources, classes, reporter)
    state = new_state(num_classes, config, team, init, (pool.mpp, pool.patch_px), reporter)
    store = CheckpointStore(reporter.run_dir / "checkpoints")
    if (found := store.load_latest()) is not None:
        state.restore(found.state)
        pool.load_state_dict(found.state.get("pool", {"hardness": []}))
    elif init is not None and team.leads and pool.held_out_count:
        state.begun_with = _validate(state.averaged, pool, classes, team.compute)[0]["score"]
    team.wait()  # nobody writes a checkpoint before all have read the last
    saved_at, losses = time.monotonic(), []

    def save() -> None:
        if team.leads:
            store.save(state.step, state.snapshot() | {"pool": pool.state_dict()})

    stop = team.agree(reporter.should_stop())[0]
    while state.step < config.steps:
        if stop:
            save()
            raise Stopped(f"stopped after {state.step} of {config.steps} steps")
        chosen = pool.choose(state.step, config.batch)
        pixels, masks = _training_batch(pool, chosen, config, team, state.step)
        rate = config.learning_rate * schedule(config.schedule, state.step, config.steps)
        each = state.take_step(pixels, masks, rate)
        if config.revisit_hard:
            pool.note_losses(chosen, _of_all(each, team, config.batch))
        losses.append(state.loss)

        reporter.progress(state.step, config.steps, "steps", "Training the net")
        last = state.step == config.steps
        if state.step % _METRIC_EVERY == 0 or last:
            reporter.metric(state.step, loss=float(np.mean(losses)), learning_rate=rate)
            losses.clear()
        if team.leads and (state.step % config.validate_every == 0 or last):
            figures, preview = _validate(state.averaged, pool, classes, team.compute)
            state.keep(figures, only_if_best=pool.held_out_count >= LEAST_TO_CHOOSE_BY)
            reporter.metric(state.step, **{f"val_{name}": value for name, value in figures.items()})
            reporter.preview("segmenter", _write_preview(preview, reporter.run_dir, state.step))
        late = time.monotonic() - saved_at > 60 * config.checkpoint_minutes
        stop, late = team.agree(reporter.should_stop(), late)
        if last or late:
            save()
            saved_at = time.monotonic()

    folder = reporter.run_dir / "segmenter"
    if team.leads:
        net = copy.deepcopy(state.averaged)
        net.load_state_dict(state.best_weights)
        figures = state.best_figures if pool.held_out_count else {}
        if figures and figures["score"] < state.begun_with - _WORSE:
            reporter.warn(
                f"the net became worse on the {pool.held_out_count} held-out pairs: a score of "
                f"{figures['score']:.2f}, and of {state.begun_with:.2f} before; rather use the earlier one"
            )
        save_segmenter(folder, net, classes.names, pool.mpp, pool.patch_px, absent, figures)
    team.wait()
    return folder


def _of_all(losses: Tensor, team: Team, batch: int) -> NDArray[np.float64]:
    """Return the losses of the whole batch, of which this process knows its share."""
    spread = torch.zeros(batch, device=losses.device)
    spread[team.rank :: team.size] = losses
    return (team.mean(spread) * team.size).double().cpu().numpy()


def _absent_classes(
    sources: Sequence[SegmentationSource], classes: ClassTable, reporter: Reporter
) -> list[int]:
    """Return the classes that no mask holds; warn about them."""
    counts = np.sum([source.class_counts() for source in sources], axis=0)
    beyond = np.flatnonzero(counts[classes.num_classes + 1 :])
    if len(beyond):
        raise LabelError(
            f"the masks hold class {beyond[0] + classes.num_classes + 1}",
            f"classes 1 to {classes.num_classes} ({', '.join(classes.names)})",
            "add the class to the project, or make the masks again",
        )
    absent = [info.index for info in classes if not counts[info.index]]
    names = ", ".join(classes[index].name for index in absent)
    if classes.num_classes - len(absent) < 2:
        raise LabelError(
            f"the masks hold fewer than two classes; absent: {names}",
            "at least two classes to tell apart",
            "paint the other classes as well",
        )
    if absent:
        reporter.warn(f"no mask holds {names}; the segmenter will never predict it")
    return absent


def _training_batch(
    pool: PairPool, chosen: NDArray[np.int64], config: TrainSegmenterConfig, team: Team, step: int
) -> tuple[Tensor, Tensor]:
    """Return the net's input and the masks of this process's share of a step, augmented."""
    device = team.compute.device
    images, labels = pool.read(chosen[team.rank :: team.size])
    pixels = torch.from_numpy(images).to(device).permute(0, 3, 1, 2).float()
    masks = torch.from_numpy(labels).to(device).long()
    if config.augment:
        words = [config.seed, 3, step, *([team.rank] if team.rank else [])]
        seed = np.random.SeedSequence(words).generate_state(1, np.uint64)[0]
        pixels, masks = augment(pixels, masks, torch.Generator().manual_seed(int(seed >> np.uint64(1))))
        if step % 2 == 0 and len(pixels) % 4 == 0 and not config.revisit_hard:
            pixels, masks = laid_together(pixels), laid_together(masks)
    return pixels_to_input(pixels).contiguous(memory_format=torch.channels_last), masks


def laid_together(patches: Tensor) -> Tensor:
    """Lay every four patches ``(4 n, ..., S, S)`` together, two by two: ``(n, ..., 2 S, 2 S)``.

    Over a slide the net sees windows larger than its patches, whose inside is far from any zero padding.
    A net that never saw such a place can err there: one demo net took plain glass for keratin in the
    middle of windows of 256 px, and for glass in patches of 64 px.
    """
    rows = torch.cat([patches[0::2], patches[1::2]], dim=-1)
    return torch.cat([rows[0::2], rows[1::2]], dim=-2)


@torch.inference_mode()
def _validate(
    net: SegmenterNet, pool: PairPool, classes: ClassTable, compute: Compute
) -> tuple[dict[str, float], NDArray[np.uint8]]:
    """Return figures on held-out pairs, and a picture of the first ones."""
    images, masks = pool.held_out(_MOST_VALIDATION_PAIRS)
    predicted = np.zeros_like(masks)
    for start in range(0, len(images), 32):
        pixels = torch.from_numpy(images[start : start + 32]).to(compute.device).permute(0, 3, 1, 2)
        with compute.autocast():
            logits = net(pixels_to_input(pixels).contiguous(memory_format=torch.channels_last))
        predicted[start : start + 32] = (logits.argmax(dim=1) + 1).to(torch.uint8).cpu().numpy()
    matrix = metrics.confusion_matrix(masks, predicted, classes.num_classes)
    mcc, dice = float(metrics.multiclass_mcc(matrix)), metrics.dice(matrix)
    # Correlation over all pixels hardly notices a rare class; the mean Dice does.
    figures = {
        "score": (mcc + float(np.nanmean(dice))) / 2 if np.isfinite(dice).any() else mcc,
        "mcc": mcc,
        "accuracy": float(metrics.pixel_accuracy(matrix)),
    }
    for info, value in zip(classes, dice, strict=True):
        if np.isfinite(value):
            figures[f"dice_{info.name}"] = float(value)
    few = np.linspace(0, len(images) - 1, min(8, len(images))).round().astype(int)
    lut = classes.color_lut()
    rows = [
        np.concatenate(list(part), axis=1) for part in (images[few], lut[masks[few]], lut[predicted[few]])
    ]
    return figures, np.concatenate(rows, axis=0)


def _write_preview(picture: NDArray[np.uint8], run_dir: Path, step: int) -> Path:
    """Write a PNG below ``previews/``; rows are image, truth, and prediction."""
    path = run_dir / "previews" / f"segmenter-{step:06d}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(path)
    return path
