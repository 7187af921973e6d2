"""From a scores file to everything that the report says: figures, breakdowns, coverage and warnings, ready for JSON."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from clipwarden.models.fusion.bundle import FusionBundle
from clipwarden.models.training.evaluation import figures, subjects
from clipwarden.models.training.evaluation.baselines import METADATA
from clipwarden.models.training.evaluation.figures import Bools, Floats, Judged
from clipwarden.models.training.evaluation.ledger import EXAMINED, Scores
from clipwarden.models.training.evaluation.manifest import Duplicate
from clipwarden.models.training.evaluation.resampling import Interval, exact, intervals, paired, unbounded
from clipwarden.models.training.evaluation.seen import Overlap
from clipwarden.models.training.evaluation.subjects import FUSED, Subject, judged

FACE_SIZES: Final = ((0.0, "below 80 px"), (80.0, "80 to 160 px"), (160.0, "160 to 320 px"), (320.0, "320 px or more"))
BY_COLUMN: Final = ("channel", "codec", "kind")
MOST_LEVELS: Final = 50
"""Parts of one kind that are measured by themselves, the largest; the others are measured together."""
_RESAMPLES_OF_PARTS: Final = 200
_FEW_GROUPS: Final = 10

Measured = dict[str, Interval]


@dataclass(frozen=True, slots=True)
class Background:
    """What the scores file does not say of itself: the manifest's size and its duplicates, overlaps with training.

    `unrecorded` detectors are those of which nobody wrote down what they were trained on. `made_by` and `installed` are
    the pipelines that the scores are of and that is installed here.
    """

    rows: int
    duplicates: Sequence[Duplicate] = ()
    overlaps: Sequence[Overlap] = ()
    unrecorded: Sequence[str] = ()
    made_by: str = ""
    installed: str = ""


@dataclass(frozen=True, slots=True)
class Assessment:
    """Everything measured; `subjects` keeps the scores behind it for the plots."""

    fused: Measured
    detectors: dict[str, Measured]
    baselines: dict[str, Measured]
    counts: dict[str, dict[str, int]]
    thresholds: dict[str, str]
    breakdown: dict[str, dict[str, dict[str, Any]]]
    ablation: dict[str, dict[str, Any]]
    against_metadata: dict[str, Interval]
    coverage: dict[str, Any]
    warnings: list[dict[str, str]]
    subjects: dict[str, Subject]

    def as_json(self) -> dict[str, Any]:
        names = [name for name in self.__dataclass_fields__ if name != "subjects"]
        return {name: plain(getattr(self, name)) for name in names}


def plain(value: Any) -> Any:
    """The same with every interval as {value, low, high}."""
    if isinstance(value, Interval):
        return value.model_dump()
    return {name: plain(inner) for name, inner in value.items()} if isinstance(value, dict) else value


def assessed(scores: Scores, bundle: FusionBundle, background: Background, seed: int = 0) -> Assessment:
    """Measure the verdicts, every detector and every baseline. One label only leaves ranking figures undefined."""
    fused = subjects.fused(scores)
    detectors = [subjects.of_detector(scores, name, bundle) for name in scores.detectors]
    controls = subjects.baselines(scores, seed)
    every = {s.name: s for s in (fused, *detectors, *controls)}
    metadata = every[METADATA]
    against = {s.name: difference(scores, s, metadata, seed) for s in (fused, *detectors)}
    return Assessment(
        fused=measured(scores, fused, seed),
        detectors={s.name: measured(scores, s, seed) for s in detectors},
        baselines={s.name: measured(scores, s, seed) for s in controls},
        counts={s.name: counts(scores, s.present) for s in every.values()},
        thresholds={s.name: s.thresholds for s in every.values()},
        breakdown=_breakdown(scores, (fused, *detectors), seed),
        ablation=_ablation(scores, bundle, fused, seed),
        against_metadata=against,
        coverage=coverage(scores, background),
        warnings=_warnings(scores, (fused, *detectors), against, background),
        subjects=every,
    )


def measured(scores: Scores, subject: Subject, seed: int, rows: Bools | None = None, parts: bool = False) -> Measured:
    """All figures over the rows that the subject has a score for; for `parts` of a set the ranking and decisions."""
    chosen = subject.present if rows is None else subject.present & rows
    if not chosen.any():
        return {}
    some = judged(scores, subject, chosen)
    groups = np.unique(scores.text["group"][chosen], return_inverse=True)[1]
    resamples = {"resamples": _RESAMPLES_OF_PARTS} if parts else {}
    found = intervals(_partial(some) if parts else lambda w: figures.all_figures(some, w), groups, seed, **resamples)
    found |= {name: exact(found[name], len(np.unique(groups[of]))) for name, of in figures.counted(some).items()}
    return found | {name: unbounded(found[name]) for name in (*figures.RANKING, *figures.DECISION) if name in found}


def _partial(some: Judged) -> Callable[[Floats], dict[str, Floats]]:
    def of(weight: Floats) -> dict[str, Floats]:
        ranked = figures.ranking(some.fake, some.score, weight)
        matched = figures.source_matched(some, weight)
        return {"auc": ranked["auc"], "source_matched_auc": matched, **figures.decisions(some, weight)}

    return of


def difference(scores: Scores, first: Subject, second: Subject, seed: int) -> Interval:
    """AUC of the first less that of the second, over the same resamples of the items that both have scores for."""
    both = first.present & second.present
    if len(np.unique(scores.fake[both])) < 2:
        return Interval(value=None)
    groups = np.unique(scores.text["group"][both], return_inverse=True)[1]
    return paired(scores.fake[both], first.score[both], second.score[both], groups, seed)["difference"]


def coverage(scores: Scores, background: Background) -> dict[str, Any]:
    """What became of every row of the manifest, and of every examined file in every detector."""
    examined = scores.examined
    refused = Counter(scores.text["status"][~examined].tolist())
    per_detector = {
        name: {
            "ok": int((status[examined] == EXAMINED).sum()),
            "left_out": dict(Counter(code or "not_run" for code in status[examined].tolist() if code != EXAMINED)),
        }
        for name, status in scores.status.items()
    }
    again = background.duplicates
    return {
        "rows": background.rows,
        "examined": int(examined.sum()),
        "refused": dict(refused),
        "duplicates": len(again),
        "contradictions": sum(d.contradicts for d in again),
        "duplicate_rows": [{"line": d.item.row, "path": d.item.path, "of_line": d.first.row} for d in again],
        "judged": int((examined & ~np.isnan(scores.number["probability"])).sum()),
        "detectors": per_detector,
    }


def counts(scores: Scores, present: Bools) -> dict[str, int]:
    fake = scores.fake[present]
    groups = len(np.unique(scores.text["group"][present]))
    return {"items": len(fake), "real": int((~fake).sum()), "fake": int(fake.sum()), "groups": groups}


def _breakdown(scores: Scores, of: Sequence[Subject], seed: int) -> dict[str, dict[str, dict[str, Any]]]:
    """A generator's fakes stand against all real items; the other parts are taken as they are."""
    made = _levels(scores.text["generator"], scores.fake & scores.examined)
    parts = {"generator": {name: ~scores.fake | rows for name, rows in made.items()}}
    columns = {name: _levels(scores.text[name], scores.examined) for name in BY_COLUMN}
    parts |= {name: levels for name, levels in columns.items() if len(levels) > 1}
    parts["face_size"] = _face_sizes(scores)
    return {
        name: {level: _part(scores, of, rows & scores.examined, seed) for level, rows in levels.items()}
        for name, levels in parts.items()
        if levels
    }


