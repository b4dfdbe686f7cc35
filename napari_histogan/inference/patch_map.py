"""Probability maps of patch classifiers: every patch of a picture, without cutting one by one.

With channel normalization all patches are computed at once (:meth:`.PatchClassifier.dense`).  With instance
normalization each patch is a strided view into the picture, and batches of them are gathered.  Both give what
a plain loop over patches gives.  With a stride above 1 only every so-manyth patch is computed, and the
probabilities between are interpolated.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from napari_histogan.config.patch_gan import PredictPatchMapConfig
from napari_histogan.errors import ConfigError
from napari_histogan.geometry import Region
from napari_histogan.inference.tiles import run_tiles
from napari_histogan.models.device import Compute, resolve
from napari_histogan.models.patch_gan import PatchClassifier
from napari_histogan.models.patch_gan_file import load_patch_classifier
from napari_histogan.models.segmenter import pixels_to_input
from napari_histogan.progress import Reporter
from napari_histogan.slides.channels import Preparation, PreparedReader
from napari_histogan.slides.reader import SlideReader
from napari_histogan.slides.tissue import tissue_mask
from napari_histogan.slides.zarr_pyramid import PyramidWriter

_GATHERED = 256
"""Patches in a batch, where patches are gathered."""
_DENSE_SIDE = 384
"""Largest side, in computed positions, of what is computed at once; bounds the memory."""


class PatchMapper:
    """Computes maps by one net.

    Parameters
    ----------
    net
        Not changed.
    compute
        Device and precision.
    stride
        Pixels between patches, one of ``net.shape.strides``.

    Raises
    ------
    ConfigError
        If the stride is not one of these.
    """

    def __init__(self, net: PatchClassifier, compute: Compute, stride: int = 1) -> None:
        if stride not in net.shape.strides:
            raise ConfigError(
                f"a stride of {stride} px was asked for, patches have {net.shape.patch_px} px",
                f"one of {', '.join(map(str, net.shape.strides))} px",
                "choose another stride",
            )
        self.net, self.stride, self._compute = net.eval(), stride, compute
        self._at_once = net.shape.normalization == "channel"

    @torch.inference_mode()
    def of_picture(self, picture: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the classes' probabilities ``(K, H, W) float32``, 0..1, of every pixel of a picture.

        Parameters
        ----------
        picture
            ``(C, H, W) uint8``, prepared; beyond its rim the edge goes on.
        """
        side, stride = self.net.shape.patch_px, self.stride
        height, width = picture.shape[1:]
        half, more = side // 2, [(-(n - 1)) % stride for n in (height, width)]
        rim = ((0, 0), (half, half + more[0]), (half, half + more[1]))
        padded = torch.from_numpy(np.pad(picture, rim, mode="edge"))
        return self.full_size(self.of_patches(padded[None]), height, width)[0].numpy()

    def of_patches(self, pixels: Tensor) -> Tensor:
        """Return the probabilities of all patches ``stride`` px apart.

        Parameters
        ----------
        pixels
            ``(N, C, H, W) uint8``.

        Returns
        -------
        Tensor
            ``(N, K, (H - S) // stride + 1, (W - S) // stride + 1) float32``, on the CPU.
        """
        side, stride = self.net.shape.patch_px, self.stride
        rows, columns = ((n - side) // stride + 1 for n in pixels.shape[2:])
        out = torch.empty(len(pixels), self.net.shape.num_classes, rows, columns)
        for y in range(0, rows, _DENSE_SIDE):
            for x in range(0, columns, _DENSE_SIDE):
                h, w = min(_DENSE_SIDE, rows - y), min(_DENSE_SIDE, columns - x)
                top, left = y * stride, x * stride
                part = pixels[
                    :, :, top : top + (h - 1) * stride + side, left : left + (w - 1) * stride + side
                ]
                out[:, :, y : y + h, x : x + w] = self._dense(part) if self._at_once else self._gathered(part)
        return out

    def _dense(self, pixels: Tensor) -> Tensor:
        with self._compute.autocast():
            logits = self.net.dense(self._input(pixels), self.stride)
        return self._probabilities(logits)

    def _gathered(self, pixels: Tensor) -> Tensor:
        side, stride = self.net.shape.patch_px, self.stride
        x = pixels.to(self._compute.device)
        views = x.unfold(2, side, stride).unfold(3, side, stride).permute(0, 2, 3, 1, 4, 5)
        n, rows, columns = views.shape[:3]
        places = torch.arange(n * rows * columns, device=x.device)
        parts = []
        for first in range(0, len(places), _GATHERED):
            chosen = places[first : first + _GATHERED]
            row = chosen // columns
            patches = self._input(views[row // rows, row % rows, chosen % columns])
            with self._compute.autocast():
                parts.append(self._probabilities(self.net(patches)))
        found = torch.cat(parts).reshape(n, rows, columns, -1)
        return found.permute(0, 3, 1, 2)

    def _input(self, pixels: Tensor) -> Tensor:
        x = pixels_to_input(pixels.to(self._compute.device))
        return x.contiguous(memory_format=torch.channels_last)

    def _probabilities(self, logits: Tensor) -> Tensor:
        """Return what is on the CPU: p(y | x, y < K + 1), without FAKE."""
        return logits[:, : self.net.shape.num_classes].float().softmax(dim=1).cpu()

    def full_size(self, found: Tensor, height: int, width: int) -> Tensor:
        """Interpolate positions ``stride`` px apart, the first at 0, to pixels."""
        if self.stride > 1:
            size = [(n - 1) * self.stride + 1 for n in found.shape[2:]]
            found = F.interpolate(found, size=size, mode="bilinear", align_corners=True)
        return found[:, :, :height, :width]


class PatchTiles:
    """A patch classifier as the tiling engine wants it; see :class:`.TileModel`.

    Its pixels come from a :class:`PreparedReader`.
    """

    def __init__(self, mapper: PatchMapper, mpp: float) -> None:
        shape = mapper.net.shape
        self.mpp, self.num_classes = mpp, shape.num_classes
        self.margin_px, self.stride_px = shape.patch_px // 2, mapper.stride
        self._mapper, self._channels = mapper, shape.channels

    @torch.inference_mode()
    def __call__(self, pixels: Tensor) -> Tensor:
        """Return probabilities ``(n, K, S, S) float32``; the rim, which no patch has its middle in, is 0."""
        height, width = pixels.shape[2:]
        found = self._mapper.of_patches(pixels[:, : self._channels].contiguous())
        margin = self.margin_px
        inner = self._mapper.full_size(found, height - 2 * margin, width - 2 * margin)
        right, bottom = width - margin - inner.shape[3], height - margin - inner.shape[2]
        return F.pad(inner, (margin, right, margin, bottom))


def predict_patch_map(
    reader: SlideReader, folder: Path, config: PredictPatchMapConfig, reporter: Reporter, out: Path
) -> dict[str, Any]:
    """Write a slide's or picture's class probabilities by a patch classifier.

    Parameters
    ----------
    reader
        The slide; its resolution must be known.
    folder
        Of the patch classifier.
    config
        See :class:`PredictPatchMapConfig`.
    reporter
        Gets an event "block" for each block that is on disk.
    out
        The pyramid to write: uint8 percent, one channel a class, at the classifier's resolution.

    Returns
    -------
    dict
        For display: windows, blocks, seconds, classes, resolution, size, and patches per second.

    Raises
    ------
    ConfigError
        If the stride or the region does not fit.
    SlideHasNoMpp, SlideError
        If the resolution is unknown or too coarse, the slide is too large to equalize its contrast, or some
        blocks could not be read.
    CheckpointError
        If the classifier cannot be used.
    NoTissue
        If ``tissue_only`` is set and there is none.
    Stopped
        If the reporter asked for it; blocks that are done stay.
    """
    net, info = load_patch_classifier(folder)
    compute = resolve(config)
    net.to(compute.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    model = PatchTiles(PatchMapper(net, compute, config.stride), info.mpp)
    wanted = _Wanted(reader, config, info.mpp)
    seen = PreparedReader(reader, Preparation(info.channel, info.clahe, info.clip_limit), info.mpp)
    size = seen.size
    writer = PyramidWriter(out, size, info.class_names, np.uint8, mpp=info.mpp)
    side = max(config.tile_px, 2 * info.shape.patch_px)
    overlap = (info.shape.patch_px + 2 * config.stride) / side
    try:
        done = run_tiles(seen, model, writer, reporter, tile_px=side, overlap=overlap, batch=1, wanted=wanted)
    finally:
        writer.close()
    return {
        "windows": done.windows,
        "skipped_windows": done.skipped_windows,
        "blocks": done.blocks,
        "resumed_blocks": done.resumed_blocks,
        "seconds": done.seconds,
        "pixels_per_second": size.height * size.width / max(done.seconds, 1e-9),
        "classes": list(info.class_names),
        "mpp": info.mpp,
        "height": size.height,
        "width": size.width,
    }


class _Wanted:
    """Tells which regions, in pixels of ``mpp`` um, are to be computed."""

    def __init__(self, reader: SlideReader, config: PredictPatchMapConfig, mpp: float) -> None:
        self._mpp, self._region = mpp, None
        if config.region_um:
            y, x, height, width = (round(v / mpp) for v in config.region_um)
            self._region = Region(y, x, max(1, height), max(1, width))
            size = reader.size_at(mpp)
            if not self._region.intersects(Region(0, 0, *size.shape)):
                raise ConfigError(
                    f"the region {list(config.region_um)} um lies outside of the slide",
                    f"within {size.height * mpp:.0f} x {size.width * mpp:.0f} um",
                    "choose a region of the slide",
                )
        self._tissue = tissue_mask(reader) if config.tissue_only else None

    def __call__(self, region: Region) -> bool:
        """Whether any of the region is wanted."""
        if self._region is not None and not region.intersects(self._region):
            return False
        return self._tissue is None or self._tissue.fraction(region, self._mpp) > 0
