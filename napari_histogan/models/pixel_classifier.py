"""DatasetGAN's pixel classifier: an ensemble of small nets on hypercolumns (section 3.2).

All members live in batched weights: one product serves the ensemble.  Hypercolumns are never built.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from napari_histogan.errors import DAMAGE, CheckpointError, ModelError

from .hypercolumns import FeatureLayout, Interpolation
from .pixel_predictor import PixelPredictor, Prediction
from .stylegan2 import FeatureMap
from .weights import filled

__all__ = [
    "PixelClassifier",
    "PixelClassifierSpec",
    "PixelPredictor",
    "Prediction",
    "Preset",
    "load_pixel_classifier",
    "members_of",
    "save_pixel_classifier",
]

FORMAT = 1
WEIGHTS_FILE = "classifier.safetensors"
PLAN_FILE = "classifier.json"

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
        ``plain``: ReLU on features of mean 0 and a common scale.  ``datasetgan``: batch norm after each
        ReLU, features as they are, small normal weights.  ``hdgan``: like it on features of mean 0 and
        deviation 1 each, with dropout 0.3 after the first layer.
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
        """K, without unlabeled."""
        return len(self.classes)

    @property
    def standardized(self) -> bool:
        """Whether channels are brought to mean 0 and to a scale."""
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


def members_of(classifier: PixelClassifier, members: Sequence[int]) -> PixelClassifier:
    """Return an ensemble of some members of another one, with weights of its own."""
    spec = replace(classifier.spec, members=len(members))
    own = PixelClassifier(spec)
    shared = {"mean", "std"}
    state = {k: v if k in shared else v[list(members)] for k, v in classifier.state_dict().items()}
    own.load_state_dict(state)
    return own.train(classifier.training)


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
        spec = PixelClassifierSpec.from_dict(plan["spec"])
    except CheckpointError:
        raise
    except DAMAGE as error:
        raise CheckpointError(
            f"the pixel classifier in {folder} cannot be read ({error})",
            f"{WEIGHTS_FILE} and {PLAN_FILE} as this program writes them",
            "train the classifier again, or restore the folder",
        ) from error
    classifier = filled(lambda: PixelClassifier(spec), folder / WEIGHTS_FILE, PLAN_FILE)
    for name, value in classifier.state_dict().items():
        if not bool(torch.isfinite(value).all()):
            raise CheckpointError(
                f"{name} of the classifier in {folder} holds NaN or infinity", "numbers", "train it again"
            )
    return classifier