def _part(scores: Scores, of: Sequence[Subject], rows: Bools, seed: int) -> dict[str, Any]:
    found = {s.name: measured(scores, s, seed, rows, parts=True) for s in of}
    return {"counts": counts(scores, rows), **{name: value for name, value in found.items() if value}}


def _levels(named: NDArray[np.str_], among: Bools) -> dict[str, Bools]:
    """The rows of each name that is among some; those of the less frequent names beyond MOST_LEVELS are one level."""
    names, sizes = np.unique(named[among & (named != "")], return_counts=True)
    largest = np.sort(np.argsort(-sizes, kind="stable")[:MOST_LEVELS])
    levels = {str(name): np.asarray(named == name) for name in names[largest]}
    others = np.delete(names, largest)
    return levels | ({f"{len(others)} others, together": np.isin(named, others)} if len(others) else {})


def _face_sizes(scores: Scores) -> dict[str, Bools]:
    side = scores.number["face_px"]
    edges = [*(low for low, _ in FACE_SIZES), np.inf]
    sizes = {name: (side >= low) & (side < high) for (low, name), high in zip(FACE_SIZES, edges[1:], strict=True)}
    return {name: rows for name, rows in sizes.items() if rows.any()}


def _ablation(scores: Scores, bundle: FusionBundle, full: Subject, seed: int) -> dict[str, dict[str, Any]]:
    """Each variant's figures, and what it gains over the fused verdict on the items that both judge."""
    found: dict[str, dict[str, Any]] = {}
    for variant in subjects.variants(scores, bundle):
        entry: dict[str, Any] = {"detectors": variant.ways}
        if variant.subject is None:
            found[variant.name] = {**entry, "why_not": variant.why_not}
        else:
            gain = difference(scores, variant.subject, full, seed)
            items = counts(scores, variant.subject.present)
            found[variant.name] = {
                **entry,
                "counts": items,
                "figures": measured(scores, variant.subject, seed, parts=True),
                "auc_less_fused": gain,
            }
    return found


