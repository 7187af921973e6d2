"""The bundle: one safetensors file per branch, written by ingest and memory-mapped by the branch's worker.

A part holds a Clip's views (images, times, boxes), the sound as int16 and, in the header, the durations and a
few facts. Nothing in it is ever executed on reading.
"""

import json
import mmap
import os
import tempfile
from collections.abc import Iterator, Mapping
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from clipwarden.shared.blobs import NO_SPACE
from clipwarden.shared.clip import Clip, View
from clipwarden.shared.errors import StorageFull, Unavailable

FORMAT = "clipwarden-part/1"
_FIELDS = ("images", "times_s", "boxes")
_DTYPES = {"U8": np.uint8, "I16": np.int16, "F32": np.float32, "F64": np.float64}


def write_part(path: Path, clip: Clip, facts: Mapping[str, str]) -> int:
    """Write one branch's part and return its size in bytes.

    The file appears under its name complete and flushed, or not at all. Raises StorageFull, or Unavailable
    for any other fault of the disk.
    """
    tensors = {f"view/{k}/{f}": np.ascontiguousarray(getattr(v, f)) for k, v in clip.views.items() for f in _FIELDS}
    tensors["wave"] = np.ascontiguousarray(clip.wave)
    header = {
        "format": FORMAT,
        "sample_rate_hz": str(clip.sample_rate_hz),
        "duration_s": repr(clip.duration_s),
        "facts": json.dumps(dict(facts), sort_keys=True),
    }
    draft: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        os.close(handle)
        draft = Path(name)
        save_file(tensors, draft, header)
        return _publish(draft, path)
    except (OSError, SafetensorError) as error:
        full = "os error 28" in str(error) or getattr(error, "errno", None) in NO_SPACE
        raise (StorageFull if full else Unavailable)(f"the bundle part could not be written: {error}") from error
    finally:
        if draft is not None:
            draft.unlink(missing_ok=True)


def read_part(path: Path) -> Clip:
    """The clip of one part, its arrays mapped from the file and copied only where they are written to.

    Raises Unavailable if the part is missing, cut off or not one of ours, so that ingest is done again.
    """
    try:
        header = _header(path)
        arrays = dict(_mapped(path))
        keys = sorted({name.split("/")[1] for name in arrays if name.startswith("view/")})
        views = {key: View(*(arrays[f"view/{key}/{name}"] for name in _FIELDS)) for key in keys}
        return Clip(views, arrays["wave"], int(header["sample_rate_hz"]), float(header["duration_s"]))
    except (OSError, SafetensorError, ValueError, KeyError) as error:
        raise Unavailable(f"the bundle part {path.name} cannot be read: {error}") from error


def read_facts(path: Path) -> dict[str, str]:
    """What ingest noted in the part's header. Raises Unavailable as `read_part` does."""
    try:
        facts: dict[str, str] = json.loads(_header(path)["facts"])
    except (OSError, SafetensorError, ValueError, KeyError) as error:
        raise Unavailable(f"the bundle part {path.name} cannot be read: {error}") from error
    return facts


def _header(path: Path) -> dict[str, str]:
    """The metadata of a part, after safetensors has checked that names, shapes and offsets fit the file."""
    with safe_open(path, framework="numpy") as part:
        header: dict[str, str] = part.metadata() or {}
    if header.get("format") != FORMAT:
        raise ValueError(f"not a {FORMAT} file")
    return header


def _mapped(path: Path) -> Iterator[tuple[str, NDArray[Any]]]:
    """Each array of a checked safetensors file by name; safetensors' own reader copies them all into memory."""
    with path.open("rb") as stream:
        buffer = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_COPY)
    start = 8 + int.from_bytes(buffer[:8], "little")
    for name, entry in json.loads(buffer[8:start]).items():
        if name != "__metadata__":
            count, (first, _) = prod(entry["shape"]), entry["data_offsets"]
            dtype = _DTYPES[entry["dtype"]]
            array = np.frombuffer(buffer, dtype, count, start + first) if count else np.zeros(0, dtype)
            yield name, array.reshape(entry["shape"])


def _publish(draft: Path, path: Path) -> int:
    """Flush, rename, flush the directory; a crash leaves the old state or the new one."""
    with draft.open("rb+") as stream:
        os.fsync(stream.fileno())
        size = os.fstat(stream.fileno()).st_size
    draft.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
    return size
