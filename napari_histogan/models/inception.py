"""The Inception network whose features FID and KID compare (Szegedy et al. 2016; Heusel et al. 2017).

The community measures generators with one network: Inception V3 as TensorFlow shipped it in December 2015,
converted to PyTorch. Its file, ``pt_inception-2015-12-05-6726825d.pth``, is a plain state dict; the names of
modules here are those of its entries. It differs from the network of the paper in two places: average pools
do not count their padding, and the last block pools by the maximum.

No weights are shipped or fetched: a user names a file. It is read by an interpreter that runs nothing
(:mod:`.safe_pickle`), or as safetensors.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from napari_histogan.errors import CheckpointError, ModelError
from napari_histogan.models.downloads import fetch
from napari_histogan.models.torch_container import read_torch_file

FEATURES = 2048
WEIGHTS_URL = (
    "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/"
    "pt_inception-2015-12-05-6726825d.pth"
)
"""Where the file is published; fetched only when it is asked for."""
INPUT_PX = 299

Pictures = NDArray[np.uint8]
Features = NDArray[np.float64]


class ConvUnit(nn.Module):
    """Convolution, normalization by stored statistics, rectifier."""

    def __init__(
        self,
        into: int,
        out: int,
        kernel: int | tuple[int, int],
        stride: int = 1,
        padding: int | tuple[int, int] = 0,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(into, out, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(out, eps=0.001)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, into, H, W) to (N, out, ...)."""
        return F.relu(self.bn(self.conv(x)), inplace=True)


class Fork(nn.Module):
    """Branches over the same input, concatenated; a branch is a chain of units, which may end in two.

    Parameters
    ----------
    units
        By name, as in the file: input, output, kernel, stride, and padding of each.
    branches
        Names in the order of the output's channels. A tuple within a branch is a split into its members;
        "average" and "maximum" pool without changing the size, "smaller" halves it.
    """

    def __init__(
        self, units: dict[str, ConvUnit], branches: Sequence[Sequence[str | tuple[str, ...]]]
    ) -> None:
        super().__init__()
        for name, unit in units.items():
            setattr(self, name, unit)
        self.branches = branches

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, into, H, W) to (N, the branches' channels, ...)."""
        ends = []
        for branch in self.branches:
            y = x
            for step in branch:
                if isinstance(step, tuple):
                    y = torch.cat([getattr(self, name)(y) for name in step], dim=1)
                else:
                    y = self._step(step, y)
            ends.append(y)
        return torch.cat(ends, dim=1)

    def _step(self, name: str, x: Tensor) -> Tensor:
        match name:
            case "average":
                return F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)
            case "maximum":
                return F.max_pool2d(x, 3, stride=1, padding=1)
            case "smaller":
                return F.max_pool2d(x, 3, stride=2)
        y: Tensor = getattr(self, name)(x)
        return y


def _mixed_5(into: int, pooled: int) -> Fork:
    units = {
        "branch1x1": ConvUnit(into, 64, 1),
        "branch5x5_1": ConvUnit(into, 48, 1),
        "branch5x5_2": ConvUnit(48, 64, 5, padding=2),
        "branch3x3dbl_1": ConvUnit(into, 64, 1),
        "branch3x3dbl_2": ConvUnit(64, 96, 3, padding=1),
        "branch3x3dbl_3": ConvUnit(96, 96, 3, padding=1),
        "branch_pool": ConvUnit(into, pooled, 1),
    }
    double = [f"branch3x3dbl_{i}" for i in (1, 2, 3)]
    return Fork(units, [["branch1x1"], ["branch5x5_1", "branch5x5_2"], double, ["average", "branch_pool"]])


def _mixed_6a(into: int) -> Fork:
    units = {
        "branch3x3": ConvUnit(into, 384, 3, stride=2),
        "branch3x3dbl_1": ConvUnit(into, 64, 1),
        "branch3x3dbl_2": ConvUnit(64, 96, 3, padding=1),
        "branch3x3dbl_3": ConvUnit(96, 96, 3, stride=2),
    }
    return Fork(units, [["branch3x3"], [f"branch3x3dbl_{i}" for i in (1, 2, 3)], ["smaller"]])


def _mixed_6(into: int, inner: int) -> Fork:
    wide, tall = ((1, 7), (0, 3)), ((7, 1), (3, 0))
    units = {"branch1x1": ConvUnit(into, 192, 1)}
    for prefix, shapes in (("branch7x7", [wide, tall]), ("branch7x7dbl", [tall, wide, tall, wide])):
        units[f"{prefix}_1"] = ConvUnit(into, inner, 1)
        for i, (kernel, padding) in enumerate(shapes, start=2):
            out = 192 if i == len(shapes) + 1 else inner
            units[f"{prefix}_{i}"] = ConvUnit(inner, out, kernel, padding=padding)
    units["branch_pool"] = ConvUnit(into, 192, 1)
    single = [f"branch7x7_{i}" for i in range(1, 4)]
    double = [f"branch7x7dbl_{i}" for i in range(1, 6)]
    return Fork(units, [["branch1x1"], single, double, ["average", "branch_pool"]])


def _mixed_7a(into: int) -> Fork:
    units = {
        "branch3x3_1": ConvUnit(into, 192, 1),
        "branch3x3_2": ConvUnit(192, 320, 3, stride=2),
        "branch7x7x3_1": ConvUnit(into, 192, 1),
        "branch7x7x3_2": ConvUnit(192, 192, (1, 7), padding=(0, 3)),
        "branch7x7x3_3": ConvUnit(192, 192, (7, 1), padding=(3, 0)),
        "branch7x7x3_4": ConvUnit(192, 192, 3, stride=2),
    }
    long = [f"branch7x7x3_{i}" for i in range(1, 5)]
    return Fork(units, [["branch3x3_1", "branch3x3_2"], long, ["smaller"]])


