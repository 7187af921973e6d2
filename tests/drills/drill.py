"""One drill: what was submitted in it, when the fault was over, and the proof that nothing was lost."""

import os
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from sqlalchemy.exc import OperationalError

from clipwarden.shared.blobs import BUNDLES, EVIDENCE, PARTIAL, UPLOADS
from clipwarden.shared.local.child import until
from clipwarden.shared.queue import Queue, redis_keys
from clipwarden.workers.retention import Caretaker
from tests.drills import audit
from tests.drills.yard import LEASE_S, SWEEP_S, Yard

RECOVERY_S = LEASE_S + SWEEP_S + 5
"""What is promised after a worker was killed."""
PATIENCE_S = 180.0
ROUNDS = int(os.environ.get("CLIPWARDEN_DRILL_ROUNDS", "0"))
UNFINISHED = "SELECT id, state FROM analyses WHERE finished_at IS NULL"
WORKERS = """
    SELECT application_name, count(*) AS n FROM pg_stat_activity
    WHERE application_name LIKE '%@%' GROUP BY 1 HAVING count(*) > 1
"""


@dataclass
class Drill:
    """`expected` has the end of each accepted analysis, "" where any will do; `before` has those of former drills."""

    yard: Yard
    clip: Path
    expected: dict[str, str] = field(default_factory=dict)
    before: frozenset[str] = field(init=False)
    healed_at: float = field(default_factory=time.monotonic)
    recovered: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.before = frozenset(str(row.id) for row in self.yard.rows("SELECT id FROM analyses"))

    def submit(self, path: Path | None = None, end: str = "done", **fields: str) -> str:
        """Upload a file. Raises httpx's errors if it is not accepted."""
        with (path or self.clip).open("rb") as file:
            reply = self.yard.http.post("/v1/analyses", files={"file": file}, data={"reuse": "false", **fields})
        return self.accepted(reply, end)

    def accepted(self, reply: httpx.Response, end: str = "done") -> str:
        analysis_id = str(reply.raise_for_status().json()["id"])
        self.expected[analysis_id] = end
        return analysis_id

    def stage(self, analysis_id: str, stage: str) -> Any:
        (row,) = self.yard.rows(
            "SELECT * FROM stages WHERE analysis_id = :id AND stage = :stage", id=analysis_id, stage=stage
        )
        return row

    def until_stage(self, analysis_id: str, stage: str, status: str) -> None:
        self.yard.until(
            "SELECT 1 FROM stages WHERE analysis_id = :id AND stage = :stage AND status = :status",
            id=analysis_id,
            stage=stage,
            status=status,
        )

    def under_way(self) -> int:
        """How many analyses have not ended; none are told while Postgres is away."""
        try:
            return len(self.yard.rows(UNFINISHED))
        except OperationalError:
            return sys.maxsize

    def ends(self) -> Counter[str]:
        """How the analyses of this drill ended."""
        rows = self.yard.rows("SELECT id, state FROM analyses")
        return Counter(row.state for row in rows if str(row.id) in self.expected)

    def healed(self) -> None:
        """The fault is over, or there was but one moment of it: recovery counts from here."""
        self.healed_at = time.monotonic()

    def assert_nothing_lost(self, *, faultless: bool = False) -> float:
        """Every accepted analysis ends once, as expected, and leaves nothing lying; seconds until the last one did.

        Of a drill that broke nothing, nothing lies about even before the sweeper has looked for it.
        """
        yard = self.yard
        assert until(lambda: not yard.rows(UNFINISHED), PATIENCE_S, 0.05), self._unfinished()
        self.recovered.append(time.monotonic() - self.healed_at)
        states = {str(row.id): row.state for row in yard.rows("SELECT id, state FROM analyses")}
        states = {key: state for key, state in states.items() if key not in self.before}
        told = {key: end for key, end in self.expected.items() if end}
        assert {key: states.get(key) for key in told} == told
        assert self.expected.keys() <= states.keys()
        self._assert_ended_once(states)
        assert until(lambda: not self._waiting(), PATIENCE_S), self._waiting()
        assert not yard.rows(WORKERS), "a worker process holds more than one connection"
        self._assert_no_orphans(faultless)
        assert yard.surprises == []
        wanted = [member for member in yard.members.values() if member.wanted]
        assert [member.name for member in wanted if not until(member.child.alive, 10)] == []
        return self.recovered[-1]

    def _assert_ended_once(self, states: dict[str, str]) -> None:
        notes = audit.noted(self.yard.engine)
        for analysis_id, state in states.items():
            once = {"ended": 1, "insert": 1} if state == "done" else {"ended": 1}
            assert notes.get(analysis_id) == once, f"{analysis_id} is {state}: {notes.get(analysis_id)}"
        left = self.yard.rows(
            "SELECT s.analysis_id, s.stage, s.status FROM stages s JOIN analyses a ON a.id = s.analysis_id"
            " WHERE s.status IN ('open', 'leased')"
        )
        assert not left
        assert not self.yard.rows(
            "SELECT 1 FROM verdicts v LEFT JOIN analyses a ON a.id = v.analysis_id"
            " WHERE a.state IS DISTINCT FROM 'done'"
        )

    def _waiting(self) -> dict[str, int]:
        """Messages that wait, by list; copies that a dead worker did not acknowledge are not among them."""
        lengths = {key: int(self.yard.redis.llen(key)) for queue in Queue for key in redis_keys(queue)}
        return {key: length for key, length in lengths.items() if length}

    def _assert_no_orphans(self, faultless: bool) -> None:
        yard = self.yard
        at_once = yard.settings.model_copy(update={"orphan_retention_s": 0.0, "bundle_retention_s": 0.0})

        def tidy() -> bool:
            if not faultless:
                Caretaker(at_once, yard.store, yard.blobs).turn(Counter())
            return not self._orphans()

        assert until(tidy, 10), self._orphans()

    def _orphans(self) -> set[str]:
        """Files that no row names; a bundle is deleted a moment after its analysis ended."""
        yard = self.yard
        keys = set(yard.blobs.keys())
        named = {row.upload_key for row in yard.rows("SELECT DISTINCT upload_key FROM analyses")}
        folders = {row.folder for row in yard.rows("SELECT DISTINCT outcome->>'folder' AS folder FROM stages")}
        kept = {key for key in keys if key.startswith(EVIDENCE) and key.rsplit("/", 2)[0] in folders}
        return {key for key in keys if key.startswith((PARTIAL, BUNDLES, UPLOADS, EVIDENCE))} - named - kept

    def _unfinished(self) -> str:
        stuck = self.yard.rows(UNFINISHED)
        stages = [
            (row.stage, row.status, row.attempts, row.sends, str(row.not_before), str(row.lease_until))
            for row in self.yard.rows("SELECT * FROM stages WHERE analysis_id = ANY(:ids)", ids=[s.id for s in stuck])
            if row.status in {"open", "leased"}
        ]
        return f"{[(str(s.id), s.state) for s in stuck]} {stages} queues {self._waiting()}"
