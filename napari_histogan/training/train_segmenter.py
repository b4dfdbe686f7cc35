"""Train the net that runs over slides.

Every random choice of a step is a function of the seed and the step's number, so that a
run that was stopped and resumed makes the same steps as one that was not.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from napari_histogan import metrics
from napari_histogan.config import TrainSegmenterConfig
from napari_histogan.errors import CheckpointError, LabelError, ModelError, Stopped, TrainingDiverged
from napari_histogan.labels.classes import ClassTable
from napari_histogan.models.device import Compute, resolve
from napari_histogan.models.segmenter import load_segmenter, pixels_to_input, save_segmenter
from napari_histogan.models.unet import UNet
from napari_histogan.progress import Reporter
from napari_histogan.training.augment import augment
from napari_histogan.training.checkpoint import CheckpointStore
from napari_histogan.training.datasets import PairPool, SegmentationSource
from napari_histogan.training.losses import segmentation_loss

Weights = dict[str, Tensor]

_WARMUP_SHARE = 0.05
_MOST_GRADIENT = 5.0
_MOST_VALIDATION_PAIRS = 512
_METRIC_EVERY = 20
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
    """Train a U-Net on pairs, and keep the averaged weights that validated best.

    With fewer than :data:`LEAST_TO_CHOOSE_BY` held-out pairs the last weights are kept: a choice by a
    few pairs is a choice by chance.

    A run whose ``run_dir`` holds a checkpoint goes on from it.

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
    pool = PairPool(sources, config.validation_share, config.seed)
    absent = _absent_classes(sources, classes, reporter)
    compute = resolve(config)
    state = _new_state(num_classes, config, compute, init, pool.mpp, reporter)
    store = CheckpointStore(reporter.run_dir / "checkpoints")
    if (found := store.load_latest()) is not None:
        state.restore(found[1])
    saved_at, losses = time.monotonic(), []

    while state.step < config.steps:
        if reporter.should_stop():
            store.save(state.step, state.snapshot())
            raise Stopped(f"stopped after {state.step} of {config.steps} steps")
        pixels, masks = _training_batch(pool, config, compute, state.step)
        rate = config.learning_rate * one_cycle(state.step, config.steps)
        loss = _take_step(state, pixels, masks, rate, config, compute)
        state.step += 1
        losses.append(loss)

        reporter.progress(state.step, config.steps, "steps", "Training the net")
        last = state.step == config.steps
        if state.step % _METRIC_EVERY == 0 or last:
            reporter.metric(state.step, loss=float(np.mean(losses)), learning_rate=rate)
            losses.clear()
        if state.step % config.validate_every == 0 or last:
            figures, preview = _validate(state.averaged, pool, classes, compute)
            state.keep(figures, only_if_best=pool.held_out_count >= LEAST_TO_CHOOSE_BY)
            reporter.metric(state.step, **{f"val_{name}": value for name, value in figures.items()})
            reporter.preview("segmenter", _write_preview(preview, reporter.run_dir, state.step))
        if last or time.monotonic() - saved_at > 60 * config.checkpoint_minutes:
            store.save(state.step, state.snapshot())
            saved_at = time.monotonic()

    folder = reporter.run_dir / "segmenter"
    net = copy.deepcopy(state.averaged)
    net.load_state_dict(state.best_weights)
    figures = state.best_figures if pool.held_out_count else {}
    save_segmenter(folder, net, classes.names, pool.mpp, pool.patch_px, absent, figures)
    return folder


def one_cycle(step: int, steps: int) -> float:
    """Return the share of the largest learning rate: a linear rise, then half a cosine to 0."""
    warmup = max(1.0, _WARMUP_SHARE * steps)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1.0, steps - warmup)))


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


@dataclass
class _State:
    """All that a step changes."""

    net: UNet
    averaged: UNet
    optimizer: torch.optim.AdamW
    step: int = 0
    best_figures: dict[str, float] = field(default_factory=dict)
    best_weights: Weights = field(default_factory=dict)

    def keep(self, figures: dict[str, float], only_if_best: bool) -> None:
        """Remember the averaged weights, or do so only if they validated best so far, by ``score``."""
        if not only_if_best or not self.best_weights or figures["score"] >= self.best_figures["score"]:
            self.best_figures = {**figures, "step": float(self.step)}
            self.best_weights = {k: v.detach().cpu().clone() for k, v in self.averaged.state_dict().items()}

    def snapshot(self) -> dict[str, Any]:
        """Return everything that a checkpoint needs."""
        return {
            "step": self.step,
            "net": self.net.state_dict(),
            "averaged": self.averaged.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "best_figures": self.best_figures,
            "best_weights": self.best_weights,
        }

    def restore(self, snapshot: dict[str, Any]) -> None:
        """Go back to a snapshot."""
        try:
            self.net.load_state_dict(snapshot["net"])
            self.averaged.load_state_dict(snapshot["averaged"])
            self.optimizer.load_state_dict(snapshot["optimizer"])
        except (KeyError, RuntimeError, ValueError) as error:
            raise CheckpointError(
                f"the run's checkpoint holds another net ({str(error).splitlines()[0]})",
                f"a U-Net of width {self.net.width} and depth {self.net.depth}",
                "start a new run; a resumed run must keep its settings",
            ) from error
        self.step = int(snapshot["step"])
        self.best_figures, self.best_weights = snapshot["best_figures"], snapshot["best_weights"]


