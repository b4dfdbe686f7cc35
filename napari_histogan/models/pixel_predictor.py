"""Label images quickly with a trained pixel classifier.

The first layers of all members are one projection of the native maps.  Where they share a few directions,
only as many numbers a pixel are upsampled, and the members' layers follow from these, band by band.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .hypercolumn_projection import Band, HypercolumnProjection
from .hypercolumns import native_levels
from .stylegan2 import FeatureMap
from .uncertainty import ensemble_statistics, largest

if TYPE_CHECKING:
    from .pixel_classifier import PixelClassifier

BAND_PIXELS, BAND_ROWS, MAX_BAND_PIXELS = 4096, 32, 65536  # least, for speed; and most, for memory
NARROW_BAND_PIXELS = 16384
_NO_PART = 1e-10
"""Of the greatest squared singular value; float32 leaves about 1e-14 where there is nothing."""


class Prediction(NamedTuple):
    """What the ensemble says about N images of side R.

    Attributes
    ----------
    labels
        (N, R, R) uint8, 1 to K: the class of the largest mean probability.
    probabilities
        (N, K, R, R) float32: mean of the members' softmax; empty (N, 0, R, R) if not asked for.
    uncertainty
        (N, R, R) float32, 0 to ln K: Jensen-Shannon divergence of the members, in nats.
    """

    labels: Tensor
    probabilities: Tensor
    uncertainty: Tensor


class PixelPredictor:
    """A trained classifier, made ready to label many images quickly.

    Parameters
    ----------
    classifier
        Its weights are copied; later training does not reach the copy.
    dtype
        What to multiply in.
    fuse
        See :class:`~napari_histogan.models.hypercolumns.HypercolumnProjection`.
    """

    def __init__(
        self, classifier: PixelClassifier, dtype: torch.dtype = torch.float32, fuse: int | None = None
    ) -> None:
        spec = classifier.spec
        self.spec, self.dtype = spec, dtype
        weights, biases = classifier.folded()
        first = weights[0].permute(1, 0, 2).reshape(spec.layout.channels, -1)
        shared = shared_directions(first)
        # Members side by side share a block-diagonal product.  In bfloat16 two at a time are fastest if each
        # reads all channels: the multiplications by zero cost less than the narrowness of one.
        self._together = 2 if dtype == torch.bfloat16 and shared is None else 1
        self._spread: list[tuple[Tensor, Tensor]] = []
        bias, piece = biases[0].reshape(-1), self._together * weights[0].shape[2]
        if shared is not None:
            first, spread = first @ shared, shared.to(dtype)
            members = zip(torch.split(spread, piece), torch.split(bias.to(dtype), piece), strict=True)
            self._spread = [(rows.contiguous(), shift) for rows, shift in members]
            bias, piece = bias.new_zeros(first.shape[1]), first.shape[1]
        self.projection = HypercolumnProjection(
            spec.layout, first, bias, classifier.mean, classifier.std, spec.interpolation, dtype, fuse, piece
        )
        self._layers = [self._ready(w, b) for w, b in zip(weights[1:], biases[1:], strict=True)]

    def _ready(self, weight: Tensor, bias: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Return weights (outputs, inputs) and biases for each group of members."""
        cuts = [slice(a, a + self._together) for a in range(0, len(weight), self._together)]
        matrices = [_block_diagonal(weight[cut]).t().contiguous().to(self.dtype) for cut in cuts]
        return [(w, bias[cut].reshape(-1).to(self.dtype)) for w, cut in zip(matrices, cuts, strict=True)]

    @torch.inference_mode()
    def __call__(self, maps: Sequence[FeatureMap], probabilities: bool = True) -> Prediction:
        """Label images.

        Parameters
        ----------
        maps
            Feature maps of N images, those of the classifier's layout.
        probabilities
            Whether to return them; without, memory is that of two (N, R, R) maps.

        Raises
        ------
        ModelError
            If the maps are not those that the classifier was trained on.
        """
        names = {m.name for m in self.spec.layout.maps}
        levels = native_levels([m for m in maps if m.name in names], self.spec.layout, self.dtype)
        return self.label_levels(levels, probabilities)

    @torch.inference_mode()
    def label_levels(self, levels: dict[int, Tensor], probabilities: bool = True) -> Prediction:
        """Label images whose maps are joined already, as by ``native_levels``; see :meth:`__call__`."""
        first = next(iter(levels.values()))
        n, size, k, device = len(first), self.spec.layout.size, self.spec.num_classes, first.device
        labels = torch.empty(n, size, size, dtype=torch.uint8, device=device)
        uncertainty = torch.empty(n, size, size, device=device)
        means = torch.empty(n, k if probabilities else 0, size, size, device=device)
        least = NARROW_BAND_PIXELS if self._spread else BAND_PIXELS
        pixels = min(max(least, BAND_ROWS * size), MAX_BAND_PIXELS)
        for band in self.projection.bands(n, pixels if device.type == "cpu" else MAX_BAND_PIXELS):
            at = (slice(band.first, band.last), slice(band.top, band.bottom))
            mean, js = ensemble_statistics(self._logits(levels, band))
            shape = (band.last - band.first, band.bottom - band.top, size)
            labels[at] = (largest(mean) + 1).view(shape)
            uncertainty[at] = js.view(shape)
            if probabilities:
                means[at[0], :, at[1]] = mean.view(k, *shape).transpose(0, 1)
        return Prediction(labels, means, uncertainty)

    def _logits(self, levels: dict[int, Tensor], band: Band) -> Tensor:
        """Return the logits (M, K, P) float32 of a band."""
        hidden: Iterable[Tensor]
        if self._spread:
            shared = self.projection(levels, band)
            hidden = (F.linear(shared, *member) for member in self._spread)
        else:
            hidden = self.projection.pieces(levels, band)
        groups = [self._rest(h, number) for number, h in enumerate(hidden)]
        return torch.cat(groups).view(self.spec.members, self.spec.num_classes, -1)

    def _rest(self, h: Tensor, group: int) -> Tensor:
        """Map the first layer of a group of members (P, g * H) to its logits (g * K, P) float32."""
        if not self._layers:
            return h.t().float()
        h = _relu(h)
        for layer in self._layers[:-1]:
            h = _relu(F.linear(h, *layer[group]))
        weight, bias = self._layers[-1][group]
        return torch.addmm(bias[:, None], weight, h.t()).float()


