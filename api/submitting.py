"""Submitting: from a request that brings or names a file, in either content type, to an open analysis."""

import time
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Final
from urllib.parse import unquote, urlsplit
from uuid import UUID

from anyio.to_thread import run_sync
from fastapi import Request
from python_multipart.multipart import parse_options_header

from clipwarden.api.access import Caller
from clipwarden.api.fields import read_json
from clipwarden.api.gateway import Gateway
from clipwarden.api.idempotency import Once, fingerprint, once
from clipwarden.api.limits import Limits
from clipwarden.api.options import Options, check_choice, from_json
from clipwarden.api.receiving import Upload, received, small_body
from clipwarden.api.targets import callback_of, source_of
from clipwarden.shared.codes import ProblemCode
from clipwarden.shared.contracts import Analysis, Lane, Manifest
from clipwarden.shared.errors import ProblemError
from clipwarden.shared.logs import logger
from clipwarden.shared.names import safe_name
from clipwarden.shared.store import KeptUpload, NewAnalysis
from clipwarden.shared.tracing import record

JSON_BYTES: Final = 64 * 1024
JSON_TYPE: Final = b"application/json"

log = logger(__name__)


@dataclass(frozen=True, slots=True)
class Submission:
    """What is asked for, and the file: one that was received, one to be fetched, or one that was sent ahead."""

    options: Options
    received: Upload | None = None
    url: str | None = None
    upload_id: UUID | None = None

    @property
    def fingerprint(self) -> str:
        """The same for the same request."""
        sent = self.received and (self.received.filename, self.received.file.taken().sha256)
        named = str(self.upload_id) if self.upload_id else self.url
        return fingerprint("analysis", sent, named, self.options.model_dump(mode="json"))


async def taken(request: Request, gateway: Gateway, caller: Caller, *, form_only: bool = False) -> Analysis:
    """The analysis that a request opens, sent to the workers; or has opened before, under its Idempotency-Key."""
    started_ns = time.time_ns()
    limits: Limits = request.app.state.limits
    if not gateway.published.is_set():
        await run_sync(gateway.check_published)
    async with (
        once(request, gateway, caller) as held,
        limits.room(caller, 0 if held.repeated else 1),
        _submitted(request, gateway, form_only) as submission,
    ):
        analysis = await run_sync(_opened, gateway, caller, submission, held)
    if not held.repeated:
        log.info("analysis opened", analysis_id=str(analysis.id), size_bytes=analysis.size_bytes)
        record("submit", analysis.id, started_ns, time.time_ns(), bytes=analysis.size_bytes)
        await gateway.send(analysis)
    return analysis


@asynccontextmanager
async def _submitted(request: Request, gateway: Gateway, form_only: bool) -> AsyncIterator[Submission]:
    """The request's submission; a file it brought is forgotten when the context ends, unless it was committed."""
    kind, _ = parse_options_header(request.headers.get("content-type"))
    if kind == JSON_TYPE and not form_only:
        yield await run_sync(_named, await small_body(request, JSON_BYTES))
        return
    async with received(request, gateway.blobs, gateway.settings.max_upload_bytes) as upload:
        yield Submission(upload.options, received=upload)


def parsed(body: bytes) -> Any:
    """The JSON of a body. Raises ProblemError."""
    try:
        return read_json(body)
    except ValueError as error:
        raise ProblemError(ProblemCode.BAD_REQUEST, f"The body is not valid JSON: {error}.") from error


def _named(body: bytes) -> Submission:
    named = from_json(parsed(body))
    return Submission(named.options, url=named.url, upload_id=named.upload)


def _opened(gateway: Gateway, caller: Caller, submission: Submission, held: Once) -> Analysis:
    """Open the analysis of a submission, unless it was before. Raises ProblemError for what cannot be had here."""
    mark = submission.fingerprint if held.claim else ""
    if (known := held.opened(mark)) is not None:
        return gateway.analysis(caller, known)
    asking = Asking(gateway, caller)
    new = asking.asked(submission.options)
    if submission.received is not None:
        new = _of_received(new, submission.received)
    elif submission.url is not None:
        new = asking.of_url(new, submission.url)
    elif submission.upload_id is not None:
        new = of_kept(new, submission.upload_id, asking.kept([submission.upload_id]))
    return gateway.accept(caller, new, submission.upload_id, held.claim, mark)


@dataclass(frozen=True)
class Asking:
    """For whom analyses are opened; `lane` is what they get that do not say, `pipeline` is the current one if None."""

    gateway: Gateway
    caller: Caller
    pipeline: str | None = None
    lane: Lane = Lane.REALTIME

    @cached_property
    def offered(self) -> tuple[str, Manifest]:
        """The pipeline that a choice is made from."""
        pipeline = self.pipeline or self.gateway.pipeline()
        return pipeline, self.gateway.manifest_of(pipeline)

    def asked(self, options: Options) -> NewAnalysis:
        """An analysis with these options that has no file yet. Raises ProblemError."""
        settings, caller, pipeline = self.gateway.settings, self.caller, self.pipeline
        if options.detectors is not None or options.policy is not None:
            pipeline, manifest = self.offered
            check_choice(options, manifest)
        lane = options.lane or self.lane
        return NewAnalysis(
            filename="",
            size_bytes=0,
            sha256="",
            upload_key=None,
            pipeline=pipeline,
            resend_after_s=settings.resend_after_s,
            deadline_s=settings.bulk_deadline_s if lane is Lane.BULK else settings.deadline_s,
            tag=options.tag,
            metadata=options.metadata,
            tenant_id=caller.tenant_id,
            key_id=caller.key_id,
            lane=lane,
            policy=options.policy,
            detectors=options.detectors,
            callback_url=options.callback_url and callback_of(settings, caller, options.callback_url),
            reusable=options.reuse,
        )

    def of_url(self, new: NewAnalysis, url: str) -> NewAnalysis:
        """The analysis of a file that a worker fetches. Raises ProblemError for an address that may not be asked."""
        source = source_of(self.gateway.settings, url)
        return replace(new, source_url=source, filename=safe_name(unquote(urlsplit(source).path)))

    def kept(self, ids: Collection[UUID]) -> dict[UUID, KeptUpload]:
        """Those of the files sent ahead that the caller may name."""
        return self.gateway.store.kept_uploads(ids, self.caller.tenant_id, self.gateway.settings.sent_ahead_s)


def of_kept(new: NewAnalysis, upload_id: UUID, kept: Mapping[UUID, KeptUpload]) -> NewAnalysis:
    """The analysis of a file that was sent ahead. Raises ProblemError unless it is there."""
    upload = kept.get(upload_id)
    if upload is None:
        raise ProblemError(
            ProblemCode.INVALID, "The field 'upload' names no file of yours that is kept; send it again."
        )
    if not upload.whole:
        raise ProblemError(
            ProblemCode.INVALID, f"The file that 'upload' names is not complete: POST /v1/uploads/{upload_id}/complete."
        )
    return replace(
        new,
        filename=upload.filename,
        size_bytes=upload.size_bytes,
        sha256=upload.sha256,
        upload_key=upload.blob_key,
    )


def _of_received(new: NewAnalysis, upload: Upload) -> NewAnalysis:
    """The analysis of a file that is committed here.

    If Postgres fails after this the file stays, since the commit may have gone through; the sweeper deletes orphans.
    """
    writer = upload.file.taken()
    key = writer.commit()
    return replace(new, filename=upload.filename, size_bytes=writer.size, sha256=writer.sha256, upload_key=key)
