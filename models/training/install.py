"""Puts a finished run into this installation: weights, digest, card, and which items they have learnt from."""

import re
import shutil
import tomllib
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
    recorded = with_file(entries, detector, weights.name, file_digest(run.path / weights.name))
    corpus = CORPORA[Branch(tomllib.loads(entries)[detector]["branch"])]
    learnt = seen.trained_on(data / corpus / "manifest.csv", run.read_json("data.json")["paths"])
    shutil.copyfile(run.path / weights.name, weights)
    manifest.write_text(recorded, "utf-8")
    card.write_text(text, "utf-8")
    return [weights, manifest, card, seen.record([detector], learnt, root / seen.PLACE)]


def with_file(manifest: str, detector: str, file: str, digest: str) -> str:
    """Return the manifest with this entry's file and digest set, all else as it was. ConfigError without the entry."""
    found = re.search(rf"^\[{re.escape(detector)}\]\n(?:(?!\[).*\n?)*", manifest, re.MULTILINE)
    if found is None:
        raise ConfigError(f"weights.toml has no entry for {detector}")
    lines = [line for line in found[0].rstrip().split("\n") if not re.match(r"(file|sha256)\s*=", line)]
    table = "\n".join([*lines, f'file = "{file}"', f'sha256 = "{digest}"'])
    rest = manifest[found.end() :]
    return manifest[: found.start()] + table + "\n" + (f"\n{rest}" if rest else "")
