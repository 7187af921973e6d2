"""How the figures hold when files are encoded once more: a seeded sample, as it is and at three strengths."""

import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from clipwarden.models.run import Laboratory
from clipwarden.models.training.evaluation import subjects
from clipwarden.models.training.evaluation.assessment import counts, measured
from clipwarden.models.training.evaluation.ledger import Ledger, Record, Scores, keep_only, read_scores, said_of
from clipwarden.models.training.evaluation.manifest import Item
from clipwarden.models.training.evaluation.recoding import STRENGTHS, WORDS, recoded
from clipwarden.models.training.evaluation.scoring import by_key, score
from clipwarden.models.training.evaluation.subjects import FUSED
from clipwarden.shared.contracts import MediaKind
from clipwarden.shared.errors import MediaError

UNTOUCHED: Final = "as it is"
Work = Sequence[tuple[Path, Item]]


def sampled(work: Work, scores: Scores, count: int, seed: int) -> tuple[Work, dict[str, MediaKind]]:
    """Up to half of `count` examined items of each label, and the kind of each by its path."""
    kinds = {str(p): MediaKind(k) for p, k in zip(scores.text["path"], scores.text["kind"], strict=True) if k}
    rng = np.random.default_rng(seed)
    chosen: list[int] = []
    for fake in (False, True):
        fitting = [k for k, (_, item) in enumerate(work) if item.fake == fake and item.path in kinds]
        chosen += rng.permutation(fitting)[: (count + 1) // 2].tolist() if fitting else []
    return [work[k] for k in sorted(chosen)], kinds


def curve(
    sample: Work,
    kinds: Mapping[str, MediaKind],
    clean: Scores,
    laboratory: Laboratory,
    ledger: tuple[Path, str],
    seed: int,
) -> dict[str, dict[str, Any]]:
    """Level → subject → figures. `ledger`: the folder for each strength's scores, kept over restarts, and pipeline."""
    folder, pipeline = ledger
    paths = [item.path for _, item in sample]
    work = by_key(sample)
    found = {UNTOUCHED: _level(clean.rows(np.isin(clean.text["path"], paths)), laboratory, seed)}
    for strength in STRENGTHS:
        file = folder / f"scores-recoded-{strength}.csv"
        with Ledger(file, clean.detectors, pipeline) as kept:
            for key in (key for key in work if key not in kept.keys):
                path, item = work[key]
                kept.add({**_scored(path, item, kinds[item.path], strength, laboratory), "key": key})
        keep_only(file, {key: item for key, (_, item) in work.items()})
        scores = read_scores(file)
        words = " · ".join(WORDS[kind][strength] for kind in _in_order(kinds[p] for p in paths))
        found[words] = _level(scores, laboratory, seed)
    return found


def _in_order(kinds: Iterable[MediaKind]) -> list[MediaKind]:
    return sorted(set(kinds), key=list(MediaKind).index)


def _scored(path: Path, item: Item, kind: MediaKind, strength: int, laboratory: Laboratory) -> Record:
    with tempfile.TemporaryDirectory() as folder:
        try:
            return score(recoded(path, kind, strength, Path(folder)), item, laboratory)
        except MediaError as error:
            return {**said_of(item), "status": str(error.code), "message": str(error)}


def _level(scores: Scores, laboratory: Laboratory, seed: int) -> dict[str, Any]:
    of = [subjects.fused(scores)]
    of += [subjects.of_detector(scores, name, laboratory.bundle) for name in scores.detectors]
    refused = dict(Counter(scores.text["status"][~scores.examined].tolist()))
    found = {s.name: measured(scores, s, seed, parts=True) for s in of if s.present.any()}
    return {"counts": counts(scores, scores.examined), "refused": refused, **found}


def points(levels: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, tuple[float, float, float]]]:
    """What the plot shows: AUC and interval of each subject with both, by level."""
    found: dict[str, dict[str, tuple[float, float, float]]] = {}
    for level, entry in levels.items():
        areas = {name: m["auc"] for name, m in entry.items() if name not in {"counts", "refused"}}
        found[level] = {
            name: (a.value, a.value if a.low is None else a.low, a.value if a.high is None else a.high)
            for name, a in areas.items()
            if a.value is not None
        }
    return found if any(FUSED in entry or entry for entry in found.values()) else {}
