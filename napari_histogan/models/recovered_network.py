"""Build our networks around weights of other programs: sizes are read off the shapes."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn

from napari_histogan.errors import CheckpointError, ModelError
from napari_histogan.models.stylegan2_discriminator import Discriminator
from napari_histogan.models.stylegan2_generator import Generator
from napari_histogan.models.stylegan2_ops import ACTIVATION_GAINS
from napari_histogan.models.stylegan2_spec import (
    Architecture,
    DiscriminatorSpec,
    GeneratorSpec,
    block_resolutions,
)

Weights = Mapping[str, Tensor]
Network = TypeVar("Network", bound=nn.Module)
Spec = TypeVar("Spec")
STOCK_TAPS = (1.0, 3.0, 3.0, 1.0)
MAX_RESOLUTION = 8192


@dataclass(frozen=True)
class Flags:
    """What the shapes of weights do not tell.

    Attributes
    ----------
    conv_clamp
        Bound on convolution outputs, None for none.
    num_fp16_res
        The so many largest resolutions were trained in half precision.
    mapping_lr_multiplier
        Scale of the mapping network's weights.
    w_avg_beta
        Decay of the running mean of w.
    activation
        Of the convolutions.
    mbstd_group_size
        Samples whose spread the discriminator sees.
    """

    conv_clamp: float | None = None
    num_fp16_res: int = 0
    mapping_lr_multiplier: float = 0.01
    w_avg_beta: float = 0.995
    activation: str = "lrelu"
    mbstd_group_size: int | None = 4

    def __post_init__(self) -> None:
        """Refuse values that no network has."""
        numbers = (self.conv_clamp, self.mapping_lr_multiplier, self.w_avg_beta, self.num_fp16_res)
        if self.activation not in ACTIVATION_GAINS or not all(
            n is None or (isinstance(n, int | float) and 0 <= n < 1e6) for n in numbers
        ):
            raise CheckpointError(f"the checkpoint describes its layers oddly: {self}", "StyleGAN2's layers")


def build_generator(weights: Weights, flags: Flags) -> Generator:
    """Build the generator that has these weights.

    Parameters
    ----------
    weights
        By official names ("synthesis.b4.const", ...), with all buffers.
    flags
        What the shapes do not tell.

    Returns
    -------
    Generator
        In evaluation mode, on the CPU, float32.

    Raises
    ------
    CheckpointError
        If the weights are not those of a StyleGAN2 generator, or not finite.
    """
    resolution = _largest_block(weights, r"synthesis\.b(\d+)\.conv1\.weight")
    sides = _blocks(resolution)
    base, most = _channel_plan({r: _size(weights, f"synthesis.b{r}.conv1.weight", 0) for r in sides})
    layers = _mapping_layers(weights)
    w_dim = _size(weights, f"mapping.fc{layers - 1}.weight", 0)
    conditional = "mapping.embed.weight" in weights
    embedded = _size(weights, "mapping.embed.weight", 0) if conditional else 0
    hidden = _size(weights, "mapping.fc0.weight", 0) if layers > 1 else w_dim
    spec = _checked(
        lambda: GeneratorSpec(
            z_dim=_size(weights, "mapping.fc0.weight", 1) - embedded,
            c_dim=_size(weights, "mapping.embed.weight", 1) if conditional else 0,
            w_dim=w_dim,
            img_resolution=resolution,
            img_channels=_size(weights, f"synthesis.b{resolution}.torgb.weight", 0),
            mapping_layers=layers,
            channel_base=base,
            channel_max=most,
            num_fp16_res=flags.num_fp16_res,
            conv_clamp=flags.conv_clamp,
            architecture=_architecture(weights, "synthesis.b4.torgb.weight", "synthesis.b8.skip.weight"),
            use_noise="synthesis.b4.conv1.noise_strength" in weights,
            mapping_lr_multiplier=flags.mapping_lr_multiplier,
            embed_features=embedded if conditional and embedded != w_dim else None,
            layer_features=hidden if hidden != w_dim else None,
            w_avg_beta=flags.w_avg_beta if "mapping.w_avg" in weights else None,
            taps=_taps(weights, "synthesis.b4.resample_filter"),
            activation=flags.activation,
        )
    )
    # Sizes come from the file: let them be wrong before memory is taken.
    with torch.device("meta"):
        generator = Generator(spec)
    return _fill(generator, weights)


def build_discriminator(weights: Weights, flags: Flags) -> Discriminator:
    """Build the discriminator that has these weights; as `build_generator`."""
    resolution = _largest_block(weights, r"b(\d+)\.conv0\.weight")
    sides = _blocks(resolution)
    channels = {r: _size(weights, f"b{r}.conv0.weight", 0) for r in sides[1:]}
    channels[4] = _size(weights, "b4.conv.weight", 0)
    base, most = _channel_plan(channels)
    conditional = "mapping.embed.weight" in weights
    spec = _checked(
        lambda: DiscriminatorSpec(
            img_resolution=resolution,
            img_channels=_size(weights, f"b{resolution}.fromrgb.weight", 1),
            c_dim=_size(weights, "mapping.embed.weight", 1) if conditional else 0,
            channel_base=base,
            channel_max=most,
            num_fp16_res=flags.num_fp16_res,
            conv_clamp=flags.conv_clamp,
            architecture=_architecture(weights, "b4.fromrgb.weight", f"b{resolution}.skip.weight"),
            cmap_dim=_size(weights, "b4.out.weight", 0) if conditional else None,
            mapping_layers=_mapping_layers(weights) if conditional else 8,
            mbstd_group_size=flags.mbstd_group_size,
            mbstd_num_channels=_size(weights, "b4.conv.weight", 1) - channels[4],
            taps=_taps(weights, f"b{resolution}.resample_filter"),
            activation=flags.activation,
        )
    )
    with torch.device("meta"):
        discriminator = Discriminator(spec)
    return _fill(discriminator, weights)


def _largest_block(weights: Weights, pattern: str) -> int:
    found = [int(match[1]) for name in weights if (match := re.fullmatch(pattern, name))]
    if not found or max(found) > MAX_RESOLUTION:
        raise CheckpointError(
            "the checkpoint has no blocks of a StyleGAN2 network",
            f"layers such as synthesis.b4.conv1 up to {MAX_RESOLUTION} px",
            "import a StyleGAN2 or StyleGAN2-ADA generator",
        )
    return max(found)


def _blocks(resolution: int) -> list[int]:
    try:
        return block_resolutions(resolution)
    except ModelError as error:
        raise CheckpointError(f"the checkpoint is not a StyleGAN2 network: {error}") from error


def _size(weights: Weights, name: str, axis: int) -> int:
    if name not in weights or weights[name].ndim <= axis:
        raise CheckpointError(
            f"the checkpoint has no weight {name}", "a complete StyleGAN2 network", "import another file"
        )
    return weights[name].shape[axis]


def _channel_plan(channels: Mapping[int, int]) -> tuple[int, int]:
    """Return channel_base and channel_max, such that min(base // r, max) are the channels of each block."""
    most, base = max(channels.values()), max(r * count for r, count in channels.items())
    if any(min(base // r, most) != count for r, count in channels.items()):
        raise CheckpointError(
            f"the blocks have {dict(sorted(channels.items()))} channels",
            "channels that halve as the resolution doubles",
            "import a network of the standard channel plan",
        )
    return base, most


def _mapping_layers(weights: Weights) -> int:
    layers = len([name for name in weights if re.fullmatch(r"mapping\.fc\d+\.weight", name)])
    if not layers:
        raise CheckpointError("the checkpoint has no mapping network", "layers such as mapping.fc0")
    return layers


def _architecture(weights: Weights, skip: str, resnet: str) -> Architecture:
    if skip in weights:
        return "skip"
    return "resnet" if resnet in weights else "orig"


def _taps(weights: Weights, name: str) -> tuple[float, ...]:
    """Read the taps of a low-pass filter off the filter itself."""
    taps = weights[name].to(torch.float64) if name in weights else torch.ones(1)
    taps = taps.sum(dim=0) if taps.ndim == 2 else taps
    stock = torch.tensor(STOCK_TAPS, dtype=torch.float64) / 8
    if taps.shape == stock.shape and torch.allclose(taps, stock, atol=1e-6):
        return STOCK_TAPS
    return tuple(float(t) for t in taps)


def _checked(build: Callable[[], Spec]) -> Spec:
    try:
        return build()
    except ModelError as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"the checkpoint is not a StyleGAN2 network: {error}") from error


def _fill(network: Network, weights: Weights) -> Network:
    expected = network.state_dict()
    for name in sorted(expected.keys() ^ weights.keys()):
        found = "lacks" if name in expected else "has"
        raise CheckpointError(
            f"the checkpoint {found} the weight {name:.80}", "StyleGAN2's layers", "import another file"
        )
    for name, tensor in weights.items():
        if tensor.shape != expected[name].shape:
            raise CheckpointError(
                f"the weight {name} has shape {tuple(tensor.shape)}", f"{tuple(expected[name].shape)}"
            )
        if not tensor.is_floating_point() or not tensor.isfinite().all():
            raise CheckpointError(
                f"the weight {name} is not finite", "finite numbers", "import a checkpoint saved before that"
            )
    # Copies: weights may be views of one another.
    plain = {n: w.detach().to(torch.float32, copy=True).contiguous() for n, w in weights.items()}
    network.load_state_dict(plain, strict=True, assign=True)
    return network.eval().requires_grad_(False)
