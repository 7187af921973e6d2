"""The ingest stage: one pass over the file, one bundle, and the branches that apply."""

import time
from collections.abc import Sequence
from uuid import UUID

from billiard.exceptions import SoftTimeLimitExceeded
from celery import chord
from celery.exceptions import CeleryError
from kombu.exceptions import KombuError
from redis.exceptions import RedisError

from clipwarden.models.pipeline import pipeline_id
from clipwarden.models.plan import unready
from clipwarden.models.run import Read, part, read_clip
from clipwarden.models.triage import SPARED, FirstLook, decidable, first_look, gate_of
from clipwarden.shared.blobs.local import translated
from clipwarden.shared.bundle import BundleFacts, versions, write_bundle
from clipwarden.shared.codes import SENTENCES, FailCode, RejectCode, SkipCode
from clipwarden.shared.contracts import Branch, Lane, MediaProbe, Stage
from clipwarden.shared.errors import BlobGone, ClipwardenError, ElsewherePlease, MediaError, Unavailable
from clipwarden.shared.logs import logger
from clipwarden.shared.queue import PRIORITIES, Task, assess_task, send
from clipwarden.shared.store import Granted
from clipwarden.shared.telling import tell
from clipwarden.workers.app import app
from clipwarden.workers.process import WorkerProcess
from clipwarden.workers.reusing import Reused, reused

log = logger(__name__)


class UploadGone(ClipwardenError):  # noqa: N818 - named after what happened
    """This upload is missing from a blob store that is otherwise the right one."""


def ingest(process: WorkerProcess, analysis_id: UUID, granted: Granted) -> None:
    """Probe, decode and bundle a file, then send its branches; or reject it with a code.

    Raises ConfigError if the blob store is not the right one, Unavailable, ElsewherePlease.
    """
    if granted.manifest.faces != process.faces.VERSION:
        raise ElsewherePlease(f"the pipeline wants faces {granted.manifest.faces}, here is {process.faces.VERSION}")
    started = time.perf_counter()
    try:
        known = reused(granted.asked, process.store.earlier(analysis_id))
        if known.probe is not None:
            probe, skipped = known.probe, unready(granted.asked)
        else:
            probe, skipped = _bundle(process, analysis_id, granted, known)
        run = [b for b in Branch if b not in skipped and b not in known.sources]
        settled = process.store.finish_ingest(analysis_id, granted.token, probe, run, skipped, known.sources)
    except MediaError as error:
        _end(process, analysis_id, granted, RejectCode(error.code), str(error))
    except UploadGone as error:
        process.store.lose_upload(granted.upload_key or "")
        _end(process, analysis_id, granted, FailCode.INTERNAL, str(error))
    except SoftTimeLimitExceeded:
        _end(process, analysis_id, granted, FailCode.TIMEOUT, SENTENCES[FailCode.TIMEOUT])
    except MemoryError:
        _end(process, analysis_id, granted, FailCode.OUT_OF_MEMORY, SENTENCES[FailCode.OUT_OF_MEMORY])
    else:
        elapsed_ms = round((time.perf_counter() - started) * 1000)
        if settled:
            log.info("ingested", kind=probe.kind, branches=run, reused=list(known.sources), elapsed_ms=elapsed_ms)
            _dispatch(process, analysis_id, run, granted.lane)
        else:
            log.warning("lease lost, another worker ingests", elapsed_ms=elapsed_ms)


def _bundle(
    process: WorkerProcess, analysis_id: UUID, granted: Granted, known: Reused
) -> tuple[MediaProbe, dict[Branch, SkipCode]]:
    """Write the bundle for the branches that apply and are not known; returns those that do not with their codes."""
    read = _read(process, granted)
    look = None if Branch.VISUAL in known.sources else _first_look(process, granted, read)
    gated = _spares(process, granted, read, look)
    skipped = {**(dict.fromkeys(SPARED, SkipCode.GATED) if gated else {}), **read.skipped}
    run = [b for b in Branch if b not in skipped and b not in known.sources]
    clips = {b: part(read.clip, granted.asked.ready(b)) for b in run}
    facts = BundleFacts(
        pipeline=pipeline_id(granted.manifest),
        probe=read.probe,
        plan=read.plan,
        versions=versions(process.faces.VERSION),
        found=(look.outcome,) if look else (),
        gated=gated,
    )
    write_bundle(process.blobs, analysis_id, clips, facts)
    return read.probe, {b: code for b, code in skipped.items() if b not in known.sources}


def _first_look(process: WorkerProcess, granted: Granted, read: Read) -> FirstLook | None:
    """The gate's word on the clip; None if the pipeline has no gate, or one that is not at hand here."""
    entry = gate_of(granted.asked)
    if entry is None or Branch.VISUAL in read.skipped:
        return None
    if process.gate is None or process.gate.entry != entry:
        log.info("the pipeline's gate is not here, the visual branch runs it")
        return None
    return first_look(process.gate, part(read.clip, (entry,)), passing=(SoftTimeLimitExceeded,))


def _spares(process: WorkerProcess, granted: Granted, read: Read, look: FirstLook | None) -> bool:
    """Whether the first look spares the clip the costlier detectors of pictures."""
    if look is None or not look.cleared or not process.settings.triage:
        return False
    bundle, digest = process.fusion
    listening = () if Branch.AUDIO in read.skipped else granted.asked.ready(Branch.AUDIO)
    if digest != granted.manifest.fusion or not decidable(bundle, listening, granted.policy):
        log.info("cleared by the gate, but no fitted head decides by what would be left: nothing is spared")
        return False
    return True


def _read(process: WorkerProcess, granted: Granted) -> Read:
    try:
        with process.blobs.local(granted.upload_key or "uploads/none") as path, translated("be read"):
            return read_clip(process.fence, path, granted.asked, process.faces)
    except BlobGone as error:
        process.blobs.check(process.store.store_id())
        raise UploadGone(f"the upload {granted.upload_key} is not in the blob store") from error


def _end(
    process: WorkerProcess, analysis_id: UUID, granted: Granted, code: RejectCode | FailCode, message: str
) -> None:
    log.info("not analysable", code=code, reason=message)
    if not process.store.end_ingest(analysis_id, granted.token, code, message):
        return  # the lease was lost: the files are another worker's now
    tell(process.settings, process.store, analysis_id)
    process.blobs.delete_bundle(analysis_id)
    if isinstance(code, RejectCode) and (key := process.store.forget_upload(analysis_id)):
        process.blobs.delete(key)


def _dispatch(process: WorkerProcess, analysis_id: UUID, run: Sequence[Branch], lane: Lane) -> None:
    """Send the branches as a chord whose body fuses. The rows are open: what is not sent here, the sweeper sends."""
    aid, priority = str(analysis_id), PRIORITIES[lane]
    try:
        if not run:
            send(process.settings, Task.FUSE, analysis_id, lane)
            return
        body = app.signature(Task.FUSE.value, args=[aid], immutable=True, priority=priority)
        body.on_error(app.signature(Task.SETTLE.value, args=[aid], immutable=True, priority=priority))
        branches = [app.signature(assess_task(b).value, args=[aid], immutable=True, priority=priority) for b in run]
        chord(branches, app=app)(body)
        process.store.mark_sent(analysis_id, [Stage(b) for b in run], process.settings.resend_after_s)
    except (Unavailable, OSError, CeleryError, KombuError, RedisError) as error:
        log.warning("branches not sent, the sweeper will", reason=str(error))
