"""What one-process analysis found in one file, and its two printed forms: a table row and a JSON object."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from clipwarden.shared.contracts import Branch, BranchResult, Label, MediaProbe, OutcomeStatus, Verdict
from clipwarden.shared.errors import ClipwardenError

_STYLES = {Label.FAKE: "red", Label.REAL: "green", Label.INCONCLUSIVE: "yellow"}


@dataclass(frozen=True, slots=True)
class Examined:
    """A file with its verdict."""

    path: Path
    probe: MediaProbe
    results: tuple[BranchResult, ...]
    verdict: Verdict

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
    found = result.model_dump(mode="json", exclude={"branch"})
    none: dict[str, Any] = {"score": None, "features": {}, "windows": []}
    found["detectors"] = [{**d, **(d.pop("evidence") or none)} for d in found["detectors"]]
    return found


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
