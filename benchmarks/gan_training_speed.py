"""Seconds per thousand images of GAN training, beside a plain training step of the same networks.

Ours is `train_gan` itself, whole steps of it, with everything that the machine has (bfloat16 where it is in
hardware) and in float32.  The plain one is the same step on the same networks as the public code computes it
on a processor: float32, zeros filtered away at full size, and torch's own second derivatives
(`plain_stylegan2.py`; one convolution serves the batch, which is faster than a kernel for every sample).
Two shapes of training come one after the other: without path length regularization, which is the default,
and with it, as in the paper.  Patches are noise in memory, so nothing waits for slides, and augmentation is
still at p = 0.

    python benchmarks/gan_training_speed.py [--quick] [--threads N]
"""

from __future__ import annotations

import argparse
import copy
import tempfile
import time
from pathlib import Path

import numpy as np
import plain_stylegan2
import torch
import torch.nn.functional as F
import zarr
from measuring import Cost, finish, machine
from torch import Tensor

from napari_histogan.config import TrainGanConfig
from napari_histogan.models.device import has_native_bfloat16
from napari_histogan.models.noise import noise_maps
from napari_histogan.models.stylegan2 import Discriminator, DiscriminatorSpec, Generator, GeneratorSpec
from napari_histogan.progress import QuietReporter
from napari_histogan.slides.patches import ZarrPatches
from napari_histogan.training.gan_losses import discriminator_loss, ema_decay, generator_loss, update_ema
from napari_histogan.training.train_gan import train_gan

GOAL_SECONDS, GOAL_FASTER, AGREEMENT = 30.0, 2.0, 1e-3
R1_EVERY, PATH_EVERY = 16, 4
CYCLE = 16
"""Steps after which both regularizations have had their turns."""


class PlainTraining:
    """Networks, optimizers, and the training step as the paper describes it."""

    def __init__(self, config: TrainGanConfig, resolution: int) -> None:
        self.config = config
        sizes = {"channel_base": config.channel_base, "channel_max": config.channel_max}
        spec = GeneratorSpec(
            z_dim=config.z_dim, c_dim=0, w_dim=config.w_dim, img_resolution=resolution,
            mapping_layers=config.mapping_layers, **sizes,
        )  # fmt: skip
        self.generator = Generator(spec).train()
        self.discriminator = Discriminator(DiscriminatorSpec(img_resolution=resolution, **sizes)).train()
        self.average = copy.deepcopy(self.generator).eval().requires_grad_(False)
        self.path_mean = torch.zeros([])
        rate = config.learning_rate
        self.optimizer_g = torch.optim.Adam(self.generator.parameters(), lr=rate, betas=(0.0, 0.99))
        self.optimizer_d = torch.optim.Adam(self.discriminator.parameters(), lr=rate, betas=(0.0, 0.99))

    def paint(self, n: int) -> tuple[Tensor, Tensor]:
        """Return n fakes and their styles."""
        spec = self.generator.spec
        z, other = torch.randn(2, n, spec.z_dim).unbind()
        cut = int(torch.randint(1, spec.num_ws, []))
        ws = plain_stylegan2.styles(self.generator, z, other, cut)
        self.generator.mapping.track_mean(ws[:, 0])
        noise = [torch.randn(n, 1, *shape) for shape in self.generator.synthesis.noise_shapes()]
        return plain_stylegan2.synthesize(self.generator, ws, noise, grouped=False), ws

    def judge(self, images: Tensor) -> Tensor:
        """Return logits."""
        return plain_stylegan2.judge(self.discriminator, images)

    def step(self, real: Tensor, iteration: int) -> None:
        """Make one step of both networks."""
        n, config = len(real), self.config
        self.discriminator.requires_grad_(False)
        generator_loss(self.judge(self.paint(n)[0])).backward()
        self.apply(self.optimizer_g)
        if config.path_length_weight > 0 and iteration % PATH_EVERY == 0:
            images, ws = self.paint(n // 2)
            direction = torch.randn_like(images) / images.shape[2]
            (slope,) = torch.autograd.grad((images * direction).sum(), ws, create_graph=True)
            lengths = slope.square().sum(dim=2).mean(dim=1).sqrt()
            mean = self.path_mean.lerp(lengths.mean(), 0.01)
            self.path_mean = mean.detach()
            ((lengths - mean).square().mean() * config.path_length_weight * PATH_EVERY).backward()
            self.apply(self.optimizer_g)
        self.discriminator.requires_grad_(True)
        with torch.no_grad():
            fakes = self.paint(n)[0]
        discriminator_loss(self.judge(real), self.judge(fakes)).backward()
        self.apply(self.optimizer_d)
        if iteration % R1_EVERY == 0:
            leaf = real.detach().requires_grad_()
            (slope,) = torch.autograd.grad(self.judge(leaf).sum(), leaf, create_graph=True)
            penalty = slope.square().sum(dim=[1, 2, 3]).mean()
            (penalty * (config.r1_gamma / 2 * R1_EVERY)).backward()
            self.apply(self.optimizer_d)
        decay = ema_decay(n, iteration * n, config.ema_kimg, config.ema_rampup)
        update_ema(self.average, self.generator, decay)

    def apply(self, optimizer: torch.optim.Optimizer) -> None:
        """Step and clear."""
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)


