"""Train a net that outlines malign tissue from labels of whole slides (paper 002).

A trainer and a mapper work side by side: the mapper keeps making the slides' probability maps with the
newest weights, the trainer draws slides and patches from the newest maps.  Neither waits for the other.
With ``map_every`` all maps are made between steps instead; then every random choice is a function of the
seed and the step, and a run that was stopped and resumed makes the same steps as one that was not.
"""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from napari_histogan.config.weak_labels import TrainWeaklyConfig
from napari_histogan.errors import LabelError, NoTissue, SlideTooSmall, Stopped
from napari_histogan.labels.slide_labels import BENIGN, MALIGN, UNKNOWN, require_both
from napari_histogan.models.device import Compute, resolve
from napari_histogan.models.segmenter import save_segmenter
from napari_histogan.models.weak_unet import WeakUNet
from napari_histogan.progress import Reporter
from napari_histogan.training.checkpoint import CheckpointStore
from napari_histogan.training.weak_fit import WeakFit, new_fit
from napari_histogan.training.weak_losses import slide_label_losses
from napari_histogan.training.weak_maps import (
    Mapper,
    MapReporter,
    MapSlide,
    MapStore,
    WeakSlide,
    highest_probability,
    map_one,
)
from napari_histogan.training.weak_patches import PatchBuffer, WeakBatch, changed
from napari_histogan.training.weak_sampling import SlideChooser, by_probability, by_rank, told_apart
from napari_histogan.training.weak_schedule import alpha_at, beta_1_at, eta_at
from napari_histogan.training.weak_sharing import TimeShare

SCORES_FILE = "slides.json"
_METRIC_EVERY = 20
_PUBLISH_EVERY = 10
_PRETRAINING, _TRAINING = 21, 22
"""Salts that set the two phases' chance apart."""


def train_weakly(
    slides: Sequence[WeakSlide], config: TrainWeaklyConfig, reporter: Reporter, map_slide: MapSlide
) -> Path:
    """Train on slides with labels, map all slides, and score them.

    A run whose ``run_dir`` holds a checkpoint goes on from it, with its maps, visits, and weights.

    Parameters
    ----------
    slides
        Those of unknown label serve the auto-encoder, and are mapped at the end.
    config
        See :class:`TrainWeaklyConfig`.
    reporter
        Gets the metrics ``loss``, ``learning_rate``, ``staleness_mean`` and ``staleness_most`` (steps between
        the weights that made a map and now), ``told_apart`` (how often a place of a malign slide lies above
        one of a benign slide on the maps), ``mapper_share`` (of the time), and the events ``map`` (a map
        was swapped in), ``staleness`` (steps by slide), and ``visits`` (slides in the order of their visits).
    map_slide
        Makes the map of a slide; maps lie in ``run_dir/maps``.

    Returns
    -------
    Path
        Folder with the two files of a segmenter of the classes benign and malign, and ``slides.json``: by
        slide its label, its score (the highest malign probability, 0..1), its map, and if it was held out.

    Raises
    ------
    LabelError, NoTissue, SlideTooSmall, SlideHasNoMpp, SlideError
        If the slides cannot be learned from, or are not those that the run began with, before long work.
    TrainingDiverged
        If the loss stops being finite; names slides and places, and the last checkpoint is kept.
    Stopped
        If the reporter asked for it; the state is saved.
    """
    _require_usable(slides, config)
    compute = resolve(config)
    encoded = pretrain(slides, config, reporter, compute) if config.pretrain_steps else None
    fit = new_fit(WeakUNet(2, config.width, config.depth), config, compute, config.steps)
    if encoded is not None:
        fit.start_from(encoded)
    run = _WeakRun(slides, config, reporter, compute, fit, map_slide)
    try:
        run.go_on()
        run.train()
    finally:
        run.close()
    return run.finish()


