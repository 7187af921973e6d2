"""The weights manifest (`weights.toml`): which detector has which file, under which licence, and its digest.

A file is used only after its SHA-256 matches the manifest. Ours are safetensors; originals that an operator brings
are read through PyTorch's allow-list, never unpickled.
"""

import hashlib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from pathlib import Path

from pydantic import BaseModel, ConfigDict, TypeAdapter

from clipwarden.shared.contracts import Branch, DetectorState, Digest
from clipwarden.shared.errors import WorkerFault


class WeightsEntry(BaseModel):
    """One table of weights.toml. Without `file` and `sha256` the detector is listed as no_weights.

    `options` hold what a file does not say of itself; each detector names its own. `backbone` among them names the
    detector whose network this one's weights were fitted to.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    branch: Branch
    version: str
    parameters: int
    licence: str
    source: str
    obtain: str
    file: str | None = None
    sha256: Digest | None = None
    options: dict[str, str] = {}


@dataclass(frozen=True, slots=True)
class WeightFile:
    """A weights file whose digest has been checked, its entry's options, and the file of its backbone if it has one."""

    path: Path
    digest: str
    options: Mapping[str, str] = field(default_factory=dict)
    backbone: "WeightFile | None" = None


@cache
def weights_table() -> dict[str, WeightsEntry]:
    """Every detector the project knows, by name, whether it can run or not."""
    text = files("clipwarden.models").joinpath("weights.toml").read_text("utf-8")
    return TypeAdapter(dict[str, WeightsEntry]).validate_python(tomllib.loads(text))


def weights_path(entry: WeightsEntry) -> Path | None:
    """Where the entry's file is, if it is installed."""
    if entry.file is None:
        return None
    path = Path(str(files("clipwarden.models").joinpath("trained", entry.file)))
    return path if path.is_file() else None


def file_digest(path: Path) -> str:
    """SHA-256 of a file as "sha256:<hex>"."""
    with path.open("rb") as stream:
        return f"sha256:{hashlib.file_digest(stream, 'sha256').hexdigest()}"


def state_of(entry: WeightsEntry) -> DetectorState:
    """Ready if its file is installed, and its backbone's if it has one; digests are checked on loading."""
    backbone = entry.options.get("backbone")
    if weights_path(entry) is None or (backbone and weights_path(weights_table()[backbone]) is None):
        return DetectorState.NO_WEIGHTS
    return DetectorState.READY


def verified(name: str, digest: str | None = None) -> WeightFile:
    """The weights of `name`, digest checked against weights.toml and, if given, against `digest`.

    Raises WorkerFault if the file is missing, was changed, or is not the one asked for.
    """
    entry = weights_table()[name]
    path = weights_path(entry)
    if path is None or entry.sha256 is None:
        raise WorkerFault(f"weights of {name} are not installed: {entry.obtain}")
    if digest is not None and digest != entry.sha256:
        raise WorkerFault(f"weights of {name} are {entry.sha256}, the pipeline asks for {digest}")
    actual = file_digest(path)
    if actual != entry.sha256:
        raise WorkerFault(f"weights of {name} were changed: {path} is {actual}, the manifest says {entry.sha256}")
    backbone = entry.options.get("backbone")
    return WeightFile(path, actual, entry.options, verified(backbone) if backbone else None)
