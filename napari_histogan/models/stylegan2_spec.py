"""Plans of StyleGAN2 networks: the numbers from which a generator or discriminator is built."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, TypeVar, cast

from napari_histogan.errors import DAMAGE, ModelError

Architecture = Literal["skip", "resnet", "orig"]
Spec = TypeVar("Spec")

MAX_SIZE = 1 << 20
"""No network of this world has more channels, features, or pixels a side."""

MAX_TAPS = 64
INTEGERS = frozenset(
    {"z_dim", "c_dim", "w_dim", "img_resolution", "img_channels", "mapping_layers", "channel_base"}
    | {"channel_max", "num_fp16_res", "embed_features", "layer_features", "cmap_dim"}
    | {"mbstd_group_size", "mbstd_num_channels"}
)


def channels_at(resolution: int, channel_base: int, channel_max: int) -> int:
    """Return the number of channels of the block that works at `resolution` pixels."""
    return min(channel_base // resolution, channel_max)


def block_resolutions(img_resolution: int) -> list[int]:
    """Return 4, 8, ..., `img_resolution`.

    Raises
    ------
    ModelError
        If the resolution is not a power of two of at least 4.
    """
    if img_resolution < 4 or img_resolution & (img_resolution - 1):
        raise ModelError(f"the image resolution is {img_resolution} px", "a power of two of at least 4 px")
    return [2**k for k in range(2, img_resolution.bit_length())]


def _check(resolution: int, architecture: str, channel_base: int, channel_max: int) -> None:
    block_resolutions(resolution)
    if architecture not in ("skip", "resnet", "orig"):
        raise ModelError(f"the architecture is {architecture!r}", "skip, resnet or orig")
    if channels_at(resolution, channel_base, channel_max) < 1:
        raise ModelError(
            f"channel_base {channel_base} and channel_max {channel_max} leave no channel at {resolution} px",
            f"channel_base of at least {resolution} and channel_max of at least 1",
        )


@dataclass(frozen=True)
class GeneratorSpec:
    """Everything needed to build a generator before its weights are loaded.

    Attributes
    ----------
    z_dim, c_dim, w_dim
        Features of latents, labels (0: none) and styles.
    img_resolution, img_channels
        Size of the pictures in pixels (a power of two >= 4), and their colors.
    mapping_layers
        Dense layers of the mapping network.
    channel_base, channel_max
        A block at r px has min(channel_base // r, channel_max) channels.
    num_fp16_res
        The so many largest resolutions run in half precision on a GPU.
    conv_clamp
        Bound on convolution outputs, None for none.
    architecture
        How a block contributes to the picture.
    use_noise
        Whether layers add noise.
    mapping_lr_multiplier, embed_features, layer_features, w_avg_beta
        See `MappingNetwork`.
    taps
        Low-pass filter of the upsampling.
    activation
        Activation of the convolutions.
    """

    z_dim: int
    c_dim: int
    w_dim: int
    img_resolution: int
    img_channels: int = 3
    mapping_layers: int = 8
    channel_base: int = 32768
    channel_max: int = 512
    num_fp16_res: int = 0
    conv_clamp: float | None = None
    architecture: Architecture = "skip"
    use_noise: bool = True
    mapping_lr_multiplier: float = 0.01
    embed_features: int | None = None
    layer_features: int | None = None
    w_avg_beta: float | None = 0.995
    taps: tuple[float, ...] = (1.0, 3.0, 3.0, 1.0)
    activation: str = "lrelu"

    def __post_init__(self) -> None:
        """Refuse sizes that no network can have."""
        _check(self.img_resolution, self.architecture, self.channel_base, self.channel_max)

    @property
    def num_ws(self) -> int:
        """Number of styles a picture takes, one per layer that reads its own."""
        return 2 * (self.img_resolution.bit_length() - 1) - 2

    def channels(self, resolution: int) -> int:
        """Return the channels of the block at `resolution` px."""
        return channels_at(resolution, self.channel_base, self.channel_max)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types."""
        return asdict(self) | {"taps": list(self.taps)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> GeneratorSpec:
        """Build from `to_dict`'s result.

        Raises
        ------
        ModelError
            If a field is unknown or missing.
        """
        return _from_dict(cls, values)


@dataclass(frozen=True)
class DiscriminatorSpec:
    """Everything needed to build a discriminator before its weights are loaded.

    Attributes
    ----------
    img_resolution, img_channels
        Size of the pictures in pixels (a power of two >= 8), and their colors.
    c_dim
        Label features, 0 without labels.
    channel_base, channel_max, num_fp16_res, conv_clamp, taps, activation
        As in `GeneratorSpec`.
    architecture
        How the picture enters the blocks.
    cmap_dim
        Features compared with the mapped label; None is the channels at 4 px.
    mapping_layers
        Dense layers that map the label.
    mbstd_group_size
        Samples whose spread is shown to the last layers; None is the whole batch.
    mbstd_num_channels
        Feature maps that show it; 0 for none.
    """

    img_resolution: int
    img_channels: int = 3
    c_dim: int = 0
    channel_base: int = 32768
    channel_max: int = 512
    num_fp16_res: int = 0
    conv_clamp: float | None = None
    architecture: Architecture = "resnet"
    cmap_dim: int | None = None
    mapping_layers: int = 8
    mbstd_group_size: int | None = 4
    mbstd_num_channels: int = 1
    taps: tuple[float, ...] = (1.0, 3.0, 3.0, 1.0)
    activation: str = "lrelu"

    def __post_init__(self) -> None:
        """Refuse sizes that no network can have."""
        _check(self.img_resolution, self.architecture, self.channel_base, self.channel_max)

    def channels(self, resolution: int) -> int:
        """Return the channels of the block at `resolution` px."""
        return channels_at(resolution, self.channel_base, self.channel_max)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types."""
        return asdict(self) | {"taps": list(self.taps)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> DiscriminatorSpec:
        """Build from `to_dict`'s result.

        Raises
        ------
        ModelError
            If a field is unknown or missing.
        """
        return _from_dict(cls, values)


def _from_dict(cls: type[Spec], values: dict[str, Any]) -> Spec:
    """Build a spec dataclass from JSON values, naming unknown and missing fields in the error."""
    known = {f.name for f in fields(cast(Any, cls))}
    if unknown := set(values) - known:
        raise ModelError(f"{cls.__name__} has unknown fields {sorted(unknown)}", f"fields {sorted(known)}")
    try:
        _check_numbers(values)
        return cls(**(values | ({"taps": tuple(values["taps"])} if "taps" in values else {})))
    except DAMAGE as error:
        if isinstance(error, ModelError):
            raise
        raise ModelError(f"{cls.__name__} is incomplete or damaged: {error}") from error


def _check_numbers(values: dict[str, Any]) -> None:
    """Refuse what is no number of a network of this world, before memory is asked for."""
    for name, value in values.items():
        if name in ("architecture", "activation"):
            good = isinstance(value, str)
        elif name == "taps":
            good = 1 <= len(value) <= MAX_TAPS and all(_is_number(tap) for tap in value)
        elif name in INTEGERS:
            good = value is None or (isinstance(value, int) and 0 <= value <= MAX_SIZE)
        else:
            good = value is None or isinstance(value, bool) or _is_number(value)
        if not good:
            raise ModelError(f"the plan says {name} = {value!r:.80}", "a number that a network can have")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e9
