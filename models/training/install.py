"""Puts a finished run into this installation: its weights, their digest in the manifest, and the model card."""

import re
import shutil
from importlib.resources import files
from pathlib import Path

from clipwarden.models.training.card import card_text
from clipwarden.models.training.run_folder import RunFolder
from clipwarden.models.weights import file_digest
from clipwarden.shared.errors import ConfigError


def install(detector: str, run: RunFolder, root: Path | None = None) -> list[Path]:
    """Copy and record; returns what was written. `root` is the folder of weights.toml, by default the installed one.

    Raises ConfigError if the manifest has no entry for the detector.
    """
    root = root or Path(str(files("clipwarden.models")))
    weights = root / "trained" / f"{detector}.safetensors"
    manifest, card = root / "weights.toml", root / "cards" / f"{detector}.md"
    weights.parent.mkdir(exist_ok=True)
    card.parent.mkdir(exist_ok=True)
    text = card_text(detector, run)
    shutil.copyfile(run.path / f"{detector}.safetensors", weights)
    recorded = with_file(manifest.read_text("utf-8"), detector, weights.name, file_digest(weights))
    manifest.write_text(recorded, "utf-8")
    card.write_text(text, "utf-8")
    return [weights, manifest, card]


def with_file(manifest: str, detector: str, file: str, digest: str) -> str:
    """Return the manifest with this entry's file and digest set, all else as it was. ConfigError without the entry."""
    found = re.search(rf"^\[{re.escape(detector)}\]\n(?:(?!\[).*\n?)*", manifest, re.MULTILINE)
    if found is None:
        raise ConfigError(f"weights.toml has no entry for {detector}")
    lines = [line for line in found[0].rstrip().split("\n") if not re.match(r"(file|sha256)\s*=", line)]
    table = "\n".join([*lines, f'file = "{file}"', f'sha256 = "{digest}"'])
    rest = manifest[found.end() :]
    return manifest[: found.start()] + table + "\n" + (f"\n{rest}" if rest else "")
