"""Memory that uploads leave behind, kept for those that follow."""

import ctypes
import sys
from typing import Final

KEPT_BYTES: Final = 32 * 1024 * 1024
LARGE_BYTES: Final = 4 * 1024 * 1024
"""What is larger is had from the kernel and given back by itself; a piece of an upload is far smaller."""
M_TRIM_THRESHOLD: Final = -1
M_MMAP_THRESHOLD: Final = -3


def keep_freed() -> None:
    """Have the C library keep up to KEPT_BYTES of what is freed, where it is one that can be told: see mallopt(3).

    By itself it gives the pieces of an upload back to the kernel, which then clears the same pages for the next one.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(M_TRIM_THRESHOLD, KEPT_BYTES)
        mallopt(M_MMAP_THRESHOLD, LARGE_BYTES)
