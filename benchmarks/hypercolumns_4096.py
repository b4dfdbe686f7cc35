"""The whole path at HDGAN's 4096 px, for hypercolumns.py --huge: sample, train on strokes, label, write."""

from __future__ import annotations

import resource
import time
from pathlib import Path

import numpy as np
import torch
from hypercolumn_training import CLASSES, random_generator
from PIL import Image

from napari_histogan.config import TrainPixelClassifierConfig
from napari_histogan.models.device import resolve
from napari_histogan.models.noise import noise_maps
from napari_histogan.models.pixel_classifier import PixelPredictor, load_pixel_classifier
from napari_histogan.progress import QuietReporter
from napari_histogan.training.labelled_pixels import PaintedSamples
from napari_histogan.training.train_pixel_classifier import train_pixel_classifier

IMAGES = 16


def strokes(size: int, number: int) -> np.ndarray:
    """Return a mask (size, size) uint8 with a short stroke of each class, at places that differ by image."""
    mask = np.zeros((size, size), np.uint8)
    rng = np.random.default_rng(number)
    for k in range(1, len(CLASSES) + 1):
        y, x = rng.integers(0, size - size // 8, 2)
        mask[y : y + max(size // 512, 1), x : x + size // 8] = k
    return mask


def whole_path(folder: Path, size: int, threads: int) -> dict[str, float]:
    """Sample, train on 16 images with strokes, label one with all blocks, write image and mask.

    Returns
    -------
    dict[str, float]
        CPU seconds of each part, and the peak memory of the process from its start, in MiB.
    """
    config = TrainPixelClassifierConfig(threads=threads, epochs=5, validation_share=0.0)
    compute = resolve(config)
    generator = random_generator(size)
    rng, seeds = np.random.default_rng(0), np.arange(IMAGES)
    with torch.inference_mode():
        z = torch.from_numpy(rng.standard_normal((IMAGES, generator.spec.z_dim)).astype(np.float32))
        w = generator.mapping(z).numpy()
    masks = np.stack([strokes(size, i) for i in range(IMAGES)])
    marks = [time.process_time()]
    samples = PaintedSamples(w, seeds, masks)
    made = train_pixel_classifier(generator, samples, CLASSES, config, QuietReporter(folder))
    marks.append(time.process_time())
    after_training = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    with torch.inference_mode():
        noise = noise_maps(generator.spec, [0])
        picture, maps = generator.synthesis.features(torch.from_numpy(w[:1]), noise=noise)
        pixels = picture[0].add(1).mul(127.5).round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).numpy()
        del picture, noise, generator
    marks.append(time.process_time())
    predictor = PixelPredictor(load_pixel_classifier(made), compute.dtype)
    labels = predictor(maps, probabilities=False).labels[0].numpy()
    marks.append(time.process_time())
    Image.fromarray(pixels).save(folder / "image.png")
    Image.fromarray(labels).save(folder / "mask.png")
    marks.append(time.process_time())
    parts = dict(zip(("train", "generate", "label", "write"), np.diff(marks), strict=True))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {
        "peak_mib": peak,
        "peak_mib_after_training": after_training,
        "channels": predictor.spec.layout.channels,
        "size_px": size,
        **{f"{name}_cpu_s": float(value) for name, value in parts.items()},
    }
