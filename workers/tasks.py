"""The tasks: what each message does, in a few lines each. Messages and results carry ids only."""

from functools import partial
from uuid import UUID

from celery import Task as CeleryTask

from clipwarden.shared.contracts import Branch, Stage
from clipwarden.shared.errors import ElsewherePlease, Unavailable, WorkerFault
from clipwarden.shared.logs import log_context
from clipwarden.shared.queue import Task, assess_task
from clipwarden.shared.telling import tell
from clipwarden.workers.app import app, here
from clipwarden.workers.branch import assess_branch
from clipwarden.workers.faults import leave, retry_after_s
from clipwarden.workers.fetch import fetch
from clipwarden.workers.fusing import fuse_analysis
from clipwarden.workers.ingest import ingest
from clipwarden.workers.lease import with_lease
from clipwarden.workers.overdue import end_overdue
from clipwarden.workers.telemetry import told


@app.task(name=Task.FETCH.value, bind=True, max_retries=None, ignore_result=True)
def run_fetch(self: CeleryTask, analysis_id: str) -> None:
    process, aid = here(), UUID(analysis_id)
    with_lease(self, process, aid, Stage.FETCH, process.settings.ingest_soft_limit_s, partial(fetch, process, aid))


@app.task(name=Task.INGEST.value, bind=True, max_retries=None, ignore_result=True)
def run_ingest(self: CeleryTask, analysis_id: str) -> None:
    process, aid = here(), UUID(analysis_id)
    with_lease(self, process, aid, Stage.INGEST, process.settings.ingest_soft_limit_s, partial(ingest, process, aid))


def _run_assess(self: CeleryTask, analysis_id: str) -> None:
    process, aid = here(), UUID(analysis_id)
    branch = Branch(self.name.rpartition(".")[2])
    with_lease(
        self,
        process,
        aid,
        Stage(branch),
        process.settings.assess_soft_limit_s,
        partial(assess_branch, process, branch, aid),
    )


for _branch in Branch:
    app.task(name=assess_task(_branch).value, bind=True, max_retries=None)(_run_assess)


@app.task(name=Task.FUSE.value, bind=True, max_retries=None, ignore_result=True)
def run_fuse(self: CeleryTask, analysis_id: str) -> None:
    process, aid = here(), UUID(analysis_id)
    with log_context(analysis_id=analysis_id, stage="fuse"):
        try:
            with told(aid, "fuse", self.request.retries + 1, process.name):
                if fuse_analysis(process.store, process.blobs, process.fusion, aid):
                    tell(process.settings, process.store, aid)
        except WorkerFault as fault:
            leave(fault)
        except (Unavailable, ElsewherePlease) as error:
            if isinstance(error, ElsewherePlease):
                process.look_again()
            raise self.retry(exc=error, countdown=retry_after_s(self.request.retries)) from error
        if process.lacking:
            process.look_again()


@app.task(name=Task.SETTLE.value, bind=True, max_retries=None, ignore_result=True)
def run_settle(self: CeleryTask, analysis_id: str) -> None:
    """The chord's errback: settle what is overdue, then fuse. What is still leased, the sweeper settles later."""
    with log_context(analysis_id=analysis_id, stage="settle"):
        try:
            end_overdue(here().settings, here().store)
        except Unavailable as error:
            raise self.retry(exc=error, countdown=retry_after_s()) from error
    run_fuse.apply_async((analysis_id,), priority=self.request.delivery_info.get("priority") or 0)