def pretrain(
    slides: Sequence[WeakSlide], config: TrainWeaklyConfig, reporter: Reporter, compute: Compute
) -> dict[str, torch.Tensor]:
    """Train the net without lateral connections to reproduce patches (L2), and return its weights.

    Raises
    ------
    TrainingDiverged, Stopped
        As :func:`train_weakly`.
    """
    net = WeakUNet(3, config.width, config.depth, lateral=False)
    fit = new_fit(net, config, compute, config.pretrain_steps)
    numbers = [number for number, slide in enumerate(slides) if not slide.held_out]
    store = MapStore(reporter.run_dir / "maps", slides, config.mpp)
    chooser = SlideChooser([False] * len(numbers), config.every_epochs, balanced=False)
    buffer = PatchBuffer(slides, numbers, store, chooser, config, _PRETRAINING, lambda step: None)
    checkpoints = CheckpointStore(reporter.run_dir / "checkpoints" / "pretraining", keep=1)
    if (found := checkpoints.load_latest()) is not None:
        fit.restore(found.state["fit"])
        chooser.load_state_dict(found.state["chooser"])
        buffer.load_state_dict(found.state["buffer"])

    def save() -> None:
        state = {"fit": fit.snapshot(), "chooser": chooser.state_dict(), "buffer": buffer.state_dict()}
        checkpoints.save(fit.step, state)

    clock = _Clock(config.checkpoint_minutes)
    try:
        while fit.step < config.pretrain_steps:
            if reporter.should_stop():
                save()
                raise Stopped(f"stopped after {fit.step} of {config.pretrain_steps} steps of pre-training")
            batch = _changed(buffer.batch(fit.step, compute.device), fit.step, config, _PRETRAINING)
            loss = fit.take_step(batch.pixels, lambda x, out: _l2(out, x), _Namer(slides, batch))
            reporter.progress(fit.step, config.pretrain_steps, "steps", "Pre-training the auto-encoder")
            last = fit.step == config.pretrain_steps
            if fit.step % _METRIC_EVERY == 0 or last:
                reporter.metric(fit.step, pretraining_loss=loss)
            if last or clock.rang():
                save()
    finally:
        buffer.close()
    return fit.averaged.state_dict()


def _l2(made: torch.Tensor, pixels: torch.Tensor) -> torch.Tensor:
    """Return each patch's mean squared error, ``(N,)``."""
    return F.mse_loss(made.float(), pixels, reduction="none").flatten(1).mean(dim=1)


