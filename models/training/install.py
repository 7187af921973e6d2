"""Puts a finished run into this installation: weights, digest, card, and which items they have learnt from."""

import json
import re
import shutil
import tomllib
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Final

from clipwarden.models.training.card import card_text
from clipwarden.models.training.evaluation import seen
from clipwarden.models.training.run_folder import RunFolder
from clipwarden.models.weights import file_digest
from clipwarden.shared.contracts import Branch
from clipwarden.shared.errors import ConfigError

CORPORA: Final = {branch: "audio" if branch is Branch.AUDIO else "video" for branch in Branch}
"""Which corpus of the data folder a branch's detectors learn from."""


def install(detector: str, run: RunFolder, data: Path, root: Path | None = None) -> list[Path]:
    """Copy and record; returns what was written. `root` is the folder of weights.toml, by default the installed one.

    `data` is the folder that the run learnt from: `evaluate` warns of its files from now on. Raises ConfigError if the
    manifest has no entry for the detector.
    """
    root = root or Path(str(files("clipwarden.models")))
    weights = root / "trained" / f"{detector}.safetensors"
    manifest, card = root / "weights.toml", root / "cards" / f"{detector}.md"
    weights.parent.mkdir(exist_ok=True)
    card.parent.mkdir(exist_ok=True)
    text, entries = card_text(detector, run), manifest.read_text("utf-8")
    chosen = run.read_json("options.json") if (run.path / "options.json").exists() else None
    recorded = with_file(entries, detector, weights.name, file_digest(run.path / weights.name), chosen)
    corpus = CORPORA[Branch(tomllib.loads(entries)[detector]["branch"])]
    learnt = seen.trained_on(data / corpus / "manifest.csv", run.read_json("data.json")["paths"])
    shutil.copyfile(run.path / weights.name, weights)
    manifest.write_text(recorded, "utf-8")
    card.write_text(text, "utf-8")
    return [weights, manifest, card, seen.record([detector], learnt, root / seen.PLACE)]


def with_file(manifest: str, detector: str, file: str, digest: str, options: Mapping[str, str] | None = None) -> str:
    """The manifest with this entry's file, digest and, if given, options, else as it was. ConfigError without it."""
    found = re.search(rf"^\[{re.escape(detector)}\]\n(?:(?!\[).*\n?)*", manifest, re.MULTILINE)
    if found is None:
        raise ConfigError(f"weights.toml has no entry for {detector}")
    said = {"file": f'"{file}"', "sha256": f'"{digest}"'}
    if options is not None:
        said["options"] = f"{{ {', '.join(f'{name} = {json.dumps(value)}' for name, value in options.items())} }}"
    lines = [line for line in found[0].rstrip().split("\n") if line.partition("=")[0].strip() not in said]
    table = "\n".join([*lines, *(f"{name} = {value}" for name, value in said.items())])
    rest = manifest[found.end() :]
    return manifest[: found.start()] + table + "\n" + (f"\n{rest}" if rest else "")
