"""The bundle: what ingest read of a file, for the branches that examine it.

A manifest says what was read and names the parts. A part is a safetensors file of the views and sounds that exactly
the same branches need, so everything is stored once, and no branch fetches what it does not look at. Parts are mapped,
not read, and nothing in them is ever executed. They are never overwritten: a bundle that is made again has parts of its
own, and the manifest, written last, names one generation or the other.

Arrays are stored raw, but for large pictures (see `packing`). Of sixty frames of 1080p H.264 scaled to 256 pixels, on
one core, zstd at level 1 leaves 41 % (34 % of horizontal differences) at 380 MB/s in and 820 MB/s out, LZ4 53 % at 470
and 730, zlib 41 % at 90 and 150, PNG 31 % at 65 in, and the disk took raw bytes at 530 MB/s. Every branch would unpack
into memory of its own what it now maps.
"""

import json
import mmap
import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import fields
from importlib.metadata import version
from math import prod
from pathlib import Path
from typing import Any, Final, Literal
from uuid import UUID

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from safetensors import SafetensorError, safe_open

from clipwarden.shared.blobs import BlobStore, bundle_folder
from clipwarden.shared.clip import Clip, Sound, View
from clipwarden.shared.contracts import Branch, Contract, DetectorOutcome, MediaProbe, SamplingPlan
from clipwarden.shared.errors import BlobGone, Unavailable
from clipwarden.shared.ids import new_id
from clipwarden.shared.packing import LARGE_PX, packed, unpacked

MANIFEST: Final = "bundle.json"
PART_FORMAT: Final = "clipwarden-part/3"
_IMAGES, _PACKED, _SHAPE = "images", "images.packed", "images.shape"
_DTYPES: Final = {"U8": np.uint8, "I16": np.int16, "I64": np.int64, "F32": np.float32, "F64": np.float64}
_CODES: Final = {np.dtype(dtype): code for code, dtype in _DTYPES.items()}
_KINDS: Final[Mapping[str, type[View] | type[Sound]]] = {"view": View, "sound": Sound}

Item = tuple[str, View | Sound]
"""`view/KEY` or `sound/RATE`, and its arrays."""


class BundleFacts(Contract):
    """Where a bundle comes from: the pipeline it is for, the file, the frames and spans read, and who read them.

    `found` are the outcomes of detectors that ingest ran itself; `gated`: they spare the others of their branch.
    """

    pipeline: str
    probe: MediaProbe
    plan: SamplingPlan
    versions: dict[str, str]
    found: tuple[DetectorOutcome, ...] = ()
    gated: bool = False


class PartFile(Contract):
    """One part: its key in the blob store and what it must be."""

    key: str
    branches: tuple[Branch, ...]
    size_bytes: int = Field(ge=0)
    sha256: str


class BundleManifest(BundleFacts):
    """What `bundle.json` holds."""

    format: Literal["clipwarden-bundle/1"] = "clipwarden-bundle/1"
    duration_s: float
    branches: tuple[Branch, ...]
    parts: tuple[PartFile, ...]


def versions(faces: str) -> dict[str, str]:
    """What read a file here: our version, the decoder's, and the faces'."""
    import av

    return {
        "clipwarden": version("clipwarden"),
        "pyav": version("av"),
        "ffmpeg": str(av.ffmpeg_version_info),
        "faces": faces,
    }


def write_bundle(
    blobs: BlobStore, analysis_id: UUID, clips: Mapping[Branch, Clip], facts: BundleFacts
) -> dict[str, int]:
    """Write the clips of all branches; returns the size in bytes of each part, by the names of its branches.

    A view or sound is stored once if the clips hold the very same object. The arrays go to the store as they lie in
    memory. Raises StorageFull or Unavailable; then the bundle that was there before, if any, is still whole.
    """
    folder, generation = bundle_folder(analysis_id), new_id().hex
    duration_s = max((clip.duration_s for clip in clips.values()), default=0.0)
    with ExitStack() as undo:
        parts = []
        for branches, items in _shared_out(clips).items():
            key = f"{folder}/{generation}-{_name(branches)}.safetensors"
            parts.append(_write_part(blobs, key, branches, items))
            undo.callback(_forget, blobs, key)
        manifest = BundleManifest(**dict(facts), duration_s=duration_s, branches=tuple(clips), parts=tuple(parts))
        with blobs.create(f"{folder}/{MANIFEST}") as writer:
            writer.write(manifest.model_dump_json().encode())
            writer.commit()
        undo.pop_all()
    return {_name(part.branches): part.size_bytes for part in parts}


def read_manifest(blobs: BlobStore, analysis_id: UUID) -> BundleManifest:
    """What ingest noted. Raises BlobGone if there is none of this format, Unavailable if the store does not answer."""
    content = blobs.read(f"{bundle_folder(analysis_id)}/{MANIFEST}")
    try:
        return BundleManifest.model_validate_json(content)
    except ValueError as error:
        raise BlobGone(f"the bundle's manifest cannot be read: {error}") from error


def read_part(blobs: BlobStore, analysis_id: UUID, branch: Branch, manifest: BundleManifest | None = None) -> Clip:
    """The clip of one branch, its arrays mapped from the parts and copied only where they are written to.

    Whoever has read the manifest already passes it on. Raises BlobGone if a part is missing, cut off or not one of
    ours, so that ingest is done again; or Unavailable.
    """
    manifest = manifest or read_manifest(blobs, analysis_id)
    if branch not in manifest.branches:
        raise BlobGone(f"the bundle was made without {branch}")
    arrays: dict[str, NDArray[Any]] = {}
    for part in manifest.parts:
        if branch in part.branches:
            with blobs.local(part.key, part.sha256) as path:
                arrays |= _mapped(path, part)
    try:
        return _clip(arrays, manifest.duration_s)
    except (ValueError, KeyError) as error:
        raise BlobGone(f"the bundle's part for {branch} is not whole: {error}") from error


