"""The U-Net of weakly supervised segmentation: separable convolutions in residual blocks (paper 002).

Without its lateral connections it is an auto-encoder, of which every weight but the last layer's fits the
segmenter.  A lateral connection is a 1 x 1 convolution that is added, which computes the same as one over
both parts concatenated; so the weights that the two nets share have the same shapes in both.
"""

from __future__ import annotations

from functools import cached_property

import torch.nn.functional as F
from torch import Tensor, nn

from napari_histogan.errors import ModelError
from napari_histogan.models.unet import margin_of, padded_to

_MOST_WIDENING = 8


class WeakUNet(nn.Module):
    """Encoder and decoder of residual blocks; convolutions, pooling, and upsampling only.

    Parameters
    ----------
    num_classes
        Channels K of the output; for an auto-encoder of RGB, 3.
    width
        Channels of the first stage, 32 in the paper; doubled at each stage, up to 8 times.
    depth
        How often the picture is halved.
    lateral
        Connect stages of the same size; without, this is the auto-encoder.
    """

    def __init__(self, num_classes: int = 2, width: int = 32, depth: int = 4, lateral: bool = True) -> None:
        super().__init__()
        if num_classes < 2 or width < 1 or depth < 1:
            raise ModelError(
                f"a U-Net of {num_classes} classes, width {width}, and depth {depth} cannot be built",
                "at least 2 classes, width 1, and depth 1",
            )
        self.num_classes, self.width, self.depth, self.lateral = num_classes, width, depth, lateral
        channels = [width * min(2**stage, _MOST_WIDENING) for stage in range(depth + 1)]
        inputs = [3, *channels[:-1]]
        self.encoders = nn.ModuleList(_Block(a, b) for a, b in zip(inputs, channels, strict=True))
        self.bridges = nn.ModuleList(nn.Conv2d(channels[i + 1], channels[i], 1) for i in range(depth))
        self.laterals = nn.ModuleList(
            nn.Conv2d(channels[i], channels[i], 1, bias=False) for i in range(depth if lateral else 0)
        )
        self.decoders = nn.ModuleList(_Block(channels[i], channels[i]) for i in range(depth))
        self.head = nn.Conv2d(width, num_classes, 1)

    def forward(self, pixels: Tensor) -> Tensor:
        """Return logits, or the picture that an auto-encoder makes of the picture.

        Parameters
        ----------
        pixels
            ``(N, 3, H, W)``, -1..1, of any size; sides that are no multiple of
            :attr:`stride_px` are padded by repeating the last pixel, and cropped back.

        Returns
        -------
        Tensor
            ``(N, K, H, W)``.
        """
        height, width = pixels.shape[-2:]
        x = padded_to(pixels, self.stride_px)
        passed = []
        for encoder in self.encoders[:-1]:
            x = encoder(x)
            passed.append(x)
            x = F.max_pool2d(x, 2)
        x = self.encoders[-1](x)
        for stage in range(self.depth - 1, -1, -1):
            x = F.interpolate(self.bridges[stage](x), scale_factor=2.0, mode="bilinear", align_corners=False)
            if self.lateral:
                x = x + self.laterals[stage](passed[stage])
            x = self.decoders[stage](x)
        logits: Tensor = self.head(x)
        return logits[..., :height, :width]

    @property
    def stride_px(self) -> int:
        """Shifts of the input by multiples of this shift the output alike."""
        return 1 << self.depth

    @cached_property
    def margin_px(self) -> int:
        """Farthest input pixel that an output pixel depends on: 122 of a net of depth 4."""
        return margin_of(self.depth)

    def layers(self) -> list[list[nn.Parameter]]:
        """Return all weights in groups, from the input to the output."""
        rest = [*self.bridges, *self.laterals, *self.decoders, self.head]
        encoders = [list(encoder.parameters()) for encoder in self.encoders]
        return [*encoders, [p for module in rest for p in module.parameters()]]

    def load_encoded(self, weights: dict[str, Tensor]) -> None:
        """Take the weights of an auto-encoder of the same width and depth; lateral ones and the head stay.

        Raises
        ------
        ModelError
            If a weight is missing or has another shape.
        """
        own = {k: v for k, v in self.state_dict().items() if not k.startswith(("laterals.", "head."))}
        wrong = [k for k, v in own.items() if k not in weights or weights[k].shape != v.shape]
        if wrong:
            raise ModelError(
                f"the auto-encoder's weights do not fit: {wrong[0]}",
                f"those of a net of width {self.width} and depth {self.depth}",
                "train it with the same width and depth",
            )
        self.load_state_dict({k: weights[k] for k in own}, strict=False)


class _Block(nn.Module):
    """Two separable convolutions, each normalized, around which the input is added."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.depthwise1 = nn.Conv2d(channels_in, channels_in, 3, padding=1, groups=channels_in, bias=False)
        self.pointwise1 = nn.Conv2d(channels_in, channels_out, 1, bias=False)
        self.norm1: nn.Module = nn.BatchNorm2d(channels_out)
        self.depthwise2 = nn.Conv2d(channels_out, channels_out, 3, padding=1, groups=channels_out, bias=False)
        self.pointwise2 = nn.Conv2d(channels_out, channels_out, 1, bias=False)
        self.norm2: nn.Module = nn.BatchNorm2d(channels_out)
        self.around = (
            nn.Identity() if channels_in == channels_out else nn.Conv2d(channels_in, channels_out, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return features of the same height and width."""
        inner = F.relu(self.norm1(self.pointwise1(self.depthwise1(x))), inplace=True)
        inner = self.norm2(self.pointwise2(self.depthwise2(inner)))
        return F.relu(inner + self.around(x), inplace=True)
