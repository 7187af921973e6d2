"""The report as one HTML page: tables and pictures inside it, nothing to load, readable in light and dark."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Final

from clipwarden.models.training.evaluation.assessment import Assessment, Measured
from clipwarden.models.training.evaluation.figures import CALIBRATION, DECISION, RANKING
from clipwarden.models.training.evaluation.subjects import FUSED
from clipwarden.models.training.measure import RESAMPLES

EXPLAINED: Final = {
    "auc": "AUC",
    "source_matched_auc": "source-matched AUC",
    "eer": "EER",
    "average_precision": "average precision",
    "fpr_at_95_tpr": "FPR at 95 % TPR",
    "accuracy": "accuracy (conclusive)",
    "conclusive": "conclusive",
    "tpr_at_threshold": "TPR at threshold",
    "fpr_at_threshold": "FPR at threshold",
    "missed_at_threshold": "fake called real",
    "brier": "Brier",
    "log_loss": "log-loss",
    "calibration_slope": "slope",
    "calibration_intercept": "intercept",
    "ece": "ECE",
}
RANKING_TEXT: Final = (
    "How well scores tell fake from real; 0.5 is chance for AUC and EER. Source-matched: real against fake items of "
    "one source, averaged over the sources that have both, so that a source's own look does not count. The last rows "
    "are no detectors: what can be told from the container, the sharpness, the picture's size, or the sound's level "
    "and bandwidth alone, out of fold. A detector has to beat them."
)
CALIBRATION_TEXT: Final = (
    "Whether P(fake) can be read as a probability: slope 1, intercept 0. Heads are fitted to a prior of one half; the "
    "second table weighs both labels alike, where chance has log-loss 0.693 and Brier 0.250."
)
BRIEF: Final = ("auc", "source_matched_auc", "tpr_at_threshold", "fpr_at_threshold", "conclusive")


@dataclass(frozen=True, slots=True)
class Grid:
    """`folded` tables show their caption until they are opened."""

    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""
    folded: bool = False


@dataclass(frozen=True, slots=True)
class Picture:
    """`svg` is our own drawing and enters the page as it is."""

    svg: str
    caption: str


@dataclass(frozen=True, slots=True)
class Section:
    title: str
    texts: Sequence[str] = ()
    tables: Sequence[Grid] = ()
    pictures: Sequence[Picture] = ()


def page(
    found: Assessment, about: Mapping[str, Any], pictures: Sequence[Picture], robustness: Mapping[str, Any]
) -> str:
    """`about` says manifest, policy, seed and models; every text of a manifest is escaped."""
    from jinja2 import Environment

    source = files("clipwarden.models.training.evaluation").joinpath("page.html").read_text("utf-8")
    template = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(source)
    sections = [
        *_quality(found),
        Section("Pictures", pictures=pictures),
        *_robustness(robustness),
        *_parts(found),
        _ablation(found),
        _coverage(found),
        _models(about),
    ]
    return template.render(
        manifest=about["manifest"],
        policy=about["policy"],
        seed=about["seed"],
        resamples=RESAMPLES,
        coverage=found.coverage,
        warnings=found.warnings,
        sections=sections,
    )


def _quality(found: Assessment) -> list[Section]:
    everything = {"fused": found.fused, **found.detectors, **found.baselines}
    ranked = _grid(everything, RANKING, found)
    decided = _grid({k: v for k, v in everything.items() if k not in found.baselines}, DECISION, found)
    calibrated = _grid(everything, CALIBRATION, found)
    evened = _grid(everything, [f"{name}_balanced" for name in CALIBRATION], found, "both labels weighed alike")
    thresholds = Grid(("", "thresholds"), [(name, text) for name, text in found.thresholds.items()])
    gains = Grid(("", "AUC less that of the metadata"), [(k, str(v)) for k, v in found.against_metadata.items()])
    return [
        Section(
            "Ranking",
            (RANKING_TEXT,),
            (ranked, gains),
        ),
        Section(
            "Decisions", ("Shares of all fake and of all real items; the rest is inconclusive.",), (decided, thresholds)
        ),
        Section(
            "Calibration",
            (CALIBRATION_TEXT,),
            (calibrated, evened),
        ),
    ]


def _grid(of: Mapping[str, Measured], names: Sequence[str], found: Assessment, caption: str = "") -> Grid:
    headings = ("", "items (real)", *(EXPLAINED[name.removesuffix("_balanced")] for name in names))
    rows = [(name, _items(found.counts[name]), *_cells(measured, names)) for name, measured in of.items()]
    return Grid(headings, rows, caption)


def _cells(measured: Measured, names: Sequence[str]) -> list[str]:
    return [str(measured[name]) if name in measured else "undefined" for name in names]


def _items(counts: Mapping[str, int]) -> str:
    return f"{counts['items']} ({counts['real']})"


def _parts(found: Assessment) -> list[Section]:
    sections = []
    for dimension, levels in found.breakdown.items():
        subjects = [FUSED, *found.detectors]
        tables = [
            Grid(
                (dimension.replace("_", " "), "items (real)", *(EXPLAINED[b] for b in BRIEF)),
                [(lv, _items(part["counts"]), *_cells(part[s], BRIEF)) for lv, part in levels.items() if s in part],
                s,
                folded=s != FUSED,
            )
            for s in subjects
            if any(s in part for part in levels.values())
        ]
        texts = ("Each generator's items against all real ones.",) if dimension == "generator" else ()
        sections.append(Section(f"By {dimension.replace('_', ' ')}", texts, tables))
    return sections


def _ablation(found: Assessment) -> Section:
    rows: list[tuple[str, ...]] = []
    for name, entry in found.ablation.items():
        if "why_not" in entry:
            rows.append((name, str(entry["detectors"]), entry["why_not"], "", "", ""))
        else:
            figures = _cells(entry["figures"], ("auc", "source_matched_auc"))
            rows.append(
                (name, str(entry["detectors"]), _items(entry["counts"]), *figures, str(entry["auc_less_fused"]))
            )
    headings = ("head", "detectors", "items (real)", "AUC", "source-matched AUC", "AUC less fused, same items")
    texts = ("Heads of several sizes, and the fusion with one branch left out, recomputed from the stored features.",)
    return Section("Ablation", texts, (Grid(headings, rows),))


def _robustness(levels: Mapping[str, Any]) -> list[Section]:
    if not levels:
        return []
    headings = ("re-compression", "subject", "items (real)", *(EXPLAINED[b] for b in BRIEF))
    rows = [
        (level, name, _items(entry["counts"]), *_cells(entry[name], BRIEF))
        for level, entry in levels.items()
        for name in entry
        if name not in {"counts", "refused"}
    ]
    texts = ("The same sample of items, as it is and encoded once more.",)
    return [Section("Robustness", texts, (Grid(headings, rows),))]


def _coverage(found: Assessment) -> Section:
    c = found.coverage
    rows = [("rows of the manifest", c["rows"]), ("duplicates left out", c["duplicates"])]
    rows += [("  with another label", c["contradictions"]), ("examined", c["examined"])]
    rows += [(f"not examined: {code}", n) for code, n in c["refused"].items()]
    for name, entry in c["detectors"].items():
        rows.append((f"{name}: judged", entry["ok"]))
        rows += [(f"{name}: left out, {code}", n) for code, n in entry["left_out"].items()]
    again = Grid(
        ("path", "line", "same file as line"), [(d["path"], d["line"], d["of_line"]) for d in c["duplicate_rows"]]
    )
    whole = Grid(("", "items"), [(name, str(n)) for name, n in rows])
    return Section("Coverage", ("Nothing is dropped in silence.",), (whole, again) if again.rows else (whole,))


def _models(about: Mapping[str, Any]) -> Section:
    rows = [(name, facts["version"], facts["weights"]) for name, facts in about["models"].items()]
    texts = [f"Pipeline {about['installed']}, fusion {about['fusion']}."]
    if about["pipeline"] != about["installed"]:
        texts.insert(0, f"The scores are of pipeline {about['pipeline']}; what follows is installed here now.")
    return Section("Models", texts, (Grid(("detector", "version", "weights"), rows),))
