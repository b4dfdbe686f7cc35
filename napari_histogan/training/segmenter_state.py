"""The net in training, its average, and its optimizer: one step, and what a checkpoint keeps."""

from __future__ import annotations

import copy
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import backward

from napari_histogan.config import TrainSegmenterConfig
from napari_histogan.errors import CheckpointError, ModelError, TrainingDiverged
from napari_histogan.models.segmenter import NetShape, SegmenterNet, load_segmenter, new_net, shape_of
from napari_histogan.progress import Reporter
from napari_histogan.training.losses import losses_of_images, segmentation_loss
from napari_histogan.training.team import Team

Weights = dict[str, Tensor]

_WARMUP_SHARE = 0.05
_MOST_GRADIENT = 5.0
_POLY_POWER = 0.9


def schedule(kind: str, step: int, steps: int) -> float:
    """Return the share of the largest learning rate at a step, by ``one_cycle`` or ``poly``."""
    return one_cycle(step, steps) if kind == "one_cycle" else (1 - step / steps) ** _POLY_POWER


def one_cycle(step: int, steps: int) -> float:
    """Return the share of the largest learning rate: a linear rise, then half a cosine to 0."""
    warmup = max(1.0, _WARMUP_SHARE * steps)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1.0, steps - warmup)))


@dataclass
class SegmenterState:
    """All that a step changes; ``begun_with`` is the score of the net that training started from."""

    net: SegmenterNet
    averaged: SegmenterNet
    optimizer: torch.optim.Optimizer
    config: TrainSegmenterConfig
    team: Team
    step: int = 0
    loss: float = math.nan
    best_figures: dict[str, float] = field(default_factory=dict)
    best_weights: Weights = field(default_factory=dict)
    begun_with: float = math.nan

    def take_step(self, pixels: Tensor, masks: Tensor, rate: float) -> Tensor:
        """Make one step of the optimizer and of the average.

        Parameters
        ----------
        pixels, masks
            The net's input ``(N, 3, S, S)``, and ``(N, S, S)`` int64.
        rate
            Learning rate of the last layers.

        Returns
        -------
        Tensor
            Cross-entropy of each image, ``(N,)``.

        Raises
        ------
        TrainingDiverged
            If the loss or the gradient is not finite.
        """
        self.net.train()
        with self.team.compute.autocast():
            logits = self.net(pixels)
        loss = segmentation_loss(logits, masks, self.config.loss)
        self.optimizer.zero_grad()
        backward(loss)
        self.team.average([p.grad for p in self.net.parameters() if p.grad is not None])
        self.loss = float(self.team.mean(loss.detach()))
        size = float(torch.nn.utils.clip_grad_norm_(self.net.parameters(), _MOST_GRADIENT))
        if not (math.isfinite(self.loss) and math.isfinite(size)):
            raise TrainingDiverged(
                f"at step {self.step} the loss became {self.loss:g} and the gradient {size:g}",
                "finite numbers",
                "start a new run with a smaller learning_rate",
            )
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["share"]
        self.optimizer.step()
        # A short average at first, so that random weights do not linger in it.
        move_average(self.averaged, self.net, min(self.config.ema, (1 + self.step) / (10 + self.step)))
        self.step += 1
        return losses_of_images(logits.detach(), masks)

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
            "begun_with": self.begun_with,
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
                str(shape_of(self.net)),
                "start a new run; a resumed run must keep its settings",
            ) from error
        self.step = int(snapshot["step"])
        self.best_figures, self.best_weights = snapshot["best_figures"], snapshot["best_weights"]
        self.begun_with = float(snapshot.get("begun_with", math.nan))


def new_state(
    num_classes: int,
    config: TrainSegmenterConfig,
    team: Team,
    init: Path | None,
    scale: tuple[float, int],
    reporter: Reporter,
) -> SegmenterState:
    """Build net, average, and optimizer.

    Parameters
    ----------
    num_classes, config, team
        What to train, how, and with whom.
    init
        Folder of a segmenter to start from.
    scale
        Resolution in um/px and side in px of the patches.
    reporter
        Is warned if ``init`` has another resolution or other classes.

    Raises
    ------
    ModelError
        If ``init`` has another shape than the config asks for.
    ConfigError, CheckpointError
        If the backbone's weights cannot be had.
    """
    mpp, patch_px = scale
    if config.net == "unet":
        shape = NetShape("unet", config.width, config.depth)
    else:
        context = config.context_px or patch_px
        stride = config.output_stride
        shape = NetShape("deeplab", backbone=config.backbone, output_stride=stride, context_px=context)
    net = new_net(shape, num_classes, config.seed, "" if init else config.backbone_weights)
    if init is not None:
        _load_init(net, init, mpp, reporter)
    net = net.to(team.compute.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    averaged = copy.deepcopy(net).eval().requires_grad_(False)
    return SegmenterState(net, averaged, _optimizer(net, config), config, team)


def _optimizer(net: SegmenterNet, config: TrainSegmenterConfig) -> torch.optim.Optimizer:
    """Return the optimizer; each group of layers has its share of the learning rate."""
    layers = net.layers()
    shares = [config.layer_decay ** (len(layers) - 1 - number) for number in range(len(layers))]
    if config.layer_decay == 1:
        layers, shares = [list(net.parameters())], [1.0]
    groups = [{"params": layer, "share": share} for layer, share in zip(layers, shares, strict=True)]
    if config.optimizer == "sgd":
        return torch.optim.SGD(
            groups, lr=config.learning_rate, momentum=0.9, weight_decay=config.weight_decay
        )
    return torch.optim.AdamW(groups, lr=config.learning_rate, weight_decay=config.weight_decay)


def _load_init(net: SegmenterNet, init: Path, mpp: float, reporter: Reporter) -> None:
    """Take the weights of another segmenter, but not a last layer of other classes."""
    other, info = load_segmenter(init)
    mine = shape_of(net)
    if info.shape != mine:
        wanted = {"net": info.architecture, **asdict(info.shape)}
        wanted = {k: v for k, v in wanted.items() if v and k != "architecture"}
        if info.architecture == mine.architecture:
            del wanted["net"]
        settings = " and ".join(f"{name} to {value}" for name, value in wanted.items())
        raise ModelError(
            f"the segmenter to start from is {info.shape}",
            f"{mine}, as the settings say",
            f"set {settings}, or start anew",
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


@torch.no_grad()
def move_average(averaged: nn.Module, net: nn.Module, decay: float) -> None:
    """Move the averaged weights and batch statistics toward those of the net."""
    for mean, value in zip(averaged.state_dict().values(), net.state_dict().values(), strict=True):
        if mean.is_floating_point():
            mean.lerp_(value, 1 - decay)
        else:
            mean.copy_(value)
