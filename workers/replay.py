"""`clipwarden fusion`: bundles, and what stored analyses would become under another one.

A replay reads the features that the branches left in Postgres: no media, no models, no GPU. It changes nothing.
"""

import argparse
import json
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from clipwarden.models.catalogue import CATALOGUE
from clipwarden.models.fusion import commands
from clipwarden.models.fusion.bundle import FusionBundle, bundle_path, read_bundle
from clipwarden.models.fusion.replay import LABELS, columns_of, replay
from clipwarden.shared.contracts import Label
from clipwarden.shared.settings import load_settings
from clipwarden.shared.store import Decided, Store

PAGE = 5000
_SHOWN = 20


@dataclass(frozen=True, slots=True)
class Flip:
    """An analysis whose label would change."""

    analysis_id: str
    before: Label
    after: Label
    probability_before: float | None
    probability_after: float | None


@dataclass
class Tally:
    """How many analyses would go from which label to which; `moved` sums the changes where both have a probability."""

    labels: Counter[tuple[Label, Label]] = field(default_factory=Counter)
    moved: float = 0.0
    compared: int = 0

    @property
    def replayed(self) -> int:
        return self.labels.total()


def flips(bundle: FusionBundle, pages: Iterable[Sequence[Decided]], policy: str | None, tally: Tally) -> Iterator[Flip]:
    """Judge every page again; yields what would flip, and counts everything in `tally`."""
    columns = columns_of(bundle)
    for page in pages:
        values = np.array([d.values for d in page], np.float64).reshape(len(page), len(columns))
        new = replay(bundle, columns, values, policy)
        old = np.array([np.nan if d.probability is None else d.probability for d in page])
        both = ~np.isnan(old) & ~np.isnan(new.probability)
        tally.moved += float(np.abs(new.probability - old)[both].sum())
        tally.compared += int(both.sum())
        before = np.array([LABELS.index(d.label) for d in page])
        pairs, counts = np.unique(np.stack([before, new.label], axis=1), axis=0, return_counts=True)
        for (a, b), count in zip(pairs.tolist(), counts.tolist(), strict=True):
            tally.labels[LABELS[a], LABELS[b]] += count
        for row in np.flatnonzero(before != new.label).tolist():
            yield _flip(page[row], LABELS[new.label[row]], float(new.probability[row]))


def _flip(decided: Decided, after: Label, probability: float) -> Flip:
    known = None if np.isnan(probability) else probability
    return Flip(str(decided.analysis_id), decided.label, after, decided.probability, known)


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="clipwarden fusion", description="Work with fusion bundles.")
    under = parser.add_subparsers(required=True, metavar="import | export | policies | replay")
    commands.add_commands(under)
    replayed = under.add_parser("replay", help="say which stored verdicts another bundle or policy would flip")
    replayed.add_argument("--bundle", type=Path, help="the new bundle (default: the installed one)")
    replayed.add_argument("--policy", help="a policy of it (default: its own)")
    replayed.add_argument("--json", action="store_true", help="print every flip as a line of JSON, then the counts")
    replayed.set_defaults(run=replay_main)
    options = parser.parse_args(argv)
    status: int = options.run(options)
    return status


def replay_main(options: argparse.Namespace) -> int:
    bundle, digest = read_bundle(options.bundle or bundle_path())
    settings = load_settings()
    settings.need("database_url")
    store, tally, started = Store(settings.database_url, pool_size=1), Tally(), time.monotonic()
    features = [(CATALOGUE[name].detector, name) for name in columns_of(bundle)]
    try:
        total = -(-store.count_verdicts() // PAGE)
        pages = track(store.verdicts(features, PAGE), "replaying", total, console=Console(stderr=True), transient=True)
        found = flips(bundle, pages, options.policy, tally)
        if options.json:
            for flip in found:
                print(json.dumps(asdict(flip)))
        else:
            _show(found)
    finally:
        store.close()
    _sum_up(tally, options.json, f"{digest}, policy {options.policy or bundle.policy}", time.monotonic() - started)
    return 0


def _show(found: Iterable[Flip]) -> None:
    """The first flips one by one; the rest is in the counts."""
    for number, flip in enumerate(found):
        if number < _SHOWN:
            before, after = (_shown(p) for p in (flip.probability_before, flip.probability_after))
            print(f"{flip.analysis_id}  {flip.before} {before} -> {flip.after} {after}")
        elif number == _SHOWN:
            print("… (--json prints all)")


def _shown(probability: float | None) -> str:
    return "-" if probability is None else f"{probability:.3f}"


def _sum_up(tally: Tally, as_json: bool, what: str, seconds: float) -> None:
    flipped = sum(count for (a, b), count in tally.labels.items() if a != b)
    mean = tally.moved / tally.compared if tally.compared else 0.0
    if as_json:
        counts = [{"before": a, "after": b, "analyses": n} for (a, b), n in sorted(tally.labels.items())]
        print(json.dumps({"replayed": tally.replayed, "flipped": flipped, "mean_change": mean, "labels": counts}))
        return
    table = Table("before", *LABELS, box=None)
    for before in LABELS:
        table.add_row(before, *(str(tally.labels[before, after]) for after in LABELS))
    Console().print(table)
    print(
        f"{tally.replayed} analyses under {what}: {flipped} labels would flip, P(fake) moves by {mean:.3f} on average"
    )
    print(f"{seconds:.1f} s; nothing was changed")
