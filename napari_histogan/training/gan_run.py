"""The state of a GAN training: networks, optimizers, chance, and what a checkpoint holds of them."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from napari_histogan.config import TrainGanConfig
from napari_histogan.errors import ConfigError, TrainingDiverged
from napari_histogan.models.ada import AugmentPipe
from napari_histogan.models.stylegan2 import Discriminator, Generator
from napari_histogan.training.checkpoint import State
from napari_histogan.training.gan_losses import complete_gradients, lazy_adam
from napari_histogan.training.gan_networks import StartingNetworks
from napari_histogan.training.team import Team

ADA_EVERY = 4
_SEEDS = 2**31 - 1

Share = tuple[int, int]
"""(index, count): every count-th sample of the batch, from number index on."""


class Draws(NamedTuple):
    """The chance of one phase of a step, drawn for the whole batch, so that any share of it is the same.

    Attributes
    ----------
    z
        (N, z_dim) latents.
    other, cut
        Latents for the layers from `cut` on, or None without mixing.
    noise, fakes, reals
        Seeds of the noise, and of the augmentation of fake and real pictures.
    """

    z: Tensor
    other: Tensor | None
    cut: int
    noise: int
    fakes: int
    reals: int


@dataclass
class GanRun:
    """The networks in training and everything else that a checkpoint must hold."""

    config: TrainGanConfig
    team: Team
    generator: Generator
    discriminator: Discriminator
    average: Generator
    optimizer_g: torch.optim.Adam
    optimizer_d: torch.optim.Adam
    path_mean: Tensor
    chance: torch.Generator
    ema_rampup: float
    warmup_images: int = 0
    augment: AugmentPipe = field(default_factory=AugmentPipe)
    images: int = 0
    iteration: int = 0
    ada_p: float = 0.0
    signs: list[float] = field(default_factory=list)
    score: float | None = None
    best_score: float | None = None

    @classmethod
    def start(cls, config: TrainGanConfig, team: Team, networks: StartingNetworks) -> GanRun:
        """Take networks to the device and give them their optimizers."""
        device = team.compute.device
        generator = networks.generator.to(device).train()
        discriminator = networks.discriminator.to(device).train()
        known = len(networks.fresh_generator) < len(list(generator.parameters()))
        unequal = known and len(networks.fresh_discriminator) == len(list(discriminator.parameters()))
        return cls(
            config,
            team,
            generator,
            discriminator,
            copy.deepcopy(generator).eval().requires_grad_(False),
            lazy_adam(
                generator,
                config.learning_rate,
                config.path_length_every if config.path_length_weight > 0 else None,
            ),
            lazy_adam(discriminator, config.learning_rate, config.r1_every if config.r1_gamma > 0 else None),
            torch.zeros([], device=device),
            torch.Generator().manual_seed(int(torch.randint(_SEEDS, []))),
            config.ema_rampup if networks.fresh_generator else 0.0,
            round(config.warmup_kimg * 1000) if unequal else 0,
        )

    @property
    def shares(self) -> list[Share]:
        """The parts of the batch that this process computes, one after the other."""
        size = self.team.size
        parts = self.config.batch // size // (self.config.micro_batch or self.config.batch // size)
        return [(self.team.rank + part * size, parts * size) for part in range(parts)]

    def draw(self, count: int = 0) -> Draws:
        """Draw the chance of a phase, with the config's probability of two mixed latents."""
        spec, chance = self.generator.spec, self.chance
        z = torch.randn(count or self.config.batch, spec.z_dim, generator=chance)
        other, cut = None, 0
        if torch.rand([], generator=chance) < self.config.style_mixing:
            cut = int(torch.randint(1, spec.num_ws, [], generator=chance))
            other = torch.randn(z.shape, generator=chance)
        seeds = torch.randint(_SEEDS, [3], generator=chance).tolist()
        return Draws(z, other, cut, *seeds)

    def styles(self, draws: Draws, share: Share, track: bool) -> Tensor:
        """Return styles (n, num_ws, w_dim) of a share; `track` moves the mean of w by the whole batch."""
        mapping, device, mine = (
            self.generator.mapping,
            self.team.compute.device,
            slice(share[0], None, share[1]),
        )
        ws: Tensor = mapping(draws.z.to(device), track_mean=track)[mine]
        if draws.other is not None:
            other = mapping(draws.other.to(device), track_mean=False)[mine]
            ws = torch.cat([ws[:, : draws.cut], other[:, draws.cut :]], dim=1)
        return ws

    def noise(self, draws: Draws, share: Share) -> list[Tensor]:
        """Return the noise (n, 1, r, r) of every layer of a share."""
        device, n = self.team.compute.device, len(draws.z)
        chance = torch.Generator(device).manual_seed(draws.noise)
        shapes = self.generator.synthesis.noise_shapes()
        return [
            torch.randn(n, 1, *shape, generator=chance, device=device)[share[0] :: share[1]]
            for shape in shapes
        ]

    def synthesize(self, draws: Draws, share: Share) -> Tensor:
        """Paint a share of the fakes, (n, 3, S, S), about [-1, 1]."""
        ws = self.styles(draws, share, track=share[0] < self.team.size)
        images: Tensor = self.generator.synthesis(
            ws, noise=self.noise(draws, share), dtype=self.team.compute.dtype
        )
        return images

    def judge(self, images: Tensor, seed: int, share: Share) -> Tensor:
        """Return the logits (n, 1) of images (n, 3, S, S), real and fake alike seen through augmentation."""
        if self.ada_p > 0:
            images = self.augment(images, self.ada_p, torch.Generator().manual_seed(seed), share)
        logits: Tensor = self.discriminator(images, dtype=self.team.compute.dtype)
        return logits

    def step(self, optimizer: torch.optim.Adam, network: torch.nn.Module) -> None:
        """Step an optimizer with the gradients of all processes, unless one of them is not finite."""
        gradients = complete_gradients(network)
        self.team.average(gradients)
        if not torch.isfinite(torch.stack(torch._foreach_norm(gradients)).sum()):
            raise TrainingDiverged(
                f"a gradient is not finite after {self.images / 1000:.1f} kimg",
                "finite gradients",
                "start a new run with a larger r1_gamma, a smaller learning_rate, or precision float32; "
                "the last good generator lies in the run folder",
            )
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    def adapt_augmentation(self) -> None:
        """Move p toward the point where D is as sure of itself as the target says (section 3.1 of ADA)."""
        if self.config.ada_target > 0 and self.signs:
            sign = float(self.team.mean(self.path_mean.new_tensor(float(np.mean(self.signs)))))
            seen = self.config.batch * ADA_EVERY / (self.config.ada_kimg * 1000)
            self.ada_p = max(0.0, self.ada_p + float(np.sign(sign - self.config.ada_target)) * seen)
        self.signs.clear()

    def state_dict(self) -> State:
        """Return what `load_state_dict` needs to go on bit for bit; every process must call it."""
        if self.team.size > 1 and self.signs:
            self.signs = self.team.mean(self.path_mean.new_tensor(self.signs)).tolist()
        return {
            "spec": self.generator.spec.to_dict(),
            "discriminator_spec": self.discriminator.spec.to_dict(),
            "generator": self.generator.state_dict(),
            "discriminator": self.discriminator.state_dict(),
            "average": self.average.state_dict(),
            "optimizer_g": self.optimizer_g.state_dict(),
            "optimizer_d": self.optimizer_d.state_dict(),
            "path_mean": self.path_mean,
            "chance": self.chance.get_state(),
            "images": self.images,
            "iteration": self.iteration,
            "ada_p": self.ada_p,
            "signs": list(self.signs),
            "score": self.score,
            "best_score": self.best_score,
            "warmup_images": self.warmup_images,
            "ema_rampup": self.ema_rampup,
        }

    def load_state_dict(self, state: State) -> None:
        """Go on from a state; one of an older version lacks a few entries, which are then chosen anew."""
        if state["spec"] != self.generator.spec.to_dict():
            raise ConfigError(
                "the checkpoints in this run folder are of networks of other sizes",
                "the config that the run was started with",
                "start a new run for other sizes",
            )
        for name in ("generator", "discriminator", "average", "optimizer_g", "optimizer_d"):
            getattr(self, name).load_state_dict(state[name])
        for name in ("images", "iteration", "ada_p", "score", "best_score", "warmup_images", "ema_rampup"):
            setattr(self, name, state.get(name, getattr(self, name)))
        self.path_mean = state["path_mean"].to(self.team.compute.device)
        self.signs = list(state["signs"])
        self.chance.set_state(state.get("chance", state["rng"]["torch"]))