def _name(branches: Sequence[Branch]) -> str:
    return "+".join(branches)


def _forget(blobs: BlobStore, key: str) -> None:
    with suppress(Unavailable):  # it goes with the rest of the bundle
        blobs.delete(key)


def _shared_out(clips: Mapping[Branch, Clip]) -> dict[tuple[Branch, ...], list[Item]]:
    """Every view and sound once, by the branches that need it."""
    found: dict[tuple[str, int], tuple[View | Sound, list[Branch]]] = {}
    for branch, clip in clips.items():
        items: list[Item] = [(f"view/{key}", view) for key, view in clip.views.items()]
        items += [(f"sound/{rate_hz}", sound) for rate_hz, sound in clip.sounds.items()]
        for name, item in items:
            found.setdefault((name, id(item)), (item, []))[1].append(branch)
    parts: dict[tuple[Branch, ...], list[Item]] = {}
    for (name, _), (item, branches) in found.items():
        parts.setdefault(tuple(branches), []).append((name, item))
    return parts


def _write_part(blobs: BlobStore, key: str, branches: tuple[Branch, ...], items: Sequence[Item]) -> PartFile:
    header, arrays = _laid_out(items)
    with blobs.create(key) as writer:
        writer.write(header)
        for array in arrays:
            # one that does not lie in one piece is copied here, the others are not
            writer.write(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
        writer.commit()
    return PartFile(key=key, branches=branches, size_bytes=writer.size, sha256=writer.sha256)


def _laid_out(items: Sequence[Item]) -> tuple[bytes, list[NDArray[Any]]]:
    """The head of a safetensors file, and the arrays in their order: wide numbers first, which keeps them aligned."""
    named = [(f"{name}/{field}", array) for name, item in items for field, array in _fields(item)]
    named.sort(key=lambda one: (-one[1].itemsize, one[0]))
    head: dict[str, Any] = {"__metadata__": {"format": PART_FORMAT}}
    end = 0
    for name, array in named:
        start, end = end, end + array.nbytes
        head[name] = {"dtype": _CODES[array.dtype], "shape": array.shape, "data_offsets": [start, end]}
    text = json.dumps(head).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text, [array for _, array in named]


def _fields(item: View | Sound) -> Iterator[tuple[str, NDArray[Any]]]:
    """The arrays of a view or sound as they are stored."""
    for field in fields(item):
        array = getattr(item, field.name)
        if field.name == _IMAGES and array.shape[1] >= LARGE_PX:
            yield _PACKED, packed(array)
            yield _SHAPE, np.array(array.shape, np.int64)
        else:
            yield field.name, array


def _mapped(path: Path, part: PartFile) -> dict[str, NDArray[Any]]:
    """Each array of a part by name; safetensors' own reader copies them all into memory."""
    try:
        with path.open("rb") as stream:
            buffer = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_COPY)
        with safe_open(path, framework="numpy") as checked:  # names, shapes and offsets fit the file
            facts = (checked.metadata() or {}).get("format"), len(buffer)
        arrays = dict(_arrays(buffer))
    except FileNotFoundError as error:
        raise BlobGone(f"the bundle's part {part.key} has gone") from error
    except (SafetensorError, ValueError, KeyError) as error:
        raise BlobGone(f"the bundle's part {part.key} is not what was written: {error}") from error
    except OSError as error:
        raise Unavailable(f"the bundle's part {part.key} cannot be read: {error}") from error
    if facts != (PART_FORMAT, part.size_bytes):
        raise BlobGone(f"the bundle's part {part.key} is not what was written: {facts}")
    return arrays


def _arrays(buffer: mmap.mmap) -> Iterator[tuple[str, NDArray[Any]]]:
    start = 8 + int.from_bytes(buffer[:8], "little")
    for name, entry in json.loads(buffer[8:start]).items():
        if name != "__metadata__":
            count, (first, _) = prod(entry["shape"]), entry["data_offsets"]
            dtype = _DTYPES[entry["dtype"]]
            array = np.frombuffer(buffer, dtype, count, start + first) if count else np.zeros(0, dtype)
            yield name, array.reshape(entry["shape"])


def _clip(arrays: Mapping[str, NDArray[Any]], duration_s: float) -> Clip:
    grouped: dict[str, dict[str, NDArray[Any]]] = {}
    for name, array in arrays.items():
        item, _, field = name.rpartition("/")
        grouped.setdefault(item, {})[field] = array
    for rows in grouped.values():
        if _PACKED in rows:
            rows[_IMAGES] = unpacked(rows.pop(_PACKED), tuple(rows.pop(_SHAPE).tolist()))
    views: dict[str, View] = {}
    sounds: dict[int, Sound] = {}
    for item, rows in grouped.items():
        kind, _, key = item.partition("/")
        try:
            made = _KINDS[kind](**rows)
        except TypeError as error:
            raise ValueError(f"{item} has {', '.join(rows)}") from error
        if isinstance(made, View):
            views[key] = made
        else:
            sounds[int(key)] = made
    return Clip(views, sounds, duration_s)
