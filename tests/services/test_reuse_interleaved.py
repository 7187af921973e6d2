"""Whatever happens in whatever order: every analysis ends, files live as long as they are named, verdicts agree."""

import random
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from uuid import UUID

import pytest
from sqlalchemy import create_engine, text

from clipwarden.api.access import Caller
from clipwarden.api.gateway import Gateway
from clipwarden.shared.codes import FailCode, RejectCode, SkipCode
from clipwarden.shared.contracts import (
    TERMINAL_STATES,
    AnalysisState,
    Branch,
    BranchResult,
    Lane,
    Manifest,
    Stage,
    Verdict,
)
from clipwarden.shared.evidence import drop_evidence, write_evidence
from clipwarden.shared.settings import Settings
from clipwarden.shared.store import Doomed, Granted, NewAnalysis
from tests.analyses import FILES, PROBE, found, verdict
from tests.services.conftest import MANIFEST, PIPELINE

CONTENTS = (b"one", b"two", b"not media")
THREADS, STEPS = 3, 40


@dataclass
class World:
    """A gateway's services, and workers that do as chance wills until it is told to be kind."""

    gateway: Gateway
    caller: Caller
    chance: random.Random
    accepted: list[UUID]

    def step(self) -> None:
        actions = (self.submit, self.submit, self.work, self.work, self.work, self.fuse, self.sweep)
        self.chance.choice((*actions, self.cancel, self.delete))()

    def submit(self) -> None:
        with self.gateway.blobs.create() as writer:
            writer.write(self.chance.choice(CONTENTS))
            key = writer.commit()
        new = NewAnalysis(
            "a.mp4",
            writer.size,
            writer.sha256,
            key,
            PIPELINE,
            deadline_s=600,
            lane=self.chance.choice(list(Lane)),
            policy=self.chance.choice([None, "high-recall"]),
            reusable=self.chance.random() < 0.9,
        )
        self.accepted.append(self.gateway.accept(self.caller, new).id)

    def work(self, kind: bool = False) -> bool:
        """Do what an open row asks for, if there is one; some of it fails."""
        due = self.gateway.store.due(everything=True)
        if not due:
            return False
        row = self.chance.choice(due)
        claim = self.gateway.store.claim(row.analysis_id, row.stage, 60, 3, "w")
        if isinstance(claim, Granted):
            if row.stage is Stage.INGEST:
                self.ingest(row.analysis_id, claim, kind)
            else:
                self.assess(row.analysis_id, claim)
        return True

    def ingest(self, analysis_id: UUID, granted: Granted, kind: bool) -> None:
        store, token = self.gateway.store, granted.token
        content = self.gateway.blobs.read(str(granted.upload_key))
        if not kind and self.chance.random() < 0.3:
            store.end_ingest(analysis_id, token, FailCode.INTERNAL, "chance")
        elif content != CONTENTS[-1]:
            skipped = {b: SkipCode.NO_WEIGHTS for b in Branch if b is not Branch.VISUAL}
            store.finish_ingest(analysis_id, token, PROBE, [Branch.VISUAL], skipped)
        elif store.end_ingest(analysis_id, token, RejectCode.NOT_MEDIA, "no") and (
            key := store.forget_upload(analysis_id)
        ):
            self.gateway.blobs.delete(key)

    def assess(self, analysis_id: UUID, granted: Granted) -> None:
        content = self.gateway.blobs.read(str(granted.upload_key))
        folder = write_evidence(self.gateway.blobs, analysis_id, Branch.VISUAL, granted.token, FILES)
        result = found(score=len(content) / 1000 + content[0] / 1000).model_copy(update={"folder": folder})
        if not self.gateway.store.finish_branch(analysis_id, granted.token, result):
            drop_evidence(self.gateway.blobs, folder)

    def fuse(self) -> None:
        for analysis_id in self.gateway.store.unfused(0):
            self.gateway.store.fuse(analysis_id, judge)

    def sweep(self) -> None:
        self.gateway.store.release_stranded()
        for analysis_id, _ in self.gateway.store.expired_uploads(3600):
            if key := self.gateway.store.forget_upload(analysis_id):
                self.gateway.blobs.delete(key)

    def cancel(self) -> None:
        if self.accepted:
            self.gateway.store.cancel(self.chance.choice(self.accepted), self.caller.tenant_id)

    def delete(self) -> None:
        if self.accepted:
            self.gateway.store.delete(self.chance.choice(self.accepted), self.caller.tenant_id, self.remove)

    def remove(self, doomed: Doomed) -> None:
        for folder in doomed.folders:
            self.gateway.blobs.delete_folder(folder)
        if doomed.upload_key:
            self.gateway.blobs.delete(doomed.upload_key)


def judge(_: Manifest, results: Sequence[BranchResult], policy: str | None) -> Verdict:
    """A verdict that tells from which content and for which policy it was made."""
    evidence = next(d.evidence for r in results for d in r.detectors)
    assert evidence is not None
    return verdict(log_odds=evidence.score).model_copy(update={"policy": policy or "balanced"})


@pytest.fixture
def gateway(gateway_settings: Settings) -> Iterator[Gateway]:
    opened = Gateway.open(gateway_settings)
    opened.store.publish(PIPELINE, MANIFEST)
    yield opened
    opened.close()


@pytest.mark.parametrize("seed", range(4))
def test_nothing_is_lost_and_nothing_stays(gateway: Gateway, settings: Settings, seed: int) -> None:
    accepted: list[UUID] = []
    worlds = [World(gateway, Caller(), random.Random(f"{seed}/{n}"), accepted) for n in range(THREADS)]

    def run(world: World) -> None:
        for _ in range(STEPS):
            world.step()

    with ThreadPoolExecutor(THREADS) as threads:
        list(threads.map(run, worlds))
    last = worlds[0]
    while last.work(kind=True):
        last.fuse()
    last.fuse()
    last.sweep()
    ended = [analysis for each in accepted if (analysis := gateway.store.analysis(each)) is not None]
    assert len(ended) == len(accepted)
    assert {a.state for a in ended} <= TERMINAL_STATES
    assert AnalysisState.DONE in {a.state for a in ended}

    done = [a for a in ended if a.state is AnalysisState.DONE]
    for content in {(a.sha256, a.policy) for a in done}:
        assert len({str(a.verdict) for a in done if (a.sha256, a.policy) == content}) == 1
    assert len({str(a.verdict) for a in done}) == len({(a.sha256, a.policy) for a in done})

    engine = create_engine(settings.database_url)
    with engine.connect() as c:
        folders = set(c.scalars(text("SELECT outcome->>'folder' FROM stages WHERE outcome->>'folder' IS NOT NULL")))
    engine.dispose()
    named = {a.upload_key for a in ended if a.upload_key}
    named |= {f"{folder}/{name}" for folder in folders for name in FILES}
    assert set(gateway.blobs.keys()) == named

    for each in accepted:
        gateway.store.delete(each, last.caller.tenant_id, last.remove)
    assert set(gateway.blobs.keys()) == set()
