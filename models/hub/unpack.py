"""Turns a foreign checkpoint into safetensors: `python -m clipwarden.models.hub.unpack`, the file as standard input.

The tensors go to descriptor 3, by name and as they are; a JSON object on standard output says whether they did. The
file is read through PyTorch's allow-list, in a process that by then has limits, holds no other descriptor, and on Linux
keeps few system calls (see `shared.media.seccomp`): what breaks out of the list finds no file, socket or process.
"""

import json
import os
import re
import resource
import signal
import sys
import warnings
from collections.abc import Mapping
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, Final

import torch
from torch import Tensor

from clipwarden.models.checkpoint import TYPES, unwrapped
from clipwarden.shared.media import seccomp

TARGET_FD: Final = 3
MEBIBYTE: Final = 1024 * 1024
SPARE_BYTES: Final = 256 * MEBIBYTE
LEAST_CPU_S: Final = 60
CPU_BYTES_PER_S: Final = 20 * MEBIBYTE
_MOST_FDS: Final = 1024
_LONGEST_REASON: Final = 300

_BLOCKED: Final = re.compile(r"GLOBAL (\S+)")


class Refused(Exception):  # noqa: N818 - an answer, not a fault
    """The file holds something other than tensors by name; the message says what."""


def cpu_seconds(size_bytes: int) -> int:
    """Time that a file of this size may take."""
    return LEAST_CPU_S + size_bytes // CPU_BYTES_PER_S


def tensors(source: BinaryIO) -> dict[str, Tensor]:
    """The plain tensors of a checkpoint, unwrapped, on the CPU. Raises Refused."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about how the file was saved, which is not for the user to mend
            state = unwrapped(torch.load(source, map_location="cpu", weights_only=True))
    except MemoryError:
        raise
    except Exception as error:  # a broken or hostile file may raise anything
        raise Refused(_why(error)) from error
    if not state:
        raise Refused("it holds no tensors by name")
    for name, tensor in state.items():
        if tensor.layout is not torch.strided or tensor.device.type != "cpu" or tensor.dtype not in TYPES:
            raise Refused(f"{name} is no plain tensor")
    return state


def write(state: Mapping[str, Tensor], target: BinaryIO) -> None:
    """Write safetensors one tensor after the other, so that no second copy of them all is made."""
    header: dict[str, Any] = {}
    names = sorted(state, key=lambda name: (-state[name].element_size(), name))  # so that each is aligned
    end = 0
    for name in names:
        tensor, start = state[name], end
        end += tensor.numel() * tensor.element_size()
        header[name] = {"dtype": TYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [start, end]}
    words = json.dumps(header).encode()
    words += b" " * (-len(words) % 8)
    target.write(len(words).to_bytes(8, "little") + words)
    for name in names:
        flat = state[name].detach().contiguous().reshape(-1)
        target.write(flat.view(torch.uint8).numpy().data)


def confine(size_bytes: int) -> None:
    """Bound this process by the size of its file, before it looks at it."""
    torch.set_num_threads(1)
    memory_bytes = _allocated_bytes() + 2 * size_bytes + SPARE_BYTES
    cpu_s = cpu_seconds(size_bytes)
    for kind, limit in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 2 * size_bytes + MEBIBYTE),
        (resource.RLIMIT_NOFILE, TARGET_FD + 1),
        (resource.RLIMIT_CPU, cpu_s),
        (resource.RLIMIT_DATA, memory_bytes),
    ):
        resource.setrlimit(kind, (limit, limit))
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, 2 * cpu_s)
    seccomp.confine()


def warm() -> None:
    """Import what PyTorch imports late: later this process can open no file, not even a module."""
    sample = {"model": {"a": torch.ones(3, dtype=torch.bfloat16), "b": torch.zeros(2, dtype=torch.bool)}}
    for zipped in (True, False):
        saved = BytesIO()
        torch.save(sample, saved, _use_new_zipfile_serialization=zipped)
        saved.seek(0)
        write(tensors(saved), BytesIO())
    with suppress(Refused):
        tensors(BytesIO(b"\x80\x04c"))


def main() -> None:
    """One file in, one file and one JSON object out."""
    target_fd = int(sys.argv[1])
    warm()
    os.dup2(target_fd, TARGET_FD)
    os.closerange(TARGET_FD + 1, _MOST_FDS)
    size_bytes = os.fstat(sys.stdin.fileno()).st_size
    confine(size_bytes)
    answer: dict[str, Any] = {}
    try:
        with open(sys.stdin.fileno(), "rb", closefd=False) as source, open(TARGET_FD, "wb", closefd=False) as target:
            write(tensors(source), target)
    except Refused as refused:
        answer["refused"] = str(refused)[:_LONGEST_REASON]
    except (MemoryError, RecursionError, OSError, RuntimeError):  # the last is how PyTorch runs out of memory
        answer["refused"] = "it takes more room to unpack than a file of its size may"
    sys.stdout.write(json.dumps(answer))


def _why(error: Exception) -> str:
    """What PyTorch says of the file, without its advice to read it unguarded."""
    said = str(error)
    if blocked := _BLOCKED.search(said):
        return f"it names {blocked[1]}, which is not on the list of what may be in it"
    if "memory" in said:
        return "it takes more room to unpack than a file of its size may"
    return "it holds no plain tensors, or is cut off"


def _allocated_bytes() -> int:
    """What this process has of private memory so far; where that cannot be told, nothing."""
    with suppress(OSError), Path("/proc/self/status").open("rb") as status:
        return next((int(line.split()[1]) * 1024 for line in status if line.startswith(b"VmData:")), 0)
    return 0


if __name__ == "__main__":
    main()
