"""Write checkpoints in the layouts of other programs, from networks of ours."""

from __future__ import annotations

import collections
import contextlib
import pickle
import sys
import types
from pathlib import Path

import numpy as np
import torch
from torch import nn

from napari_histogan.models.stylegan2 import Discriminator, Generator

CLASS_NAMES = {
    "GeneratorMapping": "MappingNetwork",
    "Dense": "FullyConnectedLayer",
    "ToRGB": "ToRGBLayer",
    "PlainConv": "Conv2dLayer",
}


def _reconstruct_persistent_obj(meta):
    raise AssertionError("a reader called the function that a file names")


class EasyDict(dict):
    pass


class Network:
    def __init__(self, state):
        self.state = state

    def __getstate__(self):
        return self.state

    def __setstate__(self, state):
        raise AssertionError("a reader called a method that a file names")


_HOMES = {
    "torch_utils.persistence": [_reconstruct_persistent_obj],
    "dnnlib.util": [EasyDict],
    "dnnlib.tflib.network": [Network],
}


@contextlib.contextmanager
def foreign_modules():
    """Let these names be found while a file is written, and only then."""
    names = [n for home in _HOMES for n in ({home} | {home.rsplit(".", i + 1)[0] for i in range(2)})]
    for name in names:
        sys.modules[name] = types.ModuleType(name)
    for home, things in _HOMES.items():
        for thing in things:
            thing.__module__ = home
            setattr(sys.modules[home], thing.__name__, thing)
    try:
        yield
    finally:
        for name in names:
            sys.modules.pop(name, None)


class Persistent:
    """What a decorated module of the official code pickles to."""

    def __init__(self, class_name, state, source):
        self.meta = EasyDict(type="class", version=6, module_src=source, class_name=class_name, state=state)

    def __reduce__(self):
        return _reconstruct_persistent_obj, (self.meta,)


def source_that_must_not_run(marker: Path) -> str:
    return f"open({str(marker)!r}, 'w').close()\nraise SystemExit('program text of a checkpoint was run')\n"


def persistent(
    module: nn.Module, source: str, fp16: frozenset[str] = frozenset(), name: str = ""
) -> Persistent:
    """Turn a network of ours into the objects that the official code would pickle."""
    kind = type(module).__name__
    state = {
        "training": False,
        "_parameters": collections.OrderedDict(
            (k, v) for k, v in module._parameters.items() if v is not None
        ),
        "_buffers": collections.OrderedDict(module._buffers),
        "_non_persistent_buffers_set": set(),
        "_backward_hooks": collections.OrderedDict(),
        "_modules": collections.OrderedDict(
            (k, persistent(child, source, fp16, f"{name}.{k}" if name else k))
            for k, child in module._modules.items()
        ),
        "_init_args": (),
        "_init_kwargs": EasyDict(z_dim=8, synthesis_kwargs=EasyDict(channel_base=64)),
    }
    if kind in ("SynthesisBlock", "DiscriminatorBlock"):
        state["use_fp16"] = name in fp16
    for key in ("conv_clamp", "activation", "w_avg_beta"):
        if hasattr(module, key):
            state[key] = getattr(module, key)
    if kind == "Dense":
        # The official layers keep these as numpy numbers.
        state["weight_gain"], state["bias_gain"] = np.float64(module.weight_gain), module.bias_gain
    if kind == "DiscriminatorEpilogue":
        spread = {"group_size": module.group_size, "num_channels": module.num_channels}
        state["_modules"]["mbstd"] = Persistent("MinibatchStdLayer", spread, source)
    return Persistent(CLASS_NAMES.get(kind, kind), state, source)


def write_snapshot(path: Path, generator: nn.Module, discriminator: nn.Module | None, source: str, **options):
    """Write a network-snapshot of the official PyTorch code; `protocol` and `fp16` are options."""
    fp16 = options.get("fp16", frozenset())
    content = {
        "training_set_kwargs": EasyDict(class_name="x", resolution=16, xflip=True, path="secret"),
        "G": persistent(generator, source, fp16),
        "D": None if discriminator is None else persistent(discriminator, source, fp16),
        "G_ema": persistent(generator, source, fp16),
        "augment_pipe": None,
    }
    with foreign_modules():
        path.write_bytes(pickle.dumps(content, protocol=options.get("protocol", 4)))


