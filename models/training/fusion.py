"""Fits the fusion heads from the out-of-fold scores that the detectors' runs left behind.

All heads are fitted on the development clips that every detector has scored (label: was the clip manipulated), with the
same class prior of one half, and measured on every clip that has their scores.
"""

import argparse
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np
from rich.console import Console
from rich.table import Table as Display
from scipy.special import expit

from clipwarden.models.fusion.bundle import FORMAT, SEEDS, FusionBundle, Head, bundle_path, write_bundle
from clipwarden.models.fusion.policies import PREDEFINED, Figures, figures
from clipwarden.models.training.heads import DEFAULT_POLICY, Table, fit_family, logits, metrics
from clipwarden.models.training.run_folder import read_table
from clipwarden.shared.errors import ConfigError

SCORES: Final[dict[str, str]] = {
    "forensic_score": "forensic_mlp/scores.csv",
    "audio_prob_fake": "cqcc_cnn/scores_video.csv",
}
"""Column of the joint heads → scores of the development clips in the run folders; the first names label and fold."""

UTTERANCES: Final = ("audio_prob_fake", "cqcc_cnn/scores.csv")
"""A column and clips of another kind, genuine and synthetic speech, that its head is only checked on."""

CSV_COLUMNS: Final = ("path", "label", "group", "fold", "score_logit")
FAKE: Final = {"fake": True, "spoof": True, "real": False, "bonafide": False}
Scores = Mapping[str, Mapping[str, str]]
_PAGE_WIDTH: Final = 140


def fit_bundle(runs: Path) -> FusionBundle:
    """Fit all heads from the run folders. Raises ConfigError if scores are missing or allow no fit."""
    scored = {column: _scores(runs / file) for column, file in SCORES.items()}
    table = joint_table(scored)
    heads = fit_family(table, "development clips that every detector scored", _digest(scored))
    return FusionBundle(format=FORMAT, policy=DEFAULT_POLICY, policies=PREDEFINED, heads=heads, unfitted=SEEDS)


def check_utterances(bundle: FusionBundle, runs: Path) -> dict[str, float]:
    """Figures of the audio head on speech that it was not fitted on, with the share of genuine speech called fake."""
    column, file = UTTERANCES
    table = joint_table({column: _scores(runs / file)})
    head = next(h for h in bundle.heads if h.feature_cols == (column,))
    probability = expit(logits(head.model, table.x) / head.temperature)
    t = head.thresholds[bundle.policy]
    called = (probability >= t.fake) | (probability <= t.real)
    return {
        **metrics(table, probability),
        "called_fake": float((probability[~table.fake] >= t.fake).mean()),
        "conclusive": float(called.mean()),
    }


def joint_table(scored: Mapping[str, Scores]) -> Table:
    """One row per clip of the first column's scores, which give label, group and fold; NaN where another has none."""
    first = next(iter(scored.values()))
    rows = [first[path] for path in sorted(first)]
    if unknown := {r["label"] for r in rows} - FAKE.keys():
        raise ConfigError(f"scores with labels other than {', '.join(FAKE)}: {sorted(unknown)}")
    return Table(
        columns=tuple(scored),
        x=np.array([[_score(of, r["path"]) for of in scored.values()] for r in rows]),
        fake=np.array([FAKE[r["label"]] for r in rows]),
        group=np.unique([r["group"] for r in rows], return_inverse=True)[1],
        fold=np.array([int(r["fold"]) for r in rows]),
    )


def _score(scores: Scores, path: str) -> float:
    return float(scores[path]["score_logit"]) if path in scores else float("nan")


def _scores(path: Path) -> dict[str, Mapping[str, str]]:
    return {row["path"]: row for row in read_table(path, CSV_COLUMNS)}


def _digest(scored: Mapping[str, Scores]) -> str:
    """SHA-256 over everything of the training table, by column and clip."""
    lines = [
        "\t".join((column, *(row[name] for name in CSV_COLUMNS)))
        for column, scores in scored.items()
        for _, row in sorted(scores.items())
    ]
    text = "\n".join(lines)
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="clipwarden train fusion", description=__doc__)
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of the detectors' run folders")
    parser.add_argument("--out", type=Path, help="where to write the bundle")
    parser.add_argument("--install", action="store_true", help="make it this installation's bundle")
    options = parser.parse_args(argv)
    if (options.out is None) == (not options.install):
        parser.error("say where the bundle goes: --out FILE or --install")
    target: Path = options.out or bundle_path()
    bundle = fit_bundle(options.runs)
    write_bundle(target, bundle)
    if options.install:
        text = card(bundle, check_utterances(bundle, options.runs))
        (bundle_path().parents[1] / "cards" / "fusion.md").write_text(text, "utf-8")
    console = Console()
    if not console.is_terminal:
        console.width = _PAGE_WIDTH
    console.print(_report(bundle.heads))
    console.print(f"wrote {target}, {bundle.digest}", soft_wrap=True)
    return 0


