"""What a detector has to beat: logistic regressions on properties that say nothing of manipulation.

Out of sample by five folds of whole groups; an item that shares a person or footage with the tested fold is not
trained on, unless nothing else is left: a baseline may be flattered, a detector beside it never is. One above chance
says that the set's labels can be told without looking at the forgery.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from clipwarden.models.training.evaluation.figures import Bools, Floats
from clipwarden.models.training.evaluation.ledger import Scores
from clipwarden.models.training.evaluation.quality import CODECS, CONTAINER

METADATA: Final = "metadata"
BASELINES: Final[dict[str, tuple[str, ...]]] = {
    METADATA: ("size_bytes", *CONTAINER, *CODECS),
    "sharpness": ("sharpness",),
    "resolution": ("width", "height"),
    "level_and_bandwidth": ("level_dbfs", "bandwidth_hz"),
}
"""Baseline → what it is told of each file."""

FOLDS: Final = 5
_SKEWED: Final = frozenset({"size_bytes", "width", "height", "seconds", "bit_rate", "bandwidth_hz"})


def baseline(scores: Scores, name: str, seed: int = 0) -> Floats:
    """P(fake) (N,), out of fold; NaN for items not examined, without the properties, or without two labels to learn."""
    x = _table(scores, BASELINES[name])
    usable = scores.examined & ~np.isnan(x).all(axis=1)
    found = np.full(len(scores), np.nan)
    if not usable.any():
        return found
    fold = folds(scores, usable, seed)
    for k in range(FOLDS):
        test = usable & (fold == k)
        others = usable & (fold != k)
        strangers = others & ~_related(scores, test)
        train = strangers if len(np.unique(scores.fake[strangers])) == 2 else others
        if test.any() and len(np.unique(scores.fake[train])) == 2:
            found[test] = _predicted(x[train], scores.fake[train], x[test])
    return found


def folds(scores: Scores, usable: Bools, seed: int) -> NDArray[np.int64]:
    """A fold for each item, groups kept whole; large groups first, each into the fold that has least of its label."""
    names, member = np.unique(scores.text["group"], return_inverse=True)
    sizes = np.zeros((len(names), 2), np.int64)
    np.add.at(sizes, (member[usable], scores.fake[usable].astype(int)), 1)
    filled = np.zeros((FOLDS, 2), np.int64)
    fold_of = np.zeros(len(names), np.int64)
    order = np.random.default_rng(seed).permutation(len(names))
    for group in order[np.argsort(-sizes[order].sum(axis=1), kind="stable")]:
        of = int(np.argmax(sizes[group]))
        fold_of[group] = np.lexsort((filled.sum(axis=1), filled[:, of]))[0]
        filled[fold_of[group]] += sizes[group]
    return np.asarray(fold_of[member])


def _related(scores: Scores, test: Bools) -> Bools:
    related = np.zeros(len(scores), dtype=bool)
    for column in ("identity", "matched_group"):
        named = scores.text[column]
        related |= np.isin(named, np.unique(named[test])) & (named != "")
    return related


def _table(scores: Scores, names: tuple[str, ...]) -> Floats:
    """(N, columns): numbers, skewed ones as log(1 + x); a codec as one column per name that occurs."""
    columns = []
    for name in names:
        if name in scores.text:
            codecs = scores.text[name]
            columns += [(codecs == one).astype(np.float64) for one in np.unique(codecs[codecs != ""])]
        else:
            value = scores.number[name]
            columns.append(np.log1p(np.maximum(value, 0)) if name in _SKEWED else value)
    return np.stack(columns, axis=1)


def _predicted(train: Floats, fake: Bools, test: Floats) -> Floats:
    from sklearn.linear_model import LogisticRegression

    told = ~np.isnan(train)
    mean = np.where(told, train, 0).sum(axis=0) / np.maximum(told.sum(axis=0), 1)
    spread = np.sqrt(np.where(told, (train - mean) ** 2, 0).sum(axis=0) / np.maximum(told.sum(axis=0), 1))
    spread[spread < 1e-9] = 1.0

    def features(x: Floats) -> Floats:
        absent = np.isnan(x)
        return np.hstack([np.clip(np.where(absent, 0, (x - mean) / spread), -8, 8), absent])

    model = LogisticRegression(class_weight="balanced", max_iter=1000).fit(features(train), fake)
    return np.asarray(model.predict_proba(features(test))[:, 1])
