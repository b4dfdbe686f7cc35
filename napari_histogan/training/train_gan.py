"""Train StyleGAN2-ADA on a stream of patches (Karras et al. 2020, "Training GANs with Limited Data")."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.autograd import backward

from napari_histogan.config import TrainGanConfig
from napari_histogan.errors import ConfigError, Stopped
from napari_histogan.models.device import resolve
from napari_histogan.models.stylegan2 import Discriminator, Generator
from napari_histogan.progress import Reporter
from napari_histogan.slides.patches import OrderedPatches, PatchSource
from napari_histogan.training.checkpoint import CheckpointStore, capture_rng, restore_rng
from napari_histogan.training.event_files import EventFiles
from napari_histogan.training.gan_losses import (
    discriminator_loss,
    ema_decay,
    generator_loss,
    path_length_penalty,
    path_lengths,
    r1_penalty,
    update_ema,
)
from napari_histogan.training.gan_networks import build_networks
from napari_histogan.training.gan_preview import GanPreview, Pictures
from napari_histogan.training.gan_result import finish_result, write_result
from napari_histogan.training.gan_run import ADA_EVERY, GanRun, Share
from napari_histogan.training.gan_warnings import GanWatch
from napari_histogan.training.team import SilentReporter, Team

logger = logging.getLogger(__name__)

RESULT = "result"
EVENT_FILES = "tensorboard"


def train_gan(
    patches: PatchSource,
    config: TrainGanConfig,
    reporter: Reporter,
    init: Generator | None = None,
    init_discriminator: Discriminator | None = None,
) -> Path:
    """Train a generator and its discriminator, or go on with a stopped training in the same run folder.

    With several devices each process calls this with the same arguments; the first alone reports and writes.

    Parameters
    ----------
    patches
        Endless real patches; whether they come mirrored and rotated is decided there.
    config
        Sizes, rates, and length of the training.
    reporter
        Its run folder takes ``checkpoints/``, ``previews/``, and ``result/``.
    init
        Generator to start from, of the patches' size or a smaller one; its sizes replace those of the config.
    init_discriminator
        The opponent that it had; None starts with a random one.

    Returns
    -------
    Path
        Folder with ``generator.safetensors`` (the averaged generator), ``generator.json`` (how to build it,
        mpp, kimg, quality), ``discriminator.safetensors``, and ``checkpoints.json`` (what else is there).

    Raises
    ------
    ConfigError
        If patches, config, and `init` do not fit together.
    TrainingDiverged
        If a gradient is no longer finite; the checkpoint before is kept.
    Stopped
        If the reporter asked for it; the state was saved.
    """
    check_enough_patches(patches, config.batch)
    team = Team.start(config.devices, resolve(config))
    if not team.leads:
        reporter = SilentReporter(reporter.run_dir)
    torch.manual_seed(config.seed)
    run = GanRun.start(config, team, build_networks(patches.patch_px, config, init, init_discriminator))
    store = CheckpointStore(reporter.run_dir / "checkpoints", config.keep_checkpoints)
    events = EventFiles(reporter.run_dir / EVENT_FILES) if config.tensorboard and team.leads else None
    watch, result = GanWatch(config.ada_target), reporter.run_dir / RESULT
    preview = _preview(patches, run, reporter) if team.leads else None
    if (saved := store.load_latest()) is not None:
        run.load_state_dict(saved.state)
        patches.load_state_dict(saved.state["patches"])
        restore_rng(saved.state["rng"])
        logger.info("Going on after %d images.", run.images)
    read = _share_of(patches, config.batch, team)
    team.wait()  # nobody writes a checkpoint before all have read the last
    logger.info("Training on %s, process %d of %d.", team.compute, team.rank + 1, team.size)
    G, D, total, shares = run.generator, run.discriminator, round(config.kimg * 1000), run.shares
    saved_at, tick = time.monotonic(), _Tick(run.images)

    while run.images < total:
        real = _to_tensor(read(), team.compute.device)
        micro = {share: real[part :: len(shares)] for part, share in enumerate(shares)}

        # Generator: make D take fakes for real.
        if run.images >= run.warmup_images:
            _only(G, D)
            draws = run.draw()
            for share in shares:
                logits = run.judge(run.synthesize(draws, share), draws.fakes, share)
                backward(generator_loss(logits) / len(shares))
            run.step(run.optimizer_g, G)

            # Generator, now and then: equal steps in w shall change the picture equally.
            if config.path_length_weight > 0 and run.iteration % config.path_length_every == 0:
                _even_out_paths(run, shares)
                run.step(run.optimizer_g, G)

        # Discriminator: tell fakes from real patches.
        _only(D, G)
        draws = run.draw()
        for share, images in micro.items():
            with torch.no_grad():
                fakes = run.synthesize(draws, share)
            fake_logits = run.judge(fakes, draws.fakes, share)
            real_logits = run.judge(images, draws.reals, share)
            backward(discriminator_loss(real_logits, fake_logits) / len(shares))
            run.signs.append(real_logits.detach().sign().mean().item())
            tick.add(fake_logits, real_logits)
        run.step(run.optimizer_d, D)

        # Discriminator, now and then: no steep slopes around real patches.
        if config.r1_gamma > 0 and run.iteration % config.r1_every == 0:
            draws = run.draw()
            for share, images in micro.items():
                leaf = images.detach().requires_grad_()
                real_logits = run.judge(leaf, draws.reals, share)
                r1 = r1_penalty(real_logits, leaf)
                backward(r1.mean() * (config.r1_gamma / 2 * config.r1_every / len(shares)))
                run.signs.append(real_logits.detach().sign().mean().item())
                tick.add_r1(r1)
            run.step(run.optimizer_d, D)

        update_ema(run.average, G, ema_decay(config.batch, run.images, config.ema_kimg, run.ema_rampup))
        run.images += config.batch
        run.iteration += 1
        if run.iteration % ADA_EVERY == 0:
            run.adapt_augmentation()
        reporter.progress(run.images / 1000, config.kimg, "kimg", "Training the generator")

        done = run.images >= total
        if run.images - tick.first_image >= config.tick_kimg * 1000 or done:
            figures = tick.figures(run)
            if preview is not None:
                figures |= preview.show(run.images)
                reporter.metric(run.images, **figures)
                run.score = figures["sliced_wasserstein"]
                write_result(run, patches.mpp, result)
                for message in watch.news(figures):
                    reporter.warn(message)
            if events is not None:
                events.write(run.images, figures)
            tick = _Tick(run.images)
        late = time.monotonic() - saved_at > config.checkpoint_minutes * 60
        stop, save = team.agree(reporter.should_stop() and not done, late)
        if stop or save or done:
            state = run.state_dict() | {"patches": patches.state_dict(), "rng": capture_rng()}
            if team.leads:
                store.save(run.images, state | {"mpp": patches.mpp}, run.score)
            saved_at = time.monotonic()
        if stop:
            raise Stopped(f"stopped after {run.images / 1000:.1f} of {config.kimg:g} kimg; resume to go on")

    if team.leads:
        finish_result(run, patches.mpp, result)
    if events is not None:
        events.close()
    team.wait()
    return result


def check_enough_patches(patches: PatchSource, batch: int) -> None:
    """Raise ``ConfigError`` if a source says that it has fewer different patches than a batch."""
    there = patches.distinct if isinstance(patches, OrderedPatches) else batch
    if there < batch:
        raise ConfigError(
            f"there are {there:,} patches of {patches.patch_px} px that do not overlap, fewer than a batch",
            f"{batch} patches or more",
            "add slides, or take smaller patches or a smaller batch",
        )


def _even_out_paths(run: GanRun, shares: list[Share]) -> None:
    """Collect the gradients of path length regularization from half the batch."""
    config, G = run.config, run.generator
    each = max(config.batch // run.team.size // len(shares) // 2, 1)
    draws = run.draw(each * run.team.size * len(shares))

    def lengths(share: Share, first: bool) -> Tensor:
        ws = run.styles(draws, share, track=first and share[0] < run.team.size)
        fakes = G.synthesis(ws, noise=run.noise(draws, share), dtype=run.team.compute.dtype)
        chance = torch.Generator(fakes.device).manual_seed(draws.fakes)
        directions = torch.randn((len(draws.z), *fakes.shape[1:]), generator=chance, device=fakes.device)
        return path_lengths(fakes, ws, directions[share[0] :: share[1]])

    # The penalty needs the mean of the whole batch before the first of several shares is differentiated.
    alone = len(shares) == 1
    seen = [lengths(share, first=True).detach().mean() for share in shares] if not alone else []
    mean, before = run.team.mean(torch.stack(seen).mean()) if seen else None, run.path_mean
    for share in shares:
        found = lengths(share, first=alone)
        if alone and run.team.size > 1:
            mean = run.team.mean(found.detach().mean())
        penalty, run.path_mean = path_length_penalty(found, before, mean)
        backward(penalty.mean() * (config.path_length_weight * config.path_length_every / len(shares)))


def _share_of(patches: PatchSource, batch: int, team: Team) -> Callable[[], Pictures]:
    """Return a function that reads this process's patches of the next batch."""
    if team.size > 1 and isinstance(patches, OrderedPatches):
        patches.take_share(team.rank, team.size)
        return lambda: patches.next_batch(batch // team.size)
    return lambda: patches.next_batch(batch)[team.rank :: team.size]


class _Tick:
    """What was seen since the last report."""

    def __init__(self, first_image: int) -> None:
        self.first_image = first_image
        self._fake: list[float] = []
        self._real: list[float] = []
        self._sign: list[float] = []
        self._r1: list[float] = []
        self._since = time.perf_counter()

    def add(self, fake_logits: Tensor, real_logits: Tensor) -> None:
        self._fake.append(fake_logits.detach().mean().item())
        self._real.append(real_logits.detach().mean().item())
        self._sign.append(real_logits.detach().sign().mean().item())

    def add_r1(self, penalties: Tensor) -> None:
        self._r1.append(penalties.detach().mean().item())

    def figures(self, run: GanRun) -> dict[str, float]:
        """Return means over all processes; every process must call it."""
        kimg = (run.images - self.first_image) / 1000
        each = self._fake, self._real, self._sign, self._r1
        seen = [float(np.mean(values)) if values else 0.0 for values in each]
        means = run.team.mean(run.path_mean.new_tensor(seen)).tolist()
        return {
            "kimg": run.images / 1000,
            "seconds_per_kimg": (time.perf_counter() - self._since) / kimg,
            **dict(zip(("score_fake", "score_real", "sign_real", "r1"), means, strict=True)),
            "ada_p": run.ada_p,
        }


def _only(trained: torch.nn.Module, frozen: torch.nn.Module) -> None:
    trained.requires_grad_(True)
    frozen.requires_grad_(False)


def _to_tensor(pictures: Pictures, device: torch.device) -> Tensor:
    """(N, S, S, 3) uint8 -> (N, 3, S, S) float32 within [-1, 1]."""
    return torch.from_numpy(pictures).to(device).permute(0, 3, 1, 2).to(torch.float32) / 127.5 - 1


def _preview(patches: PatchSource, run: GanRun, reporter: Reporter) -> GanPreview:
    return GanPreview(
        patches,
        run.average,
        batch=run.config.micro_batch or run.config.batch // run.config.devices,
        seed=run.config.seed,
        dtype=run.team.compute.dtype,
        reporter=reporter,
        inception=run.config.inception,
    )