CARD = """# Fusion heads

## What they are

Logistic regressions on the detectors' scores (as logits, standardised), coefficients of fake scores not below 0,
divided by one temperature in [0.5, 5]. The largest head whose columns are all present is used. Every head is fitted on
the same clips, with columns dropped, and held close to the head over all: dropping a detector whose score says nothing
(its mean over the clips) moves no probability by more than 0.02.

Strength of regularisation {strength:g}, chosen by grouped cross-validation; temperature {temperature:.2f}, fitted on
the folds held out. Standardised coefficients: {coefficients}.

## Figures

Nested over five folds of groups: of a tested clip's generator or source, neither the detectors, the coefficients, the
strength nor the temperature saw anything. Thresholds are chosen on these same probabilities. Every clip with the head's
scores is measured, also those that lack another detector's and are not fitted on.

| head | fitted on | measured on | groups | AUC [95 %] | log-loss (chance 0.693) | Brier (chance 0.250) |
|---|---|---|---|---|---|---|
{heads}

## Policies

"Bound" is the upper Clopper-Pearson bound (95 %) of the share of real clips called fake, as if clips were independent;
"found" and "missed" are fake clips called fake and called real, "conclusive" all clips with a label other than
inconclusive. Verdicts follow `{policy}` unless an operator chooses another (`clipwarden fusion policies --help`).

| policy | head | fake from | real to | real clips called fake | bound | found | missed | conclusive |
|---|---|---|---|---|---|---|---|---|
{policies}

On {utterances:.0f} development utterances of genuine and synthetic speech, on which it was not fitted, the head
`cqcc_cnn` has AUC {auc:.3f} [{low:.3f}, {high:.3f}] and log-loss {loss:.3f}; {alarms:.0%} of the genuine speech is
called fake, {called:.0%} of all gets a label. It answers for clips, whose labels it was fitted to, not for speech.

## Data

The development clips of the detectors' own cards; classes weighted to a prior of one half, clips by 1/sqrt(n) of their
group. Digest of the training table: `{data}`.

    clipwarden train fusion --runs DIR --install

## Known limits

- The label of a head is whether the clip was manipulated, whatever its detectors look at.
- What the sound of a fake development clip is, genuine or made, is mostly unknown. The audio coefficient stands for
  what separates the sound of real from that of fake clips, which may be its processing.
- Few real clips: the bounds are wide, and a bound on the false positives below what the table shows is refused.
- The heads of the 5-way pipeline (`seed-2way` to `seed-5way`) are known by their columns and have no coefficients here.
"""


def card(bundle: FusionBundle, utterances: Mapping[str, float]) -> str:
    """The card in Markdown, from the bundle alone and the check on utterances."""
    full = max(bundle.heads, key=lambda h: len(h.feature_cols))
    coefficients = (f"{name} {c:.3f}" for name, c in zip(full.feature_cols, full.model.coef, strict=True))
    return CARD.format(
        strength=full.metrics["strength"],
        temperature=full.temperature,
        coefficients=", ".join(coefficients),
        heads="\n".join("| " + " | ".join((f"`{head.name}`", *_cells(head))) + " |" for head in bundle.heads),
        policies="\n".join("| " + " | ".join(_policy_cells(f)) + " |" for f in figures(bundle)),
        policy=bundle.policy,
        data=full.data,
        utterances=utterances["clips"],
        auc=utterances["auc"],
        low=utterances["auc_low"],
        high=utterances["auc_high"],
        loss=utterances["log_loss"],
        alarms=utterances["called_fake"],
        called=utterances["conclusive"],
    )


def _report(heads: Sequence[Head]) -> Display:
    display = Display("head", "fitted on", "measured on", "groups", "AUC out of fold [95 %]", "log-loss", "Brier")
    for head in heads:
        display.add_row(head.name, *_cells(head))
    return display


def _cells(head: Head) -> list[str]:
    m = head.metrics
    return [
        f"{m['fitted_clips']:.0f} clips",
        f"{m['clips']:.0f} ({m['real_clips']:.0f} real)",
        f"{m['groups']:.0f}",
        f"{m['auc']:.3f} [{m['auc_low']:.3f}, {m['auc_high']:.3f}]",
        f"{m['log_loss']:.3f}",
        f"{m['brier']:.3f}",
    ]


def _policy_cells(f: Figures) -> list[str]:
    return [
        f"`{f.policy}`",
        f"`{f.head}`",
        f"{f.thresholds.fake:.3f}",
        f"{f.thresholds.real:.3f}",
        f"{f.called_fake} of {f.real} ({f.real_groups} groups)",
        f"{f.false_positive_bound:.1%}",
        *(f"{share:.0%}" for share in (f.found, f.missed, f.conclusive)),
    ]
