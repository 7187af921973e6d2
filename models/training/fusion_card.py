"""The fusion heads' card: what they are, how good they are, and what joining gains over the best single branch."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from clipwarden.models.catalogue import CATALOGUE
from clipwarden.models.fusion.bundle import FusionBundle, Head
from clipwarden.models.fusion.policies import Figures, figures
from clipwarden.models.training.evaluation.figures import ranking
from clipwarden.models.training.evaluation.resampling import Interval, paired
from clipwarden.models.training.head_table import Floats, Table, weights
from clipwarden.models.training.heads import Family, head_name, nested

HEADINGS: Final = (
    "measured on",
    "groups",
    "AUC out of fold [95 %]",
    "log-loss (chance 0.693)",
    "Brier (chance 0.250)",
    "slope [95 %]",
)

GAINED: Final = ("rows", "AUC, all detectors [95 %]", "best of one branch", "difference in AUC [95 %]")


@dataclass(frozen=True, slots=True)
class Gain:
    """What the head over all detectors has in AUC over the best head of one branch, on the same rows."""

    rows: str
    count: int
    fused: Interval
    best: str
    difference: Interval


def gains(joint: Table, kind: Sequence[str], families: Mapping[int, Family]) -> list[Gain]:
    """Over all rows, over those of the first kind, and over the composites, which are the others."""
    said = {subset: found.probability for subset, found in nested(joint, families).items()}
    full = said[tuple(range(len(joint.columns)))]
    own = np.array([k == kind[0] for k in kind])
    sets = {"all rows": np.ones(len(joint), np.bool_), kind[0]: own, "composites": ~own}
    return [
        _gain(rows, joint.rows(of), full[of], {s: p[of] for s, p in said.items() if _of_one_branch(joint, s)})
        for rows, of in sets.items()
    ]


def _of_one_branch(table: Table, subset: Sequence[int]) -> bool:
    return len({CATALOGUE[table.columns[i]].branch for i in subset}) == 1


def _gain(rows: str, table: Table, full: Floats, alone: Mapping[tuple[int, ...], Floats]) -> Gain:
    weight = weights(table)
    best = max(alone, key=lambda subset: ranking(table.fake, alone[subset], weight[None])["auc"][0])
    found = paired(table.fake, full, alone[best], table.group, weight=weight)
    return Gain(rows, len(table), found["first"], head_name(table.columns, best), found["difference"])


def card(bundle: FusionBundle, found: Sequence[Gain]) -> str:
    """The card in Markdown, from the bundle and what joining the branches gains."""
    full = max(bundle.heads, key=lambda h: len(h.feature_cols))
    coefficients = (f"{name} {c:.3f}" for name, c in zip(full.feature_cols, full.model.coef, strict=True))
    return CARD.format(
        strength=full.metrics["strength"],
        temperature=full.temperature,
        coefficients=", ".join(coefficients),
        headings=" | ".join(HEADINGS),
        heads=_rows((f"`{head.name}`", *cells_of(head)) for head in bundle.heads),
        gained=" | ".join(GAINED),
        gains=_rows(gained(gain) for gain in found),
        policies=_rows(_policy_cells(f) for f in figures(bundle) if f.policy == bundle.policy or f.head == full.name),
        policy=bundle.policy,
        fitted=full.metrics["fitted_clips"],
        own=found[1].count,
        made=found[2].count,
        data=full.data,
    )


def _rows(of: Iterable[Sequence[str]]) -> str:
    return "\n".join("| " + " | ".join(cells) + " |" for cells in of)


def cells_of(head: Head) -> list[str]:
    """A head's figures, as HEADINGS name them."""
    m = head.metrics
    return [
        f"{m['clips']:.0f} ({m['real_clips']:.0f} real)",
        f"{m['groups']:.0f}",
        f"{m['auc']:.3f} [{m['auc_low']:.3f}, {m['auc_high']:.3f}]",
        f"{m['log_loss']:.3f}",
        f"{m['brier']:.3f}",
        f"{m['slope']:.2f} [{m['slope_low']:.2f}, {m['slope_high']:.2f}]" if "slope_low" in m else "undefined",
    ]