class _WeakRun:
    """The main phase: the trainer's side of it, and all that a checkpoint holds."""

    def __init__(
        self,
        slides: Sequence[WeakSlide],
        config: TrainWeaklyConfig,
        reporter: Reporter,
        compute: Compute,
        fit: WeakFit,
        map_slide: MapSlide,
    ) -> None:
        self._slides, self._config, self._reporter = slides, config, reporter
        self._compute, self._fit, self._map_slide = compute, fit, map_slide
        self._numbers = [
            k for k, slide in enumerate(slides) if slide.malign is not None and not slide.held_out
        ]
        labels = [bool(slides[k].malign) for k in self._numbers]
        self._malign = {k: int(malign) for k, malign in zip(self._numbers, labels, strict=True)}
        self._chooser = SlideChooser(labels, config.every_epochs)
        self._store = MapStore(reporter.run_dir / "maps", slides, config.mpp)
        self._buffer = PatchBuffer(
            slides, self._numbers, self._store, self._chooser, config, _TRAINING, self._weights
        )
        self._checkpoints = CheckpointStore(reporter.run_dir / "checkpoints")
        self._needed: list[list[int]] = []
        self._told = self._store.steps()
        self._share = TimeShare(config.mapper_share)
        what = slides, self._numbers, self._store, map_slide, reporter.run_dir
        self._mapper = Mapper(fit.averaged, *what, self._share)

    def go_on(self) -> None:
        """Restore the newest checkpoint, if there is one."""
        found = self._checkpoints.load_latest()
        if found is None:
            return
        if found.state["slides"] != self._labels():
            raise LabelError(
                "the slides or their labels are not those that this run began with",
                "the same slides, labels, and share kept back",
                "start a new run",
            )
        self._fit.restore(found.state["fit"])
        self._chooser.load_state_dict(found.state["chooser"])
        self._store.restore(found.state["maps"])
        self._buffer.load_state_dict(found.state["buffer"])
        self._needed = [found.state["maps"]]
        self._told = self._store.steps()

    def train(self) -> None:
        """Make the steps that are left, with the mapper beside or in between."""
        config, fit = self._config, self._fit
        if not config.map_every and fit.step < config.steps:
            self._mapper.publish(fit.step, fit.averaged.state_dict())
            self._mapper.start()
        clock = _Clock(config.checkpoint_minutes)
        while fit.step < config.steps:
            if self._reporter.should_stop():
                self._save()
                raise Stopped(f"stopped after {fit.step} of {config.steps} steps")
            if config.map_every and fit.step and fit.step % config.map_every == 0:
                self._map_all(self._numbers)
            with self._share.step():
                self._step()
            if self._mapper.error is not None:
                self._save()
                raise self._mapper.error
            if fit.step == config.steps or clock.rang():
                self._save()

    def finish(self) -> Path:
        """Map all slides with the final weights, and write the result."""
        self._map_all(range(len(self._slides)))
        folder = self._reporter.run_dir / "segmenter"
        config = self._config
        save_segmenter(folder, self._fit.averaged, (BENIGN, MALIGN), config.mpp, config.patch_px)
        above = told_apart(self._store.counts(False), self._store.counts(True))
        if above is not None and above <= 0.5:
            self._reporter.warn(
                "The net puts malign slides no higher than benign ones, though it learned from them: it says "
                "nothing, or the opposite of the truth. Train for longer, or with another seed."
            )
        rows = [self._scored(number) for number in range(len(self._slides))]
        (folder / SCORES_FILE).write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
        return folder

    def close(self) -> None:
        """End mapper and reading."""
        self._mapper.stop()
        self._buffer.close()

    def _step(self) -> None:
        """Make one step, and say how it went."""
        config, fit = self._config, self._fit
        batch = _changed(self._buffer.batch(fit.step, self._compute.device), fit.step, config, _TRAINING)
        labels = torch.tensor([self._malign[place[0]] for place in batch.places], device=batch.valid.device)
        beta, eta = (config.beta_0, beta_1_at(config, fit.step)), eta_at(config, fit.step)
        loss = fit.take_step(
            batch.pixels,
            lambda x, logits: slide_label_losses(logits, batch.valid, labels, beta, eta),
            _Namer(self._slides, batch),
        )
        self._reporter.progress(fit.step, config.steps, "steps", "Training on slide labels")
        if self._mapper.is_alive() and fit.step % _PUBLISH_EVERY == 0:
            self._mapper.publish(fit.step, fit.averaged.state_dict())
        self._tell_maps()
        if fit.step % _METRIC_EVERY == 0 or fit.step == config.steps:
            self._tell(loss)

    def _weights(self, step: int) -> NDArray[np.float64] | None:
        """Return how often cells of each percent are drawn at a step; None is evenly.

        As long as the maps do not put malign slides above benign ones, the net chooses nothing.
        """
        alpha, benign = alpha_at(self._config, step), self._store.counts(False)
        above = told_apart(benign, self._store.counts(True))
        if not alpha or above is None or above <= 0.5:
            return None
        return by_probability(alpha) if self._config.places == "probability" else by_rank(benign, alpha)

    def _map_all(self, numbers: Sequence[int]) -> None:
        """Map slides with the present weights; those that these weights have mapped stay."""
        net = copy.deepcopy(self._fit.averaged).eval()
        reporter = MapReporter(self._reporter.run_dir, self._reporter.should_stop)
        for done, number in enumerate(numbers):
            self._reporter.progress(done, len(numbers), "slides", "Mapping the slides")
            if self._store.steps()[number] == self._fit.step:
                continue
            try:
                map_one(net, number, self._fit.step, self._slides, self._store, self._map_slide, reporter)
            except Stopped:
                self._save()
                raise
        self._tell_maps()

    def _tell_maps(self) -> None:
        """Say which maps were swapped in."""
        for number, mapped in enumerate(list(self._store.latest)):
            if mapped.step != self._told[number]:
                self._told[number] = mapped.step
                name = self._slides[number].name
                self._reporter.event(
                    "map", slide=name, made_with=mapped.step, step=self._fit.step, path=str(mapped.path)
                )

    def _tell(self, loss: float) -> None:
        """Report loss, staleness, and visits."""
        steps, now = self._store.steps(), self._fit.step
        stale = {self._slides[k].name: now - steps[k] for k in self._numbers if steps[k] >= 0}
        figures = {"loss": loss, "learning_rate": self._fit.rate}
        if stale:
            ages = list(stale.values())
            figures |= {"staleness_mean": float(np.mean(ages)), "staleness_most": float(max(ages))}
        above = told_apart(self._store.counts(False), self._store.counts(True))
        if above is not None:
            figures["told_apart"] = above
        if self._mapper.is_alive():
            figures["mapper_share"] = self._share.share
        self._reporter.metric(now, **figures)
        self._reporter.event("staleness", step=now, slides=stale)
        self._reporter.event("visits", step=now, slides=list(self._buffer.visited))
        self._buffer.visited.clear()

    def _save(self) -> None:
        """Write a checkpoint, and drop maps that no checkpoint names."""
        maps = self._store.steps()
        state: dict[str, Any] = {
            "fit": self._fit.snapshot(),
            "chooser": self._chooser.state_dict(),
            "buffer": self._buffer.state_dict(),
            "maps": maps,
            "slides": self._labels(),
        }
        self._checkpoints.save(self._fit.step, state)
        self._needed = [*self._needed, maps][-self._checkpoints.keep :]
        self._store.prune(self._needed)

    def _labels(self) -> list[list[Any]]:
        """Return names, labels, and whether they are held out, of all slides in their order."""
        return [[slide.name, slide.malign, slide.held_out] for slide in self._slides]

    def _scored(self, number: int) -> dict[str, Any]:
        """Return what ``slides.json`` says of a slide."""
        slide, mapped = self._slides[number], self._store.latest[number]
        if mapped.path is None:
            raise NoTissue(f"{slide.name} has no map", "a map of every slide")
        label = UNKNOWN if slide.malign is None else (MALIGN if slide.malign else BENIGN)
        score = highest_probability(mapped.path)
        path = mapped.path.relative_to(self._reporter.run_dir).as_posix()
        return {"slide": slide.name, "label": label, "score": score, "held_out": slide.held_out, "map": path}