def check_agreement(plain: PlainTraining) -> float:
    """Return how far our logits, and gradients of length 1, are from the plain ones."""
    spec = plain.generator.spec
    z, noise = torch.randn(4, spec.z_dim), noise_maps(spec, range(4))
    found = []
    for ours in (True, False):
        ws = plain_stylegan2.styles(plain.generator, z)
        if ours:
            images = plain.generator.synthesis(ws, noise=noise, dtype=torch.float32)
            logits = plain.discriminator(images, dtype=torch.float32)
        else:
            images = plain_stylegan2.synthesize(plain.generator, ws, noise, grouped=False)
            logits = plain_stylegan2.judge(plain.discriminator, images)
        parameters = [p for p in plain.generator.parameters() if p.ndim == 4]
        gradients = torch.autograd.grad(F.softplus(-logits).mean(), parameters)
        found.append(torch.cat([logits.flatten(), *[g.flatten() / g.norm() for g in gradients]]))
    return float((found[0] - found[1]).detach().abs().max())


def ours(patches: Path, config: TrainGanConfig) -> Cost:
    """Return what a thousand images cost in `train_gan`."""
    with tempfile.TemporaryDirectory() as folder:
        watch = _Stopwatch(Path(folder))
        length = config.model_copy(update={"kimg": (CYCLE + 1) * config.batch / 1000, "tick_kimg": 1e6})
        train_gan(ZarrPatches(patches, 0, mpp=1.0, threads=0), length, watch)
    return per_kimg(watch.spent(), config.batch)


def plainly(patches: Path, config: TrainGanConfig) -> Cost:
    """Return what a thousand images cost in the plain way."""
    stream = ZarrPatches(patches, 0, mpp=1.0, threads=0)
    training, watch = PlainTraining(config, stream.patch_px), _Stopwatch(None)
    for iteration in range(CYCLE + 1):
        batch = torch.from_numpy(stream.next_batch(config.batch))
        training.step(batch.permute(0, 3, 1, 2).float() / 127.5 - 1, iteration)
        watch.progress(iteration, CYCLE)
    return per_kimg(watch.spent(), config.batch)


def per_kimg(spent: Cost, batch: int) -> Cost:
    return Cost(*(seconds * 1000 / (batch * CYCLE) for seconds in spent))


class _Stopwatch(QuietReporter):
    """Times one cycle of regularization, from the end of the first step, which warms up, to the last."""

    _first: Cost | None = None
    _last = Cost(0, 0)

    def progress(self, done: float, total: float, unit: str = "", message: str = "") -> None:
        self._last = Cost(time.perf_counter(), time.process_time())
        self._first = self._first or self._last

    def spent(self) -> Cost:
        if self._first is None:
            raise RuntimeError("no step was made")
        return Cost(self._last.wall - self._first.wall, self._last.cpu - self._first.cpu)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one round of small batches")
    parser.add_argument("--smoke", action="store_true", help="the smallest run that says anything")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(f"{machine()}; {options.threads} threads", flush=True)
    resolution, widest, batch = (16, 16, 4) if options.smoke else (64, 128, 8 if options.quick else 32)
    base = TrainGanConfig(
        batch=batch, z_dim=512, w_dim=512, mapping_layers=8, channel_base=4096, channel_max=widest,
        r1_every=R1_EVERY, path_length_every=PATH_EVERY, style_mixing=1.0, ada_target=0.0, ema_rampup=0.05,
        threads=options.threads, precision="float32",
    )  # fmt: skip
    torch.manual_seed(0)
    difference = check_agreement(PlainTraining(base, resolution))
    if difference > AGREEMENT:
        raise SystemExit(f"logits or gradients differ from the plain way by {difference:.1e}")
    precisions = ["float32", *(["bfloat16"] if has_native_bfloat16() else [])]
    figures: dict[str, float] = {"difference in float32": difference}
    decisive = "cpu" if options.threads == 1 else "wall"
    with tempfile.TemporaryDirectory() as folder:
        patches = Path(folder) / "patches.zarr"
        noise = np.random.default_rng(0).integers(0, 256, (64, resolution, resolution, 3), np.uint8)
        zarr.save_array(patches, noise)
        weights = (2.0,) if options.quick or options.smoke else (0.0, 2.0)
        for weight in weights:
            shape = "with path length" if weight else "without path length"
            config = base.model_copy(update={"path_length_weight": weight})
            seen: dict[str, list[Cost]] = {"plain": [], **{p: [] for p in precisions}}
            for _ in range(1 if options.quick or options.smoke else 3):
                seen["plain"].append(plainly(patches, config))
                for precision in precisions:
                    found = ours(patches, config.model_copy(update={"precision": precision}))
                    seen[precision].append(found)
            best = {way: min(getattr(c, decisive) for c in costs) for way, costs in seen.items()}
            for way, seconds in best.items():
                figures[f"{shape}, {way} {decisive} s/kimg"] = seconds
                figures[f"{shape}, {way} times faster"] = best["plain"] / seconds
                print(
                    f"{shape}, {way}: {seconds:.1f} {decisive} s/kimg, x{best['plain'] / seconds:.2f}",
                    flush=True,
                )
    shapes = [f"{'with' if weight else 'without'} path length" for weight in weights]
    fastest = [max(figures[f"{shape}, {p} times faster"] for p in precisions) for shape in shapes]
    quickest = min(figures[f"with path length, {p} {decisive} s/kimg"] for p in precisions)
    goals = {"times faster than plain": GOAL_FASTER, "s/kimg with AMX": GOAL_SECONDS}
    finish("gan_training_speed", figures, goals, min(fastest) >= GOAL_FASTER and quickest <= GOAL_SECONDS)


if __name__ == "__main__":
    main()
