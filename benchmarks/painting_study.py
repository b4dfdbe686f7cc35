"""A pool of samples that an oracle can label, so that painting can be tried out many times.

Without other words it is the shipped demo: its generator, and as the oracle a pixel classifier that learned
from all shipped masks.  With GlaS the oracle is a U-Net that learned from the real images and masks of those
patients that have no image in testA.  Oracles err; figures say how well painting *their* masks on a few
samples teaches to label the rest, and only that.
"""

from __future__ import annotations

import argparse
import atexit
import csv
import math
import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from scipy import stats

from napari_histogan import config as c
from napari_histogan.demo import CLASSES, GENERATOR, PAINTED
from napari_histogan.inference.sampling import Samples, draw_latents, load_samples, sample, styles
from napari_histogan.jobs.live_classifier import LiveClassifier, probe_positions
from napari_histogan.labels.classes import ClassTable
from napari_histogan.labels.interchange import read_png_mask
from napari_histogan.metrics import confusion_matrix, dice
from napari_histogan.models.device import resolve
from napari_histogan.models.generator_file import generator_info, load_generator
from napari_histogan.models.noise import noise_maps
from napari_histogan.models.pixel_classifier import PixelPredictor, load_pixel_classifier
from napari_histogan.models.stylegan2 import Generator
from napari_histogan.models.unet import UNet
from napari_histogan.progress import QuietReporter
from napari_histogan.training.train_pixel_classifier import PaintedSamples, train_pixel_classifier

GLAS_UM_PER_PX, GLOMERULI_UM_PER_PX = 0.62, 0.5
GLOMERULI_TEST = ("10063", "10064", "10102", "10103", "10133")
"""Neighboring numbers are of one slide, so these are of others than the nine that the generator saw."""
TRUNCATION = 0.9


class Study(NamedTuple):
    """Samples with the oracle's masks (n, R, R): ``pool`` may be painted, ``held_out`` judges."""

    live: LiveClassifier
    classes: ClassTable
    masks: NDArray[np.uint8]
    pool: list[int]
    held_out: list[int]
    words: str

    def paint(self, chosen: Sequence[int], seconds: list[float]) -> float:
        """Learn from the oracle's masks of these samples alone; return mean Dice on the held-out ones."""
        start = time.perf_counter()
        self.live.forget()
        for _ in self.live.learn({i: self.masks[i] for i in chosen}, self.classes, -1):
            pass
        seconds.append(time.perf_counter() - start)
        found = self.live.judge(self.held_out)[0]
        where = probe_positions(self.masks.shape[1])
        truth = self.masks[self.held_out].reshape(len(self.held_out), -1)[:, where]
        return float(np.nanmean(dice(confusion_matrix(truth, found, self.classes.num_classes))))


def options(text: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="5 seeds and fewer samples")
    parser.add_argument("--generator", type=Path, help="a generator's folder instead of the demo's")
    parser.add_argument("--glas", type=Path, help="folder of the GlaS images; with --generator")
    parser.add_argument("--threads", type=int, default=2)
    return parser


def open_study(given: argparse.Namespace) -> Study:
    """Draw samples and let the oracle label them."""
    pool, held_out = (100, 100) if given.quick else (300, 300)
    generator = load_generator(given.generator or GENERATOR).eval().requires_grad_(False)
    config = c.SampleImagesConfig(count=pool + held_out, truncation=TRUNCATION, seed=1, threads=given.threads)
    compute = resolve(config)
    root = Path(tempfile.mkdtemp(prefix="histogan-study-"))
    atexit.register(shutil.rmtree, root, ignore_errors=True)
    samples = load_samples(sample(generator, config, QuietReporter(root)))
    if given.glas is not None:
        info, real = generator_info(given.generator), read_glas(given.glas)
        classes = real.classes
        masks, words = oracle(real, samples, float(info.get("mpp", 2.0)), 300 if given.quick else 1500)
        words = f"GlaS, generator of {info.get('kimg', math.nan):.0f} kimg; {words}"
    else:
        classes = CLASSES
        masks, words = demo_oracle(generator, samples, root, given.threads), "shipped demo"
    live = LiveClassifier(generator, samples, compute, root / "live")
    indices = list(range(pool + held_out))
    for _ in live.look_at(indices):
        pass
    return Study(live, classes, masks, indices[:pool], indices[pool:], words)


def demo_oracle(generator: Generator, samples: Samples, root: Path, threads: int) -> NDArray[np.uint8]:
    """Label samples by a pixel classifier that learned from all masks that ship."""
    index = np.load(PAINTED / "w.npz")["index"]
    z, seeds = draw_latents(0, [int(i) for i in index], generator.spec.z_dim)
    w = styles(generator, z, TRUNCATION, torch.device("cpu")).numpy()
    masks = np.stack([read_png_mask(PAINTED / f"{i:04d}.png", CLASSES) for i in index])
    config = c.TrainPixelClassifierConfig(members=4, hidden=(64,), epochs=8, threads=threads)
    reporter = QuietReporter(root / "oracle")
    folder = train_pixel_classifier(generator, PaintedSamples(w, seeds, masks), CLASSES, config, reporter)
    predictor = PixelPredictor(load_pixel_classifier(folder))
    found = []
    for first in range(0, len(samples.w), 16):
        part = slice(first, first + 16)
        noise = noise_maps(generator.spec, [int(s) for s in samples.noise_seed[part]])
        with torch.inference_mode():
            maps = generator.synthesis.features(torch.from_numpy(samples.w[part]), noise=noise)[1]
        found.append(predictor(maps, probabilities=False).labels.numpy())
    return np.concatenate(found)


