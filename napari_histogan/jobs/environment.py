"""The environment of child processes that compute."""

from __future__ import annotations

import os

DEFAULTS = {
    # Log lines and replies must not wait in a buffer.
    "PYTHONUNBUFFERED": "1",
    # Idle OpenMP threads sleep; spinning ones slow down the viewer, and each other on a busy machine.
    "OMP_WAIT_POLICY": "passive",
    # glibc keeps the memory of large tensors instead of giving it back after every operation.
    "MALLOC_MMAP_THRESHOLD_": str(2**30),
    "MALLOC_TRIM_THRESHOLD_": str(2**33),
}
"""What computing children want to see; variables of the same names that the user has set win."""


def child_environment() -> dict[str, str]:
    """Return this process's environment with what makes computing children calm and fast.

    Variables that the user has set win.
    """
    return {**DEFAULTS, **os.environ}
