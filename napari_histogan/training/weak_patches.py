"""Patches with their slides' labels: a buffer that batches are shuffled from, and their random changes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from napari_histogan.config.weak_labels import TrainWeaklyConfig
from napari_histogan.geometry import Region
from napari_histogan.training.augment import AugmentStrength, augment
from napari_histogan.training.weak_maps import MapStore, WeakSlide
from napari_histogan.training.weak_sampling import SlideChooser

_READ_THREADS = 2
_ELASTIC_KNOTS = 5
_ANY_ANGLE = AugmentStrength(rotate=1.0, scale=0.0, shift=0.0, noise=0.0, jpeg=0.0, blur=0.0)

Place = tuple[int, int, int]
"""Number of the slide, and top left corner y, x in pixels at the net's resolution."""


@dataclass(frozen=True)
class WeakBatch:
    """Patches of a step.

    Attributes
    ----------
    pixels
        ``(N, 3, S, S)`` float, 0..255.
    valid
        ``(N, S, S) bool``: tissue, inside of the slide.
    places
        Where each comes from.
    """

    pixels: Tensor
    valid: Tensor
    places: list[Place]


class PatchBuffer:
    """Draws patches ahead of their use; reading runs in threads.

    Parameters
    ----------
    slides
        All slides; the chooser's numbers index them.
    numbers
        Those to draw from, in the chooser's order.
    store
        The maps; None draws evenly.
    chooser, config
        Which slide comes next, and sizes.
    salt
        Sets this buffer's chance apart from others of the same seed.
    weights
        How often cells of each percent are drawn at a step; None draws evenly.
    """

    def __init__(
        self,
        slides: Sequence[WeakSlide],
        numbers: Sequence[int],
        store: MapStore,
        chooser: SlideChooser,
        config: TrainWeaklyConfig,
        salt: int,
        weights: Callable[[int], NDArray[np.float64] | None],
    ) -> None:
        self._slides, self._numbers, self._store, self._chooser = slides, numbers, store, chooser
        self._config, self._salt, self._weights = config, salt, weights
        self._places: list[Place] = []
        self._read: list[Future[tuple[NDArray[np.uint8], NDArray[np.bool_]]]] = []
        self._threads = ThreadPoolExecutor(_READ_THREADS)
        self.visited: list[str] = []
        """Names of the slides in the order of their visits since the list was last emptied."""

    def close(self) -> None:
        """End the reading."""
        self._threads.shutdown(cancel_futures=True)

    def batch(self, step: int, device: torch.device) -> WeakBatch:
        """Return the patches of a step, not yet changed; what is taken out is drawn anew."""
        while len(self._places) < self._config.buffer:
            self._visit(step)
        rng = np.random.default_rng([self._config.seed, self._salt, 1, step])
        chosen = sorted(
            rng.choice(len(self._places), self._config.batch, replace=False).tolist(), reverse=True
        )
        places = [self._places.pop(k) for k in chosen]
        read = [self._read.pop(k).result() for k in chosen]
        pixels = torch.from_numpy(np.stack([each[0] for each in read])).to(device).permute(0, 3, 1, 2)
        valid = torch.from_numpy(np.stack([each[1] for each in read])).to(device)
        return WeakBatch(pixels.float(), valid, places)

    def state_dict(self) -> dict[str, Any]:
        """Return the places of what is buffered; pixels are read again."""
        return {"places": [list(place) for place in self._places]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self._places, self._read = [], []
        for slide, y, x in state["places"]:
            self._add((int(slide), int(y), int(x)))

    def _visit(self, step: int) -> None:
        """Draw a slide, and places on it from its latest map."""
        rng = np.random.default_rng([self._config.seed, self._salt, 2, self._chooser.visits])
        for number, slide in enumerate(self._numbers):
            self._chooser.errors[number] = self._store.latest[slide].error
        slide = self._numbers[self._chooser.choose(rng)]
        self.visited.append(self._slides[slide].name)
        mapped, side = self._store.latest[slide], self._config.patch_px
        cells = mapped.places.draw(self._config.patches_per_visit, rng, self._weights(step))
        centers = (cells + rng.random(cells.shape)) * mapped.cell_px
        for y, x in np.rint(centers - side / 2).astype(int).tolist():
            self._add((slide, y, x))

    def _add(self, place: Place) -> None:
        self._places.append(place)
        self._read.append(self._threads.submit(self._read_patch, place))

    def _read_patch(self, place: Place) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """Return pixels ``(S, S, 3)`` and which of them count ``(S, S)``."""
        number, y, x = place
        slide, side, mpp = self._slides[number], self._config.patch_px, self._config.mpp
        pixels = slide.reader.read_at(Region(y, x, side, side), mpp)
        size = slide.reader.size_at(mpp)
        ys, xs = np.arange(y, y + side), np.arange(x, x + side)
        inside = ((ys >= 0) & (ys < size.height))[:, None] & ((xs >= 0) & (xs < size.width))[None]
        rows, columns = (
            np.clip(((at + 0.5) * mpp / slide.tissue.mpp).astype(int), 0, limit - 1)
            for at, limit in ((ys, slide.tissue.size.height), (xs, slide.tissue.size.width))
        )
        tissue = slide.tissue.mask[np.ix_(rows, columns)] & inside
        return pixels, tissue if tissue.any() else inside


def changed(batch: WeakBatch, elastic_px: float, generator: torch.Generator) -> WeakBatch:
    """Return patches turned by any angle, mirrored, bent, and with other amounts of stain, on their device.

    What a turn brings in from outside does not count.  A patch whose tissue was turned out keeps counting
    everywhere.
    """
    pixels, valid = bend(batch.pixels, batch.valid, elastic_px, generator)
    pixels, mask = augment(pixels, valid.long(), generator, _ANY_ANGLE)
    valid = mask > 0
    valid = valid | ~valid.flatten(1).any(dim=1)[:, None, None]
    return WeakBatch(pixels, valid, batch.places)


def bend(
    pixels: Tensor, valid: Tensor, elastic_px: float, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Shift pixels by a smooth random field: normal shifts at 5 x 5 knots, cubic in between.

    Parameters
    ----------
    pixels, valid
        ``(N, 3, S, S)`` float and ``(N, S, S) bool``; mirrored at the border.
    elastic_px
        Standard deviation of a knot's shift; 0 returns both as they are.
    generator
        On the CPU.
    """
    if not elastic_px:
        return pixels, valid
    n, _, height, width = pixels.shape
    knots = torch.randn(n, 2, _ELASTIC_KNOTS, _ELASTIC_KNOTS, generator=generator)
    field = F.interpolate(knots, size=(height, width), mode="bicubic", align_corners=True)
    scale = torch.tensor([2 * elastic_px / width, 2 * elastic_px / height]).view(1, 2, 1, 1)
    shifts = (field * scale).permute(0, 2, 3, 1).to(pixels.device)
    still = torch.eye(2, 3, device=pixels.device).expand(n, 2, 3)
    grid = F.affine_grid(still, list(pixels.shape), align_corners=False) + shifts
    bent = F.grid_sample(pixels, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
    kept = F.grid_sample(
        valid[:, None].float(), grid, mode="nearest", padding_mode="reflection", align_corners=False
    )
    return bent, kept[:, 0] > 0.5
