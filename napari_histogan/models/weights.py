"""Networks filled with the weights of a safetensors file; what does not fit is refused before it is built."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from napari_histogan.errors import DAMAGE, CheckpointError, HistoganError

Network = TypeVar("Network", bound=nn.Module)
_SLACK = 1000


def filled(build: Callable[[], Network], path: Path, plan: str = "the plan in its .json") -> Network:
    """Build a network and fill in its weights.

    Parameters
    ----------
    build
        Makes the network with any weights.  A plan with far more weights than the file holds is tried
        without memory, and refused.
    path
        The ``.safetensors`` file; half precision becomes float32.
    plan
        Names where the sizes come from, in messages.

    Returns
    -------
    Module
        In evaluation mode, on the CPU.

    Raises
    ------
    CheckpointError
        If the file is missing or damaged, or does not fit the plan.
    """
    tensors = read_weights(path)
    try:
        with torch.device("meta"):
            planned = sum(value.numel() for value in build().state_dict().values())
        stored = sum(tensor.numel() for tensor in tensors.values())
        if planned > 2 * stored + _SLACK:
            raise RuntimeError(f"{planned:,} weights are planned, {stored:,} are there")
        network = build()
        network.load_state_dict({name: _whole(value) for name, value in tensors.items()}, strict=True)
    except CheckpointError:
        raise
    except (HistoganError, *DAMAGE) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise CheckpointError(
            f"the weights in {path} do not fit {plan}: {reason}",
            "weights and sizes that were written together",
            "copy the folder again, or make it again",
        ) from error
    return network.eval()


def read_weights(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a ``.safetensors`` file; raise ``CheckpointError`` if it cannot be read."""
    try:
        return load_file(path)
    except (SafetensorError, *DAMAGE) as error:
        raise CheckpointError(
            f"{path} cannot be read: {error}", "a complete .safetensors file", "copy it again"
        ) from error


def _whole(value: Tensor) -> Tensor:
    return value.to(torch.float32) if value.is_floating_point() else value