def _warnings(
    scores: Scores, of: Sequence[Subject], against: Mapping[str, Interval], background: Background
) -> list[dict[str, str]]:
    found: list[tuple[str, str]] = []
    found += [("in_sample", f"{o}: its figures are not those of unseen material.") for o in background.overlaps]
    found += [
        ("unrecorded", f"What {n} was trained on is not recorded: it may know these items.")
        for n in background.unrecorded
    ]
    if background.made_by != background.installed:
        said = (
            f"The scores are of pipeline {background.made_by}, here {background.installed} is installed: verdicts and "
            "raw scores are as they were given, but the figures of single detectors, the ablation and what is said of "
            "training data go by what is installed."
        )
        found.append(("other_pipeline", said))
    if len(np.unique(scores.fake[scores.examined])) < 2:
        found.append(("one_label", "All examined items have one label: AUC, EER and calibration are undefined."))
    for subject in of:
        found += _about(scores, subject, against[subject.name])
    contradictions = [d for d in background.duplicates if d.contradicts]
    found += [
        ("contradiction", f"Line {d.item.row} gives {d.item.path} another label than line {d.first.row}, which counts.")
        for d in contradictions
    ]
    if (groups := len(np.unique(scores.text["group"][scores.examined]))) < _FEW_GROUPS:
        found.append(("few_groups", f"{groups} groups of related items: intervals over so few say little."))
    return [{"code": code, "text": text} for code, text in found]


def _about(scores: Scores, subject: Subject, gain: Interval) -> list[tuple[str, str]]:
    found = []
    name = "the fused verdict" if subject.name == FUSED else subject.name
    if gain.value is not None and (gain.low is None or gain.low <= 0):
        said = f"AUC of {name} less that of the container's metadata is {gain}: it does not beat them."
        found.append(("not_above_metadata", said))
    present, fake = subject.present, scores.fake
    real_scores, fake_scores = subject.score[present & ~fake], subject.score[present & fake]
    if len(real_scores) and len(fake_scores) and fake_scores.min() > real_scores.max():
        said = f"The labels are separated by {name}: no temperature or calibration can be fitted to this set."
        found.append(("separable", said))
    if present.any() and not present[scores.examined].all():
        missing = int((scores.examined & ~present).sum())
        found.append(("not_all_judged", f"Examined items without a score of {name}: {missing}."))
    return found
