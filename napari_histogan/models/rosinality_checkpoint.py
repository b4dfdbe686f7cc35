"""Convert `.pt` files of the widespread MIT-licensed StyleGAN2 in PyTorch (keys ``g_ema``, ``g``, ``d``).

Same arithmetic, other names; a constant factor on its convolutions cancels in the demodulation.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import torch
from torch import Tensor

from napari_histogan.errors import CheckpointError
from napari_histogan.models.pickle_records import text_dict
from napari_histogan.models.recovered_network import Flags, build_generator
from napari_histogan.models.stylegan2_discriminator import Discriminator
from napari_histogan.models.stylegan2_generator import Generator
from napari_histogan.models.stylegan2_ops import setup_filter

MEAN_SAMPLES = 10_000


def convert_rosinality(content: dict[Any, Any]) -> tuple[Generator, Discriminator | None]:
    """Convert the averaged generator ``g_ema``.

    Its files have no mean style; it is estimated from fixed latents unless ``latent_avg`` is there.

    Raises
    ------
    CheckpointError
        If the layers are not those of that program.
    """
    state = text_dict(content["g_ema"], "the generator")
    weights: dict[str, Tensor] = {}
    for name, value in state.items():
        if not isinstance(value, Tensor):
            raise CheckpointError(f"the weight {name:.60} is a {type(value).__name__}", "a tensor")
        if (converted := _rename(name)) is not None:
            weights[converted] = _reshape(converted, value)
    _add_filters(weights)
    mean: Any = content.get("latent_avg")
    width = weights.get("mapping.fc0.bias", torch.zeros(0)).shape
    known = isinstance(mean, Tensor) and mean.shape == width
    weights["mapping.w_avg"] = mean.to(torch.float32) if known else torch.zeros(width)
    generator = build_generator(weights, Flags())
    if not known:
        z = np.random.RandomState(0).randn(MEAN_SAMPLES, generator.spec.z_dim)
        w = generator.mapping.map(torch.from_numpy(z), None)
        generator.mapping.w_avg.copy_(w.mean(dim=0))
    return generator, None


_FIXED = {
    "input.input": "synthesis.b4.const",
    "conv1": "synthesis.b4.conv1",
    "to_rgb1": "synthesis.b4.torgb",
}
_LAYER_PARTS = {
    "conv.weight": "weight",
    "conv.modulation.weight": "affine.weight",
    "conv.modulation.bias": "affine.bias",
    "noise.weight": "noise_strength",
    "activate.bias": "bias",
    "bias": "bias",
}


def _rename(name: str) -> str | None:
    """Return the official name of a weight, None for filters (checked to be absent from training)."""
    if name.endswith(".kernel"):
        return None
    if name == "input.input":
        return _FIXED[name]
    if match := re.fullmatch(r"style\.([1-9]\d?)\.(weight|bias)", name):
        return f"mapping.fc{int(match[1]) - 1}.{match[2]}"
    if match := re.fullmatch(r"noises\.noise_(\d{1,2})", name):
        index = int(match[1])
        return f"synthesis.b{4 << ((index + 1) // 2)}.conv{index % 2 ^ 1}.noise_const"
    if match := re.fullmatch(r"(conv1|to_rgb1|convs\.\d{1,2}|to_rgbs\.\d{1,2})\.(.+)", name):
        part = _LAYER_PARTS.get(match[2])
        family, _, number = match[1].partition(".")
        if part is not None and family == "convs":
            return f"synthesis.b{8 << (int(number) // 2)}.conv{int(number) % 2}.{part}"
        if part is not None and family == "to_rgbs":
            return f"synthesis.b{8 << int(number)}.torgb.{part}"
        if part is not None:
            return f"{_FIXED[family]}.{part}"
    raise CheckpointError(
        f"the generator has a weight {name:.80}",
        "the layers of StyleGAN2 in the common .pt layout",
        "import an unmodified network",
    )


def _reshape(name: str, value: Tensor) -> Tensor:
    """Drop the axes of length one that this layout adds."""
    if name.endswith(".noise_strength"):
        return value.reshape([])
    if name.endswith(".noise_const"):
        return value[0, 0]
    if name.endswith(".const") or (name.endswith(".weight") and value.ndim == 5):
        return value[0]
    return value.flatten() if name.endswith(".bias") else value


def _add_filters(weights: dict[str, Tensor]) -> None:
    blocks = {match[1] for name in weights if (match := re.match(r"(synthesis\.b\d+)\.", name))}
    layers = {match[1] for name in weights if (match := re.match(r"(synthesis\.b\d+\.conv\d)\.", name))}
    for name in blocks | layers:
        weights[f"{name}.resample_filter"] = setup_filter((1, 3, 3, 1))
