"""The assess stage of one branch: its part of the bundle through its detectors, and the row settled."""

from uuid import UUID

from billiard.exceptions import SoftTimeLimitExceeded

from clipwarden.models.assess import assess
from clipwarden.shared.bundle import read_part
from clipwarden.shared.codes import SENTENCES, FailCode
from clipwarden.shared.contracts import Branch, BranchResult, OutcomeStatus
from clipwarden.shared.errors import ElsewherePlease, Unavailable
from clipwarden.shared.logs import logger
from clipwarden.shared.queue import Task, send
from clipwarden.shared.store import Granted
from clipwarden.workers.process import WorkerProcess

log = logger(__name__)


def assess_branch(process: WorkerProcess, branch: Branch, analysis_id: UUID, granted: Granted) -> None:
    """Judge the branch's part with exactly the detectors of the analysis's pipeline.

    Raises ElsewherePlease if this process holds others, WorkerFault for this process's faults, Unavailable.
    """
    if granted.manifest.ready(branch) != tuple(loaded.entry for loaded in process.detectors):
        raise ElsewherePlease(f"the detectors of {branch} here are not those of the analysis's pipeline")
    try:
        clip = read_part(process.blobs, analysis_id, branch)
    except Unavailable:
        process.blobs.check(process.store.store_id())
        log.warning("bundle is gone, ingest makes it again")
        if process.store.reopen_ingest(analysis_id, branch, granted.token):
            send(process.settings, Task.INGEST, analysis_id)
        raise
    try:
        result = assess(branch, clip, process.detectors, passing=(SoftTimeLimitExceeded,))
    except SoftTimeLimitExceeded:
        code = FailCode.TIMEOUT
        result = BranchResult(branch=branch, status=OutcomeStatus.FAILED, code=code, message=SENTENCES[code])
    process.weigh(result)
    settled = process.store.finish_branch(analysis_id, granted.token, result)
    log.info(
        "branch settled" if settled else "lease lost, result dropped",
        status=result.status,
        code=result.code,
        elapsed_ms=result.elapsed_ms,
    )
