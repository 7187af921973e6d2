"""Acting on an analysis: cancel it, run it again, delete it, say what it really was, ask another policy."""

from dataclasses import replace
from typing import Annotated, Literal

from anyio.to_thread import run_sync
from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field, field_validator

from clipwarden.api.access import Caller, Reader, Submitter
from clipwarden.api.gateway import Gateway, Services
from clipwarden.api.idempotency import Once, fingerprint, once
from clipwarden.api.limits import Limits
from clipwarden.api.openapi import KEY, OPENING, errors, headers
from clipwarden.api.options import Options
from clipwarden.api.routes import parse_id
from clipwarden.api.schemas import AnalysisView, FeedbackListView, FeedbackView
from clipwarden.api.submitting import Asking
from clipwarden.api.verdict_schemas import WhatIfView
from clipwarden.shared.codes import ProblemCode
from clipwarden.shared.contracts import TERMINAL_STATES, Alternative, Analysis, AnalysisState
from clipwarden.shared.errors import BlobGone, ProblemError
from clipwarden.shared.store import Doomed, Feedback

COMMENT_BYTES = 2048

router = APIRouter(tags=["analyses"])


class FeedbackForm(BaseModel):
    """What the clip really is, as far as somebody knows, and how the verdict fares by that."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    label: Literal["real", "fake", "unknown"]
    category: Literal["false_positive", "false_negative", "confirmation", "other"]
    comment: str | None = Field(None, description=f"At most {COMMENT_BYTES} bytes of UTF-8")

    @field_validator("comment")
    @classmethod
    def _storable(cls, comment: str | None) -> str | None:
        if comment and ("\0" in comment or len(comment.encode()) > COMMENT_BYTES):
            raise ValueError(f"at most {COMMENT_BYTES} bytes, none of them NUL")
        return comment


def _conflict(detail: str) -> ProblemError:
    return ProblemError(ProblemCode.CONFLICT, detail)


def _present(gateway: Gateway, caller: Caller, analysis_id: str) -> Analysis:
    """The analysis, unless it is deleted: of a tombstone nothing more is to be had. Raises ProblemError."""
    found = gateway.analysis(caller, parse_id(analysis_id))
    if found.state is AnalysisState.DELETED:
        raise _conflict("This analysis was deleted.")
    return found


@router.post(
    "/v1/analyses/{analysis_id}/cancel",
    response_model=AnalysisView,
    responses=errors(ProblemCode.NOT_FOUND, ProblemCode.CONFLICT),
)
def cancel(analysis_id: str, gateway: Services, caller: Submitter) -> AnalysisView:
    """End an analysis that has not ended. What was found until then can still be read; its file stays for a while."""
    found = gateway.analysis(caller, parse_id(analysis_id))
    if not gateway.store.cancel(found.id, caller.tenant_id):
        raise _conflict("This analysis has ended already.")
    gateway.send_later([(found.id, found.lane)])
    gateway.blobs.delete_bundle(found.id)
    return gateway.view(gateway.analysis(caller, found.id))


@router.post(
    "/v1/analyses/{analysis_id}/rerun",
    status_code=202,
    openapi_extra={"parameters": [KEY]},
    response_model=AnalysisView,
    responses={
        202: headers(Location="Where to read the new analysis"),
        **errors(ProblemCode.NOT_FOUND, ProblemCode.CONFLICT, *OPENING),
    },
)
async def rerun(
    analysis_id: str, request: Request, response: Response, gateway: Services, caller: Submitter
) -> AnalysisView:
    """Examine the same file again with what is installed now, as a new analysis with the options of the old one.

    Nothing is taken from the cache. What could not be asked for today is refused.
    """
    limits: Limits = request.app.state.limits
    async with once(request, gateway, caller) as held, limits.room(caller, 0 if held.repeated else 1):
        opened = await run_sync(_again, gateway, caller, analysis_id, held)
    if not held.repeated:
        await gateway.send(opened)
    view = await run_sync(gateway.view, opened)
    response.headers["Location"] = view.links["self"]
    return view


def _again(gateway: Gateway, caller: Caller, analysis_id: str, held: Once) -> Analysis:
    mark = fingerprint("rerun", analysis_id)
    if (known := held.opened(mark)) is not None:
        return gateway.analysis(caller, known)
    found = _present(gateway, caller, analysis_id)
    if found.state not in TERMINAL_STATES:
        raise _conflict("This analysis has not ended yet.")
    try:
        gateway.blobs.size(found.upload_key or "uploads/none")
    except BlobGone as error:
        raise _conflict("The file of this analysis is no longer kept; send it again.") from error
    new = replace(
        Asking(gateway, caller).asked(_as_asked(found)),
        filename=found.filename,
        size_bytes=found.size_bytes,
        sha256=found.sha256,
        upload_key=found.upload_key,
        rerun_of=found.id,
    )
    return gateway.accept(caller, new, claim=held.claim, fingerprint=mark)


def _as_asked(found: Analysis) -> Options:
    """What an analysis was submitted with, to be judged as if it were submitted now, except that nothing is reused."""
    return Options.model_construct(
        tag=found.tag,
        metadata=found.metadata,
        detectors=found.detectors,
        policy=found.policy,
        lane=found.lane,
        callback_url=found.callback_url,
        reuse=False,
    )


@router.delete(
    "/v1/analyses/{analysis_id}",
    response_model=AnalysisView,
    responses=errors(ProblemCode.NOT_FOUND),
)
def delete(analysis_id: str, gateway: Services, caller: Submitter) -> AnalysisView:
    """Delete the file, the evidence and all that was found. What stays says that it was deleted, and when."""
    known = parse_id(analysis_id)

    def remove(doomed: Doomed) -> None:
        for folder in doomed.folders:
            gateway.blobs.delete_folder(folder)
        if doomed.upload_key:
            gateway.blobs.delete(doomed.upload_key)

    if not gateway.store.delete(known, caller.tenant_id, remove):
        raise ProblemError(ProblemCode.NOT_FOUND)
    gateway.blobs.delete_bundle(known)
    return gateway.view(gateway.analysis(caller, known))


@router.post(
    "/v1/analyses/{analysis_id}/feedback",
    status_code=201,
    openapi_extra={"parameters": [KEY]},
    response_model=FeedbackView,
    responses=errors(
        ProblemCode.NOT_FOUND,
        ProblemCode.CONFLICT,
        ProblemCode.INVALID,
        ProblemCode.IDEMPOTENCY_IN_PROGRESS,
        ProblemCode.IDEMPOTENCY_MISMATCH,
    ),
)
async def say(
    analysis_id: str, form: FeedbackForm, request: Request, gateway: Services, caller: Submitter
) -> FeedbackView:
    """Say what the clip really is. It changes no verdict; operators learn from it."""
    async with once(request, gateway, caller) as held:
        return FeedbackView.from_domain(await run_sync(_said, gateway, caller, analysis_id, form, held))


def _said(gateway: Gateway, caller: Caller, analysis_id: str, form: FeedbackForm, held: Once) -> Feedback:
    """The feedback as it is kept, now or before."""
    found = _present(gateway, caller, analysis_id)
    mark = fingerprint("feedback", analysis_id, form.model_dump())
    if (known := held.opened(mark)) is not None:
        return next(each for each in gateway.store.feedback(found.id) if each.id == known)
    return gateway.store.add_feedback(
        found.id, form.label, form.category, form.comment, caller.key_id, held.claim, mark
    )


@router.get(
    "/v1/analyses/{analysis_id}/feedback",
    response_model=FeedbackListView,
    responses=errors(ProblemCode.NOT_FOUND),
)
def said(analysis_id: str, gateway: Services, caller: Reader) -> FeedbackListView:
    """All feedback on an analysis, oldest first."""
    found = gateway.analysis(caller, parse_id(analysis_id))
    return FeedbackListView(feedback=[FeedbackView.from_domain(each) for each in gateway.store.feedback(found.id)])


@router.get(
    "/v1/analyses/{analysis_id}/verdict",
    response_model=WhatIfView,
    responses=errors(ProblemCode.NOT_FOUND, ProblemCode.CONFLICT, ProblemCode.INVALID),
)
def what_if(
    analysis_id: str,
    gateway: Services,
    caller: Reader,
    policy: Annotated[str | None, Query(description="Another policy than the one the verdict follows")] = None,
) -> WhatIfView:
    """The verdict as it is, or as it would be under another policy on the same evidence."""
    verdict = _present(gateway, caller, analysis_id).verdict
    if verdict is None:
        raise _conflict("This analysis has no verdict.")
    own = Alternative(policy=verdict.policy, label=verdict.label, probability=verdict.probability, head=verdict.head)
    known = {each.policy: each for each in (*verdict.alternatives, own)}
    asked = known.get(policy or verdict.policy)
    if asked is None:
        raise ProblemError(ProblemCode.INVALID, f"policy: none of that name; there are {', '.join(sorted(known))}.")
    return WhatIfView.from_domain(asked)
