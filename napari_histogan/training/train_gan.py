"""Train StyleGAN2-ADA on a stream of patches (Karras et al. 2020, "Training GANs with Limited Data")."""

from __future__ import annotations

import copy
import logging
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd import backward

from napari_histogan.config import TrainGanConfig
from napari_histogan.errors import ConfigError, Stopped, TrainingDiverged
from napari_histogan.models.ada import AugmentPipe
from napari_histogan.models.device import Compute, resolve
from napari_histogan.models.stylegan2 import (
    Discriminator,
    DiscriminatorSpec,
    Generator,
    GeneratorSpec,
    save_discriminator,
    save_generator,
)
from napari_histogan.progress import Reporter
from napari_histogan.slides.patches import PatchSource
from napari_histogan.training.checkpoint import CheckpointStore, State, capture_rng, restore_rng
from napari_histogan.training.gan_losses import (
    complete_gradients,
    discriminator_loss,
    ema_decay,
    generator_loss,
    lazy_adam,
    path_length_penalty,
    path_lengths,
    r1_penalty,
    update_ema,
)
from napari_histogan.training.gan_preview import GanPreview, Pictures

logger = logging.getLogger(__name__)

RESULT = "result"
ADA_EVERY = 4


def train_gan(
    patches: PatchSource, config: TrainGanConfig, reporter: Reporter, init: Generator | None = None
) -> Path:
    """Train a generator and its discriminator, or go on with a stopped training in the same run folder.

    Parameters
    ----------
    patches
        Endless real patches; whether they come mirrored and rotated is decided there.
    config
        Sizes, rates, and length of the training.
    reporter
        Its run folder takes ``checkpoints/``, ``previews/``, and ``result/``.
    init
        Generator to start from; its sizes replace those of the config.

    Returns
    -------
    Path
        Folder with ``generator.safetensors`` (the averaged generator), ``generator.json`` (how to build it,
        mpp, kimg, quality), and ``discriminator.safetensors``.

    Raises
    ------
    ConfigError
        If patches, config, and `init` do not fit together.
    TrainingDiverged
        If a gradient is no longer finite; the checkpoint before is kept.
    Stopped
        If the reporter asked for it; the state was saved.
    """
    compute = resolve(config)
    torch.manual_seed(config.seed)
    run = _Run.start(patches, config, compute, init)
    store = CheckpointStore(reporter.run_dir / "checkpoints", config.keep_checkpoints)
    preview = GanPreview(
        patches,
        run.average,
        batch=config.batch,
        seed=config.seed,
        dtype=compute.dtype,
        reporter=reporter,
    )
    if (saved := store.load_latest()) is not None:
        run.load_state_dict(saved.state)
        patches.load_state_dict(saved.state["patches"])
        restore_rng(saved.state["rng"])
        logger.info("Going on after %d images.", run.images)
    logger.info("Training on %s.", compute)
    G, D, total = run.generator, run.discriminator, round(config.kimg * 1000)
    parts = config.batch // (config.micro_batch or config.batch)
    saved_at = time.monotonic()
    tick = _Tick(run.images)

    while run.images < total:
        real = _to_tensor(patches.next_batch(config.batch), compute.device)
        micro = real.chunk(parts)

        # Generator: make D take fakes for real.
        _only(G, D)
        for images in micro:
            logits = run.judge(run.synthesize(len(images)))
            backward(generator_loss(logits) / parts)
        run.step(run.optimizer_g, G)

        # Generator, now and then: equal steps in w shall change the picture equally.
        if config.path_length_weight > 0 and run.iteration % config.path_length_every == 0:
            for images in micro:
                ws = run.styles(max(len(images) // 2, 1))
                fakes = G.synthesis(ws, "random", dtype=compute.dtype)
                lengths = path_lengths(fakes, ws, torch.randn_like(fakes))
                penalty, run.path_mean = path_length_penalty(lengths, run.path_mean)
                weight = config.path_length_weight * config.path_length_every / parts
                backward(penalty.mean() * weight)
            run.step(run.optimizer_g, G)

        # Discriminator: tell fakes from real patches.
        _only(D, G)
        for images in micro:
            with torch.no_grad():
                fakes = run.synthesize(len(images))
            fake_logits, real_logits = run.judge(fakes), run.judge(images)
            backward(discriminator_loss(real_logits, fake_logits) / parts)
            run.signs.append(real_logits.detach().sign().mean().item())
            tick.add(fake_logits, real_logits)
        run.step(run.optimizer_d, D)

        # Discriminator, now and then: no steep slopes around real patches.
        if config.r1_gamma > 0 and run.iteration % config.r1_every == 0:
            for images in micro:
                leaf = images.detach().requires_grad_()
                real_logits = run.judge(leaf)
                r1 = r1_penalty(real_logits, leaf)
                backward(r1.mean() * (config.r1_gamma / 2 * config.r1_every / parts))
                run.signs.append(real_logits.detach().sign().mean().item())
                tick.r1 = r1.mean().item()
            run.step(run.optimizer_d, D)

        rampup = 0.0 if init is not None else config.ema_rampup
        update_ema(run.average, G, ema_decay(config.batch, run.images, config.ema_kimg, rampup))
        run.images += config.batch
        run.iteration += 1
        if run.iteration % ADA_EVERY == 0:
            run.adapt_augmentation()
        reporter.progress(run.images / 1000, config.kimg, "kimg", "Training the generator")

        if run.images - tick.first_image >= config.tick_kimg * 1000 or run.images >= total:
            figures = tick.figures(run) | preview.show(run.images)
            reporter.metric(run.images, **figures)
            run.score = figures["sliced_wasserstein"]
            _write_result(run, patches.mpp, reporter.run_dir / RESULT)
            tick = _Tick(run.images)
        stop = reporter.should_stop() and run.images < total
        if stop or time.monotonic() - saved_at > config.checkpoint_minutes * 60 or run.images >= total:
            state = run.state_dict() | {"patches": patches.state_dict(), "rng": capture_rng()}
            store.save(run.images, state, run.score)
            saved_at = time.monotonic()
        if stop:
            raise Stopped(f"stopped after {run.images / 1000:.1f} of {config.kimg:g} kimg; resume to go on")

    _write_result(run, patches.mpp, reporter.run_dir / RESULT)
    return reporter.run_dir / RESULT


@dataclass
class _Run:
    """The networks in training and everything else that a checkpoint must hold."""

    config: TrainGanConfig
    compute: Compute
    generator: Generator
    discriminator: Discriminator
    average: Generator
    optimizer_g: torch.optim.Adam
    optimizer_d: torch.optim.Adam
    path_mean: Tensor
    augment: AugmentPipe = field(default_factory=AugmentPipe)
    images: int = 0
    iteration: int = 0
    ada_p: float = 0.0
    signs: list[float] = field(default_factory=list)
    score: float | None = None

    @classmethod
    def start(
        cls, patches: PatchSource, config: TrainGanConfig, compute: Compute, init: Generator | None
    ) -> _Run:
        """Build fresh networks, or take over those of `init`."""
        generator, discriminator = build_networks(patches.patch_px, config, init)
        generator.to(compute.device).train()
        discriminator.to(compute.device).train()
        average = copy.deepcopy(generator).eval().requires_grad_(False)
        return cls(
            config,
            compute,
            generator,
            discriminator,
            average,
            lazy_adam(
                generator,
                config.learning_rate,
                config.path_length_every if config.path_length_weight > 0 else None,
            ),
            lazy_adam(discriminator, config.learning_rate, config.r1_every if config.r1_gamma > 0 else None),
            torch.zeros([], device=compute.device),
        )

    def styles(self, n: int) -> Tensor:
        """Draw styles (n, num_ws, w_dim), with the config's probability mixed of two latents."""
        mapping, spec = self.generator.mapping, self.generator.spec
        ws: Tensor = mapping(torch.randn(n, spec.z_dim, device=self.compute.device))
        if torch.rand([]) < self.config.style_mixing:
            cut = int(torch.randint(1, spec.num_ws, []))
            other = mapping(torch.randn(n, spec.z_dim, device=self.compute.device), track_mean=False)
            ws = torch.cat([ws[:, :cut], other[:, cut:]], dim=1)
        return ws

    def synthesize(self, n: int) -> Tensor:
        """Draw fake patches (n, 3, S, S), about [-1, 1]."""
        images: Tensor = self.generator.synthesis(self.styles(n), "random", dtype=self.compute.dtype)
        return images

    def judge(self, images: Tensor) -> Tensor:
        """Return the logits (N, 1) of images (N, 3, S, S), real and fake alike seen through augmentation."""
        if self.ada_p > 0:
            images = self.augment(images, self.ada_p)
        logits: Tensor = self.discriminator(images, dtype=self.compute.dtype)
        return logits

    def step(self, optimizer: torch.optim.Adam, network: torch.nn.Module) -> None:
        """Step an optimizer with the gradients collected, unless one of them is not finite."""
        gradients = complete_gradients(network)
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
            seen = self.config.batch * ADA_EVERY / (self.config.ada_kimg * 1000)
            direction = float(np.sign(np.mean(self.signs) - self.config.ada_target))
            self.ada_p = max(0.0, self.ada_p + direction * seen)
        self.signs.clear()

    def state_dict(self) -> State:
        """Return what `load_state_dict` needs to go on bit for bit."""
        return {
            "spec": self.generator.spec.to_dict(),
            "generator": self.generator.state_dict(),
            "discriminator": self.discriminator.state_dict(),
            "average": self.average.state_dict(),
            "optimizer_g": self.optimizer_g.state_dict(),
            "optimizer_d": self.optimizer_d.state_dict(),
            "path_mean": self.path_mean,
            "images": self.images,
            "iteration": self.iteration,
            "ada_p": self.ada_p,
            "signs": list(self.signs),
            "score": self.score,
        }

    def load_state_dict(self, state: State) -> None:
        """Go on from a state."""
        if state["spec"] != self.generator.spec.to_dict():
            raise ConfigError(
                "the checkpoints in this run folder are of networks of other sizes",
                "the config that the run was started with",
                "start a new run for other sizes",
            )
        for name in ("generator", "discriminator", "average", "optimizer_g", "optimizer_d"):
            getattr(self, name).load_state_dict(state[name])
        for name in ("images", "iteration", "ada_p", "score"):
            setattr(self, name, state[name])
        self.path_mean = state["path_mean"].to(self.compute.device)
        self.signs = list(state["signs"])


def build_networks(
    patch_px: int, config: TrainGanConfig, init: Generator | None = None
) -> tuple[Generator, Discriminator]:
    """Build the generator and discriminator of a config, with random weights or those of `init`.

    Raises
    ------
    ConfigError
        If `init` paints another size, or the batch cannot be divided as asked.
    """
    if config.micro_batch and config.batch % config.micro_batch:
        raise ConfigError(
            f"batch {config.batch} is no multiple of micro_batch {config.micro_batch}", "a divisor of batch"
        )
    part = config.micro_batch or config.batch
    group = next(g for g in (4, 3, 2, 1) if part % g == 0)
    if init is None:
        spec = GeneratorSpec(
            z_dim=config.z_dim,
            c_dim=0,
            w_dim=config.w_dim,
            img_resolution=patch_px,
            mapping_layers=config.mapping_layers,
            channel_base=config.channel_base,
            channel_max=config.channel_max,
        )
        generator = Generator(spec)
    else:
        spec = init.spec
        if spec.img_resolution != patch_px or spec.img_channels != 3 or spec.c_dim:
            raise ConfigError(
                f"the generator to start from paints {spec.img_resolution} px with {spec.img_channels} "
                f"colors and {spec.c_dim} labels, the patches have {patch_px} px",
                "the same size, 3 colors, no labels",
                "choose patches of its size, or start from random weights",
            )
        generator = copy.deepcopy(init).requires_grad_(True)
    discriminator = Discriminator(
        DiscriminatorSpec(
            img_resolution=patch_px,
            channel_base=spec.channel_base,
            channel_max=spec.channel_max,
            conv_clamp=spec.conv_clamp,
            mbstd_group_size=group,
        )
    )
    return generator, discriminator


class _Tick:
    """What was seen since the last report."""

    def __init__(self, first_image: int) -> None:
        self.first_image, self.r1 = first_image, 0.0
        self._fake: list[float] = []
        self._real: list[float] = []
        self._sign: list[float] = []
        self._since = time.perf_counter()

    def add(self, fake_logits: Tensor, real_logits: Tensor) -> None:
        self._fake.append(fake_logits.detach().mean().item())
        self._real.append(real_logits.detach().mean().item())
        self._sign.append(real_logits.detach().sign().mean().item())

    def figures(self, run: _Run) -> dict[str, float]:
        kimg = (run.images - self.first_image) / 1000
        return {
            "kimg": run.images / 1000,
            "seconds_per_kimg": (time.perf_counter() - self._since) / kimg,
            "score_fake": float(np.mean(self._fake)),
            "score_real": float(np.mean(self._real)),
            "sign_real": float(np.mean(self._sign)),
            "r1": self.r1,
            "ada_p": run.ada_p,
        }


def _only(trained: torch.nn.Module, frozen: torch.nn.Module) -> None:
    trained.requires_grad_(True)
    frozen.requires_grad_(False)


def _to_tensor(pictures: Pictures, device: torch.device) -> Tensor:
    """(N, S, S, 3) uint8 -> (N, 3, S, S) float32 within [-1, 1]."""
    return torch.from_numpy(pictures).to(device).permute(0, 3, 1, 2).to(torch.float32) / 127.5 - 1


def _write_result(run: _Run, mpp: float | None, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    extra: dict[str, Any] = {"mpp": mpp, "kimg": run.images / 1000, "sliced_wasserstein": run.score}
    save_generator(folder / "generator.safetensors", run.average, extra)
    save_discriminator(folder / "discriminator.safetensors", run.discriminator)