def _new_state(
    num_classes: int,
    config: TrainSegmenterConfig,
    compute: Compute,
    init: Path | None,
    mpp: float,
    reporter: Reporter,
) -> _State:
    """Build net, average, and optimizer."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        net = UNet(num_classes, config.width, config.depth)
    if init is not None:
        _load_init(net, init, mpp, reporter)
    net = net.to(compute.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    averaged = copy.deepcopy(net).eval().requires_grad_(False)
    optimizer = torch.optim.AdamW(net.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
    return _State(net, averaged, optimizer)


def _load_init(net: UNet, init: Path, mpp: float, reporter: Reporter) -> None:
    """Take the weights of another segmenter, but not a last layer of other classes."""
    other, info = load_segmenter(init)
    if (info.width, info.depth) != (net.width, net.depth):
        raise ModelError(
            f"the segmenter to start from has width {info.width} and depth {info.depth}",
            f"width {net.width} and depth {net.depth}, as the settings say",
            f"set width to {info.width} and depth to {info.depth}, or start anew",
        )
    if not 0.5 <= info.mpp / mpp <= 2:
        reporter.warn(f"the segmenter to start from was trained at {info.mpp:g} um/px, not at {mpp:g} um/px")
    weights = other.state_dict()
    if info.num_classes != net.num_classes:
        reporter.warn(
            f"the segmenter to start from has {info.num_classes} classes, not {net.num_classes}; "
            "its last layer starts anew"
        )
        weights = {**weights, **{f"head.{k}": v for k, v in net.head.state_dict().items()}}
    net.load_state_dict(weights)


def _training_batch(
    pool: PairPool, config: TrainSegmenterConfig, compute: Compute, step: int
) -> tuple[Tensor, Tensor]:
    """Return the net's input and the masks of a step, augmented."""
    images, labels = pool.draw(step, config.batch)
    pixels = torch.from_numpy(images).to(compute.device).permute(0, 3, 1, 2).float()
    masks = torch.from_numpy(labels).to(compute.device).long()
    if config.augment:
        seed = np.random.SeedSequence([config.seed, 3, step]).generate_state(1, np.uint64)[0]
        pixels, masks = augment(pixels, masks, torch.Generator().manual_seed(int(seed >> np.uint64(1))))
    return pixels_to_input(pixels).contiguous(memory_format=torch.channels_last), masks


def _take_step(
    state: _State,
    pixels: Tensor,
    masks: Tensor,
    rate: float,
    config: TrainSegmenterConfig,
    compute: Compute,
) -> float:
    """Make one step of AdamW and of the average; return the loss."""
    state.net.train()
    with compute.autocast():
        logits = state.net(pixels)
    loss = segmentation_loss(logits, masks, config.loss)
    state.optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    value = float(loss.detach())
    size = float(torch.nn.utils.clip_grad_norm_(state.net.parameters(), _MOST_GRADIENT))
    if not (math.isfinite(value) and math.isfinite(size)):
        raise TrainingDiverged(
            f"at step {state.step} the loss became {value:g} and the gradient {size:g}",
            "finite numbers",
            "start a new run with a smaller learning_rate",
        )
    for group in state.optimizer.param_groups:
        group["lr"] = rate
    state.optimizer.step()
    # A short average at first, so that random weights do not linger in it.
    _average(state.averaged, state.net, min(config.ema, (1 + state.step) / (10 + state.step)))
    return value


@torch.no_grad()
def _average(averaged: UNet, net: UNet, decay: float) -> None:
    """Move the averaged weights and batch statistics toward those of the net."""
    for mean, value in zip(averaged.state_dict().values(), net.state_dict().values(), strict=True):
        if mean.is_floating_point():
            mean.lerp_(value, 1 - decay)
        else:
            mean.copy_(value)


@torch.inference_mode()
def _validate(
    net: UNet, pool: PairPool, classes: ClassTable, compute: Compute
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
