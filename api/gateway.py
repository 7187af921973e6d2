"""What the routes do behind HTTP: take an upload over into the store and the queue, and read analyses back."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass, field
from threading import Event
from typing import Annotated, Any, Self
from uuid import UUID

import redis
from anyio.to_thread import run_sync
from fastapi import Depends, Request

from clipwarden.api.access import Caller
from clipwarden.api.links import Signer
from clipwarden.api.schemas import AnalysisView
from clipwarden.api.waiting import Waiting
from clipwarden.shared.blobs import BlobStore, open_blobs
from clipwarden.shared.codes import ProblemCode
from clipwarden.shared.contracts import Analysis, AnalysisState, Lane, Manifest, Stage, StageRow, StageStatus
from clipwarden.shared.errors import ClipwardenError, ProblemError, Unavailable
from clipwarden.shared.handing import drop_copy, hand_on
from clipwarden.shared.logs import log_context, logger
from clipwarden.shared.queue import Task
from clipwarden.shared.settings import Settings
from clipwarden.shared.store import KeyClaim, NewAnalysis, Opened, Store
from clipwarden.shared.tracing import span

CHECK_S = 3.0
SEND_S = 1.0
SENDERS = 4
"""Threads that may hang on a silent Redis: their own, so that uploads and reads go on."""
POOL_SIZE = 10

log = logger(__name__)


@dataclass(frozen=True, slots=True)
class Gateway:
    """The services behind one gateway process. Methods that are not coroutines block: call them in a thread."""

    settings: Settings
    store: Store
    blobs: BlobStore
    signer: Signer
    waiting: Waiting
    published: Event = field(default_factory=Event)
    senders: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(SENDERS, "send"))

    @classmethod
    def open(cls, settings: Settings) -> Self:
        """Connect. Raises ConfigError for missing settings or another installation's blob store, or Unavailable."""
        settings.need("database_url", "redis_url")
        store = Store(settings.database_url, POOL_SIZE)
        try:
            store.check_schema()
            blobs = open_blobs(settings)
            blobs.check(store.store_id())
            return cls(settings, store, blobs, Signer(store.link_secret(), settings.link_lifetime_s), Waiting(store))
        except BaseException:
            store.close()
            raise

    def close(self) -> None:
        self.senders.shutdown(wait=False, cancel_futures=True)
        self.store.close()

    def check_published(self) -> None:
        """Raises ProblemError while no pipeline is published. Pipelines are never deleted, so it asks until one was."""
        if not self.published.is_set():
            self.pipeline()
            self.published.set()

    def pipeline(self) -> str:
        """The pipeline of new analyses. Raises ProblemError while none is published."""
        found = self.store.current_pipeline()
        if found is None:
            raise ProblemError(
                ProblemCode.UNAVAILABLE,
                "No pipeline is published: the operator runs `clipwarden pipeline publish` to take clips.",
                retry_after_s=10,
            )
        return found

    def manifest(self) -> tuple[str, Manifest]:
        """The current pipeline's id and manifest."""
        pipeline = self.pipeline()
        return pipeline, self.manifest_of(pipeline)

    def manifest_of(self, pipeline: str) -> Manifest:
        manifest = self.store.manifest(pipeline)
        assert manifest is not None, "pipelines are never deleted"
        return manifest

    def accept(
        self,
        caller: Caller,
        new: NewAnalysis,
        upload_id: UUID | None = None,
        claim: KeyClaim | None = None,
        fingerprint: str = "",
    ) -> Analysis:
        """Open an analysis. From here on it will be examined, sent by us or by the sweeper."""
        opened = self.store.submit(new, upload_id, claim, fingerprint)
        if opened.alone:
            return _as_opened(opened, new)
        try:
            taken = self.analysis(caller, opened.id)
        except ClipwardenError as error:  # taken is taken: an error now would only make the client send it again
            log.warning("taken but not read back", analysis_id=str(opened.id), reason=str(error))
            return _as_opened(opened, new)
        if new.upload_key and taken.upload_key not in {None, new.upload_key}:
            drop_copy(self.store, self.blobs, new.upload_key)
        return taken

    def analysis(self, caller: Caller, analysis_id: UUID) -> Analysis:
        """Raises ProblemError for an unknown id, and for another tenant's."""
        found = self.store.analysis(analysis_id, caller.tenant_id)
        if found is None:
            raise ProblemError(ProblemCode.NOT_FOUND)
        return found

    def view(self, analysis: Analysis) -> AnalysisView:
        """The analysis as it is told, with links that open its files and what is ahead of it."""
        return AnalysisView.from_domain(analysis, self.signer, self.waiting.outlook(analysis))

    async def shown(self, analysis: Analysis) -> AnalysisView:
        """The same, in a thread only if something has to be read for it."""
        return self.view(analysis) if self.waiting.at_hand else await run_sync(self.view, analysis)

    def viewed(self, caller: Caller, analysis_id: UUID) -> AnalysisView:
        """Raises ProblemError as `analysis` does."""
        return self.view(self.analysis(caller, analysis_id))

    def check_blobs(self) -> None:
        """Raises ConfigError or Unavailable unless the blob store is the one this database knows."""
        self.blobs.check(self.store.store_id())

    def check_redis(self) -> None:
        """Raises Unavailable."""
        try:
            with redis.Redis.from_url(
                self.settings.redis_url, socket_timeout=2, socket_connect_timeout=2, retry=None
            ) as client:
                client.ping()
        except (redis.RedisError, OSError) as error:
            raise Unavailable(f"Redis did not answer: {error}") from error

    async def send(self, analysis: Analysis) -> None:
        """Try to send an analysis to the workers, for a second at most; otherwise the sweeper sends it."""
        sent = self.senders.submit(copy_context().run, self._send, analysis.id, analysis.lane, analysis)
        try:
            await asyncio.wait_for(asyncio.wrap_future(sent), SEND_S)
        except TimeoutError:
            log.warning("not sent in time", analysis_id=str(analysis.id))

    def send_later(self, analyses: Sequence[tuple[UUID, Lane]]) -> None:
        """Send many analyses in a thread that may hang; what is not sent, the sweeper sends."""

        def send() -> None:
            for analysis_id, lane in analyses:
                if not self._send(analysis_id, lane):
                    return

        self.senders.submit(copy_context().run, send)

    async def readiness(self) -> dict[str, bool]:
        """Each service, and whether it answered in time; why not is in the log."""
        checks = {"redis": self.check_redis, "postgres": self.store.ping, "blob_store": self.check_blobs}
        answers = await asyncio.gather(*(_answers(name, check) for name, check in checks.items()))
        return dict(zip(checks, answers, strict=True))

    def _send(self, analysis_id: UUID, lane: Lane, fresh: Analysis | None = None) -> bool:
        """Hand an analysis on; the store is spared a question if it is known as it was opened."""
        with log_context(analysis_id=str(analysis_id)), span("send", analysis_id):
            return hand_on(self.settings, self.store, analysis_id, lane, _first_task(fresh) if fresh else None)


