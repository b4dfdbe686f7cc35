"""Train DatasetGAN's pixel classifier on painted samples (sections 3.2 and 4)."""

from __future__ import annotations

import hashlib
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from napari_histogan.config import TrainPixelClassifierConfig
from napari_histogan.errors import ConfigError, Stopped, TrainingDiverged
from napari_histogan.labels.classes import ClassTable
from napari_histogan.models.device import Compute, resolve
from napari_histogan.models.pixel_classifier import (
    PixelClassifier,
    PixelClassifierSpec,
    load_pixel_classifier,
    save_pixel_classifier,
)
from napari_histogan.models.stylegan2 import Generator
from napari_histogan.progress import Reporter

from .checkpoint import CheckpointStore
from .classifier_judgement import judge_images, validate_members
from .feature_cache import FeatureCache
from .feature_subspace import common_scale, leading_directions, project_rows, share_directions
from .image_split import split_images
from .labelled_pixels import LabelledPixels, PaintedSamples, collect_pixels
from .picture_nets import train_picture_nets

__all__ = ["FittedClassifier", "PaintedSamples", "fit_pixel_classifier", "train_pixel_classifier"]

CHECKPOINT_SECONDS = 20.0
MIN_STEPS = 10
"""Fewest steps of a pass; a few strokes fill less than one batch."""
HELD_PIXELS = 16384
"""Most held-out pixels that judge a pass; with folds all pixels are held out, by one member or another."""
_PHASE = "Training the pixel classifier"


@dataclass(frozen=True)
class FittedClassifier:
    """A trained classifier and what is known about it.

    Attributes
    ----------
    classifier
        With the weights of the best pass, in evaluation mode.
    validation
        Figures on the held-out pixels at the best pass, see
        :func:`~.classifier_judgement.validate_members`; empty where nothing could be held out.
    epochs, best_epoch
        Passes made, and the one kept.
    """

    classifier: PixelClassifier
    validation: dict[str, Any]
    epochs: int
    best_epoch: int


def train_pixel_classifier(
    generator: Generator,
    samples: PaintedSamples,
    classes: ClassTable,
    config: TrainPixelClassifierConfig,
    reporter: Reporter,
    *,
    generator_hash: str = "",
    init: Path | None = None,
    cache: FeatureCache | None = None,
) -> Path:
    """Learn the classes of painted pixels from the generator's features.

    Parameters
    ----------
    generator
        That made the samples.
    samples
        Styles, noise seeds, and masks of painted samples.
    classes
        K classes; the nets have K outputs whichever were painted last.
    config
        Of the stage.
    reporter
        ``run_dir`` holds the checkpoints; a stopped run goes on from there bit for bit.
    generator_hash
        Kept in the result, so that features of another generator are refused.
    init
        Folder of an earlier classifier on the same features to start from.
    cache
        Where native feature maps of samples are kept between rounds; None rebuilds them.

    Returns
    -------
    Path
        Folder with ``classifier.safetensors`` and ``classifier.json``; the latter holds ``validation`` and,
        where the split asks for it, ``test``: see :class:`~.classifier_judgement.Judgment`.  With
        ``picture_nets`` it also holds those, if they help: see :mod:`.picture_nets`.

    Raises
    ------
    LabelError
        If the masks cannot be learned from.
    ModelError
        If samples and generator do not fit, or a feature is not finite.
    TrainingDiverged
        If the loss is not finite.
    Stopped
        If a stop was asked for; the state was saved.
    """
    for message in samples.check(generator.spec, classes):
        reporter.warn(message)
    compute = resolve(config)
    split = split_images(samples.masks, classes.num_classes, config)
    seen = samples.subset(~split.tests)
    pixels = collect_pixels(
        generator,
        seen,
        compute,
        reporter,
        blocks=config.blocks,
        pixels_per_image=config.pixels_per_image,
        seed=config.seed,
        cache=cache,
    )
    learns = split.learns[:, ~split.tests]
    if learns.all():
        reporter.warn(
            "no image can be held out, so training takes a fixed number of passes and nothing checks it; "
            "paint every class in two images or more"
        )
    store = CheckpointStore(reporter.run_dir / "checkpoints")
    fitted = fit_pixel_classifier(
        pixels, learns, classes, config, reporter, compute, store, generator_hash=generator_hash, init=init
    )
    count = len(pixels.label)
    del pixels
    judged = judge_images(generator, samples, split, fitted.classifier, compute, reporter, cache)
    folder = reporter.run_dir / "pixel_classifier"
    report = {
        "images": int(np.any(samples.masks, axis=(1, 2)).sum()),
        "pixels": count,
        "epochs": fitted.epochs,
        "best_epoch": fitted.best_epoch,
        "best_loss": fitted.validation.get("loss"),
        **judged.to_dict(classes),
    }
    if config.picture_nets:
        folder.mkdir(parents=True, exist_ok=True)
        report["picture_nets"] = train_picture_nets(
            generator, samples, split, fitted.classifier, classes, config, reporter, compute, folder
        )
    save_pixel_classifier(folder, fitted.classifier, report)
    return folder


