"""What one-process analysis found in one file, and its two printed forms: a table row and a JSON object."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from clipwarden.shared.contracts import Branch, BranchResult, Label, MediaProbe, OutcomeStatus, Verdict
from clipwarden.shared.errors import ClipwardenError, ConfigError

_STYLES = {Label.FAKE: "red", Label.REAL: "green", Label.INCONCLUSIVE: "yellow"}


@dataclass(frozen=True, slots=True)
class Examined:
    """A file with its verdict. `results` are as stage rows hold them."""

    path: Path
    probe: MediaProbe
    results: tuple[BranchResult, ...]
    verdict: Verdict
    files: Mapping[str, bytes] = field(default_factory=dict)
    """What there is to look at, by `BRANCH/DETECTOR/NAME`; only where it was asked for."""

    def as_json(self) -> dict[str, Any]:
        return {
            "file": str(self.path),
            "input": _input(self.path, self.probe),
            "branches": {r.branch.value: _branch(r) for r in self.results},
            "verdict": self.verdict.model_dump(mode="json"),
            "error": None,
        }

    def as_row(self) -> tuple[str, ...]:
        verdict = self.verdict
        probability = "-" if verdict.probability is None else f"{verdict.probability:.2f}"
        label = f"[{_STYLES[verdict.label]}]{verdict.label}[/]"
        coverage = f"{verdict.coverage:.0%}" + (" degraded" if verdict.degraded else "")
        return label, probability, *(_cell(result) for result in self.results), coverage


@dataclass(frozen=True, slots=True)
class Refused:
    """A file that could not be examined."""

    path: Path
    error: ClipwardenError

    def as_json(self) -> dict[str, Any]:
        error = {"code": str(self.error.code), "message": str(self.error)}
        return {"file": str(self.path), "input": None, "branches": {}, "verdict": None, "error": error}


def _input(path: Path, probe: MediaProbe) -> dict[str, Any]:
    """The facts under the names that the HTTP interface gives them."""
    facts = probe.model_dump(mode="json", exclude={"size_bytes"})
    return {"filename": path.name, "bytes": probe.size_bytes, **facts}


def _branch(result: BranchResult) -> dict[str, Any]:
    found = result.model_dump(mode="json", exclude={"branch", "folder"})
    found["detectors"] = [_detector(d) for d in found["detectors"]]
    return found


def _detector(outcome: dict[str, Any]) -> dict[str, Any]:
    """A detector's outcome as the HTTP interface shows it: `evidence` are the files to look at."""
    seen = outcome.pop("evidence") or {"score": None, "features": {}}
    lists = {name: seen.get(name, []) for name in ("windows", "gaps")}
    files = [{"bytes": e.pop("size_bytes"), **e} for e in seen.get("exhibits", [])]
    shown = {"facts": seen.get("facts", {}), "evidence": files}
    return {**outcome, "score": seen["score"], "features": seen["features"], **lists, **shown}


def write_files(examined: Examined, folder: Path) -> Path:
    """Write the files and `analysis.json` into a new folder of the clip's name; returns it. Raises ConfigError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        place = _new_folder(folder, examined.path.name)
        for name, content in examined.files.items():
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            (place / name).write_bytes(content)
        told = json.dumps(examined.as_json(), ensure_ascii=False, indent=1)
        (place / "analysis.json").write_text(told, "utf-8")
    except OSError as error:
        raise ConfigError(f"evidence cannot be written into {folder}: {error.strerror}") from error
    return place


def _new_folder(parent: Path, name: str) -> Path:
    """A folder of this name, with a number behind it where there is one already."""
    for number in count(1):
        place = parent / (name if number == 1 else f"{name}-{number}")
        try:
            place.mkdir()
        except FileExistsError:
            continue
        return place
    raise AssertionError


def table(examined: Sequence[Examined]) -> Table:
    """One row per file; a branch shows the mean score of its detectors, or why it has none."""
    made = Table(box=SIMPLE_HEAD, pad_edge=False)
    for heading in ("file", "label", "P(fake)", *(branch.value for branch in Branch), "coverage"):
        made.add_column(heading, overflow="fold", no_wrap=heading in {"label", "P(fake)", "coverage"})
    for one in examined:
        made.add_row(escape(one.path.name), *one.as_row())
    return made


def _cell(result: BranchResult) -> str:
    scores = [d.evidence.score for d in result.detectors if d.status is OutcomeStatus.OK and d.evidence]
    return f"{sum(scores) / len(scores):.2f}" if scores else f"[dim]{str(result.code).replace('_', ' ')}[/]"
