"""Checkpoints of other programs become safetensors, in a process of their own that can do nothing else."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import FileIO
from pathlib import Path
from typing import Any, BinaryIO, Final

from clipwarden.shared.errors import ConfigError

START_S: Final = 60.0
LONGEST_HEADER: Final = 100_000_000
_CHECKPOINTS: Final = (b"PK\x03\x04", b"\x80")
"""How PyTorch's files begin, the zipped ones and the older ones."""


def is_safetensors(path: Path) -> bool:
    """Whether the file begins as safetensors do, whatever its name; they hold numbers only, and need no converting."""
    with path.open("rb") as stream:
        head = stream.read(9)
    return len(head) == 9 and head[8:] == b"{" and int.from_bytes(head[:8], "little") <= LONGEST_HEADER


def convert(source: Path, target: Path, name: str) -> None:
    """Write the tensors of a PyTorch checkpoint, known to the user by a name, as safetensors.

    Raises ConfigError if it holds anything else, or breaks its reader; `target` is then of no use.
    """
    with source.open("rb", buffering=0) as stream, target.open("xb") as out:
        if not stream.read(4).startswith(_CHECKPOINTS):
            raise ConfigError(f"{name} is refused: it is neither safetensors nor a PyTorch checkpoint")
        stream.seek(0)
        refused = _ask(stream, out).get("refused")
    if refused is not None:
        raise ConfigError(f"{name} is refused: {refused}")


@contextmanager
def readable(given: Path, companions: Sequence[str] = ()) -> Iterator[Path]:
    """A file as safetensors while the context lasts: itself, or what `convert` makes of it, beside its companions.

    Raises ConfigError if it cannot be opened or `convert` refuses it.
    """
    with tempfile.TemporaryDirectory(prefix="clipwarden-weights-") as folder:
        target = Path(folder, f"{given.stem}.safetensors")
        try:
            plain = is_safetensors(given)
        except OSError as error:
            raise ConfigError(f"weights {given} cannot be opened: {error.strerror}") from error
        if plain:
            target.symlink_to(given.absolute())
        else:
            convert(given, target, given.name)
        for name in companions:
            Path(folder, name).symlink_to(given.absolute().with_name(name))
        yield target


def _ask(stream: FileIO, out: BinaryIO) -> dict[str, Any]:
    from clipwarden.models.hub.unpack import cpu_seconds

    environment = {"LANG": "C.UTF-8", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    environment |= {k: os.environ[k] for k in ("LD_LIBRARY_PATH",) if k in os.environ}
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-m", "clipwarden.models.hub.unpack", str(out.fileno())],
            check=False,
            stdin=stream,
            capture_output=True,
            pass_fds=(out.fileno(),),
            env=environment,
            timeout=START_S + 2 * cpu_seconds(os.fstat(stream.fileno()).st_size),
        )
        answer = json.loads(done.stdout)
    except (subprocess.TimeoutExpired, ValueError):
        answer = None
    return answer if isinstance(answer, dict) else {"refused": "reading it broke the reader or hit its limits"}
