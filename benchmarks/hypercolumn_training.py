"""Train the pixel classifier on 16 fully painted 256 px images, our way and the plain way.

A part of hypercolumns.py.

The plain way is the published one: upsample, concatenate, keep every pixel as float16, and train ten nets one
after the other with batches of 64 for four passes (no less; its stop rule begins then).  That is hours and
10 GB, so it is *scaled*: preparing an image is measured on one and counted 16 times; a step is measured on a
hundred, after as many to warm up, and counted as often as the schedule has steps, for ten nets.  Its batches
are so small that threads which wait for each other cost more than they bring (thirty times the step on a busy
machine), so steps are measured with one thread, too, and the cheaper way counts.  How good it gets is
measured by training one such net on pixels of all 16 images for as many steps as there is time; it is told.

Classes are bands of smoothed brightness of pictures of a random generator: only time, memory, and that both
ways learn the same are measured.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
import torch.nn.functional as F

from napari_histogan import metrics
from napari_histogan.config import TrainPixelClassifierConfig
from napari_histogan.labels.classes import ClassTable
from napari_histogan.models.device import resolve
from napari_histogan.models.hypercolumns import layout_of, upsample_and_concatenate
from napari_histogan.models.noise import noise_maps
from napari_histogan.models.pixel_classifier import (
    PixelClassifier,
    PixelClassifierSpec,
    PixelPredictor,
    load_pixel_classifier,
)
from napari_histogan.models.stylegan2 import Generator, GeneratorSpec
from napari_histogan.progress import QuietReporter
from napari_histogan.training.labelled_pixels import (
    PaintedSamples,
    choose_pixels,
    collect_pixels,
    sample_maps,
)
from napari_histogan.training.train_pixel_classifier import train_pixel_classifier

CLASSES = ClassTable.from_names(["dark", "middle", "bright"])
LEARNED, HELD = 16, 4
PLAIN_BATCH, PLAIN_NETS, PLAIN_PASSES = 64, 10, 4
MEASURED_STEPS = 100


class Elapsed(NamedTuple):
    """Seconds by the clock, and of all threads of the process together."""

    wall: float
    cpu: float


def timed(work: Callable[[], Any]) -> tuple[Any, Elapsed]:
    """Run once."""
    wall, cpu = time.perf_counter(), time.process_time()
    found = work()
    return found, Elapsed(time.perf_counter() - wall, time.process_time() - cpu)


def random_generator(size: int, mapping_layers: int = 2) -> Generator:
    """Return a generator of the usual widths with random weights, whose noise shows."""
    torch.manual_seed(0)
    base = 16384 if size <= 256 else 32768
    net = Generator(GeneratorSpec(512, 0, 512, size, mapping_layers=mapping_layers, channel_base=base)).eval()
    for module in net.modules():
        if hasattr(module, "noise_strength"):
            module.noise_strength.data.fill_(0.1)
    return net


@torch.inference_mode()
def painted(
    generator: Generator, count: int, first: int = 0, cuts: np.ndarray | None = None
) -> tuple[PaintedSamples, np.ndarray]:
    """Draw samples and paint every pixel by the smoothed brightness of the picture.

    Returns
    -------
    tuple
        The samples, and the two cuts between dark, middle, and bright: ``cuts``, or if it is not given the
        quantiles 0.5 and 0.8 of all these samples together.
    """
    size, z_dim = generator.spec.img_resolution, generator.spec.z_dim
    rng = np.random.default_rng(first)
    w, seeds, smooth = [], np.arange(first, first + count), []
    for seed in seeds:
        z = torch.from_numpy(rng.standard_normal((1, z_dim)).astype(np.float32))
        w.append(generator.mapping(z))
        picture = generator.synthesis(w[-1], noise=noise_maps(generator.spec, [int(seed)])).mean(1)[0].numpy()
        smooth.append(cv2.GaussianBlur(picture, (0, 0), size / 64))
    brightness = np.stack(smooth)
    cuts = np.quantile(brightness, [0.5, 0.8]) if cuts is None else cuts
    masks = (np.digitize(brightness, cuts) + 1).astype(np.uint8)
    return PaintedSamples(torch.cat(w).numpy(), seeds, masks), cuts


def held_out_dice(generator: Generator, samples: PaintedSamples, net: PixelClassifier) -> float:
    """Return the mean Dice of the classes over all pixels of painted samples."""
    compute = resolve(TrainPixelClassifierConfig(threads=torch.get_num_threads()))
    predictor = PixelPredictor(net.eval(), compute.dtype)
    matrix = np.zeros((len(CLASSES) + 1,) * 2, np.int64)
    for i, mask in enumerate(samples.masks):
        maps = sample_maps(generator, samples, i, compute.device)
        matrix += metrics.confusion_matrix(mask, predictor(maps, False).labels[0].numpy(), len(CLASSES))
    return float(np.nanmean(metrics.dice(matrix)))


def ours(folder: Path, size: int, threads: int) -> dict[str, float]:
    """Train as the stage does, with its defaults; figures of time, peak memory of the process, and Dice."""
    generator = random_generator(size)
    samples, cuts = painted(generator, LEARNED)
    config = TrainPixelClassifierConfig(threads=threads)
    made, spent = timed(
        lambda: train_pixel_classifier(generator, samples, CLASSES, config, QuietReporter(folder))
    )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    dice = held_out_dice(generator, painted(generator, HELD, 1000, cuts)[0], load_pixel_classifier(made))
    return {"s": spent.wall, "cpu_s": spent.cpu, "peak_mib": peak, "dice": dice}


def plain(size: int, threads: int, steps: int) -> dict[str, float]:
    """Measure the published way piece by piece; see the module's text for what is scaled."""
    torch.set_num_threads(threads)
    generator = random_generator(size)
    samples, cuts = painted(generator, LEARNED)
    compute = resolve(TrainPixelClassifierConfig(threads=threads, precision="float32"))

    def prepare() -> torch.Tensor:
        maps = sample_maps(generator, samples, 0, compute.device)
        columns = upsample_and_concatenate(maps, size)
        return columns.permute(0, 2, 3, 1).reshape(-1, columns.shape[1]).half()

    rows, prepared = timed(prepare)
    layout = layout_of(sample_maps(generator, samples, 0, compute.device), size)
    label = torch.from_numpy(samples.masks[0].ravel()).long() - 1
    per_step = min((_step_cost(layout, rows, label, n) for n in sorted({1, threads})), key=lambda e: e.cpu)
    torch.set_num_threads(threads)
    schedule = PLAIN_PASSES * LEARNED * size * size // PLAIN_BATCH
    best, reached = _plain_dice(generator, samples, cuts, steps)
    scaled = [LEARNED * p + PLAIN_NETS * schedule * s for p, s in zip(prepared, per_step, strict=True)]
    return {
        "s": scaled[0],
        "cpu_s": scaled[1],
        "prepare_one_image_cpu_s": prepared.cpu,
        "step_cpu_s": per_step.cpu,
        "dice": best,
        "dice_at_step": reached,
        "gib_of_features": LEARNED * size * size * layout.channels * 2 / 2**30,
    }


