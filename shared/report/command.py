"""`clipwarden report`: the report on an analysis of the gateway, or on a file that is examined here for it."""

import argparse
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from uuid import UUID

from clipwarden.shared.errors import ConfigError

WAYS: dict[str, str] = {
    "analysis": "clipwarden.api.report_command:report_on_analysis",
    "file": "clipwarden.models.reporting:report_on_file",
}
"""What the report is on → "module:function" that gives its HTML, imported when it is called."""


def main(argv: Sequence[str]) -> int:
    """`clipwarden report`."""
    parser = argparse.ArgumentParser(prog="clipwarden report", description="Write a report as one HTML file, to print.")
    parser.add_argument("subject", metavar="ID|FILE", help="an analysis of the gateway, or a file to examine here")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.html", help="where the report goes")
    parser.add_argument("--weights", type=Path, metavar="FILE", help="for a file: a weights.toml of your own")
    chosen = parser.parse_args(argv)
    document = _document(chosen.subject, chosen.weights)
    try:
        chosen.out.write_text(document, "utf-8")
    except OSError as error:
        raise ConfigError(f"{chosen.out} cannot be written: {error.strerror or error}") from error
    print(f"wrote {chosen.out}")
    return 0


def _document(subject: str, weights: Path | None) -> str:
    if Path(subject).is_file():
        return _way("file")(Path(subject), weights)
    try:
        analysis_id = UUID(subject)
    except ValueError as error:
        raise ConfigError(f"{subject} is neither a file nor the id of an analysis") from error
    return _way("analysis")(analysis_id)


def _way(name: str) -> Callable[..., str]:
    module, _, attribute = WAYS[name].partition(":")
    found: Callable[..., str] = getattr(import_module(module), attribute)
    return found