def _changed(batch: WeakBatch, step: int, config: TrainWeaklyConfig, salt: int) -> WeakBatch:
    """Return a batch with its random changes, a function of seed and step."""
    if not config.augment:
        return batch
    seed = np.random.SeedSequence([config.seed, salt, 3, step]).generate_state(1, np.uint64)[0]
    return changed(batch, config.elastic_px, torch.Generator().manual_seed(int(seed >> np.uint64(1))))


@dataclass(frozen=True)
class _Namer:
    """Says which patches a loss went wrong on."""

    slides: Sequence[WeakSlide]
    batch: WeakBatch

    def __call__(self, numbers: Sequence[int]) -> str:
        """Return slides and places of patches of the batch."""
        places = [self.batch.places[k] for k in numbers]
        return "; ".join(f"{self.slides[k].name} at y={y}, x={x}" for k, y, x in places)


class _Clock:
    """Rings when a checkpoint is due."""

    def __init__(self, minutes: float) -> None:
        self._seconds, self._since = 60 * minutes, time.monotonic()

    def rang(self) -> bool:
        """Whether the time is over; then it starts again."""
        if time.monotonic() - self._since < self._seconds:
            return False
        self._since = time.monotonic()
        return True


def _require_usable(slides: Sequence[WeakSlide], config: TrainWeaklyConfig) -> None:
    """Refuse what cannot be learned from."""
    words = {True: MALIGN, False: BENIGN, None: UNKNOWN}
    require_both({slide.name: words[slide.malign] for slide in slides if not slide.held_out})
    for slide in slides:
        slide.reader.check_resolution(config.mpp)
        size = slide.reader.size_at(config.mpp)
        if min(size.shape) < config.patch_px:
            raise SlideTooSmall(
                f"{slide.name} has {size.height} x {size.width} pixels of {config.mpp:g} um",
                f"at least {config.patch_px} a side, the size of a patch",
                "choose smaller patches or a finer resolution, or leave the slide out",
            )
        if not slide.tissue.mask.any():
            raise NoTissue(f"{slide.name} shows no tissue", "tissue on every slide", "leave it out")
