"""A pixel classifier that keeps up with the brush, for one set of samples.

Hypercolumns of all blocks are read in a few dozen leading directions of the set, found once.  In that space
the whole image at hand fits into memory, so that after a stroke nothing of the generator runs: painted pixels
are looked up, the ensemble learns on from where it was, and one small net per member goes over the image.
Pixels of the other samples are kept, too: those that are painted, and a thousand of each to tell how unsure
the ensemble is.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_histogan.config import TrainPixelClassifierConfig
from napari_histogan.inference.informative import rank_informative
from napari_histogan.inference.sampling import Samples
from napari_histogan.labels.classes import ClassTable
from napari_histogan.models.device import Compute
from napari_histogan.models.hypercolumn_projection import HypercolumnProjection
from napari_histogan.models.hypercolumns import (
    Channel,
    FeatureLayout,
    FeatureStatistics,
    gather_hypercolumns,
    layout_of,
    native_levels,
)
from napari_histogan.models.pixel_classifier import PixelClassifier, PixelPredictor, save_pixel_classifier
from napari_histogan.models.stylegan2 import FeatureMap, Generator
from napari_histogan.models.uncertainty import ensemble_statistics, image_uncertainty
from napari_histogan.progress import QuietReporter
from napari_histogan.training.feature_subspace import common_scale, leading_directions
from napari_histogan.training.labelled_pixels import LabelledPixels, choose_pixels
from napari_histogan.training.train_pixel_classifier import fit_pixel_classifier

DIRECTIONS = 64
MEMBERS, HIDDEN = 5, (64,)
FIRST_EPOCHS, WARM_EPOCHS = 12, 4
"""Passes of at least ten steps: the first prediction, and one after another stroke."""
BATCH = 512
PIXELS_PER_IMAGE = 2048
PIXELS = 4096
"""Pixels that one fit sees; a pass over them takes ten steps."""
PROBES = 1024
"""Pixels by which a sample that is not open is judged."""
LEAST_IMAGES, MOST_IMAGES, IMAGE_PIXELS = 4, 16, 2**19
"""The directions are found from so many samples; large ones are fewer, for each costs a pass."""
CANVASES = 2
_BAND_PIXELS = 16384


class _Space(NamedTuple):
    """The space in which the live nets read.

    ``mean`` and ``std`` (C,) of the hypercolumns, the directions ``basis`` (C, D), and ``scale`` (D,): what
    the coordinates are divided by.
    """

    layout: FeatureLayout
    mean: Tensor
    std: Tensor
    basis: Tensor
    scale: Tensor
    projection: HypercolumnProjection


class LiveClassifier:
    """Learns from the painted masks of one set of samples and labels its images.

    Parameters
    ----------
    generator
        On the device, in evaluation mode.
    samples
        Of this generator.
    compute
        Where and how precisely.
    folder
        Where the ensemble waits between two rounds.
    """

    def __init__(self, generator: Generator, samples: Samples, compute: Compute, folder: Path) -> None:
        self.generator, self.samples = generator, samples
        self.net: PixelClassifier | None = None
        self._compute, self._folder = compute, folder
        self._quiet = QuietReporter(folder)
        self._space: _Space | None = None
        self._canvas: OrderedDict[int, Tensor] = OrderedDict()
        self._painted: dict[int, tuple[str, Tensor, Tensor]] = {}
        self._probes: dict[int, Tensor] = {}
        self._predictor: PixelPredictor | None = None
        self._fitted: tuple[str, int] = ("", 0)

    def learn(self, masks: dict[int, NDArray[np.uint8]], classes: ClassTable, at_hand: int) -> Iterator[None]:
        """Bring the ensemble up to these masks; yields where another request may go first.

        Parameters
        ----------
        masks
            (R, R) uint8 by sample; all that have paint, of two classes or more.
        classes
            Of the project.
        at_hand
            The sample that is open; -1 for none.
        """
        state = hashlib.sha256(str(sorted(classes.to_dicts(), key=str)).encode())
        for index in sorted(masks):
            state.update(index.to_bytes(4, "little") + masks[index].tobytes())
        if state.hexdigest() == self._fitted[0]:
            return
        yield from self._find_space([*masks, at_hand] if at_hand >= 0 else [*masks])
        if at_hand >= 0:
            yield
            self._open(at_hand)
        for index, mask in masks.items():
            if self._collect(index, mask):
                yield
        for index in [i for i in self._painted if i not in masks]:
            del self._painted[index]
        if state.hexdigest() != self._fitted[0] and all(i in self._painted for i in masks):
            self._fit(sorted(masks), classes)
            self._fitted = state.hexdigest(), classes.num_classes

    def forget(self) -> None:
        """Know nothing, as when the paint of all classes but one is erased."""
        self.net, self._predictor, self._fitted = None, None, ("", 0)

    @property
    def ready(self) -> bool:
        """Whether there is an ensemble to ask."""
        return self._predictor is not None

    def predict(self, index: int) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """Return the classes (R, R), 1 to K, of a sample, and the ensemble's disagreement, 0 to 1."""
        space, predictor = self._space, self._predictor
        if space is None or predictor is None:
            raise RuntimeError("learn first")
        size = space.layout.size
        canvas = self._open(index).view(1, size, size, -1).permute(0, 3, 1, 2)
        found = predictor([FeatureMap("directions", size, canvas)], probabilities=False)
        uncertainty = found.uncertainty[0] / _largest_divergence(predictor.spec.num_classes)
        return found.labels[0].cpu().numpy(), uncertainty.cpu().numpy()

    def look_at(self, pool: Sequence[int]) -> Iterator[None]:
        """Read the probes of samples; yields before each one that costs a pass of the generator."""
        yield from self._find_space(pool)
        for index in pool:
            if index not in self._probes:
                yield
                flat = torch.from_numpy(probe_positions(self.generator.spec.img_resolution))
                self._probes[index] = self._read(index, flat).to(torch.bfloat16)

    def judge(self, indices: Sequence[int]) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
        """Ask the ensemble about the :func:`probe_positions` of samples that :meth:`look_at` has read.

        Returns
        -------
        tuple
            (n, P) classes, 1 to K, and (n,) how much the ensemble disagrees on each sample, 0 to 1.
        """
        net = self.net
        if net is None:
            raise RuntimeError("learn first")
        labels, scores = [], []
        with torch.inference_mode():
            for index in indices:
                logits = net(net.standardize(self._probes[index].float()))
                mean, divergence = ensemble_statistics(logits.transpose(1, 2))
                labels.append(mean.argmax(dim=0).add(1).to(torch.uint8).cpu().numpy())
                scores.append(float(image_uncertainty(divergence[None, :, None])))
        return np.stack(labels), np.array(scores) / _largest_divergence(net.spec.num_classes)

    def looks(self, indices: Sequence[int]) -> NDArray[np.float32]:
        """Return what tells samples apart, (n, D): the means of their probes."""
        means = [self._probes[i].float().mean(dim=0).cpu().numpy() for i in indices]
        return np.stack(means) if means else np.empty((0, DIRECTIONS), np.float32)

    def rank(self, pool: Sequence[int], painted: Sequence[int]) -> tuple[list[int], NDArray[np.float64]]:
        """Order samples by what painting them would tell: the ensemble is unsure of them, no two are alike.

        Parameters
        ----------
        pool, painted
            Samples that :meth:`look_at` has read.

        Returns
        -------
        tuple
            The pool, the most informative first, and the uncertainty of each in this order, 0 to 1.
        """
        uncertainty = self.judge(pool)[1]
        order = rank_informative(uncertainty, self.looks(pool), len(pool), self.looks(painted))
        return [pool[int(k)] for k in order], uncertainty[order]

    # Parts

    @torch.inference_mode()
    def _maps(self, index: int) -> list[FeatureMap]:
        """Return the generator's feature maps of a sample."""
        device, spec = self._compute.device, self.generator.spec
        w = torch.from_numpy(self.samples.w[[index]]).to(device)
        noise = self.samples.noise_maps(spec, [index], device)
        return self.generator.synthesis.features(w, noise=noise)[1]

    def _has_space(self) -> bool:
        return self._space is not None

    @torch.inference_mode()
    def _find_space(self, wanted: Sequence[int]) -> Iterator[None]:
        """Find the leading directions of the set, from wanted samples first and then from others."""
        if self._has_space():
            return
        size, n = self.generator.spec.img_resolution, len(self.samples.w)
        count = min(max(IMAGE_PIXELS // size**2, LEAST_IMAGES), MOST_IMAGES, n)
        spread = np.linspace(0, n - 1, count).astype(int).tolist()
        chosen = list(dict.fromkeys([*list(wanted)[: count // 2], *spread]))[:count]
        statistics: FeatureStatistics | None = None
        rows = []
        for index in chosen:
            yield
            if self._has_space():  # another request found it meanwhile
                return
            maps = self._maps(index)
            statistics = statistics or FeatureStatistics(layout_of(maps, size))
            statistics.update(maps)
            flat = _spread(size, -(-PIXELS // count))
            rows.append(_gather(native_levels(maps, statistics.layout, torch.float32), flat, size))
        if statistics is not None:
            self._space = self._made(statistics, torch.cat(rows))

    def _made(self, statistics: FeatureStatistics, rows: Tensor) -> _Space:
        """Return the space of these hypercolumns (P, C)."""
        device, layout = rows.device, statistics.layout
        mean = statistics.mean().to(device)
        # One scale for all channels, and one for all directions: to blow up the weak ones, as the deviation
        # of each would, teaches less.
        std = common_scale(statistics.std().to(device))
        basis = leading_directions(rows, DIRECTIONS, lambda x: (x - mean) / std)
        spread = (((rows - mean) / std) @ basis).square().mean().sqrt()
        scale = spread.clamp(min=1e-6).expand(basis.shape[1]).clone()
        zeros = torch.zeros(basis.shape[1], device=device)
        projection = HypercolumnProjection(layout, basis, zeros, mean, std, dtype=self._compute.dtype)
        return _Space(layout, mean, std, basis, scale, projection)

    @torch.inference_mode()
    def _open(self, index: int) -> Tensor:
        """Return all pixels of a sample in the space, (R * R, D); the newest two are kept."""
        if index in self._canvas:
            self._canvas.move_to_end(index)
            return self._canvas[index]
        space = self._space
        if space is None:
            raise RuntimeError("find the space first")
        levels = native_levels(self._maps(index), space.layout, self._compute.dtype)
        bands = space.projection.bands(1, _BAND_PIXELS)
        canvas = torch.cat([space.projection(levels, band).clone() for band in bands])
        self._canvas[index] = canvas
        if len(self._canvas) > CANVASES:
            self._canvas.popitem(last=False)
        return canvas

    @torch.inference_mode()
    def _read(self, index: int, flat: Tensor) -> Tensor:
        """Return pixels of a sample in the space, (P, D)."""
        space = self._space
        if space is None:
            raise RuntimeError("find the space first")
        if index in self._canvas:
            return self._canvas[index][flat.to(self._compute.device)]
        levels = native_levels(self._maps(index), space.layout, torch.float32)
        return ((_gather(levels, flat, space.layout.size) - space.mean) / space.std) @ space.basis

    def _collect(self, index: int, mask: NDArray[np.uint8]) -> bool:
        """Read the painted pixels of a mask; False if they are known."""
        digest = hashlib.sha256(mask.tobytes()).hexdigest()
        if index in self._painted and self._painted[index][0] == digest:
            return False
        flat = torch.from_numpy(choose_pixels(mask, PIXELS_PER_IMAGE, 0))
        label = torch.from_numpy(mask).reshape(-1)[flat].long() - 1
        self._painted[index] = digest, self._read(index, flat).float().clone(), label
        return True

    def _fit(self, painted: Sequence[int], classes: ClassTable) -> None:
        """Train the ensemble on all painted pixels, from where it was if the classes are the same."""
        space = self._space
        if space is None:
            raise RuntimeError("find the space first")
        same = self.net is not None and self._fitted[1] == classes.num_classes
        most = max(64, PIXELS // len(painted))
        parts = [_thinned(*self._painted[i][1:], most) for i in painted]
        counts = [len(label) for _, label in parts]
        pixels = LabelledPixels(
            torch.cat([x for x, _ in parts]),
            torch.cat([label for _, label in parts]).to(self._compute.device),
            torch.repeat_interleave(torch.tensor(counts)).to(self._compute.device),
            FeatureLayout((Channel("directions", space.layout.size, len(space.scale)),), space.layout.size),
            torch.zeros_like(space.scale),
            space.scale,
        )
        config = TrainPixelClassifierConfig(
            members=MEMBERS,
            hidden=HIDDEN,
            epochs=WARM_EPOCHS if same else FIRST_EPOCHS,
            batch=BATCH,
            learning_rate=3e-3,
            patience=FIRST_EPOCHS + 1,
        )
        learns = np.ones((MEMBERS, len(painted)), np.bool_)
        init = self._folder if same else None
        fitted = fit_pixel_classifier(pixels, learns, classes, config, self._quiet, self._compute, init=init)
        self._quiet.events.clear()
        save_pixel_classifier(self._folder, fitted.classifier)
        self.net = fitted.classifier.to(self._compute.device)
        self._predictor = PixelPredictor(self.net, self._compute.dtype)


def probe_positions(size: int) -> NDArray[np.int64]:
    """Return where a sample of this side is probed: (P,) indices into the flat image, for all alike."""
    return _spread(size, PROBES).numpy()


def _largest_divergence(num_classes: int) -> float:
    """Return the largest Jensen-Shannon divergence, ln K."""
    return float(np.log(max(2, num_classes)))


def _spread(size: int, count: int) -> Tensor:
    """Choose pixels of an image at random, always the same; (P,) indices into the flat image."""
    g = torch.Generator().manual_seed(0)
    return torch.randperm(size * size, generator=g)[:count].sort().values


def _gather(levels: dict[int, Tensor], flat: Tensor, size: int) -> Tensor:
    """Return the hypercolumns (P, C) of pixels of one image."""
    flat = flat.to(next(iter(levels.values())).device)
    return gather_hypercolumns(levels, torch.zeros_like(flat), flat // size, flat % size, size)


def _thinned(x: Tensor, label: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """Keep at most so many pixels of a sample, chosen at random but always the same."""
    if len(label) <= most:
        return x, label
    order = torch.randperm(len(label), generator=torch.Generator().manual_seed(0))[:most]
    return x[order.to(x.device)], label[order]
