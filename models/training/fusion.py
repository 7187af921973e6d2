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
    Console().print(_report(bundle.heads))
    Console().print(f"wrote {target}")
    return 0


def _report(heads: Sequence[Head]) -> Display:
    display = Display("head", "clips", "AUC out of fold [95 %]", "log-loss", "T", "fake ≥", "real ≤", "conclusive")
    for head in heads:
        m, t = head.metrics, head.thresholds
        display.add_row(
            head.name,
            f"{m['clips']:.0f}",
            f"{m['auc']:.3f} [{m['auc_low']:.3f}, {m['auc_high']:.3f}]",
            f"{m['log_loss']:.3f}",
            f"{head.temperature:.2f}",
            f"{t.fake:.2f}",
            f"{t.real:.2f}",
            f"{m['conclusive_share']:.0%}",
        )
    return display
