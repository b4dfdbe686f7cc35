"""Where and how precisely to compute.

bfloat16 pays only where the hardware multiplies it natively: tensor cores on GPUs,
AMX tiles or AVX512-BF16 on CPUs.  Elsewhere it is emulated, and slower than float32.
"""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch

from napari_histogan.config import StageConfig
from napari_histogan.errors import ConfigError

NARROW = 16
"""Below so many channels converting to bfloat16 costs more than its products save, on CPUs without AMX."""
_NATIVE_FLAGS = frozenset({"amx_bf16", "avx512_bf16"})


@dataclass(frozen=True, slots=True)
class Compute:
    """The device, number type, and CPU threads that a stage computes with.

    Attributes
    ----------
    device
        Where tensors live.
    dtype
        Type of activations, ``torch.bfloat16`` or ``torch.float32``; weights that are
        trained, losses, and optimizer states stay in float32.
    threads
        CPU threads of one operation.
    """

    device: torch.device
    dtype: torch.dtype
    threads: int

    def autocast(self) -> AbstractContextManager[Any]:
        """Return a context in which convolutions and matrix products run in ``dtype``."""
        if self.dtype == torch.float32:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=self.dtype)

    def __str__(self) -> str:
        """Say it in a few words, for logs."""
        return f"{self.device}, {str(self.dtype).removeprefix('torch.')}, {self.threads} threads"


def resolve(config: StageConfig) -> Compute:
    """Decide device, precision, and threads from a config, and set torch's threads.

    Parameters
    ----------
    config
        ``device``, ``precision``, and ``threads`` are read.  With ``auto`` the device is
        CUDA, else Apple's MPS, else the CPU; the precision is bfloat16 where
        :func:`has_native_bfloat16` says so.  ``threads`` 0 leaves one core to the viewer.

    Raises
    ------
    ConfigError
        If the device asked for is not there, or cannot do the precision.
    """
    device = _resolve_device(config.device)
    threads = config.threads or max(1, available_cores() - 1)
    torch.set_num_threads(threads)
    if config.precision == "bfloat16" and device.type == "mps":
        raise ConfigError(
            "bfloat16 was asked for on mps", "float32 on this device", "set precision to auto or float32"
        )
    wants_bfloat16 = config.precision == "bfloat16" or (
        config.precision == "auto" and has_native_bfloat16(device)
    )
    return Compute(device, torch.bfloat16 if wants_bfloat16 else torch.float32, threads)


def resolve_for_training(config: StageConfig, width: int) -> Compute:
    """Decide as :func:`resolve` does, but with precision ``auto`` train narrow nets in float32.

    Parameters
    ----------
    config
        See :func:`resolve`.
    width
        Channels of the net's first layer; see :data:`NARROW`.

    Raises
    ------
    ConfigError
        If the device asked for is not there, or cannot do the precision.
    """
    compute = resolve(config)
    if config.precision == "auto" and width < NARROW and not has_matrix_unit(compute.device):
        return replace(compute, dtype=torch.float32)
    return compute


@cache
def has_native_bfloat16(device: torch.device | None = None) -> bool:
    """Whether the hardware multiplies bfloat16 natively.

    Parameters
    ----------
    device
        The CPU if not given.
    """
    kind = "cpu" if device is None else device.type
    if kind == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if kind != "cpu":
        return False
    return bool(_cpu_flags() & _NATIVE_FLAGS)


def has_matrix_unit(device: torch.device | None = None) -> bool:
    """Whether bfloat16 products are nearly free beside passes over memory: tensor cores, or AMX tiles.

    With AVX512-BF16 alone a product is twice as fast as in float32, and no more.

    Parameters
    ----------
    device
        The CPU if not given.
    """
    if device is not None and device.type != "cpu":
        return True
    return "amx_bf16" in _cpu_flags()


def available_cores() -> int:
    """Return the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _resolve_device(name: str) -> torch.device:
    """Return the device of a config's name; ``auto`` takes the best one."""
    found = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        name = next(kind for kind in ("cuda", "mps", "cpu") if found[kind])
    if not found[name]:
        there = ", ".join(kind for kind, is_there in found.items() if is_there)
        raise ConfigError(
            f"the device {name} was asked for, but torch finds only: {there}",
            "a device that this machine and this build of torch have",
            "set device to auto, or install a build of torch for the device",
        )
    return torch.device(name)


def _cpu_flags() -> frozenset[str]:
    """Return the CPU's feature flags that torch or the kernel reports."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(errors="replace").splitlines():
            if line.startswith("flags"):
                return frozenset(line.partition(":")[2].split())
        return frozenset()
    query = getattr(torch.cpu, "get_capabilities", None)  # newer than the oldest torch that we support
    capabilities = query() if query is not None else {}
    return frozenset(name for name, there in capabilities.items() if there is True)
