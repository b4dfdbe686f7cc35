"""Train a classifier of small patches from few labels (paper 004): the GAN-CNN, or the plain CNN.

Every random choice of a step is a function of the seed and the step's number, so that a run that was stopped
and resumed makes the same steps as one that was not.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from napari_histogan.config.patch_gan import TrainPatchGanConfig
from napari_histogan.errors import LabelError, Stopped
from napari_histogan.labels.centers import Centers, Places
from napari_histogan.models.device import resolve_for_training
from napari_histogan.models.patch_gan import PatchClassifier, PatchNetShape
from napari_histogan.models.patch_gan_file import PatchClassifierInfo, save_patch_classifier
from napari_histogan.models.picture_bytes import as_bytes
from napari_histogan.models.segmenter import pixels_to_input
from napari_histogan.progress import Reporter
from napari_histogan.slides.channels import Preparation
from napari_histogan.slides.patch_views import PatchViews
from napari_histogan.training.checkpoint import CheckpointStore
from napari_histogan.training.patch_gan_state import PatchGanState, new_state, turned

ShowMap = Callable[[PatchClassifier], NDArray[np.uint8]]
"""Draws a map by a net that is still in training, as a picture ``(H, W, 3)``."""

_METRIC_EVERY = 50
_SHUFFLE, _TURN, _DRAW = 41, 42, 43
_SHOWN_SIDE = 8


@dataclass(frozen=True, eq=False)
class PatchLabels:
    """What a patch classifier learns from.

    Attributes
    ----------
    views
        The prepared pictures.
    centers
        Labeled patches; at least as many as a batch.
    class_names
        Of the K classes.
    unlabelled
        Places ``(n, 3)`` of patches without a label; may be empty.
    """

    views: PatchViews
    centers: Centers
    class_names: tuple[str, ...]
    unlabelled: Places


def train_patch_gan(
    labels: PatchLabels,
    config: TrainPatchGanConfig,
    reporter: Reporter,
    *,
    mpp: float,
    preparation: Preparation,
    show_map: ShowMap | None = None,
) -> Path:
    """Train the classifier, against its generator if ``config.adversarial``.

    A run whose ``run_dir`` holds a checkpoint goes on from it.

    Parameters
    ----------
    labels
        Pictures and places.
    config
        See :class:`TrainPatchGanConfig`.
    reporter
        Gets the metrics ``loss``, ``class_loss``, ``learning_rate``, ``patches_per_second``, and with a
        generator ``real_loss``, ``fake_loss``, ``generator_loss``; and the previews ``samples`` (painted
        patches, below them real ones) and ``map``.
    mpp, preparation
        Resolution in um/px of the pictures, and how they were prepared; kept with the result.
    show_map
        Draws a map for the preview.

    Returns
    -------
    Path
        Folder with ``patch_classifier.safetensors``, ``patch_classifier.json``, and with a generator
        ``patch_generator.safetensors``.

    Raises
    ------
    LabelError
        If there are fewer patches than a batch, or other ones than the run began with.
    TrainingDiverged
        If a loss or gradient stops being finite; the last checkpoint is kept.
    Stopped
        If the reporter asked for it; the state is saved.
    """
    _require_a_batch(labels, config)
    compute = resolve_for_training(config, config.width)
    state = new_state(shape_of(labels, config), config, compute)
    store = CheckpointStore(reporter.run_dir / "checkpoints")
    _go_on(state, store, labels)
    batches = _Batches(labels, config, compute.device)
    steps, since = batches.steps, _Speed(state.step)
    saved_at = time.monotonic()
    while state.step < steps:
        if reporter.should_stop():
            _save(state, store, labels)
            raise Stopped(f"stopped after {state.step} of {steps} steps")
        patches, classes, unlabelled = batches.at(state.step)
        rate = config.learning_rate * config.decay ** (state.step // batches.per_epoch // config.decay_epochs)
        figures = state.take_step(patches, classes, unlabelled, rate)
        reporter.progress(state.step, steps, "steps", "Training on patches")
        last = state.step == steps
        if state.step % _METRIC_EVERY == 0 or last:
            speed = since.patches_per_second(state.step, config.batch)
            reporter.metric(state.step, **figures, learning_rate=rate, patches_per_second=speed)
        if state.step % config.preview_every == 0 or last:
            _show(state, labels, show_map, reporter)
        if last or time.monotonic() - saved_at > 60 * config.checkpoint_minutes:
            _save(state, store, labels)
            saved_at = time.monotonic()
    noise = state.generator.noise if state.generator else 0
    seen = preparation.channel, preparation.clahe, preparation.clip_limit
    made = noise, config.conditional, len(labels.centers)
    info = PatchClassifierInfo(state.net.shape, labels.class_names, mpp, *seen, *made)
    folder = reporter.run_dir / "patch_classifier"
    save_patch_classifier(folder, state.averaged, info, state.generator)
    return folder


def shape_of(labels: PatchLabels, config: TrainPatchGanConfig) -> PatchNetShape:
    """Return the sizes of the networks for labels and a config."""
    sizes = config.patch_px, labels.views.channels, len(labels.class_names)
    return PatchNetShape(*sizes, config.adversarial, config.width, config.normalization)


class _Batches:
    """The patches of each step, a function of seed and step."""

    def __init__(self, labels: PatchLabels, config: TrainPatchGanConfig, device: torch.device) -> None:
        self._labels, self._config, self._device = labels, config, device
        self.per_epoch = len(labels.centers) // config.batch
        self.steps = self.per_epoch * config.epochs
        self._epoch, self._order = -1, np.empty(0, np.int64)

    def at(self, step: int) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return labeled patches, their classes, and as many patches without labels if there are any."""
        config, centers = self._config, self._labels.centers
        epoch, place = divmod(step, self.per_epoch)
        if epoch != self._epoch:
            self._epoch = epoch
            self._order = np.random.default_rng([config.seed, _SHUFFLE, epoch]).permutation(len(centers))
        chosen = self._order[place * config.batch : (place + 1) * config.batch]
        rng = np.random.default_rng([config.seed, _TURN, step])
        patches = self._input(centers.places[chosen], rng)
        classes = torch.from_numpy(centers.classes[chosen]).to(self._device)
        free = self._labels.unlabelled
        if not len(free):
            return patches, classes, None
        drawn = np.random.default_rng([config.seed, _DRAW, step]).integers(len(free), size=config.batch)
        return patches, classes, self._input(free[drawn], rng)

    def _input(self, places: Places, rng: np.random.Generator) -> Tensor:
        """Return the net's input of places."""
        pixels = torch.from_numpy(self._labels.views.gather(places)).to(self._device)
        patches = pixels_to_input(pixels)
        if self._config.mirror_and_rotate:
            patches = turned(patches, rng)
        return patches.contiguous(memory_format=torch.channels_last)


