"""Writes what was measured: metrics.json, scores.json, the pictures and the page."""

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from clipwarden.models.training.evaluation import plots
from clipwarden.models.training.evaluation.assessment import Assessment, plain
from clipwarden.models.training.evaluation.baselines import METADATA
from clipwarden.models.training.evaluation.ledger import Scores
from clipwarden.models.training.evaluation.page import Picture, page
from clipwarden.models.training.evaluation.robustness import points
from clipwarden.models.training.evaluation.subjects import FUSED

PAGE: Final = "report.html"
METRICS: Final = "metrics.json"
SCORES: Final = "scores.csv"
_CAPTIONS: Final = {
    "roc": "ROC: fakes found against real items called fake, at every threshold.",
    "distribution": "Scores of both labels; each histogram is scaled to its tallest bar.",
    "reliability": "Reliability: numbers are items; bars are 95 % as if items were independent.",
    "confusion": "Verdicts by true label.",
    "robustness": "AUC of a sample after encoding it once more.",
}


def write(
    out: Path, found: Assessment, scores: Scores, about: Mapping[str, Any], robustness: Mapping[str, Any]
) -> list[Path]:
    """Everything but scores.csv, which is there; returns what was written."""
    pictures = _pictures(found, scores, robustness)
    folder = out / "plots"
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, svg in pictures.items():
        (folder / f"{name}.svg").write_text(plots.standing_alone(svg), "utf-8")
        written.append(folder / f"{name}.svg")
    content = {"about": dict(about), **found.as_json(), "robustness": plain(dict(robustness))}
    (out / METRICS).write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", "utf-8")
    shown = [Picture(plots.themed(svg), _CAPTIONS[name]) for name, svg in pictures.items()]
    (out / PAGE).write_text(page(found, about, shown, robustness), "utf-8")
    return [out / PAGE, out / METRICS, *written]


def _pictures(found: Assessment, scores: Scores, robustness: Mapping[str, Any]) -> dict[str, str]:
    subjects, fake = found.subjects, scores.fake
    judging = [subjects[name] for name in (FUSED, *found.detectors) if subjects[name].present.any()]
    if not judging:
        return {}
    made = {
        "roc": plots.roc(fake, [*judging, subjects[METADATA]]),
        "distribution": plots.distribution(fake, judging),
        "reliability": plots.reliability(fake, judging[0]),
        "confusion": plots.confusion(fake, judging[0]),
    }
    curve = points(robustness)
    return made | ({"robustness": plots.robustness(curve)} if curve else {})


def write_scores_json(source: Path, target: Path, about: Mapping[str, Any]) -> None:
    """The rows of scores.csv as JSON, with the models that made them; written row by row."""
    part = target.with_name(f".{target.name}.part")
    with source.open(encoding="utf-8", newline="") as rows, part.open("w", encoding="utf-8") as out:
        out.write('{"about": ' + json.dumps(dict(about)) + ',\n"rows": [')
        for k, row in enumerate(csv.DictReader(rows)):
            told = {name: value for name, value in row.items() if value != "" and name != "pipeline"}
            out.write((",\n" if k else "\n") + json.dumps(told))
        out.write("\n]}\n")
    part.replace(target)