def shared_directions(weight: Tensor) -> Tensor | None:
    """Find the few directions of the outputs in which first layers differ at all.

    Parameters
    ----------
    weight
        (C, W) float32: the first layers of all members side by side.

    Returns
    -------
    Tensor or None
        (W, D) float32 with orthonormal columns S, such that ``weight @ S @ S.T`` is ``weight`` but for
        rounding; None if D is C, or more than W / 2: nothing would be gained.
    """
    turned = weight.shape[0] < weight.shape[1]  # the smaller of W'W and WW' tells as much
    rows = weight.double().t() if turned else weight.double()
    values, vectors = torch.linalg.eigh(rows.t() @ rows)
    there = values > _NO_PART * values[-1]
    found = int(there.sum())
    if found == 0 or found == weight.shape[0] or 2 * found > weight.shape[1]:
        return None
    vectors = vectors[:, there]
    shared: Tensor = torch.linalg.qr(rows @ vectors).Q if turned else vectors
    return shared.float().contiguous()


def _block_diagonal(weight: Tensor) -> Tensor:
    """Lay the matrices (M, in, out) out along the diagonal of one (M * in, M * out)."""
    members, fan_in, fan_out = weight.shape
    whole = weight.new_zeros(members, fan_in, members, fan_out)
    whole[torch.arange(members), :, torch.arange(members)] = weight
    return whole.view(members * fan_in, members * fan_out)


def _relu(x: Tensor) -> Tensor:
    """ReLU in place; for bfloat16 on the bits, whose sign is the number's: five times faster on CPUs."""
    if x.dtype == torch.bfloat16 and x.device.type == "cpu":
        x.view(torch.int16).clamp_(min=0)
        return x
    return x.relu_()