def _net(layout: Any) -> PixelClassifier:
    spec = PixelClassifierSpec(layout, tuple(CLASSES.to_dicts()), members=1, preset="datasetgan")
    return PixelClassifier(spec).train()


def _step_cost(layout: Any, rows: torch.Tensor, label: torch.Tensor, threads: int) -> Elapsed:
    """Return what a step of the plain way costs with so many threads."""
    torch.set_num_threads(threads)
    net = _net(layout)
    list(_plain_steps(net, rows, label, MEASURED_STEPS))
    _, found = timed(lambda: list(_plain_steps(net, rows, label, MEASURED_STEPS)))
    return Elapsed(found.wall / MEASURED_STEPS, found.cpu / MEASURED_STEPS)


def _plain_steps(net: PixelClassifier, rows: torch.Tensor, label: torch.Tensor, steps: int) -> Any:
    """Train one net as published, batches of 64 random pixels, Adam 1e-3; yields the number of the step."""
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    order = torch.Generator().manual_seed(0)
    for step in range(1, steps + 1):
        chosen = torch.randint(len(rows), (PLAIN_BATCH,), generator=order)
        loss = F.cross_entropy(net(rows[chosen].float())[0], label[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        yield step


def _plain_dice(
    generator: Generator, samples: PaintedSamples, cuts: np.ndarray, steps: int
) -> tuple[float, int]:
    """Return the best Dice of one plain net at powers of two of steps, and the step."""
    each = min(-(-PLAIN_BATCH * steps // len(samples)), samples.masks[0].size)
    everywhere = PaintedSamples(samples.w, samples.noise_seed, np.ones_like(samples.masks))
    compute = resolve(TrainPixelClassifierConfig(threads=torch.get_num_threads()))
    pixels = collect_pixels(generator, everywhere, compute, QuietReporter(), pixels_per_image=each)
    chosen = [choose_pixels(mask, each, i) for i, mask in enumerate(everywhere.masks)]
    label = np.concatenate([m.ravel()[c] for m, c in zip(samples.masks, chosen, strict=True)])
    net, held = _net(pixels.layout), painted(generator, HELD, 1000, cuts)[0]
    best = (0.0, 0)
    looks = {steps} | {2**k for k in range(9, 30) if 2**k < steps}
    for step in _plain_steps(net, pixels.x, torch.from_numpy(label).long() - 1, steps):
        if step in looks:
            best = max(best, (held_out_dice(generator, held, net), step))
            net.train()
    return best