class _Speed:
    """Patches per second between two looks."""

    def __init__(self, step: int) -> None:
        self._step, self._since = step, time.perf_counter()

    def patches_per_second(self, step: int, batch: int) -> float:
        """Return the speed since the last look."""
        now = time.perf_counter()
        speed = (step - self._step) * batch / max(1e-9, now - self._since)
        self._step, self._since = step, now
        return speed


def _require_a_batch(labels: PatchLabels, config: TrainPatchGanConfig) -> None:
    if len(labels.centers) < config.batch:
        raise LabelError(
            f"there are {len(labels.centers)} labeled patches",
            f"at least {config.batch}, a batch",
            "label more, or set batch lower",
        )


def _identity(labels: PatchLabels) -> list[int]:
    """Return numbers that tell labels apart."""
    places = labels.centers.places
    weights = np.random.default_rng(0).integers(1, 2**20, places.shape)
    return [len(places), int((places * weights).sum()), len(labels.unlabelled), len(labels.class_names)]


def _go_on(state: PatchGanState, store: CheckpointStore, labels: PatchLabels) -> None:
    """Restore the newest checkpoint, if there is one."""
    found = store.load_latest()
    if found is None:
        return
    if found.state.get("labels") != _identity(labels):
        raise LabelError(
            "the labeled patches are not those that this run began with",
            "the same pictures and settings",
            "start a new run",
        )
    state.restore(found.state)


def _save(state: PatchGanState, store: CheckpointStore, labels: PatchLabels) -> None:
    store.save(state.step, {**state.snapshot(), "labels": _identity(labels)})


def _show(state: PatchGanState, labels: PatchLabels, show_map: ShowMap | None, reporter: Reporter) -> None:
    """Write the previews: what the generator paints above what is real, and a map."""
    folder = reporter.run_dir / "previews"
    folder.mkdir(parents=True, exist_ok=True)
    if state.generator is not None:
        painted = as_bytes(state.samples(_SHOWN_SIDE**2 // 2))
        centers = labels.centers.places
        spread = np.linspace(0, len(centers) - 1, _SHOWN_SIDE**2 // 2).round().astype(np.int64)
        both = [painted.cpu().numpy(), labels.views.gather(centers[spread])]
        path = folder / f"samples-{state.step:06d}.png"
        Image.fromarray(_sheet(np.concatenate(both))).save(path)
        reporter.preview("samples", path)
    if show_map is not None:
        path = folder / f"map-{state.step:06d}.png"
        Image.fromarray(show_map(state.averaged)).save(path)
        reporter.preview("map", path)


def _sheet(patches: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Lay patches ``(n, C, S, S)`` of one or three channels out in rows of eight, ``(H, W, 3)``."""
    n, channels, side = patches.shape[:3]
    rows = patches.reshape(n // _SHOWN_SIDE, _SHOWN_SIDE, channels, side, side).transpose(0, 3, 1, 4, 2)
    sheet = rows.reshape(n // _SHOWN_SIDE * side, _SHOWN_SIDE * side, channels)
    return np.repeat(sheet, 3, axis=2) if channels == 1 else sheet[..., :3]