def fit_pixel_classifier(
    pixels: LabelledPixels,
    learns: NDArray[np.bool_],
    classes: ClassTable,
    config: TrainPixelClassifierConfig,
    reporter: Reporter,
    compute: Compute,
    store: CheckpointStore | None = None,
    *,
    generator_hash: str = "",
    init: Path | None = None,
) -> FittedClassifier:
    """Train all members at once on pixels that are in memory.

    All members see the same batches; they differ in their initial weights, and in the images they leave
    out where there are folds.  One product then serves the whole ensemble, which is what makes ten nets cost
    little more than one.

    Parameters
    ----------
    pixels
        Of the painted images.
    learns
        (M, n): which member learns from which image; see :func:`~.image_split.hold_out`.
    classes, config, reporter, generator_hash, init
        See :func:`train_pixel_classifier`.
    compute
        Device and dtype of the products; weights, losses, and optimizer stay float32.
    store
        Where checkpoints go; None makes none, for live use.

    Raises
    ------
    TrainingDiverged, Stopped
        See :func:`train_pixel_classifier`.
    """
    spec = PixelClassifierSpec(
        pixels.layout, tuple(classes.to_dicts()), generator_hash, config.members, config.hidden, config.preset
    )
    net = _start(spec, pixels, config.seed, init).to(compute.device)
    x, basis = _inputs(net, pixels, config)
    optimizer = _optimizer(net, config)
    member_learns = torch.from_numpy(learns).to(compute.device)[:, pixels.image]  # (M, P)
    pool = member_learns.any(dim=0).nonzero()[:, 0]
    by_class = [pool[pixels.label[pool] == k] for k in range(spec.num_classes)]
    held = _some((~member_learns).any(dim=0).nonzero()[:, 0], config.seed)

    batch = min(config.batch, max(len(pool), 1))
    steps = max(math.ceil(len(pool) / batch), MIN_STEPS)
    smoothing = 0.1 if config.preset == "hdgan" else 0.0
    mark = _fingerprint(pixels, learns)
    best: dict[str, Tensor] = _weights(net)
    best_score, best_epoch, epoch = -math.inf, 0, 0
    validation: dict[str, Any] = {}
    if store is not None and (found := store.load_latest()) is not None:
        if found.state["mark"] == mark:
            epoch, state = found.step, found.state
            net.load_state_dict(state["net"])
            optimizer.load_state_dict(state["optimizer"])
            best, best_score, best_epoch = state["best"], state["best_score"], state["best_epoch"]
            validation = state["validation"]
        else:
            reporter.warn("the painted pixels changed since the run was stopped; it begins anew")
            store.clear()

    saved = time.monotonic()
    while epoch < config.epochs and epoch - best_epoch < config.patience:
        g = torch.Generator().manual_seed(config.seed * 1_000_003 + epoch)
        net.train()
        total = torch.zeros((), device=compute.device)
        for _ in range(steps):
            chosen = _draw(by_class, pool, batch, config.balance, g).to(compute.device)
            features = x.index_select(0, chosen)
            if config.preset == "hdgan":  # half of the pixels get noise
                noise = torch.randn(features.shape, generator=g) * 0.1
                noise[torch.rand(len(noise), generator=g) < 0.5] = 0
                features = features + noise.to(features)
            logits = net(features, g)
            losses = F.cross_entropy(
                logits.flatten(0, 1),
                pixels.label[chosen].repeat(config.members),
                reduction="none",
                label_smoothing=smoothing,
            ).view(config.members, -1)
            weight = member_learns[:, chosen].float()
            # Mean over pixels, sum over members: each net gets the gradient that it would get alone.
            loss = ((losses * weight).sum(dim=1) / weight.sum(dim=1).clamp(min=1)).sum()
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            total += loss.detach() / config.members
        epoch += 1
        train_loss = float(total) / steps
        if not math.isfinite(train_loss):
            raise TrainingDiverged(
                f"the loss became {train_loss} in pass {epoch}", "a finite loss", "lower learning_rate"
            )
        figures = validate_members(net, x, pixels.label, held, ~member_learns, classes)
        score = figures.get("mean_dice", -train_loss)
        if not figures or score > best_score:  # without validation the last pass is kept
            best, best_score, best_epoch, validation = _weights(net), score, epoch, figures
        shown = {k: v for k, v in figures.items() if isinstance(v, float)}
        dice = {f"dice/{name}": v for name, v in figures.get("dice", {}).items()}
        reporter.metric(
            epoch, train_loss=train_loss, **{f"validation_{k}": v for k, v in shown.items()}, **dice
        )
        reporter.progress(epoch, config.epochs, "passes", _PHASE)
        stop = reporter.should_stop()
        if store is not None and (stop or time.monotonic() - saved > CHECKPOINT_SECONDS):
            state = {
                "mark": mark,
                "net": net.state_dict(),
                "optimizer": optimizer.state_dict(),
                "best": best,
                "best_score": best_score,
                "best_epoch": best_epoch,
                "validation": validation,
            }
            store.save(epoch, state)
            saved = time.monotonic()
        if stop:
            raise Stopped(f"stopped after pass {epoch}")
    net.load_state_dict(best)
    if config.shared_directions:
        share_directions(net, x, config.shared_directions, config.seed)
    _lift(net, basis)
    reporter.progress(config.epochs, config.epochs, "passes", _PHASE)
    return FittedClassifier(net.cpu().eval(), validation, epoch, best_epoch)