def gained(gain: Gain) -> list[str]:
    """What a gain is on, and its figures, as GAINED name them."""
    return [gain.rows, str(gain.count), str(gain.fused), gain.best, str(gain.difference)]


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


CARD: Final = """# Fusion heads

## What they are

Logistic regressions on the detectors' scores (as logits, standardised), coefficients of fake scores not below 0,
divided by one temperature in [0.5, 5]. The largest head whose columns are all present is used. Every head is fitted on
the same {fitted:.0f} rows ({own} clips with their own sound, {made} composites), with columns dropped, and held close
to the head over all: dropping a detector whose score says nothing (its mean over the rows) moves no probability by more
than 0.02.

Strength of regularisation {strength:g}, chosen by grouped cross-validation; temperature {temperature:.2f}, fitted on
the folds held out. Standardised coefficients: {coefficients}.

## Data

Half of each label are development clips with their own sound; their label is the clip's, and whether the sound of a
fake one is genuine or made is mostly unknown. The other half are composites: the pictures of one clip with the sound of
an utterance, genuine or synthetic, both of one fold. A composite is manipulated if either part is; of the manipulated
ones half are in both parts, a quarter in the pictures alone and a quarter in the sound alone. Detectors of pictures do
not hear and detectors of speech do not see, so that the composites' scores are those of their parts. Classes are
weighted to a prior of one half, clips by 1/sqrt(n) of their generator or source. Digest of the training table:
`{data}`.

    clipwarden train fusion --runs DIR --data DIR --install

## Figures

Nested over five folds of groups: of a tested clip's generator or source, and of a tested utterance's family of
synthesis or speakers, neither the detectors, the coefficients, the strength nor the temperature saw anything. The
source of a tested utterance may be known to the coefficients by other speakers, that of a spoofed one to the detectors
too. As in all stacking the scores that a fold's coefficients are fitted to come from detectors that learnt from this
fold. (The scores of clips' own sound are by the speech detectors as shipped, which learnt from another corpus.) Heads
of one branch are measured on all clips, or all utterances, alone; those over both on the composites alone, where each
real clip makes one real row. AUC counts all rows alike, loss and slope as in fitting. Thresholds are set so that about
a tenth of the real rows is called fake, and on these same rows, which flatters them. What the detectors look at, and
their shrinkage, was chosen on these folds too: see their cards. The slope is that of a logistic regression of the
label on the log-odds: 1 if these can be taken as they are.

| head | {headings} |
|---|---|---|---|---|---|---|
{heads}

What the head over all detectors gains over the best head of one branch, on the same rows, which both were not fitted
on (paired bootstrap over groups, rows weighed as in fitting):

| on | {gained} |
|---|---|---|---|---|
{gains}

## Policies

"Bound" is the upper Clopper-Pearson bound (95 %) of the share of real clips called fake, as if clips were independent;
"found" and "missed" are fake clips called fake and called real, "conclusive" all clips with a label other than
inconclusive. Verdicts follow `{policy}` unless an operator chooses another; `clipwarden fusion policies` shows all.

| policy | head | fake from | real to | real clips called fake | bound | found | missed | conclusive |
|---|---|---|---|---|---|---|---|---|
{policies}

## Known limits

- The label of a head over both branches is whether the clip was manipulated, in pictures or sound.
- What the sound of a fake development clip is, genuine or made, is mostly unknown, and many of them carry genuine
  speech: there an unsuspicious sound speaks, wrongly, for the clip.
- A coefficient of 0 means that the others know what this detector knows; a verdict by it alone is seldom conclusive.
- Composites are joined scores, not joined files: what joining does to a file is not in them.
- Few real clips: the bounds are wide, and a bound on the false positives below what the table shows is refused.
- The heads of the 5-way pipeline (`seed-2way` to `seed-5way`) are known by their columns and have no coefficients here.
"""
