"""How far an analysis is: derived from its stage rows, stored nowhere."""

from enum import StrEnum

from clipwarden.shared.contracts import SETTLED, Analysis, AnalysisState, Stage

EARLY = {Stage.FETCH, Stage.INGEST}


class Phase(StrEnum):
    """The stage of a running analysis as users see it: the branches are one."""

    FETCH = "fetch"
    INGEST = "ingest"
    ASSESS = "assess"
    FUSE = "fuse"


def phase(analysis: Analysis) -> Phase | None:
    """What the analysis works on, or worked on last; None while it is queued."""
    if analysis.started_at is None:
        return None
    unsettled = {row.stage for row in analysis.stages if row.status not in SETTLED}
    if Stage.FETCH in unsettled:
        return Phase.FETCH
    branches = any(row.stage not in EARLY for row in analysis.stages)
    if Stage.INGEST in unsettled or not branches:
        return Phase.INGEST
    return Phase.ASSESS if unsettled else Phase.FUSE


def percent(analysis: Analysis) -> int:
    """0 queued, 5 ingest, 30-90 by settled branches, 95 fusing, 100 done; what ended badly stays where it was."""
    if analysis.state is AnalysisState.DONE:
        return 100
    match phase(analysis):
        case None:
            return 0
        case Phase.FETCH | Phase.INGEST:
            return 5
        case Phase.FUSE:
            return 95
        case Phase.ASSESS:
            branches = [row for row in analysis.stages if row.stage not in EARLY]
            return 30 + 60 * sum(row.status in SETTLED for row in branches) // len(branches)
