"""Train a net that outlines classes from coarse labels of blocks alone (paper 003).

Every random choice of a step is a function of the seed and the step's number, so that a
run that was stopped and resumed makes the same steps as one that was not.
"""

from __future__ import annotations

import copy
import math
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.autograd import backward

from napari_histogan.config.block_labels import TrainSuperResolutionConfig
from napari_histogan.errors import CheckpointError, Stopped, TrainingDiverged
from napari_histogan.labels.calibration import TABLE_FILE, CalibrationTable
from napari_histogan.labels.classes import ClassTable
from napari_histogan.models.device import Compute, resolve
from napari_histogan.models.segmenter import (
    NetShape,
    SegmenterNet,
    new_net,
    pixels_to_input,
    save_segmenter,
)
from napari_histogan.progress import Reporter
from napari_histogan.training.augment import AugmentStrength, augment
from napari_histogan.training.block_sources import BlockSource, GroupSampler, UInt8
from napari_histogan.training.checkpoint import CheckpointStore
from napari_histogan.training.count_losses import (
    CountModel,
    Matching,
    Moments,
    block_moments,
    count_loss,
    group_moments,
    mismatch,
)
from napari_histogan.training.segmenter_state import move_average, one_cycle
from napari_histogan.training.train_segmenter import laid_together

LEAST_TO_CHOOSE_BY = 16
"""Held-out blocks from which on validation chooses the weights that are kept, and may end the training."""

_MOST_VALIDATION_BLOCKS = 256
_METRIC_EVERY = 20
_MOST_GRADIENT = 5.0
_STAYS_IN_BLOCK = AugmentStrength(rotate=0.0, scale=0.0, shift=0.0)
"""Changes that neither bring tissue into a block nor take any out of it."""


def train_super_resolution(
    source: BlockSource,
    table: CalibrationTable,
    config: TrainSuperResolutionConfig,
    reporter: Reporter,
    classes: ClassTable | None = None,
) -> Path:
    """Train a net whose counts in blocks match what their labels say.

    A run whose ``run_dir`` holds a checkpoint goes on from it.

    Parameters
    ----------
    source
        Blocks; their labels are rows of ``table``.
    table
        Mean and deviation of the K classes' shares by label value.
    config
        See :class:`TrainSuperResolutionConfig`.
    reporter
        Gets the metrics ``loss``, ``learning_rate``, ``val_loss`` and ``val_share_error`` (mean
        difference of predicted and expected shares over label values), and a preview of held-out blocks.
    classes
        Names and colors; those of the table if not given.

    Returns
    -------
    Path
        Folder with ``segmenter.safetensors``, ``segmenter.json``, and ``calibration.json``.

    Raises
    ------
    TrainingError
        If no label value has the blocks that a group needs.
    TrainingDiverged
        If the loss or the gradient stops being finite; the last checkpoint is kept.
    Stopped
        If the reporter asked for it; the state is saved.
    """
    classes = classes or ClassTable.from_names(table.classes)
    compute = resolve(config)
    sampler = GroupSampler(source.labels, config.per_group, config.validation_share, config.seed)
    state = _new_state(table, config, compute)
    store = CheckpointStore(reporter.run_dir / "checkpoints")
    if (found := store.load_latest()) is not None:
        state.restore(found.state)
    saved_at, losses = time.monotonic(), list[float]()
    chooses = sampler.held_out_count >= LEAST_TO_CHOOSE_BY
    while state.step < config.steps and not (chooses and state.is_exhausted):
        if reporter.should_stop():
            store.save(state.step, state.snapshot())
            raise Stopped(f"stopped after {state.step} of {config.steps} steps")
        chosen, values = sampler.draw(state.step, config.groups)
        pixels = _training_batch(source.read(chosen.ravel()), config, compute, state.step)
        losses.append(state.take_step(pixels, values, source))
        reporter.progress(state.step, config.steps, "steps", "Training the net")
        last = state.step == config.steps
        if state.step % _METRIC_EVERY == 0 or last:
            reporter.metric(state.step, loss=float(np.mean(losses)), learning_rate=state.rate())
            losses.clear()
        if state.step % config.validate_every == 0 or last:
            figures, preview = _validate(state, source, sampler, classes)
            state.keep(figures, chooses)
            reporter.metric(state.step, **{f"val_{name}": value for name, value in figures.items()})
            reporter.preview("super_resolution", _write_preview(preview, reporter.run_dir, state.step))
        if last or time.monotonic() - saved_at > 60 * config.checkpoint_minutes:
            store.save(state.step, state.snapshot())
            saved_at = time.monotonic()
    net = copy.deepcopy(state.averaged)
    net.load_state_dict(state.best_weights)
    folder = reporter.run_dir / "segmenter"
    absent = [k + 1 for k in range(len(table.classes)) if not table.eta[:, k].any()]
    figures = state.best_figures if sampler.held_out_count else {}
    side = source.block_px + 2 * source.context_px
    save_segmenter(folder, net, table.classes, source.mpp, side, absent, figures)
    table.save(folder / TABLE_FILE)
    return folder


