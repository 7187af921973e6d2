"""A labelled manifest: which files, what they are said to be, and what belongs together."""

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from clipwarden.shared.errors import ConfigError

REAL: Final = ("real", "0", "bonafide", "genuine", "authentic", "original", "pristine", "human", "negative")
FAKE: Final = (
    "fake",
    "1",
    "spoof",
    "spoofed",
    "deepfake",
    "synthetic",
    "generated",
    "manipulated",
    "forged",
    "positive",
)
"""Labels as manifests spell them; case, spaces, hyphens and underscores do not matter, nor does ".0"."""

COLUMNS: Final[dict[str, tuple[str, ...]]] = {
    "path": ("path", "file", "filename", "filepath"),
    "label": ("label", "class", "target"),
    "group": ("group",),
    "generator": ("generator", "system", "method"),
    "source": ("source", "source_repo", "dataset"),
    "identity": ("identity", "identity_if_known", "speaker"),
    "matched_group": ("matched_group", "pair"),
    "codec": ("codec", "orig_codec"),
    "channel": ("channel",),
    "sha256": ("sha256",),
}
"""What is read of a manifest → the headings that name it, the first found wins. Only path and label must be there."""

NOTHING: Final = frozenset({"", "-", "none", "unknown", "n/a", "nan"})
NAMING: Final = frozenset({"group", "generator", "source", "identity", "matched_group"})
"""Entries that name no generator, source, person or footage, in the columns that name one."""


@dataclass(frozen=True, slots=True)
class Item:
    """One row; `row` is its line in the file. Empty text where the manifest says nothing.

    Related items share a `group`: the manifest's, else a fake's generator, else the source, the person, or the path.
    """

    row: int
    path: str
    fake: bool
    group: str
    generator: str = ""
    source: str = ""
    identity: str = ""
    matched_group: str = ""
    codec: str = ""
    channel: str = ""
    sha256: str = ""


@dataclass(frozen=True, slots=True)
class Duplicate:
    """A row whose file an earlier row already has, by name or content; `contradicts`: the two have different labels."""

    item: Item
    first: Item
    contradicts: bool


def is_fake(label: str) -> bool | None:
    """What a label says; None if it is in neither list."""
    word = label.strip().casefold().removesuffix(".0").translate({ord(c): None for c in " -_"})
    return True if word in FAKE else False if word in REAL else None


def read_manifest(path: Path) -> list[Item]:
    """The rows in their order. Raises ConfigError that names the row for whatever cannot be understood."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream, strict=True)
            names = _headings(path, reader.fieldnames or ())
            items = [_item(path, reader.line_num, row, names) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"{path} cannot be read as a manifest: {error}") from error
    if not items:
        raise ConfigError(f"{path} holds no rows")
    return items


def resolved(manifest: Path, item: Item) -> Path:
    """Where an item's file is: relative paths are taken from the manifest's folder."""
    return manifest.parent / item.path


def once(items: Sequence[Item]) -> tuple[list[Item], list[Duplicate]]:
    """The items whose path and stated digest no earlier one has, and the others."""
    kept: list[Item] = []
    again: list[Duplicate] = []
    seen: dict[str, Item] = {}
    for item in items:
        marks = [m for m in (f"path:{Path(item.path)}", item.sha256 and f"sha256:{item.sha256}") if m]
        first = next((seen[m] for m in marks if m in seen), None)
        if first is None:
            kept.append(item)
            seen |= dict.fromkeys(marks, item)
        else:
            again.append(Duplicate(item, first, first.fake != item.fake))
    return kept, again


def _headings(path: Path, found: Sequence[str]) -> dict[str, str]:
    by_word = {name.strip().casefold(): name for name in found}
    names = {
        column: next((by_word[word] for word in words if word in by_word), "") for column, words in COLUMNS.items()
    }
    for column in ("path", "label"):
        if not names[column]:
            raise ConfigError(f"{path} has no column {column}; it has {', '.join(found) or 'none'}")
    return names


def _item(path: Path, line: int, row: Mapping[str, str | None], names: Mapping[str, str]) -> Item:
    said = {column: (row.get(name) or "").strip() for column, name in names.items() if name}
    fake = is_fake(said.pop("label"))
    if not said["path"]:
        raise ConfigError(f"{path}, line {line}: the row names no file")
    if fake is None:
        raise ConfigError(
            f"{path}, line {line} ({said['path']}): label {row.get(names['label'])!r} is not known; "
            f"real is spelled {', '.join(REAL)}, fake {', '.join(FAKE)}"
        )
    facts = {c: "" if c in NAMING and text.casefold() in NOTHING else text for c, text in said.items()}
    facts["sha256"] = facts.get("sha256", "").removeprefix("sha256:").lower()
    group = facts.pop("group", "") or next(_stand_ins(facts, fake), said["path"])
    return Item(row=line, fake=fake, group=group, **{**facts, "path": said["path"]})


def _stand_ins(facts: Mapping[str, str], fake: bool) -> Iterator[str]:
    columns = ("generator", "source", "identity") if fake else ("source", "identity")
    return (facts[column] for column in columns if facts.get(column))
