"""Bring in generators that other programs trained, without running anything that their files contain.

Read are snapshots of the official StyleGAN2-ADA for PyTorch, and of the StyleGAN3 code base where it trained
a StyleGAN2; the pickles of the TensorFlow versions; and the `.pt` files of the widespread MIT-licensed
reimplementation (key ``g_ema``). The first two kinds carry program text, which is never run.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from napari_histogan.errors import CheckpointError
from napari_histogan.models.generator_file import (
    DISCRIMINATOR_FILE,
    GENERATOR_FILE,
    generator_info,
    load_discriminator,
    load_generator,
    save_discriminator,
    save_generator,
)
from napari_histogan.models.pickle_records import ModuleRecord, StateRecord, refuse, text_dict
from napari_histogan.models.recovered_network import Flags, build_discriminator, build_generator
from napari_histogan.models.rosinality_checkpoint import convert_rosinality
from napari_histogan.models.safe_pickle import read_pickle
from napari_histogan.models.stylegan2_discriminator import Discriminator
from napari_histogan.models.stylegan2_generator import Generator
from napari_histogan.models.tensorflow_checkpoint import convert_tensorflow
from napari_histogan.models.torch_container import CONSTRUCTORS, read_torch_file

logger = logging.getLogger(__name__)

SUFFIXES = (".pkl", ".pt", ".pth", ".safetensors")
MAX_BYTES = 8 << 30
MAX_MODULES, MAX_DEPTH = 4096, 12
STYLEGAN2_CLASSES = frozenset(
    {
        "Generator",
        "MappingNetwork",
        "SynthesisNetwork",
        "SynthesisBlock",
        "SynthesisLayer",
        "ToRGBLayer",
        "FullyConnectedLayer",
        "Conv2dLayer",
        "Discriminator",
        "DiscriminatorBlock",
        "DiscriminatorEpilogue",
        "MinibatchStdLayer",
        "AugmentPipe",
    }
)
STYLEGAN3_CLASSES = frozenset({"SynthesisInput", "FourierFeatures"})


class ImportedGenerator(NamedTuple):
    """What was found in a file.

    Attributes
    ----------
    generator
        The averaged generator; evaluation mode, CPU, float32.
    discriminator
        Its opponent, where the file has one that can be read.
    info
        JSON values: where it came from, and what else the file says.
    """

    generator: Generator
    discriminator: Discriminator | None
    info: dict[str, Any]

    def save(self, folder: Path, mpp: float) -> None:
        """Write the networks as this program stores them, with their resolution in um/px."""
        save_generator(folder / GENERATOR_FILE, self.generator, {**self.info, "mpp": mpp})
        if self.discriminator is not None:
            save_discriminator(folder / DISCRIMINATOR_FILE, self.discriminator)


def import_generator(path: Path) -> ImportedGenerator:
    """Read a generator of this program or of another one.

    Parameters
    ----------
    path
        A folder or .safetensors file of this program; a .pkl of StyleGAN2-ADA (PyTorch or TensorFlow) or of
        StyleGAN3's code base holding a StyleGAN2; a .pt with ``g_ema``.

    Raises
    ------
    CheckpointError
        If the file is damaged, of another architecture, or asks for anything that no checkpoint needs.
    """
    path = Path(path)
    if path.is_dir() or path.suffix == ".safetensors":
        beside = (path if path.is_dir() else path.parent) / DISCRIMINATOR_FILE
        discriminator = load_discriminator(beside) if beside.exists() else None
        return ImportedGenerator(load_generator(path), discriminator, generator_info(path))
    data = _read(path)
    content = _content(data)
    origin = {"imported_from": path.name, "imported_sha256": hashlib.sha256(data).hexdigest()}
    match content:
        case {"g_ema": dict()}:
            generator, discriminator, info = *convert_rosinality(content), {"format": "rosinality .pt"}
        case {"G_ema": ModuleRecord()}:
            generator, discriminator, info = _convert_snapshot(content)
        case tuple() if len(content) == 3 and all(isinstance(part, StateRecord) for part in content):
            generator, discriminator = convert_tensorflow(content)
            info = {"format": "StyleGAN2 TensorFlow pickle"}
        case _:
            raise CheckpointError(
                f"{path.name} holds {_describe(content)}",
                "a snapshot with G_ema, a TensorFlow triple (G, D, Gs), or a .pt file with g_ema",
                "import the file of a StyleGAN2 or StyleGAN2-ADA training",
            )
    return ImportedGenerator(generator, discriminator, origin | info)


def _read(path: Path) -> bytes:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise CheckpointError(
                f"{path} has {path.stat().st_size >> 30} GiB", f"at most {MAX_BYTES >> 30} GiB"
            )
        return path.read_bytes()
    except OSError as error:
        raise CheckpointError(
            f"{path} cannot be read: {error}", "a checkpoint file", "check the path"
        ) from error


def _content(data: bytes) -> Any:
    """Read a zip of torch, an old torch file, or a plain pickle; the first bytes tell which."""
    if data[:2] == b"PK" or data[2:4] == b"\x8a\x0a":
        return read_torch_file(data)
    if data[:1] != b"\x80":
        raise CheckpointError(
            "the file is no pickle and no torch file",
            "a .pkl, .pt, or .safetensors file",
            "check the download",
        )
    return read_pickle(data, extra=CONSTRUCTORS)[0]


def _describe(content: Any) -> str:
    if isinstance(content, dict):
        return f"a table of {', '.join(sorted(str(key)[:20] for key in content)[:8]) or 'nothing'}"
    return f"a {type(content).__name__}"


# Snapshots of the official PyTorch code ---------------------------------------------------------------------


def _convert_snapshot(content: dict[Any, Any]) -> tuple[Generator, Discriminator | None, dict[str, Any]]:
    record = content["G_ema"]
    weights, attributes = _collect(record)
    if any(re.match(r"synthesis\.(input|L\d+_)", name) for name in attributes):
        raise _stylegan3()
    generator = build_generator(weights, _flags(attributes, f"synthesis.b{_largest(attributes)}.conv1"))
    info: dict[str, Any] = {"format": "StyleGAN2-ADA PyTorch snapshot", "source_sha256": record.source_sha256}
    told = content.get("training_set_kwargs")
    if isinstance(told, dict):
        kept = {k: v for k, v in told.items() if k in ("resolution", "max_size", "xflip", "use_labels")}
        info["training_set"] = {k: v for k, v in kept.items() if isinstance(v, int | float)}
    discriminator = None
    if isinstance(content.get("D"), ModuleRecord):
        try:
            weights, attributes = _collect(content["D"])
            largest = max(_sides(attributes, r"b(\d+)"), default=0)
            discriminator = build_discriminator(weights, _flags(attributes, f"b{largest}.conv0"))
        except CheckpointError as error:
            logger.warning("The discriminator is left out: %s", error)
    return generator, discriminator, info


def _stylegan3() -> CheckpointError:
    return CheckpointError(
        "the checkpoint is a StyleGAN3 (configuration T or R)",
        "a StyleGAN2 or StyleGAN2-ADA generator",
        "train or choose one of configuration stylegan2; StyleGAN3 has other layers",
    )


Attributes = dict[str, dict[str, Any]]


def _collect(root: ModuleRecord) -> tuple[dict[str, Tensor], Attributes]:
    """Return the weights of a module by name, and the plain attributes of each of its modules."""
    weights: dict[str, Tensor] = {}
    attributes: Attributes = {}
    for count, (name, record) in enumerate(_walk(root, "", 0)):
        if count > MAX_MODULES:
            raise refuse("it has more modules than any network")
        if record.class_name in STYLEGAN3_CLASSES:
            raise _stylegan3()
        if record.class_name not in STYLEGAN2_CLASSES:
            raise CheckpointError(
                f"the network has a layer of the kind {record.class_name!r:.60}",
                "StyleGAN2's layers",
                "import an unmodified StyleGAN2 or StyleGAN2-ADA generator",
            )
        state = text_dict(record.state, "a module")
        attributes[name] = {k: v for k, v in state.items() if isinstance(v, str | int | float | None)}
        prefix = f"{name}." if name else ""
        for group in ("_parameters", "_buffers"):
            for key, tensor in text_dict(state.get(group, {}), group).items():
                if isinstance(tensor, Tensor):
                    weights[prefix + key] = tensor
                elif tensor is not None:
                    raise refuse(f"the weight {prefix}{key} is no tensor")
    return weights, attributes


def _walk(record: ModuleRecord, name: str, depth: int) -> Iterator[tuple[str, ModuleRecord]]:
    if depth > MAX_DEPTH:
        raise refuse("its modules are nested without end")
    yield name, record
    children = text_dict(text_dict(record.state, "a module").get("_modules", {}), "_modules")
    for key, child in children.items():
        if not isinstance(child, ModuleRecord):
            raise refuse(f"the module {key:.40} in it is a {type(child).__name__}")
        yield from _walk(child, f"{name}.{key}" if name else key, depth + 1)


def _sides(attributes: Attributes, pattern: str) -> list[int]:
    return [int(match[1]) for name in attributes if (match := re.fullmatch(pattern, name))]


def _largest(attributes: Attributes) -> int:
    return max(_sides(attributes, r"synthesis\.b(\d+)"), default=0)


def _flags(attributes: Attributes, layer: str) -> Flags:
    """Read off the modules what shapes do not tell."""
    conv, mapping = attributes.get(layer, {}), attributes.get("mapping", {})
    blocks = [values for name, values in attributes.items() if re.fullmatch(r"(synthesis\.)?b\d+", name)]
    clamp, beta = conv.get("conv_clamp"), mapping.get("w_avg_beta")
    group = attributes.get("b4.mbstd", {}).get("group_size", 4)
    return Flags(
        conv_clamp=clamp,
        num_fp16_res=sum(bool(values.get("use_fp16")) for values in blocks),
        mapping_lr_multiplier=attributes.get("mapping.fc0", {}).get("bias_gain", 0.01),
        w_avg_beta=0.995 if beta is None else beta,
        activation=str(conv.get("activation", "lrelu")),
        mbstd_group_size=group if isinstance(group, int) and group > 0 else None,
    )