def _start(
    spec: PixelClassifierSpec, pixels: LabelledPixels, seed: int, init: Path | None
) -> PixelClassifier:
    """Build the nets, or take those of an earlier round."""
    net = PixelClassifier(spec, seed)
    if init is not None:
        earlier = load_pixel_classifier(init)
        same = ("layout", "members", "hidden", "preset", "num_classes")
        if any(getattr(earlier.spec, name) != getattr(spec, name) for name in same):
            raise ConfigError(
                f"the classifier in {init} has other features, members, layers, or classes",
                "one of the same build",
                "start without init",
            )
        net.load_state_dict(earlier.state_dict())
    elif spec.standardized:
        net.mean.copy_(pixels.mean)
        net.std.copy_(pixels.std if spec.preset == "hdgan" else common_scale(pixels.std))
    return net


def _inputs(
    net: PixelClassifier, pixels: LabelledPixels, config: TrainPixelClassifierConfig
) -> tuple[Tensor, Tensor | None]:
    """Return what the nets read while they train, and the directions (C, D) if it is not every channel.

    With directions the first layer is replaced by its part in their space; :func:`_lift` brings it back.
    """
    if not config.directions or config.directions >= net.spec.layout.channels:
        return (_standardized(net, pixels.x) if net.spec.standardized else pixels.x), None
    basis = leading_directions(pixels.x, config.directions, net.standardize, config.seed)
    net.weights[0] = nn.Parameter(basis.t() @ net.weights[0].detach())
    return project_rows(pixels.x, basis, net.mean, net.std), basis


def _lift(net: PixelClassifier, basis: Tensor | None) -> None:
    """Let the first layer read all channels again: the same function."""
    if basis is not None:
        net.weights[0] = nn.Parameter(basis @ net.weights[0].detach())


def _standardized(net: PixelClassifier, x: Tensor) -> Tensor:
    """Standardize features (P, C) piece by piece, keeping their dtype."""
    out = torch.empty_like(x)
    for first in range(0, len(x), 4096):
        out[first : first + 4096] = net.standardize(x[first : first + 4096].float()).to(x.dtype)
    return out


def _optimizer(net: PixelClassifier, config: TrainPixelClassifierConfig) -> torch.optim.Optimizer:
    """Return SGD with momentum 0.9 for HDGAN, AdamW for the others; biases and norms do not decay."""
    groups = [
        {"params": list(net.weights), "weight_decay": config.weight_decay},
        {"params": [*net.biases, *net.norm_scale, *net.norm_shift], "weight_decay": 0.0},
    ]
    if config.preset == "hdgan":
        return torch.optim.SGD(groups, lr=config.learning_rate, momentum=0.9)
    return torch.optim.AdamW(groups, lr=config.learning_rate, fused=True)


def _draw(
    by_class: list[Tensor], pool: Tensor, batch: int, balance: bool, generator: torch.Generator
) -> Tensor:
    """Draw pixels with replacement, each class equally often if ``balance``; (batch,) indices."""
    position = torch.rand(batch, generator=generator)
    if not balance:
        return pool[(position * len(pool)).long().to(pool.device)]
    there = [group for group in by_class if len(group)]
    which = torch.randint(len(there), (batch,), generator=generator)
    chosen = torch.empty(batch, dtype=torch.int64)
    for k, group in enumerate(there):
        mine = which == k
        chosen[mine] = group.cpu()[(position[mine] * len(group)).long()]
    return chosen


def _some(held: Tensor, seed: int) -> Tensor:
    """Choose at most ``HELD_PIXELS`` of the held-out pixels (H,)."""
    if len(held) <= HELD_PIXELS:
        return held
    order = torch.randperm(len(held), generator=torch.Generator().manual_seed(seed))
    return held[order[:HELD_PIXELS].sort().values.to(held.device)]


def _weights(net: PixelClassifier) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in net.state_dict().items()}


def _fingerprint(pixels: LabelledPixels, learns: NDArray[np.bool_]) -> str:
    """Tell the training data of two runs apart."""
    digest = hashlib.sha256(learns.tobytes())
    for part in (pixels.label, pixels.image, pixels.mean, pixels.x[:: max(len(pixels.x) // 64, 1)].float()):
        digest.update(part.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
