"""Classifier and generator in training: one step of both, and what a checkpoint keeps."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd import backward

from napari_histogan.config.patch_gan import TrainPatchGanConfig
from napari_histogan.errors import CheckpointError, TrainingDiverged
from napari_histogan.models.device import Compute
from napari_histogan.models.patch_gan import PatchClassifier, PatchGenerator, PatchNetShape
from napari_histogan.training.patch_gan_losses import class_loss, fake_loss, real_loss
from napari_histogan.training.segmenter_state import move_average

_NOISE, _SHOWN = 31, 32
"""Salts that set the chance of steps and of previews apart."""
_BETAS = (0.5, 0.999)
"""Of Adam, as is usual for adversarial training (Radford et al. 2016); the paper names none."""


@dataclass
class PatchGanState:
    """All that a step changes."""

    net: PatchClassifier
    averaged: PatchClassifier
    generator: PatchGenerator | None
    optimizer: torch.optim.Optimizer
    painter: torch.optim.Optimizer | None
    config: TrainPatchGanConfig
    compute: Compute
    step: int = 0

    def take_step(
        self, patches: Tensor, classes: Tensor, unlabelled: Tensor | None, rate: float
    ) -> dict[str, float]:
        """Make one step of the classifier, one of the generator if there is one, and one of the average.

        Parameters
        ----------
        patches, classes
            ``(N, C, S, S)`` float, -1..1, and ``(N,)`` int64, 0 to K - 1.
        unlabelled
            Further real patches, or None.
        rate
            Learning rate of both.

        Returns
        -------
        dict
            ``loss`` and its parts before weighting: ``class_loss``, and with a generator ``real_loss``,
            ``fake_loss``; beside it ``generator_loss``.

        Raises
        ------
        TrainingDiverged
            If a loss or gradient is not finite; that network's weights are those before the step.
        """
        self.net.train()
        for optimizer in (self.optimizer, self.painter):
            for group in optimizer.param_groups if optimizer else ():
                group["lr"] = rate
        painted, wanted = self._paint(len(patches))
        real = patches if unlabelled is None else torch.cat([patches, unlabelled])
        with self.compute.autocast():
            logits = self.net(real if painted is None else torch.cat([real, painted.detach()]))
        losses = self._classifier_losses(logits[: len(real)], classes, logits[len(real) :], wanted)
        whole = losses["class_loss"]
        for name, loss in losses.items():
            if name != "class_loss":
                whole = whole + self.config.adversarial_weight * loss
        self._descend("classifier", self.optimizer, whole)
        figures = {name: float(loss.detach()) for name, loss in losses.items()}
        figures["loss"] = float(whole.detach())
        if painted is not None and self.painter is not None:
            self.net.requires_grad_(False)
            with self.compute.autocast():
                seen = self.net(painted)
            loss = real_loss(seen)
            if wanted is not None:
                loss = loss + class_loss(seen, wanted, self.net.shape.num_classes)
            self._descend("generator", self.painter, loss)
            self.net.requires_grad_(True)
            figures["generator_loss"] = float(loss.detach())
        move_average(self.averaged, self.net, min(self.config.ema, (1 + self.step) / (10 + self.step)))
        self.step += 1
        return figures

    @torch.no_grad()
    def samples(self, count: int) -> Tensor:
        """Return what the generator paints from noise that is always the same, ``(count, C, S, S)``."""
        if self.generator is None:
            raise ValueError("a plain CNN has no generator")
        rng = _rng(self.config.seed, _SHOWN, 0)
        noise = torch.randn(count, self.generator.noise, generator=rng).to(self.compute.device)
        classes = torch.arange(count, device=self.compute.device) % self.net.shape.num_classes
        painted: Tensor = self.generator(noise, classes)
        return painted.float()

    def snapshot(self) -> dict[str, Any]:
        """Return everything that a checkpoint needs."""
        kept: dict[str, Any] = {"step": self.step}
        for name, part in self._parts().items():
            kept[name] = part.state_dict()
        return kept

    def restore(self, snapshot: dict[str, Any]) -> None:
        """Go back to a snapshot; raise ``CheckpointError`` if it is of other networks."""
        try:
            for name, part in self._parts().items():
                part.load_state_dict(snapshot[name])
            self.step = int(snapshot["step"])
        except (KeyError, RuntimeError, ValueError) as error:
            raise CheckpointError(
                "the run's checkpoint holds other networks", "those of this run", "start a new run"
            ) from error

    def _parts(self) -> dict[str, Any]:
        parts = {"net": self.net, "averaged": self.averaged, "optimizer": self.optimizer}
        return parts | ({"generator": self.generator, "painter": self.painter} if self.generator else {})

    def _paint(self, count: int) -> tuple[Tensor | None, Tensor | None]:
        """Return painted patches, and the classes they are to have; None for what there is not."""
        if self.generator is None:
            return None, None
        rng = _rng(self.config.seed, _NOISE, self.step)
        noise = torch.randn(count, self.generator.noise, generator=rng).to(self.compute.device)
        wanted = None
        if self.generator.conditional:
            wanted = torch.randint(self.net.shape.num_classes, (count,), generator=rng)
            wanted = wanted.to(self.compute.device)
        self.generator.train()
        with self.compute.autocast():
            return self.generator(noise, wanted).float(), wanted

    def _classifier_losses(
        self, real: Tensor, classes: Tensor, painted: Tensor, wanted: Tensor | None
    ) -> dict[str, Tensor]:
        """Return the losses of the logits of real patches, labeled ones first, and of painted ones."""
        num_classes = self.net.shape.num_classes
        losses = {"class_loss": class_loss(real[: len(classes)], classes, num_classes)}
        if self.generator is not None:
            losses |= {"real_loss": real_loss(real), "fake_loss": fake_loss(painted)}
            if wanted is not None:
                losses["painted_class_loss"] = class_loss(painted, wanted, num_classes)
        return losses

    def _descend(self, who: str, optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
        """Make one step of an optimizer; refuse what is not finite."""
        optimizer.zero_grad()
        backward(loss)
        gradients = [
            p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None
        ]
        size = float(torch.nn.utils.get_total_norm(gradients))
        value = loss.item()
        if not (math.isfinite(value) and math.isfinite(size)):
            raise TrainingDiverged(
                f"at step {self.step} the {who}'s loss became {value:g} and its gradient {size:g}",
                "finite numbers",
                "start a new run with a smaller learning_rate",
            )
        optimizer.step()


def new_state(shape: PatchNetShape, config: TrainPatchGanConfig, compute: Compute) -> PatchGanState:
    """Return both networks with weights that follow from the seed, and their optimizers."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        net = PatchClassifier(shape)
        generator = PatchGenerator(shape, config.noise, config.conditional) if config.adversarial else None
    net.to(compute.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    painter = None
    if generator is not None:
        generator.to(compute.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        painter = torch.optim.Adam(generator.parameters(), lr=config.learning_rate, betas=_BETAS)
    averaged = copy.deepcopy(net).eval().requires_grad_(False)
    optimizer = torch.optim.Adam(net.parameters(), lr=config.learning_rate, betas=_BETAS)
    return PatchGanState(net, averaged, generator, optimizer, painter, config, compute)


def seed_of(*numbers: int) -> int:
    """Return a seed that follows from numbers, for torch."""
    found = np.random.SeedSequence(list(numbers)).generate_state(1, np.uint64)[0]
    return int(found >> np.uint64(1))


def _rng(*numbers: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed_of(*numbers))


def turned(patches: Tensor, rng: np.random.Generator) -> Tensor:
    """Mirror and turn each patch ``(N, C, S, S)`` at random: one of the 8 ways, all equally likely."""
    flags = [
        torch.from_numpy(rng.random(len(patches)) < 0.5).to(patches.device)[:, None, None, None]
        for _ in "yxt"
    ]
    patches = torch.where(flags[0], patches.flip(2), patches)
    patches = torch.where(flags[1], patches.flip(3), patches)
    return torch.where(flags[2], patches.transpose(2, 3), patches)
