"""Which items an installed detector or the fusion was trained on: known by shortened digests, never by name.

`seen.json` names, for each detector whose training data is known (`of`), the set (`sets`) that holds digests of its
training files and of the people and footage in them. A figure over such items says how well they were learnt, not how
well others would be judged.
"""

import hashlib
import json
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Final

from clipwarden.models.training.evaluation.ledger import Scores
from clipwarden.models.training.evaluation.manifest import read_manifest, resolved
from clipwarden.models.weights import file_digest

LENGTH: Final = 12
"""Hexadecimal digits kept: among a million items a false match is less likely than one in a hundred."""
FUSION: Final = "fusion"
PLACE: Final = "training/evaluation/seen.json"
"""Where it lies in the folder of weights.toml."""


@dataclass(frozen=True, slots=True)
class Trained:
    """What a detector (or a manifest said to be training data) has seen."""

    name: str
    files: frozenset[str]
    people: frozenset[str]


@dataclass(frozen=True, slots=True)
class Overlap:
    """How many of the examined items were trained on, and how many of the others share people or footage with them."""

    name: str
    files: int
    people: int
    examined: int

    def __str__(self) -> str:
        related = f", {self.people} more share a person or footage with it" if self.people else ""
        return f"{self.files} of {self.examined} examined items were in the training data of {self.name}{related}"


def shipped(names: Iterable[str], path: Path | None = None) -> list[Trained]:
    """What is known of the installed detectors' training data, those named and the fusion."""
    known = json.loads((path or _path()).read_text("utf-8"))
    return [
        Trained(name, *(frozenset(known["sets"][known["of"][name]][kind]) for kind in ("files", "people")))
        for name in (*names, FUSION)
        if name in known["of"]
    ]


def unrecorded(names: Iterable[str]) -> list[str]:
    """Those of whose training data nothing is known."""
    known = {trained.name for trained in shipped(names)}
    return [name for name in names if name not in known]


def trained_on(manifest: Path, paths: Collection[str] | None = None) -> Trained:
    """A manifest that is said to be training data; digests are the stated ones, else those of the files.

    With `paths` only the rows of these count.
    """
    found, people = set(), set()
    for item in read_manifest(manifest):
        if paths is not None and item.path not in paths:
            continue
        path = resolved(manifest, item)
        if item.sha256 or path.is_file():
            found.add((item.sha256 or file_digest(path).removeprefix("sha256:"))[:LENGTH])
        people |= _marks(item.identity, item.matched_group)
    return Trained(manifest.name, frozenset(found), frozenset(people))


def record(names: Sequence[str], trained: Trained, path: Path | None = None) -> Path:
    """Write down that these detectors were trained on it, in place of what was known of them."""
    path = path or _path()
    path.parent.mkdir(parents=True, exist_ok=True)
    known = json.loads(path.read_text("utf-8")) if path.exists() else {"of": {}, "sets": {}}
    content = {"files": sorted(trained.files), "people": sorted(trained.people)}
    digest = hashlib.sha256(json.dumps(content).encode()).hexdigest()[:LENGTH]
    known["of"] |= dict.fromkeys(names, digest)
    known["sets"] = {
        key: one for key, one in [*known["sets"].items(), (digest, content)] if key in known["of"].values()
    }
    path.write_text(json.dumps(known, sort_keys=True, separators=(",", ":")) + "\n", "utf-8")
    return path


def overlap(scores: Scores, trained: Trained) -> Overlap:
    rows = [k for k, examined in enumerate(scores.examined) if examined]
    text = scores.text
    same = {k for k in rows if str(text["sha256"][k])[:LENGTH] in trained.files}
    related = {k for k in rows if _marks(str(text["identity"][k]), str(text["matched_group"][k])) & trained.people}
    return Overlap(trained.name, len(same), len(related - same), len(rows))


def _marks(identity: str, matched_group: str) -> set[str]:
    said = {"identity": identity.strip().casefold(), "footage": matched_group.strip().casefold()}
    return {hashlib.sha256(f"{k}\0{v}".encode()).hexdigest()[:LENGTH] for k, v in said.items() if v}


def _path() -> Path:
    return Path(str(files("clipwarden.models").joinpath(PLACE)))