def _mixed_7(into: int, pool: str) -> Fork:
    wide = functools.partial(ConvUnit, 384, 384, (1, 3), padding=(0, 1))
    tall = functools.partial(ConvUnit, 384, 384, (3, 1), padding=(1, 0))
    units = {
        "branch1x1": ConvUnit(into, 320, 1),
        "branch3x3_1": ConvUnit(into, 384, 1),
        "branch3x3_2a": wide(),
        "branch3x3_2b": tall(),
        "branch3x3dbl_1": ConvUnit(into, 448, 1),
        "branch3x3dbl_2": ConvUnit(448, 384, 3, padding=1),
        "branch3x3dbl_3a": wide(),
        "branch3x3dbl_3b": tall(),
        "branch_pool": ConvUnit(into, 192, 1),
    }
    single: list[str | tuple[str, ...]] = ["branch3x3_1", ("branch3x3_2a", "branch3x3_2b")]
    double: list[str | tuple[str, ...]] = [
        "branch3x3dbl_1",
        "branch3x3dbl_2",
        ("branch3x3dbl_3a", "branch3x3dbl_3b"),
    ]
    return Fork(units, [["branch1x1"], single, double, [pool, "branch_pool"]])


class Inception(nn.Module):
    """Inception V3 up to its last average pool, which gives the features that FID and KID compare."""

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = ConvUnit(3, 32, 3, stride=2)
        self.Conv2d_2a_3x3 = ConvUnit(32, 32, 3)
        self.Conv2d_2b_3x3 = ConvUnit(32, 64, 3, padding=1)
        self.Conv2d_3b_1x1 = ConvUnit(64, 80, 1)
        self.Conv2d_4a_3x3 = ConvUnit(80, 192, 3)
        self.Mixed_5b = _mixed_5(192, 32)
        self.Mixed_5c = _mixed_5(256, 64)
        self.Mixed_5d = _mixed_5(288, 64)
        self.Mixed_6a = _mixed_6a(288)
        self.Mixed_6b = _mixed_6(768, 128)
        self.Mixed_6c = _mixed_6(768, 160)
        self.Mixed_6d = _mixed_6(768, 160)
        self.Mixed_6e = _mixed_6(768, 192)
        self.Mixed_7a = _mixed_7a(768)
        self.Mixed_7b = _mixed_7(1280, "average")
        self.Mixed_7c = _mixed_7(2048, "maximum")

    def forward(self, x: Tensor) -> Tensor:
        """Map pictures (N, 3, H, W) float32 within [-1, 1], of any size, to features (N, 2048)."""
        x = F.interpolate(x, size=(INPUT_PX, INPUT_PX), mode="bilinear", align_corners=False)
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(F.max_pool2d(x, 3, stride=2)))
        x = self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(F.max_pool2d(x, 3, stride=2))))
        for name in "abcde":
            x = getattr(self, f"Mixed_6{name}")(x)
        x = self.Mixed_7c(self.Mixed_7b(self.Mixed_7a(x)))
        return x.mean(dim=[2, 3])

    @torch.inference_mode()
    def features(self, pictures: Pictures, batch: int = 16) -> Features:
        """Return the features (N, 2048) float64 of pictures (N, S, S, 3) uint8, `batch` at a time."""
        device = self.Conv2d_1a_3x3.conv.weight.device
        parts = []
        for first in range(0, len(pictures), batch):
            x = torch.from_numpy(pictures[first : first + batch]).to(device).permute(0, 3, 1, 2)
            parts.append(self(x.to(torch.float32) / 127.5 - 1).to(torch.float64).cpu().numpy())
        return np.concatenate(parts)


def load_inception(path: Path) -> Inception:
    """Read the network's weights from a file of the community (``.pth``) or of safetensors.

    Parameters
    ----------
    path
        The file; nothing that it contains is run.  ``download`` fetches :data:`WEIGHTS_URL` once, into
        torch's cache.

    Raises
    ------
    ConfigError
        It cannot be downloaded.
    ModelError
        There is no such file, it cannot be read, or it holds other weights.
    """
    todo = f"give the file from {WEIGHTS_URL}, or leave the field empty to do without FID and KID"
    if path == Path("download"):
        path = fetch(WEIGHTS_URL, "the weights of Inception", "inception")
    if not path.is_file():
        raise ModelError(f"there is no file {path.name}", "the weights of Inception", todo)
    try:
        tensors = path.suffix == ".safetensors"
        state = load_file(path) if tensors else read_torch_file(path.read_bytes())
    except (OSError, SafetensorError, CheckpointError) as error:
        raise ModelError(f"{path.name} cannot be read ({error})", "the weights of Inception", todo) from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ModelError(f"{path.name} is no list of weights", "the weights of Inception", todo)
    network = Inception()
    wanted = network.state_dict()
    found = {name: value for name, value in state.items() if not str(name).startswith(("fc.", "AuxLogits."))}
    optional = {name for name in wanted if name.endswith("num_batches_tracked")}
    wrong = [
        name
        for name in set(wanted) - optional | set(found)
        if name not in found or name not in wanted or found[name].shape != wanted[name].shape
    ]
    if wrong:
        raise ModelError(
            f"{path.name} differs from the Inception of FID in {len(wrong)} entries, {min(wrong)} for one",
            "the weights of Inception V3 of 2015-12-05",
            todo,
        )
    network.load_state_dict(found, strict=False)
    return network.eval().requires_grad_(False)
