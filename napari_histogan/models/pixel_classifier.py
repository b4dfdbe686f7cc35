"""DatasetGAN's pixel classifier: an ensemble of small nets on hypercolumns (section 3.2).

All members live in batched weights: one product serves the ensemble.  Hypercolumns are never built.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from napari_histogan.errors import CheckpointError, ModelError

from .hypercolumn_projection import Band, HypercolumnProjection
from .hypercolumns import FeatureLayout, Interpolation, native_levels
from .stylegan2 import FeatureMap
from .uncertainty import ensemble_statistics, largest

FORMAT = 1
WEIGHTS_FILE = "classifier.safetensors"
PLAN_FILE = "classifier.json"
BAND_PIXELS, BAND_ROWS, MAX_BAND_PIXELS = 4096, 32, 65536  # least, for speed; and most, for memory

Preset = Literal["plain", "datasetgan", "hdgan"]


@dataclass(frozen=True)
class PixelClassifierSpec:
    """Everything needed to build a classifier before its weights are loaded.

    Attributes
    ----------
    layout
        The features that it reads.
    classes
        Rows of the class table; row k - 1 is class k of the masks.
    generator_hash
        Content hash of the generator that makes the features.
    members
        Nets M in the ensemble.
    hidden
        Widths of the hidden layers.
    preset
        ``plain``: ReLU on standardized features.  ``datasetgan``: batch norm after each ReLU, features as
        they are, small normal weights.  ``hdgan``: like it on standardized features, with dropout 0.3
        after the first layer.
    interpolation
        How feature maps are upsampled.
    """

    layout: FeatureLayout
    classes: tuple[dict[str, Any], ...]
    generator_hash: str = ""
    members: int = 10
    hidden: tuple[int, ...] = (128, 32)
    preset: Preset = "plain"
    interpolation: Interpolation = "bilinear"

    @property
    def num_classes(self) -> int:
        """K, without unlabelled."""
        return len(self.classes)

    @property
    def standardized(self) -> bool:
        """Whether channels are brought to mean 0 and deviation 1."""
        return self.preset != "datasetgan"

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types."""
        return asdict(self) | {
            "layout": self.layout.to_dict(),
            "classes": list(self.classes),
            "hidden": list(self.hidden),
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> PixelClassifierSpec:
        """Build from :meth:`to_dict`'s result."""
        changed = {
            "layout": FeatureLayout.from_dict(values["layout"]),
            "classes": tuple(values["classes"]),
            "hidden": tuple(values["hidden"]),
        }
        return cls(**(values | changed))


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


class PixelClassifier(nn.Module):
    """An ensemble of M nets C -> hidden -> K, one weight tensor (M, in, out) per layer.

    Parameters
    ----------
    spec
        Sizes.
    seed
        Of the initial weights.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, spec: PixelClassifierSpec, seed: int = 0) -> None:
        super().__init__()
        self.spec = spec
        widths = (spec.layout.channels, *spec.hidden, spec.num_classes)
        g = torch.Generator().manual_seed(seed)
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        self.norm_scale, self.norm_shift = nn.ParameterList(), nn.ParameterList()
        for fan_in, fan_out in itertools.pairwise(widths):
            scale = math.sqrt(2 / fan_in) if spec.preset == "plain" else 0.02
            weight = torch.randn(spec.members, fan_in, fan_out, generator=g) * scale
            self.weights.append(nn.Parameter(weight))
            self.biases.append(nn.Parameter(torch.zeros(spec.members, fan_out)))
        if self.normalized:
            for i, width in enumerate(spec.hidden):
                self.norm_scale.append(nn.Parameter(torch.ones(spec.members, width)))
                self.norm_shift.append(nn.Parameter(torch.zeros(spec.members, width)))
                self.register_buffer(f"norm_mean{i}", torch.zeros(spec.members, width))
                self.register_buffer(f"norm_var{i}", torch.ones(spec.members, width))
        self.register_buffer("mean", torch.zeros(spec.layout.channels))
        self.register_buffer("std", torch.ones(spec.layout.channels))

    @property
    def normalized(self) -> bool:
        """Whether a batch norm follows each hidden layer."""
        return self.spec.preset != "plain"

    def standardize(self, x: Tensor) -> Tensor:
        """Bring hypercolumns (P, C) to the scale that :meth:`forward` takes."""
        return (x - self.mean) / self.std

    def forward(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Map standardized hypercolumns to logits of every member.

        Parameters
        ----------
        x
            (P, C) for all members, or (M, P, C).
        generator
            Source of dropout's choices while training.

        Returns
        -------
        Tensor
            (M, P, K) float32.
        """
        h = x
        last = len(self.weights) - 1
        for i, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            if h.ndim == 2:
                wide = weight.permute(1, 0, 2).reshape(weight.shape[1], -1)
                h = torch.addmm(bias.reshape(-1).to(h.dtype), h, wide.to(h.dtype))
                h = h.view(-1, *bias.shape).transpose(0, 1)
            else:
                h = torch.baddbmm(bias[:, None].to(h.dtype), h, weight.to(h.dtype))
            if i < last:
                h = F.relu(h)
                if self.normalized:
                    h = self._normalize(h, i)
                if self.training and i == 0 and self.spec.preset == "hdgan":
                    kept = torch.empty(h.shape, device=h.device).bernoulli_(0.7, generator=generator)
                    h = h * (kept / 0.7).to(h.dtype)
        return h.float()

    def _normalize(self, h: Tensor, layer: int) -> Tensor:
        """Batch norm (M, P, H) of each member by itself; momentum 0.1 as is usual."""
        mean, var = getattr(self, f"norm_mean{layer}"), getattr(self, f"norm_var{layer}")
        if self.training:
            v, m = torch.var_mean(h.float(), dim=1)
            with torch.no_grad():
                mean.lerp_(m, 0.1)
                var.lerp_(v, 0.1)
        else:
            m, v = mean, var
        scale: Tensor = self.norm_scale[layer] * (v + 1e-5).rsqrt()
        shift = self.norm_shift[layer] - m * scale
        return torch.addcmul(shift[:, None].to(h.dtype), h, scale[:, None].to(h.dtype))

    def folded(self) -> tuple[list[Tensor], list[Tensor]]:
        """Return weights (M, in, out) and biases (M, out) of the same function without batch norm."""
        weights, biases = [w.detach() for w in self.weights], [b.detach() for b in self.biases]
        for i in range(len(self.norm_scale)):
            scale = self.norm_scale[i].detach() * (getattr(self, f"norm_var{i}") + 1e-5).rsqrt()
            shift = self.norm_shift[i].detach() - getattr(self, f"norm_mean{i}") * scale
            biases[i + 1] = biases[i + 1] + torch.einsum("mh,mho->mo", shift, weights[i + 1])
            weights[i + 1] = weights[i + 1] * scale[:, :, None]
        return weights, biases

    def check_generator(self, generator_hash: str) -> None:
        """Refuse features of another generator than the one that this classifier was trained on.

        Raises
        ------
        ModelError
            If both hashes are known and differ.
        """
        own = self.spec.generator_hash
        if own and generator_hash and own != generator_hash:
            raise ModelError(
                f"the classifier was trained on generator {own[:12]}, not on {generator_hash[:12]}",
                "features of the same generator",
                "choose the generator that made the painted samples, or train a classifier for this one",
            )

    def predict(self, maps: Sequence[FeatureMap], dtype: torch.dtype = torch.float32) -> Prediction:
        """Label the images of these feature maps; for many calls keep a :class:`PixelPredictor`."""
        return PixelPredictor(self, dtype)(maps)


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
        self.projection = HypercolumnProjection(
            spec.layout,
            weights[0].permute(1, 0, 2).reshape(spec.layout.channels, -1),
            biases[0].reshape(-1),
            classifier.mean,
            classifier.std,
            spec.interpolation,
            dtype,
            fuse,
        )
        # Members side by side share a block-diagonal product.  In bfloat16 two at a time are fastest: the
        # multiplications by zero cost less than the narrowness of one; in float32 one is.
        self._together = 2 if dtype == torch.bfloat16 else 1
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
        n, size, k = maps[0].tensor.shape[0], self.spec.layout.size, self.spec.num_classes
        device = maps[0].tensor.device
        labels = torch.empty(n, size, size, dtype=torch.uint8, device=device)
        uncertainty = torch.empty(n, size, size, device=device)
        means = torch.empty(n, k if probabilities else 0, size, size, device=device)
        pixels = min(max(BAND_PIXELS, BAND_ROWS * size), MAX_BAND_PIXELS)
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
        width = self._together * self.projection.width // self.spec.members
        groups = [
            self._rest(h, number) for number, h in enumerate(self.projection.pieces(levels, band, width))
        ]
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


def save_pixel_classifier(
    folder: Path, classifier: PixelClassifier, extra: dict[str, Any] | None = None
) -> None:
    """Write ``classifier.safetensors`` and ``classifier.json`` into a folder.

    Parameters
    ----------
    folder
        Made if missing.
    classifier
        What to keep.
    extra
        JSON values to keep beside the plan, such as validation figures; at the top level of the file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    state = {name: value.detach().cpu().contiguous() for name, value in classifier.state_dict().items()}
    save_file(state, folder / WEIGHTS_FILE)
    plan = {"format": FORMAT, "kind": "pixel_classifier", "spec": classifier.spec.to_dict(), **(extra or {})}
    (folder / PLAN_FILE).write_text(json.dumps(plan, indent=1), encoding="utf-8")


def load_pixel_classifier(folder: Path) -> PixelClassifier:
    """Read a classifier; in evaluation mode, on the CPU.

    Raises
    ------
    CheckpointError
        If a file is missing or damaged, the plan and the weights do not fit, or a weight is not finite.
    """
    try:
        plan = json.loads((folder / PLAN_FILE).read_text(encoding="utf-8"))
        if plan.get("kind") != "pixel_classifier" or plan.get("format") != FORMAT:
            raise CheckpointError(
                f"{folder / PLAN_FILE} is of kind {plan.get('kind')!r}, format {plan.get('format')!r}",
                f"a pixel_classifier of format {FORMAT}",
                "choose the folder of a pixel classifier",
            )
        classifier = PixelClassifier(PixelClassifierSpec.from_dict(plan["spec"]))
        state = load_file(folder / WEIGHTS_FILE)
        classifier.load_state_dict(state)
    except (OSError, KeyError, TypeError, ValueError, RuntimeError, SafetensorError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(
            f"the pixel classifier in {folder} cannot be read ({error})",
            f"{WEIGHTS_FILE} and {PLAN_FILE} as this program writes them",
            "train the classifier again, or restore the folder",
        ) from error
    for name, value in state.items():
        if not bool(torch.isfinite(value).all()):
            raise CheckpointError(
                f"{name} of the classifier in {folder} holds NaN or infinity", "numbers", "train it again"
            )
    return classifier.eval()
