"""Who asks: the tenant behind a request, and what its key allows."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated
from uuid import UUID

from fastapi import Depends, Request

from clipwarden.shared.codes import ProblemCode
from clipwarden.shared.errors import ProblemError
from clipwarden.shared.tables import DEFAULT_TENANT


class Scope(StrEnum):
    """What a key may do; `admin` does not include the others."""

    SUBMIT = "submit"
    READ = "read"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class Caller:
    """A tenant, and the key it came with: None where no keys are in use, and everything is allowed."""

    tenant_id: UUID = DEFAULT_TENANT
    key_id: UUID | None = None
    scopes: frozenset[Scope] = frozenset(Scope)
    callback_hosts: frozenset[str] = frozenset()


def caller_of(request: Request) -> Caller:
    """Whom the guard let in."""
    caller: Caller = request.state.caller
    return caller


def having(scope: Scope) -> Callable[[Request], Caller]:
    """A dependency: the caller, if its key has the scope. Raises ProblemError."""

    def check(request: Request) -> Caller:
        caller = caller_of(request)
        if scope not in caller.scopes:
            raise ProblemError(ProblemCode.FORBIDDEN, f"This key has no scope {scope!r}.")
        return caller

    return check


Submitter = Annotated[Caller, Depends(having(Scope.SUBMIT))]
Reader = Annotated[Caller, Depends(having(Scope.READ))]
Admin = Annotated[Caller, Depends(having(Scope.ADMIN))]
