"""Convert the pickles of StyleGAN2's and StyleGAN2-ADA's TensorFlow versions to our networks.

A file holds three networks (G, D, Gs), each a tree of components with named variables; Gs is the averaged
generator. Names, axis orders, and the flips of upsampling kernels follow the published layout.
"""

from __future__ import annotations

import logging
import re
from typing import Any

import numpy as np
import torch
from torch import Tensor

from napari_histogan.errors import CheckpointError
from napari_histogan.models.pickle_records import StateRecord, plain_array, refuse, text_dict
from napari_histogan.models.recovered_network import Flags, build_discriminator, build_generator
from napari_histogan.models.stylegan2_discriminator import Discriminator
from napari_histogan.models.stylegan2_generator import Generator
from napari_histogan.models.stylegan2_ops import setup_filter

logger = logging.getLogger(__name__)

OLDEST_VERSION = 4
MAX_COMPONENTS = 16
MAPPING_PACE = 0.01
TAPS = [1.0, 3.0, 3.0, 1.0]


def convert_tensorflow(content: tuple[StateRecord, ...]) -> tuple[Generator, Discriminator | None]:
    """Convert the last network of (G, D, Gs), and the discriminator where it can be.

    Raises
    ------
    CheckpointError
        If the networks are older than version 4, a StyleGAN1, or of another layout.
    """
    _, judge, averaged = content
    variables, settings = _variables(averaged), _settings(averaged)
    if any("StyleMod" in name for name in variables):
        raise CheckpointError(
            "the checkpoint is a StyleGAN1", "a StyleGAN2 or StyleGAN2-ADA generator", "import another file"
        )
    generator = build_generator(_generator_weights(variables, settings), _flags(settings, 0.01))
    discriminator = None
    try:
        settings = _settings(judge)
        weights = _discriminator_weights(_variables(judge), settings)
        discriminator = build_discriminator(weights, _flags(settings, 0.1))
    except CheckpointError as error:
        logger.warning("The discriminator is left out: %s", error)
    return generator, discriminator


def _settings(network: StateRecord) -> dict[str, Any]:
    version = network.state.get("version")
    if type(version) is not int or version < OLDEST_VERSION:
        raise CheckpointError(
            f"the TensorFlow network has version {version!s:.20}",
            f"version {OLDEST_VERSION} or later, as StyleGAN2 writes",
            "import a StyleGAN2 or StyleGAN2-ADA generator",
        )
    return text_dict(network.state.get("static_kwargs"), "the settings")


def _flags(settings: dict[str, Any], slow: float) -> Flags:
    clamp = settings.get("conv_clamp")
    group = settings.get("mbstd_group_size", 4)
    fp16 = settings.get("num_fp16_res", 0)
    return Flags(
        conv_clamp=float(clamp) if isinstance(clamp, int | float) else None,
        num_fp16_res=fp16 if type(fp16) is int else 0,
        mapping_lr_multiplier=settings.get("mapping_lrmul", slow),
        activation=str(settings.get("act", "lrelu")),
        mbstd_group_size=group if type(group) is int and group > 0 else None,
    )


def _variables(network: StateRecord, depth: int = 0) -> dict[str, Tensor]:
    """Return the variables of a network and its components, names joined by slashes."""
    out: dict[str, Tensor] = {}
    listed = network.state.get("variables", [])
    if depth > 2 or not isinstance(listed, list):
        raise refuse("its networks are nested without end, or have no variables")
    for entry in listed:
        if not isinstance(entry, tuple) or len(entry) != 2 or not isinstance(entry[0], str):
            raise refuse("a variable in it has no name")
        array = plain_array(entry[1])
        out[entry[0]] = torch.from_numpy(array.astype(np.float32))
    components = text_dict(network.state.get("components", {}), "the components")
    if len(components) > MAX_COMPONENTS:
        raise refuse("its networks have too many components")
    for name, component in components.items():
        if not isinstance(component, StateRecord):
            raise refuse(f"the component {name:.40} in it is a {type(component).__name__}")
        out |= {f"{name}/{key}": value for key, value in _variables(component, depth + 1).items()}
    return out


_BLOCK_LAYERS = {
    "Conv": "conv1",
    "Conv0": "conv0",
    "Conv0_up": "conv0",
    "Conv1": "conv1",
    "Conv1_down": "conv1",
    "ToRGB": "torgb",
    "FromRGB": "fromrgb",
    "Skip": "skip",
}
_IGNORED = re.compile(r"lod|.*/lod|.*(To|From)RGB_lod[1-9]\d*/.*")


