"""The assess stage of one branch: its part of the bundle through its detectors, and the row settled."""

from functools import partial
from uuid import UUID

from billiard.exceptions import SoftTimeLimitExceeded

from clipwarden.models.assess import assess
from clipwarden.models.brief import brief
from clipwarden.models.exhibits import exhibit
from clipwarden.models.triage import settled
from clipwarden.shared.bundle import read_manifest, read_part
from clipwarden.shared.clip import Clip
from clipwarden.shared.codes import SENTENCES, FailCode
from clipwarden.shared.contracts import Branch, BranchResult, OutcomeStatus
from clipwarden.shared.errors import ElsewherePlease, StorageFull, StorageSick, Unavailable
from clipwarden.shared.evidence import drop_evidence, write_evidence
from clipwarden.shared.logs import logger
from clipwarden.shared.metrics import BATCH_SIZE
from clipwarden.shared.queue import Task, send
from clipwarden.shared.store import Granted
from clipwarden.workers.process import WorkerProcess

log = logger(__name__)


def assess_branch(process: WorkerProcess, branch: Branch, analysis_id: UUID, granted: Granted) -> None:
    """Judge the branch's part with those detectors of the analysis's pipeline that it asks for.

    Raises ElsewherePlease if this process holds others, WorkerFault for this process's faults, Unavailable.
    """
    if granted.manifest.ready(branch) != tuple(loaded.entry for loaded in process.detectors):
        raise ElsewherePlease(f"the detectors of {branch} here are not those of the analysis's pipeline")
    try:
        bundle = read_manifest(process.blobs, analysis_id)
        clip = read_part(process.blobs, analysis_id, branch, bundle)
    except (StorageFull, StorageSick):
        raise
    except Unavailable:
        process.blobs.check(process.store.store_id())
        log.warning("bundle is gone, ingest makes it again")
        if process.store.reopen_ingest(analysis_id, branch, granted.token):
            send(process.settings, Task.INGEST, analysis_id, granted.lane)
        raise
    _count_batches(branch, clip)
    asked = granted.asked.ready(branch)
    detectors = tuple(loaded for loaded in process.detectors if loaded.entry in asked)
    known = settled(asked, bundle.found, bundle.gated)
    tell = partial(_tell, process, analysis_id, granted)
    try:
        result = assess(branch, clip, detectors, passing=(SoftTimeLimitExceeded,), known=known, tell=tell)
    except SoftTimeLimitExceeded:
        code = FailCode.TIMEOUT
        result = BranchResult(branch=branch, status=OutcomeStatus.FAILED, code=code, message=SENTENCES[code])
    process.weigh(result)
    result = _exhibited(process, analysis_id, granted, clip, result)
    ours = process.store.finish_branch(analysis_id, granted.token, result)
    if not ours:
        drop_evidence(process.blobs, result.folder)
    log.info(
        "branch settled" if ours else "lease lost, result dropped",
        status=result.status,
        code=result.code,
        elapsed_ms=result.elapsed_ms,
    )


def _tell(process: WorkerProcess, analysis_id: UUID, granted: Granted, so_far: BranchResult) -> None:
    try:
        process.store.tell_branch(analysis_id, granted.token, brief(so_far))
    except Unavailable as error:  # a courtesy to whoever watches
        log.warning("detectors that arrived are not told", reason=str(error))


def _exhibited(
    process: WorkerProcess, analysis_id: UUID, granted: Granted, clip: Clip, result: BranchResult
) -> BranchResult:
    """The result as its row holds it, its exhibits kept; without any where the time or the room for them ran out."""
    try:
        shown = exhibit(clip, result, process.detectors, passing=(SoftTimeLimitExceeded,))
        folder = write_evidence(process.blobs, analysis_id, result.branch, granted.token, shown.files)
    except (SoftTimeLimitExceeded, StorageFull) as error:
        log.warning("nothing to show", reason=str(error) or "time limit")
        return brief(result)
    return shown.result.model_copy(update={"folder": folder})


def _count_batches(branch: Branch, clip: Clip) -> None:
    for view in clip.views.values():
        BATCH_SIZE.labels(branch, "pictures").observe(len(view))
    for sound in clip.sounds.values():
        BATCH_SIZE.labels(branch, "stretches").observe(len(sound.lengths))
