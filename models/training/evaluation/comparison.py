"""Two scores files of the same items: what one pipeline gains over the other, with a paired interval."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from rich.table import Table

from clipwarden.models.training.evaluation.figures import Floats
from clipwarden.models.training.evaluation.ledger import Scores, read_scores
from clipwarden.models.training.evaluation.resampling import Interval, delong, paired
from clipwarden.shared.errors import ConfigError

FUSED: Final = "fused"


@dataclass(frozen=True, slots=True)
class Gain:
    """AUCs over the items that both files score, and the first less the second, by paired bootstrap and by DeLong."""

    subject: str
    items: int
    real: int
    first: Interval
    second: Interval
    difference: Interval
    delong: Interval

    def as_json(self) -> dict[str, Any]:
        named = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return {k: v.model_dump() if isinstance(v, Interval) else v for k, v in named.items()}


def compared(first: Path, second: Path, seed: int = 0) -> list[Gain]:
    """The fused probability and every detector that both files have. Raises ConfigError if they share no items."""
    a, b = _paired(read_scores(first), read_scores(second))
    found = [_gain(FUSED, a, a.number["probability"], b.number["probability"], seed)]
    common = [name for name in a.detectors if name in b.detectors]
    found += [_gain(name, a, a.score(name), b.score(name), seed) for name in common]
    return [gain for gain in found if gain.items]


def _paired(a: Scores, b: Scores) -> tuple[Scores, Scores]:
    """Both narrowed to the items they share, in one order: by digest where both have it, else by path."""
    digests = all((s.text["sha256"] != "").any() for s in (a, b))
    by = "sha256" if digests else "path"
    shared, of_a, of_b = np.intersect1d(a.text[by], b.text[by], return_indices=True)
    kept = shared != ""
    if not kept.any():
        raise ConfigError("the two scores files share no item, by digest or by path")
    chosen = [_taken(s, order[kept]) for s, order in ((a, of_a), (b, of_b))]
    if not np.array_equal(chosen[0].fake, chosen[1].fake):
        k = int(np.flatnonzero(chosen[0].fake != chosen[1].fake)[0])
        raise ConfigError(f"the two scores files disagree on the label of {chosen[0].text['path'][k]}")
    return chosen[0], chosen[1]


def _taken(scores: Scores, order: Any) -> Scores:
    return Scores(
        scores.fake[order],
        {name: value[order] for name, value in scores.text.items()},
        {name: value[order] for name, value in scores.number.items()},
        {name: value[order] for name, value in scores.status.items()},
    )


def _gain(subject: str, scores: Scores, first: Floats, second: Floats, seed: int) -> Gain:
    both = ~np.isnan(first) & ~np.isnan(second)
    fake, first, second = scores.fake[both], first[both], second[both]
    nothing = Interval(value=None)
    if len(np.unique(fake)) < 2:
        return Gain(subject, len(fake), int((~fake).sum()), nothing, nothing, nothing, nothing)
    groups = np.unique(scores.text["group"][both], return_inverse=True)[1]
    found = paired(fake, first, second, groups, seed)
    return Gain(subject, len(fake), int((~fake).sum()), **found, delong=delong(fake, first, second))


def table(gains: Sequence[Gain]) -> Table:
    made = Table("", "items (real)", "AUC, first", "AUC, second", "first less second", "by DeLong", box=None)
    for g in gains:
        values = (str(v) for v in (g.first, g.second, g.difference, g.delong))
        made.add_row(g.subject, f"{g.items} ({g.real})", *values)
    return made


def write(target: Path, files: Sequence[Path], gains: Sequence[Gain]) -> None:
    content = {"first": files[0].name, "second": files[1].name, "subjects": [g.as_json() for g in gains]}
    target.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", "utf-8")