def _generator_weights(variables: dict[str, Tensor], settings: dict[str, Any]) -> dict[str, Tensor]:
    resolution = _resolution(variables, r"synthesis/(\d+)x\1/.*")
    out: dict[str, Tensor] = {}
    for name, value in variables.items():
        if name == "dlatent_avg":
            out["mapping.w_avg"] = value
        elif match := re.fullmatch(r"mapping/(?:Dense(\d+)|LabelEmbed)/(weight|bias)", name):
            layer = "embed" if match[1] is None else f"fc{match[1]}"
            out[f"mapping.{layer}.{match[2]}"] = value.t() if match[2] == "weight" else value
        elif name == "synthesis/4x4/Const/const":
            out["synthesis.b4.const"] = value[0]
        elif match := re.fullmatch(r"synthesis/noise(\d+)", name):
            index = int(match[1])
            side = 4 << ((index + 1) // 2)
            out[f"synthesis.b{side}.conv{index % 2 ^ 1}.noise_const"] = value[0, 0]
        elif match := re.fullmatch(r"synthesis/(\d+)x\1/(Conv|Conv0_up|Conv1|ToRGB|Skip)/(\w+)", name):
            layer = f"synthesis.b{match[1]}.{_BLOCK_LAYERS[match[2]]}"
            _add_layer(out, layer, match[3], value, flip=match[2] in ("Conv0_up", "Skip"))
        elif match := re.fullmatch(r"synthesis/ToRGB_lod0/(\w+)", name):
            _add_layer(out, f"synthesis.b{resolution}.torgb", match[1], value, flip=False)
        elif not _IGNORED.fullmatch(name):
            raise _unknown(name)
    _add_filters(out, settings, r"(synthesis\.b\d+)\..*", r"(synthesis\.b\d+\.(?:conv\d|skip))\.weight")
    return out


def _discriminator_weights(variables: dict[str, Tensor], settings: dict[str, Any]) -> dict[str, Tensor]:
    resolution = _resolution(variables, r"(\d+)x\1/.*")
    out: dict[str, Tensor] = {}
    dense = {"4x4/Conv": "b4.conv", "4x4/Dense0": "b4.fc", "Output": "b4.out", "LabelEmbed": "mapping.embed"}
    for name, value in variables.items():
        layer, _, kind = name.rpartition("/")
        if layer in dense:
            _add_layer(out, dense[layer], kind, value, flip=False)
        elif match := re.fullmatch(r"Mapping(\d+)", layer):
            _add_layer(out, f"mapping.fc{match[1]}", kind, value, flip=False)
        elif match := re.fullmatch(r"(\d+)x\1/(FromRGB|Conv0|Conv1_down|Skip)", layer):
            _add_layer(out, f"b{match[1]}.{_BLOCK_LAYERS[match[2]]}", kind, value, flip=False)
        elif layer == "FromRGB_lod0":
            _add_layer(out, f"b{resolution}.fromrgb", kind, value, flip=False)
        elif not _IGNORED.fullmatch(name):
            raise _unknown(name)
    # Its mapping network may learn at another pace than ours, which scales the stored weights.
    pace = _number(settings.get("mapping_lrmul", 0.1)) / MAPPING_PACE
    for name in [n for n in out if n.startswith("mapping.fc")]:
        out[name] = out[name] * pace
    _add_filters(out, settings, r"(b(?!4\.)\d+)\..*", r"(b\d+\.(?:fromrgb|conv\d?|skip))\.weight")
    return out


def _add_layer(out: dict[str, Tensor], layer: str, kind: str, value: Tensor, *, flip: bool) -> None:
    """Store one variable of a layer in our axis order."""
    if kind == "weight":
        if value.ndim == 4:
            value = (value.flip([0, 1]) if flip else value).permute(3, 2, 0, 1)
        out[f"{layer}.weight"] = value if value.ndim == 4 else value.t()
    elif kind in ("bias", "noise_strength"):
        out[f"{layer}.{kind}"] = value
    elif kind == "mod_weight":
        out[f"{layer}.affine.weight"] = value.t()
    elif kind == "mod_bias":
        # There a style of 0 means no change, here 1.
        out[f"{layer}.affine.bias"] = value + 1
    else:
        raise _unknown(f"{layer}/{kind}")


def _add_filters(out: dict[str, Tensor], settings: dict[str, Any], *patterns: str) -> None:
    """Add the low-pass filter to every block and layer, which TensorFlow kept in the program."""
    taps = settings.get("resample_kernel", TAPS)
    taps = list(taps) if isinstance(taps, list | tuple) else TAPS
    if not 1 <= len(taps) <= 64 or not all(isinstance(t, int | float) for t in taps):
        raise refuse("its low-pass filter is odd")
    for pattern in patterns:
        for layer in {match[1] for name in out if (match := re.fullmatch(pattern, name))}:
            out[f"{layer}.resample_filter"] = setup_filter(taps)


def _number(value: Any) -> float:
    if not isinstance(value, int | float):
        raise refuse("a setting in it is no number")
    return float(value)


def _resolution(variables: dict[str, Tensor], pattern: str) -> int:
    return max((int(m[1]) for name in variables if (m := re.fullmatch(pattern, name))), default=0)


def _unknown(name: str) -> CheckpointError:
    return CheckpointError(
        f"the TensorFlow network has a variable {name:.80}",
        "the variables of StyleGAN2 or StyleGAN2-ADA",
        "import an unmodified network",
    )