@dataclass
class _State:
    """All that a step changes."""

    net: SegmenterNet
    averaged: SegmenterNet
    optimizer: torch.optim.Optimizer
    table: CalibrationTable
    config: TrainSuperResolutionConfig
    compute: Compute
    step: int = 0
    waited: int = 0
    best_figures: dict[str, float] = field(default_factory=dict)
    best_weights: dict[str, Tensor] = field(default_factory=dict)

    @property
    def is_exhausted(self) -> bool:
        """Whether validation has not got better for too long."""
        return 0 < self.config.patience <= self.waited

    def rate(self) -> float:
        """Return the learning rate of the present step."""
        is_constant = self.config.schedule == "constant"
        return self.config.learning_rate * (1 if is_constant else one_cycle(self.step, self.config.steps))

    def statistics(self, values: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """Return eta and rho of label values, both ``(n, K)`` float32."""
        eta, rho = (torch.from_numpy(a[values]).float() for a in (self.table.eta, self.table.rho))
        return eta.to(self.compute.device), rho.to(self.compute.device)

    def way(self) -> tuple[CountModel, Matching]:
        """Return whose counts are compared at the present step, and how."""
        if self.step < self.config.warm_up * self.config.steps:
            return "intra", "overlap"
        return self.config.model, self.config.matching

    def take_step(self, pixels: Tensor, values: NDArray[np.int64], source: BlockSource) -> float:
        """Make one step with groups of blocks; returns the loss."""
        self.net.train()
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate()
        laid = self.config.augment and self.step % 2 == 1 and len(pixels) % 4 == 0
        with self.compute.autocast():
            logits = _in_fours(self.net, pixels, len(values)) if laid else self.net(pixels)
        logits = _inside(logits, source)
        grouped = logits.reshape(len(values), -1, *logits.shape[1:])
        loss = count_loss(grouped, *self.statistics(values), *self.way())
        self.optimizer.zero_grad()
        backward(loss)
        size = float(torch.nn.utils.clip_grad_norm_(self.net.parameters(), _MOST_GRADIENT))
        if not (math.isfinite(loss.item()) and math.isfinite(size)):
            raise TrainingDiverged(
                f"at step {self.step} the loss became {loss.item():g} and the gradient {size:g}",
                "finite numbers",
                "start a new run with a smaller learning_rate",
            )
        self.optimizer.step()
        move_average(self.averaged, self.net, min(self.config.ema, (1 + self.step) / (10 + self.step)))
        self.step += 1
        return loss.item()

    def keep(self, figures: dict[str, float], only_if_best: bool) -> None:
        """Remember the averaged weights, or do so only if their ``loss`` is the least so far."""
        if not only_if_best or not self.best_weights or figures["loss"] < self.best_figures["loss"]:
            self.best_figures = {**figures, "step": float(self.step)}
            self.best_weights = {k: v.detach().cpu().clone() for k, v in self.averaged.state_dict().items()}
            self.waited = 0
        else:
            self.waited += 1

    def snapshot(self) -> dict[str, Any]:
        """Return everything that a checkpoint needs."""
        return {
            "step": self.step,
            "waited": self.waited,
            "net": self.net.state_dict(),
            "averaged": self.averaged.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "best_figures": self.best_figures,
            "best_weights": self.best_weights,
        }

    def restore(self, snapshot: dict[str, Any]) -> None:
        """Go back to a snapshot; raises ``CheckpointError`` if it is of another net."""
        try:
            self.net.load_state_dict(snapshot["net"])
            self.averaged.load_state_dict(snapshot["averaged"])
            self.optimizer.load_state_dict(snapshot["optimizer"])
            self.step, self.waited = snapshot["step"], snapshot["waited"]
            self.best_figures, self.best_weights = snapshot["best_figures"], snapshot["best_weights"]
        except (KeyError, RuntimeError, ValueError) as error:
            raise CheckpointError(
                "the checkpoint is of another net or optimizer", "that of this run", "start a new run"
            ) from error


def _new_state(table: CalibrationTable, config: TrainSuperResolutionConfig, compute: Compute) -> _State:
    """Return the state before the first step."""
    net = new_net(NetShape("unet", config.width, config.depth), len(table.classes), config.seed)
    net = net.to(compute.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    kind = torch.optim.AdamW if config.optimizer == "adamw" else torch.optim.RMSprop
    optimizer = kind(net.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
    averaged = copy.deepcopy(net).eval().requires_grad_(False)
    return _State(net, averaged, optimizer, table, config, compute)


def _training_batch(images: UInt8, config: TrainSuperResolutionConfig, compute: Compute, step: int) -> Tensor:
    """Return the net's input for blocks ``(n, S, S, 3)``, augmented."""
    pixels = torch.from_numpy(images).to(compute.device).permute(0, 3, 1, 2).float()
    if config.augment:
        seed = np.random.SeedSequence([config.seed, 3, step]).generate_state(1, np.uint64)[0]
        rng = torch.Generator().manual_seed(int(seed >> np.uint64(1)))
        unused = torch.zeros(len(pixels), *pixels.shape[2:], dtype=torch.long, device=pixels.device)
        pixels, _ = augment(pixels, unused, rng, _STAYS_IN_BLOCK)
    return pixels_to_input(pixels).contiguous(memory_format=torch.channels_last)


def _in_fours(net: SegmenterNet, pixels: Tensor, groups: int) -> Tensor:
    """Return the logits of blocks ``(n, 3, S, S)`` that the net sees two by two, as many labels as there are.

    A net that only ever saw single blocks leans on the padding at their edges; windows over a slide have
    none near.
    """
    order = torch.arange(len(pixels)).reshape(groups, -1).T.flatten()
    laid = net(laid_together(pixels[order]).contiguous(memory_format=torch.channels_last))
    n, classes, side = len(laid), laid.shape[1], pixels.shape[-1]
    parts = (
        laid.reshape(n, classes, 2, side, 2, side).permute(0, 2, 4, 1, 3, 5).reshape(-1, classes, side, side)
    )
    restored: Tensor = parts[torch.argsort(order)]
    return restored


def _inside(logits: Tensor, source: BlockSource) -> Tensor:
    """Return the logits of the blocks without the context around them."""
    edge = source.context_px
    return logits[..., edge : edge + source.block_px, edge : edge + source.block_px]


@torch.inference_mode()
def _validate(
    state: _State, source: BlockSource, sampler: GroupSampler, classes: ClassTable
) -> tuple[dict[str, float], NDArray[np.uint8]]:
    """Return figures on held-out blocks (training blocks if none are held out), and a picture of some."""
    blocks = sampler.held_out if sampler.held_out_count else sampler.training
    share = min(1.0, _MOST_VALIDATION_BLOCKS / sum(map(len, blocks.values())))
    losses, errors, weights, shown = list[float](), list[float](), list[int](), list[NDArray[np.uint8]]()
    for value, mine in blocks.items():
        chosen = mine[: max(2, math.ceil(share * len(mine)))]
        if len(chosen) < (1 if state.config.model == "intra" else 2):
            continue
        images = source.read(chosen)
        moments, labels = _predict(state, source, images)
        eta, rho = state.statistics(np.array([value]))
        predicted = group_moments(moments, state.config.model)
        losses.append(float(mismatch(predicted, eta, rho, state.config.matching).sum(-1).mean()))
        errors.append(float((moments.mean.mean(0) - eta[0]).abs().mean()))
        weights.append(len(chosen))
        inside = slice(source.context_px, source.context_px + source.block_px)
        shown.append(np.concatenate([images[0][inside, inside], classes.color_lut()[labels[0]]]))
    if not losses:
        return {"loss": math.nan}, np.zeros((source.block_px, source.block_px, 3), np.uint8)
    figures = {
        "loss": float(np.average(losses, weights=weights)),
        "share_error": float(np.average(errors, weights=weights)),
    }
    return figures, np.concatenate(shown[:12], axis=1)


def _predict(state: _State, source: BlockSource, images: UInt8) -> tuple[Moments, NDArray[np.uint8]]:
    """Return the moments of blocks, and the likeliest class 1..K of each pixel ``(n, S, S)``."""
    means, variances, labels = [], [], []
    for start in range(0, len(images), 32):
        pixels = torch.from_numpy(images[start : start + 32]).to(state.compute.device).permute(0, 3, 1, 2)
        with state.compute.autocast():
            logits = state.averaged(pixels_to_input(pixels).contiguous(memory_format=torch.channels_last))
        probabilities = _inside(logits, source).float().softmax(dim=1)
        mean, variance = block_moments(probabilities)
        means.append(mean)
        variances.append(variance)
        labels.append((probabilities.argmax(dim=1) + 1).to(torch.uint8).cpu().numpy())
    return Moments(torch.cat(means), torch.cat(variances)), np.concatenate(labels)


def _write_preview(picture: NDArray[np.uint8], run_dir: Path, step: int) -> Path:
    """Write a PNG below ``previews/``; the rows are blocks and their predicted classes."""
    path = run_dir / "previews" / f"super-resolution-{step:06d}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(path)
    return path
