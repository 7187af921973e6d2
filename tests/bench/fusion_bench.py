"""What a verdict costs, alone and by the thousand."""

from collections.abc import Iterator
from uuid import UUID

import numpy as np

from clipwarden.models.catalogue import CATALOGUE
from clipwarden.models.fusion.bundle import bundle_path, read_bundle
from clipwarden.models.fusion.replay import columns_of
from clipwarden.models.fusion.verdict import judge
from clipwarden.shared.contracts import (
    Branch,
    BranchResult,
    DetectorOutcome,
    Evidence,
    Label,
    OutcomeStatus,
    Window,
)
from clipwarden.shared.store import Decided
from clipwarden.workers.replay import PAGE, Tally, flips
from tests.bench.figures import Bench, Figure, cpu_s, figure

CALLS = 200
PAGES = 20
WINDOWS = 60
"""As many as a detector reports of a long clip."""


@figure
def verdict_cost(bench: Bench) -> Iterator[Figure]:
    """One verdict from every detector that a head weighs, each with many windows; without reading or writing rows."""
    bundle, results = read_bundle(bundle_path())[0], everything_found()

    def many() -> None:
        for _ in range(CALLS):
            judge(bundle, bench.manifest, results)

    yield Figure("fusion CPU", 1000 * cpu_s(many) / CALLS, "ms", limit=1)


def everything_found() -> list[BranchResult]:
    features = [CATALOGUE[name] for name in columns_of(read_bundle(bundle_path())[0])]
    rng = np.random.default_rng(0)
    found: list[BranchResult] = []
    for branch in Branch:
        detectors = dict.fromkeys(f.detector for f in features if f.branch is branch)
        outcomes = tuple(
            DetectorOutcome(
                name=name,
                version="1",
                status=OutcomeStatus.OK,
                evidence=Evidence(
                    score=0.7,
                    features={f.name: 0.7 for f in features if f.detector == name},
                    windows=tuple(
                        Window(start_s=k, end_s=k + 1, score=score) for k, score in enumerate(rng.random(WINDOWS))
                    ),
                ),
            )
            for name in detectors
        )
        if outcomes:
            found.append(BranchResult(branch=branch, status=OutcomeStatus.OK, detectors=outcomes))
    return found


@figure
def replay_rate(bench: Bench) -> Iterator[Figure]:
    """Stored verdicts judged again, from rows as the store hands them over to what would flip; without Postgres."""
    bundle = read_bundle(bundle_path())[0]
    rng = np.random.default_rng(0)
    values = rng.random((PAGE, len(columns_of(bundle))))
    page = [Decided(UUID(int=k), Label.INCONCLUSIVE, 0.5, tuple(row)) for k, row in enumerate(values.tolist())]

    def everything() -> None:
        for _ in flips(bundle, [page] * PAGES, None, Tally()):
            pass

    yield Figure("replay per core", PAGE * PAGES / cpu_s(everything), "analyses/s", "higher", limit=20_000)
