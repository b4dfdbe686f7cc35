"""What the C library does with memory that was freed: nets on a CPU want it back a moment later."""

from __future__ import annotations

import ctypes
import sys
from functools import cache

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # names in glibc's malloc.h
_KEEP_BYTES, _LARGEST_BYTES = 2**30, 2**25


@cache
def keep_freed_memory() -> bool:
    """Let this process keep up to 1 GB of freed memory instead of giving it back after each layer.

    glibc gives blocks above a threshold back to the system as soon as they are freed, and every layer
    then takes its activations as fresh pages: 5 of 40 ms a window of a U-Net, and 21 of 57 in a dask
    worker, whose environment makes the threshold small and fixed.

    Returns
    -------
    bool
        Whether the C library did it; others than glibc are left as they are.
    """
    if sys.platform != "linux":
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    return bool(mallopt(_TRIM_THRESHOLD, _KEEP_BYTES)) and bool(mallopt(_MMAP_THRESHOLD, _LARGEST_BYTES))
