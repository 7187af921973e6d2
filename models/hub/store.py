"""The folder of installed weights: a manifest, and beside it a folder for each detector's files.

The manifest is the one that `models.weights` adds to the distribution's, by default the user's own. Readers see the old
files or the new ones; two commands at once take turns.
"""

import fcntl
import json
import re
import shutil
import tempfile
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from clipwarden.models.weights import brought, weights_table
from clipwarden.shared.errors import ConfigError

Table = Mapping[str, str | Mapping[str, str]]
_DIGITS: Final = 16


@contextmanager
def staged() -> Iterator[Path]:
    """An empty folder on the store's disk; what `keep` does not take of it is deleted."""
    root = brought().parent
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=root, prefix=".staged-") as folder:
            place = Path(folder, "files")
            place.mkdir()
            yield place
    except OSError as error:
        raise ConfigError(f"weights cannot be kept in {root}: {error}") from error


def keep(name: str, files: Path, table: Table) -> None:
    """Make a folder of files the weights of a detector; the table is its entry, its `file` one of them.

    Raises ConfigError if somebody wrote a manifest that cannot be changed by a program.
    """
    manifest = brought()
    folder = f"{name}/{str(table['sha256']).removeprefix('sha256:')[:_DIGITS]}"
    with _turn(manifest):
        text = changed(_text(manifest), name, {**table, "file": f"{folder}/{table['file']}"})
        place = manifest.parent / folder
        shutil.rmtree(place, ignore_errors=True)
        place.parent.mkdir(exist_ok=True)
        files.rename(place)
        _write(manifest, text)
        for other in set(place.parent.iterdir()) - {place}:
            shutil.rmtree(other, ignore_errors=True)


def remove(name: str) -> None:
    """Forget a detector's installed weights and delete them."""
    manifest = brought()
    with _turn(manifest):
        _write(manifest, changed(_text(manifest), name, None))
        shutil.rmtree(manifest.parent / name, ignore_errors=True)


def changed(manifest: str, name: str, table: Table | None) -> str:
    """The manifest with another entry for one detector, or without one; all else as it was."""
    before = tomllib.loads(manifest)
    own = rf"^\[{re.escape(name)}(?:\.[^\]\n]*)?\]\n(?:(?!\[).*\n?)*"
    text = re.sub(own, "", manifest, flags=re.MULTILINE).rstrip()
    expected = {key: entry for key, entry in before.items() if key != name}
    if table is not None:
        text += f"\n\n[{name}]\n" + "\n".join(f"{key} = {_value(value)}" for key, value in table.items())
        expected[name] = dict(table)
    text = f"{text.lstrip()}\n"
    try:
        if tomllib.loads(text) == expected:
            return text
    except tomllib.TOMLDecodeError:
        pass
    raise ConfigError(f"{brought()} was written in a way that only a person can change: take [{name}] out of it first")


def _value(value: str | Mapping[str, str]) -> str:
    """A string, or strings by name, in TOML; JSON writes them as TOML reads them."""
    if isinstance(value, str):
        return json.dumps(value)
    return "{" + ", ".join(f"{json.dumps(k)} = {json.dumps(v)}" for k, v in value.items()) + "}"


def _text(manifest: Path) -> str:
    return manifest.read_text("utf-8") if manifest.exists() else ""


def _write(manifest: Path, text: str) -> None:
    part = manifest.with_name(f".{manifest.name}.part")
    part.write_text(text, "utf-8")
    part.replace(manifest)
    weights_table.cache_clear()


@contextmanager
def _turn(manifest: Path) -> Iterator[None]:
    with manifest.with_name(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
