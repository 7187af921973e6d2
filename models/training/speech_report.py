"""What a run on the speech corpus reports: figures by fold, family and channel, and what the corpus is made of."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipwarden.models.training.measure import measures
from clipwarden.models.training.run_folder import ScoreRow, licence_counts, read_table
from clipwarden.models.training.speech_data import FOLDS, Utterance


def speech_facts(data: Path, utterances: Sequence[Utterance]) -> dict[str, Any]:
    """Counts and licences of what a speech detector learnt from, as a card states them."""
    fake = sum(u.fake for u in utterances)
    paths = {u.path for u in utterances}
    rows = read_table(data / "audio/manifest.csv", ("path", "licence"))
    licences = licence_counts(row for row in rows if row["path"] in paths)
    return {"fake": fake, "real": len(utterances) - fake, "licences": licences, "paths": sorted(paths)}


def utterance_row(of: Utterance, logit: float) -> ScoreRow:
    """An utterance's row in a file of scores."""
    return ScoreRow(of.path, "fake" if of.fake else "real", of.group, of.test_fold, logit, int(of.modern))


def speech_metrics(utterances: Sequence[Utterance], scores: Sequence[ScoreRow], seed: int) -> dict[str, Any]:
    """Figures of out-of-fold scores: over all, modern systems alone, by fold, family of synthesis and channel."""
    score = {row.path: row.score_logit for row in scores}

    def part(chosen: Sequence[Utterance]) -> dict[str, Any]:
        return _part(chosen, score, seed)

    real = [u for u in utterances if not u.fake]
    families = sorted({u.family for u in utterances if u.fake})
    channels = sorted({u.channel for u in real})
    return {
        "all": part(utterances),
        "modern": part([u for u in utterances if u.modern]),
        "folds": {k: part([u for u in utterances if u.test_fold == k]) for k in range(FOLDS)},
        "families": {f: part([*real, *(u for u in utterances if u.family == f)]) for f in families},
        "channels": {c: _channel_means(utterances, score, c) for c in channels},
    }


def protocol_metrics(utterances: Sequence[Utterance], logits: NDArray[np.float64], seed: int) -> dict[str, Any]:
    """Figures of logits (utterances, versions) over all and modern systems: as they are, and through one channel."""
    modern, found = [u for u in utterances if u.modern], dict[str, Any]()
    for column, name in enumerate(("", "_copied")):
        score = {u.path: float(logit) for u, logit in zip(utterances, logits[:, column], strict=True)}
        found |= {f"all{name}": _part(utterances, score, seed), f"modern{name}": _part(modern, score, seed)}
    return found


def _part(chosen: Sequence[Utterance], score: Mapping[str, float], seed: int) -> dict[str, Any]:
    fake, values = np.array([u.fake for u in chosen]), np.array([score[u.path] for u in chosen])
    return measures(fake, values, [u.group for u in chosen], seed).model_dump()


def _channel_means(utterances: Sequence[Utterance], score: dict[str, float], channel: str) -> dict[str, float | int]:
    """What a bona fide channel does to the score: a channel far from 0 is mistaken for forgery or for truth."""
    values = [score[u.path] for u in utterances if not u.fake and u.channel == channel]
    return {"real": len(values), "mean_logit": float(np.mean(values)), "spread": float(np.std(values))}
