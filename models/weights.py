"""The weights manifest (`weights.toml`): which detector has which file, under which licence, and its digest.

A file is used only after its SHA-256 matches the manifest, and only as safetensors: originals in other formats are
converted when they are installed (`hub`). The operator's files stand in a manifest of the same form, of which `bring`
tells this process.
"""

import hashlib
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from clipwarden.shared.contracts import Branch, DetectorState, Digest, Dtype, Runtime
from clipwarden.shared.errors import ConfigError, WorkerFault

_TABLES: Final = TypeAdapter(dict[str, dict[str, Any]])
_brought: list[Path] = []
_READ: Final = frozenset({".safetensors", ".json"})


FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$", max_length=100)]
"""A name that cannot lead out of its folder."""


class HubSource(BaseModel):
    """Where on a Hugging Face hub the weights are.

    Without `revision`, a commit, and without digests nobody has pinned the files: whoever pulls them has to.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    repo: str = Field(pattern=r"^[A-Za-z0-9][\w.-]*/[\w.-]+$")
    file: FileName
    revision: str | None = Field(default=None, pattern=r"^[0-9a-f]{40}$")
    digests: dict[FileName, Digest] = {}


class WeightsEntry(BaseModel):
    """One table of weights.toml. Without `file` and `sha256` the detector is listed as no_weights.

    `options` hold what a file does not say of itself; each detector names its own. `backbone` among them names the
    detector whose network this one's weights were fitted to. `runtime` and `dtype` are
    what computes the network and in which type, on every machine. One on `standby` takes part only where it is named:
    its weights ship, and are not worth their time to everybody.
    `companions` are read beside the weights, and `beside` has the digests of those that are installed. Whoever installs
    a file agrees to `consent` and gives the options in `asked`. Where installed weights came from stands in `origin`,
    and the digest that they had there in `original`.
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
    asked: tuple[str, ...] = ()
    standby: bool = False
    runtime: Runtime = "torch"
    dtype: Dtype = "float32"
    companions: tuple[FileName, ...] = ()
    beside: dict[FileName, Digest] = {}
    hub: HubSource | None = None
    consent: str | None = None
    origin: str | None = None
    original: Digest | None = None


@dataclass(frozen=True, slots=True)
class WeightFile:
    """A weights file whose digest has been checked, its entry's options, and the file of its backbone if it has one."""

    path: Path
    digest: str
    options: Mapping[str, str] = field(default_factory=dict)
    backbone: "WeightFile | None" = None


def bring(manifest: Path | None) -> None:
    """Let another weights.toml add to the distribution's, in this process, from now on; None: the user's, if there is.

    Its tables are named as there and hold only what they say otherwise, always `file` and `sha256`; the files lie
    beside it. What it names is not on standby. Raises ConfigError if it is no such manifest.
    """
    _brought[:] = [] if manifest is None else [manifest.absolute()]
    weights_table.cache_clear()
    try:
        weights_table()
    except ConfigError:
        bring(None)
        raise


def brought() -> Path:
    """The manifest that adds to the distribution's: the one that `bring` was given, or else the user's own.

    The user's need not exist. It lies in the cache directory of the XDG standard, as `clipwarden models` keeps it.
    """
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")  # noqa: PTH111 - never raises
    return _brought[0] if _brought else Path(cache, "clipwarden", "weights", "weights.toml").absolute()


@cache
def distributed() -> dict[str, WeightsEntry]:
    """The entries as the distribution has them, whatever this machine adds."""
    text = files("clipwarden.models").joinpath("weights.toml").read_text("utf-8")
    return TypeAdapter(dict[str, WeightsEntry]).validate_python(tomllib.loads(text))


@cache
def weights_table() -> dict[str, WeightsEntry]:
    """Every detector the project knows, by name, whether it can run or not. Raises ConfigError for `bring`."""
    entries, manifest = distributed(), brought()
    if not _brought and not manifest.is_file():
        return dict(entries)
    return entries | {name: _changed(manifest, name, table, entries) for name, table in _tables(manifest).items()}


def _tables(manifest: Path) -> dict[str, dict[str, Any]]:
    try:
        return _TABLES.validate_python(tomllib.loads(manifest.read_text("utf-8")))
    except (OSError, ValueError) as error:
        raise ConfigError(f"weights manifest {manifest} cannot be read: {error}") from error


def _changed(manifest: Path, name: str, table: Mapping[str, Any], entries: Mapping[str, WeightsEntry]) -> WeightsEntry:
    """The entry with what the table of a brought manifest says of it; its file is found beside that manifest."""
    if name not in entries:
        raise ConfigError(f"weights manifest {manifest}: there is no detector {name}")
    if not {"file", "sha256"} <= table.keys():
        raise ConfigError(f"weights manifest {manifest}: {name} needs file and sha256")
    told = {**entries[name].model_dump(), "standby": False, **table, "file": str(manifest.parent / str(table["file"]))}
    try:
        return WeightsEntry.model_validate(told)
    except ValidationError as error:
        why = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise ConfigError(f"weights manifest {manifest}: {name}: {why}") from error


def weights_folder() -> Path:
    """Where the distribution's weights are; the files of a brought manifest are named from the root on."""
    return Path(str(files("clipwarden.models").joinpath("trained")))


def weights_path(entry: WeightsEntry) -> Path | None:
    """Where the entry's file is, if it is installed."""
    if entry.file is None:
        return None
    path = weights_folder() / entry.file
    return path if path.is_file() else None


def file_digest(path: Path) -> str:
    """SHA-256 of a file as "sha256:<hex>"."""
    with path.open("rb") as stream:
        return f"sha256:{hashlib.file_digest(stream, 'sha256').hexdigest()}"


def state_of(entry: WeightsEntry) -> DetectorState:
    """Ready if it takes part and its files are here, its backbone's too if it has one; loading checks digests."""
    backbone = entry.options.get("backbone")
    if weights_path(entry) is None or (backbone and weights_path(weights_table()[backbone]) is None):
        return DetectorState.NO_WEIGHTS
    return DetectorState.DISABLED if entry.standby else DetectorState.READY


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
    if path.suffix not in _READ:
        raise WorkerFault(f"weights of {name} are not read as they are: run `clipwarden models install {name} {path}`")
    for file, expected in {path.name: entry.sha256, **entry.beside}.items():
        beside = path.with_name(file)
        actual = file_digest(beside) if beside.is_file() else "gone"
        if actual != expected:
            raise WorkerFault(f"weights of {name} were changed: {beside} is {actual}, the manifest says {expected}")
    backbone = entry.options.get("backbone")
    return WeightFile(path, entry.sha256, entry.options, verified(backbone) if backbone else None)