def write_tensorflow(
    path: Path, generator: Generator, discriminator: Discriminator | None, **options
) -> None:
    """Write the triple (G, D, Gs) of the TensorFlow versions."""
    top, mapping, synthesis = [], [], []
    for name, tensor in generator.state_dict().items():
        value = tensor.numpy()
        part, _, rest = name.partition(".")
        if rest == "w_avg":
            top.append(("dlatent_avg", value))
        elif part == "mapping":
            layer, kind = rest.split(".")
            layer = "LabelEmbed" if layer == "embed" else f"Dense{layer[2:]}"
            mapping.append((f"{layer}/{kind}", value.T if kind == "weight" else value))
        elif not name.endswith("resample_filter"):
            synthesis.append(_tensorflow_synthesis(rest, value))
    settings = EasyDict(resolution=generator.spec.img_resolution, **options.get("settings", {}))

    def network(variables, components=()):
        return Network(
            {
                "version": options.get("version", 4),
                "name": "G",
                "static_kwargs": settings,
                "components": EasyDict(components),
                "build_module_src": options.get("source", ""),
                "build_func_name": "G_main",
                "variables": variables,
            }
        )

    def averaged():
        return network(top, {"mapping": network(mapping), "synthesis": network(synthesis)})

    judge = network(
        _tensorflow_discriminator(discriminator) if discriminator else [("Output/odd", np.zeros(1))]
    )
    with foreign_modules():
        path.write_bytes(pickle.dumps((averaged(), judge, averaged()), protocol=options.get("protocol", 4)))


def _tensorflow_synthesis(name: str, value: np.ndarray) -> tuple[str, np.ndarray]:
    block, _, rest = name.partition(".")
    side = int(block[1:])
    if rest == "const":
        return "4x4/Const/const", value[None]
    layer, _, kind = rest.partition(".")
    if kind == "noise_const":
        return f"noise{2 * (side.bit_length() - 1) - (5 if layer == 'conv0' else 4)}", value[None, None]
    title = {"conv0": "Conv0_up", "conv1": "Conv1" if side > 4 else "Conv", "torgb": "ToRGB", "skip": "Skip"}
    if kind == "affine.weight":
        kind, value = "mod_weight", value.T
    elif kind == "affine.bias":
        kind, value = "mod_bias", value - 1
    elif kind == "weight":
        value = value.transpose(2, 3, 1, 0)
        value = value[::-1, ::-1] if layer in ("conv0", "skip") else value
    return f"{side}x{side}/{title[layer]}/{kind}", value


def _tensorflow_discriminator(discriminator: Discriminator) -> list[tuple[str, np.ndarray]]:
    title = {"fromrgb": "FromRGB", "conv0": "Conv0", "conv1": "Conv1_down", "skip": "Skip", "conv": "Conv"}
    out = []
    for name, tensor in discriminator.state_dict().items():
        if name.endswith("resample_filter"):
            continue
        block, layer, kind = name.split(".")
        value = tensor.numpy()
        if layer in ("fc", "out"):
            title_of = "4x4/Dense0" if layer == "fc" else "Output"
            out.append((f"{title_of}/{kind}", value.T if kind == "weight" else value))
        else:
            value = value.transpose(2, 3, 1, 0) if kind == "weight" else value
            out.append((f"{block[1:]}x{block[1:]}/{title[layer]}/{kind}", value))
    return out


def rosinality_state(generator: Generator) -> dict[str, torch.Tensor]:
    """Rename the weights of a skip generator as the MIT-licensed reimplementation names them."""
    out = {}
    parts = {"affine.weight": "conv.modulation.weight", "affine.bias": "conv.modulation.bias"}
    for name, value in generator.state_dict().items():
        part, _, rest = name.partition(".")
        if part == "mapping":
            if rest != "w_avg":
                out[f"style.{int(rest[2]) + 1}.{rest.split('.')[1]}"] = value
            continue
        block, _, rest = rest.partition(".")
        step = int(block[1:]).bit_length() - 3
        layer, _, kind = rest.partition(".")
        if rest == "const":
            out["input.input"] = value[None]
        elif kind == "noise_const":
            out[f"noises.noise_{2 * step - (layer == 'conv0')}"] = value[None, None]
        elif layer == "torgb":
            home = f"to_rgbs.{step - 1}" if step else "to_rgb1"
            shaped = (
                value[None] if kind == "weight" else value.reshape(1, -1, 1, 1) if kind == "bias" else value
            )
            out[f"{home}.{parts.get(kind, 'conv.weight' if kind == 'weight' else 'bias')}"] = shaped
        elif kind and kind != "resample_filter":
            home = f"convs.{2 * (step - 1) + (layer == 'conv1')}" if step else "conv1"
            names = {
                "weight": "conv.weight",
                "bias": "activate.bias",
                "noise_strength": "noise.weight",
            } | parts
            # There a kernel has an axis for the sample, and a strength is a vector of one.
            out[f"{home}.{names[kind]}"] = value[None] if kind in ("weight", "noise_strength") else value
    out["convs.0.conv.blur.kernel"] = torch.ones(4, 4)
    return out
