"""Fits the fusion heads from the out-of-fold scores that the detectors' runs left behind.

{visual} and {visual, audio} are fitted on the development clips (label: was the clip manipulated), {audio} on the
development utterances (label: is the speech synthetic), each with the same class prior of one half.
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table as Display

from clipwarden.models.fusion.bundle import FORMAT, FusionBundle, Head, bundle_path
from clipwarden.models.training.heads import Table, fit_head
from clipwarden.models.training.run_folder import read_table
from clipwarden.shared.errors import ConfigError

VISUAL, AUDIO = "forensic_score", "audio_prob_fake"
COLUMNS = ("path", "label", "group", "fold", "score_logit")
FAKE = {"fake": True, "spoof": True, "real": False, "bonafide": False}


def fit_bundle(runs: Path) -> FusionBundle:
    """Fit all heads from the run folders forensic_mlp and cqcc_cnn. Raises ConfigError if scores are missing."""
    clips = _scores(runs / "forensic_mlp" / "scores.csv")
    utterances = _scores(runs / "cqcc_cnn" / "scores.csv")
    sounds = _scores(runs / "cqcc_cnn" / "scores_video.csv")
    heads = (
        fit_head("visual", _table({VISUAL: clips}), "development clips"),
        fit_head("audio", _table({AUDIO: utterances}), "development utterances"),
        fit_head("visual+audio", _table({VISUAL: clips, AUDIO: sounds}), "development clips with sound"),
    )
    return FusionBundle(format=FORMAT, policy="balanced", heads=heads)


def _scores(path: Path) -> dict[str, Mapping[str, str]]:
    return {row["path"]: row for row in read_table(path, COLUMNS)}


def _table(columns: Mapping[str, Mapping[str, Mapping[str, str]]]) -> Table:
    """Rows that every column has a score for; label, group and fold from the first column's scores."""
    first = next(iter(columns.values()))
    paths = sorted(set(first).intersection(*columns.values()))
    rows = [first[p] for p in paths]
    if unknown := {r["label"] for r in rows} - FAKE.keys():
        raise ConfigError(f"scores with labels other than {', '.join(FAKE)}: {sorted(unknown)}")
    return Table(
        columns=tuple(columns),
        x=np.array([[float(scores[p]["score_logit"]) for scores in columns.values()] for p in paths]),
        fake=np.array([FAKE[r["label"]] for r in rows]),
        group=np.unique([r["group"] for r in rows], return_inverse=True)[1],
        fold=np.array([int(r["fold"]) for r in rows]),
    )


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
    target.write_text(bundle.model_dump_json(indent=1) + "\n", "utf-8")
    if options.install:
        (bundle_path().parents[1] / "cards" / "fusion.md").write_text(_card(bundle), "utf-8")
    Console().print(_report(bundle.heads))
    Console().print(f"wrote {target}")
    return 0


CARD = """# Fusion heads

## What they are

Logistic regressions on the detectors' scores (as logits, standardised), coefficients not below 0, divided by a
temperature in [0.5, 5]. The largest head whose columns are all present is used. Policy `{policy}`: out of fold, at most
10 % of the real clips reach the threshold for fake, and at most 10 % of the fake ones fall to the threshold for real.

## Figures

Out of fold: neither the detectors nor the head saw a test clip's generator, source or system. The temperature and the
thresholds were chosen on the same out-of-fold scores that the figures are of. "Conclusive" is the share of clips that
get a label other than inconclusive.

| head | fitted on | clips | AUC [95 %] | log-loss (chance 0.693) | temperature | fake from | real to | conclusive |
|---|---|---|---|---|---|---|---|---|
{rows}

## Data

The development clips and utterances of the detectors' own cards; classes weighted to a prior of one half, clips by
1/sqrt(n) of their group.

    clipwarden train fusion --runs DIR --install

## Known limits

- The audio head's label is whether the speech is synthetic, the other heads' whether the clip was manipulated.
- What the sound of a fake development clip is, genuine or made, is mostly unknown. The audio coefficient of the joint
  head stands for what separates the sound of real from that of fake clips, which may be its processing.
- A temperature at its bound says that the scores carry almost nothing; such a head is hardly ever conclusive.
"""


def _card(bundle: FusionBundle) -> str:
    rows = ["| " + " | ".join([head.name, head.fitted_on, *_cells(head)]) + " |" for head in bundle.heads]
    return CARD.format(policy=bundle.policy, rows="\n".join(rows))


def _report(heads: Sequence[Head]) -> Display:
    display = Display("head", "clips", "AUC out of fold [95 %]", "log-loss", "T", "fake ≥", "real ≤", "conclusive")
    for head in heads:
        display.add_row(head.name, *_cells(head))
    return display


def _cells(head: Head) -> list[str]:
    m, t = head.metrics, head.thresholds
    return [
        f"{m['clips']:.0f}",
        f"{m['auc']:.3f} [{m['auc_low']:.3f}, {m['auc_high']:.3f}]",
        f"{m['log_loss']:.3f}",
        f"{head.temperature:.2f}",
        f"{t.fake:.2f}",
        f"{t.real:.2f}",
        f"{m['conclusive_share']:.0%}",
    ]