def _first_task(fresh: Analysis) -> Task | None:
    """The task of the one open row that a fresh analysis has, None if that is not how it began."""
    if fresh.leader_id is not None or len(fresh.stages) != 1 or fresh.stages[0].status is not StageStatus.OPEN:
        return None
    return Task.FETCH if fresh.stages[0].stage is Stage.FETCH else Task.INGEST


def _as_opened(opened: Opened, new: NewAnalysis) -> Analysis:
    """A fresh analysis as the database tells it, to spare asking; what became of it is known only if it is alone."""
    first = Stage.FETCH if new.upload_key is None else Stage.INGEST
    row = StageRow(stage=first, status=StageStatus.OPEN, attempts=0, created_at=opened.created_at)
    return Analysis(
        id=opened.id,
        tenant_id=new.tenant_id,
        state=AnalysisState.QUEUED,
        pipeline=opened.pipeline,
        filename=new.filename,
        size_bytes=new.size_bytes,
        sha256=new.sha256,
        probe=None,
        code=None,
        message=None,
        created_at=opened.created_at,
        started_at=None,
        finished_at=None,
        rerun_of=new.rerun_of,
        batch_id=new.batch_id,
        from_cache=False,
        lane=new.lane,
        policy=new.policy,
        detectors=new.detectors,
        source_url=new.source_url,
        upload_key=new.upload_key,
        tag=new.tag,
        metadata=dict(new.metadata),
        stages=(row,) if opened.alone else (),
        verdict=None,
    )


async def _answers(name: str, check: Callable[[], Any]) -> bool:
    try:
        async with asyncio.timeout(CHECK_S):
            await run_sync(check, abandon_on_cancel=True)
    except (ClipwardenError, TimeoutError) as error:
        log.warning("not ready", failed=name, reason=str(error) or "no answer in time")
        return False
    return True


async def gateway_of(request: Request) -> Gateway:
    """A coroutine, or the framework would run it in a thread for each request."""
    gateway: Gateway = request.app.state.gateway
    return gateway


Services = Annotated[Gateway, Depends(gateway_of)]
