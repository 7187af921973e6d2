"""What the libraries that compute networks say when memory is full."""

from typing import Final

_SAID: Final = ("out of memory", "can't allocate memory", "ALLOC_FAILED", "ALLOCATION_FAILED")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the device's memory, or the machine's, has no room for what was tried; less of it may succeed.

    PyTorch has an exception of its own for its own allocator only; cuBLAS's and cuDNN's look like a device that failed.
    """
    return isinstance(error, MemoryError) or any(words in str(error) for words in _SAID)