class Annotated(NamedTuple):
    """Real pictures (h, w, 3) and masks (h, w): to learn from, and of other patients to judge by.

    ``learn`` and ``test`` hold them by name, in the size in which they were published; ``mpp`` is theirs.
    """

    classes: ClassTable
    learn: dict[str, tuple[NDArray[np.uint8], NDArray[np.uint8]]]
    test: dict[str, tuple[NDArray[np.uint8], NDArray[np.uint8]]]
    mpp: float


def read_glas(folder: Path) -> Annotated:
    """Read GlaS: testA to judge by, and patients without an image in testA to learn from."""
    with (folder / "Grade.csv").open(newline="") as file:
        rows = [[field.strip() for field in row.values()] for row in csv.DictReader(file)]
    tested = {patient for name, patient, *_ in rows if name.startswith("testA")}
    found = Annotated(ClassTable.from_names(["stroma and the rest", "gland"]), {}, {}, GLAS_UM_PER_PX)
    for name, patient, *_ in sorted(rows):
        part = found.test if name.startswith("testA") else found.learn if patient not in tested else None
        if part is not None and (folder / f"{name}.png").is_file():
            gland = np.asarray(Image.open(folder / f"{name}_anno.png")) > 0
            image = np.asarray(Image.open(folder / f"{name}.png").convert("RGB"))
            part[name] = image, 1 + gland.astype(np.uint8)
    return found


def read_glomeruli(folder: Path) -> Annotated:
    """Read the tiles of PAS with glomeruli, four times smaller; the generator did not see five of them."""
    found = Annotated(ClassTable.from_names(["the rest", "glomerulus"]), {}, {}, 4 * GLOMERULI_UM_PER_PX)
    for path in sorted((folder / "images").glob("*.png")):
        mask = np.asarray(Image.open(folder / "masks" / path.name))[..., 0]
        part = found.test if path.stem in GLOMERULI_TEST else found.learn
        small = np.asarray(Image.fromarray((mask > 0).astype(np.uint8) * 255).reduce(4)) > 127
        image = Image.open(path).convert("RGB").reduce(4)
        part[path.stem] = np.asarray(image), 1 + small.astype(np.uint8)
    return found


def oracle(real: Annotated, samples: Samples, mpp: float, steps: int) -> tuple[NDArray[np.uint8], str]:
    """Label samples by a U-Net that learned from real images; the words say how good it is on the others."""
    net = _trained([_at(pair, real.mpp / mpp) for pair in real.learn.values()], samples.image.shape[1], steps)
    matrix = np.zeros((3, 3), np.int64)
    for pair in real.test.values():
        pixels, mask = _at(pair, real.mpp / mpp)
        matrix += confusion_matrix(mask, _labeled(net, pixels[None])[0], 2)
    found = [_labeled(net, samples.image[a : a + 32]) for a in range(0, len(samples.w), 32)]
    words = (
        f"oracle: U-Net of {steps} steps on {len(real.learn)} real images, {real.classes.names[1]} Dice "
        f"{dice(matrix)[1]:.3f} on {len(real.test)} images of other patients"
    )
    return np.concatenate(found), words


def _at(pair: tuple[NDArray[np.uint8], NDArray[np.uint8]], scale: float) -> tuple[NDArray[np.uint8], ...]:
    """Return pixels (h, w, 3) and mask (h, w) so many times as large."""
    image, mask = Image.fromarray(pair[0]), Image.fromarray((pair[1] == 2).astype(np.uint8) * 255)
    size = (round(image.width * scale), round(image.height * scale))
    small = np.asarray(mask.resize(size, Image.Resampling.BOX))
    return np.asarray(image.resize(size, Image.Resampling.BOX)), 1 + (small > 127).astype(np.uint8)


def _trained(pairs: list[tuple[NDArray[np.uint8], NDArray[np.uint8]]], side: int, steps: int) -> UNet:
    """Train on random crops in all eight orientations, with brightness and contrast changed a little."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    net = UNet(2, width=16, depth=3)
    optimizer = torch.optim.AdamW(net.parameters(), lr=2e-3, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    for _ in range(steps):
        images, masks = [], []
        for k in rng.integers(len(pairs), size=16):
            pixels, mask = pairs[k]
            y, x = (int(rng.integers(edge - side + 1)) for edge in mask.shape)
            cut, turn = (slice(y, y + side), slice(x, x + side)), int(rng.integers(4))
            flip = slice(None, None, -1 if rng.random() < 0.5 else 1)
            images.append(np.rot90(pixels[cut], turn)[:, flip])
            masks.append(np.rot90(mask[cut], turn)[:, flip])
        change = torch.from_numpy(rng.normal((1, 0), 0.1, (16, 2)).astype(np.float32))[:, :, None, None, None]
        logits = net(_scaled(np.stack(images)) * change[:, 0] + change[:, 1])
        loss = F.cross_entropy(logits, torch.from_numpy(np.stack(masks)).long() - 1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return net.eval()


def _scaled(pixels: NDArray[np.uint8]) -> torch.Tensor:
    return torch.from_numpy(np.array(pixels)).permute(0, 3, 1, 2).float() / 127.5 - 1


@torch.inference_mode()
def _labeled(net: UNet, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return net(_scaled(pixels)).argmax(dim=1).add(1).to(torch.uint8).numpy()


def mean_interval(values: Sequence[float]) -> tuple[float, float]:
    """Return the mean and the half width of its 95 % interval (Student's t)."""
    v = np.asarray(values, np.float64)
    half = stats.t.ppf(0.975, len(v) - 1) * v.std(ddof=1) / math.sqrt(len(v)) if len(v) > 1 else math.nan
    return float(v.mean()), float(half)
