"""A net that learns from slide labels: its average, its optimizer, one step, and what a checkpoint keeps."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd import backward

from napari_histogan.config.weak_labels import TrainWeaklyConfig
from napari_histogan.errors import TrainingDiverged
from napari_histogan.models.device import Compute
from napari_histogan.models.segmenter import pixels_to_input
from napari_histogan.models.weak_unet import WeakUNet
from napari_histogan.training.segmenter_state import move_average, one_cycle

_MOST_GRADIENT = 5.0


@dataclass
class WeakFit:
    """All that a step changes."""

    net: WeakUNet
    averaged: WeakUNet
    optimizer: torch.optim.Optimizer
    config: TrainWeaklyConfig
    compute: Compute
    steps: int
    step: int = 0
    rate: float = 0.0

    def start_from(self, encoded: dict[str, Tensor]) -> None:
        """Take the weights of an auto-encoder."""
        self.net.load_encoded(encoded)
        self.averaged.load_state_dict(self.net.state_dict())

    def take_step(
        self,
        pixels: Tensor,
        losses: Callable[[Tensor, Tensor], Tensor],
        name: Callable[[Sequence[int]], str],
    ) -> float:
        """Make one step of the optimizer and of the average.

        Parameters
        ----------
        pixels
            ``(N, 3, S, S)`` float, 0..255.
        losses
            Given the net's input and output, returns the loss of each patch, ``(N,)``.
        name
            Says where patches of these numbers come from.

        Returns
        -------
        float
            The mean loss.

        Raises
        ------
        TrainingDiverged
            If a patch's loss or the gradient is not finite; the weights are those before the step.
        """
        self.net.train()
        x = pixels_to_input(pixels).contiguous(memory_format=torch.channels_last)
        with self.compute.autocast():
            out = self.net(x)
        each = losses(x, out)
        wrong = torch.nonzero(~torch.isfinite(each.detach())).flatten().tolist()
        if wrong:
            raise self._diverged("the loss", name(wrong))
        self.optimizer.zero_grad()
        backward(each.mean())
        size = float(torch.nn.utils.clip_grad_norm_(self.net.parameters(), _MOST_GRADIENT))
        if not math.isfinite(size):
            raise self._diverged("the gradient", name(range(len(pixels))))
        self.rate = self.config.learning_rate * one_cycle(self.step, self.steps)
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate
        self.optimizer.step()
        move_average(self.averaged, self.net, min(self.config.ema, (1 + self.step) / (10 + self.step)))
        self.step += 1
        return float(each.detach().mean())

    def snapshot(self) -> dict[str, Any]:
        """Return everything that a checkpoint needs."""
        return {
            "step": self.step,
            "net": self.net.state_dict(),
            "averaged": self.averaged.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }

    def restore(self, snapshot: dict[str, Any]) -> None:
        """Go back to a snapshot."""
        self.step = int(snapshot["step"])
        self.net.load_state_dict(snapshot["net"])
        self.averaged.load_state_dict(snapshot["averaged"])
        self.optimizer.load_state_dict(snapshot["optimizer"])

    def _diverged(self, what: str, where: str) -> TrainingDiverged:
        return TrainingDiverged(
            f"at step {self.step} {what} is not finite: {where}",
            "finite numbers",
            "look at these places; start a new run with a smaller learning_rate, or without the slide",
        )


def new_fit(net: WeakUNet, config: TrainWeaklyConfig, compute: Compute, steps: int) -> WeakFit:
    """Return a net ready to learn, with weights that follow from the seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        for module in net.modules():
            if isinstance(module, torch.nn.Conv2d):
                module.reset_parameters()
    net.to(compute.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    averaged = copy.deepcopy(net).eval().requires_grad_(False)
    optimizer = torch.optim.AdamW(net.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
    return WeakFit(net, averaged, optimizer, config, compute, steps)
