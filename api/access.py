"""Who asks: the tenant behind a request, what its key allows, and the ring that knows the keys."""

import asyncio
import hashlib
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from typing import Annotated, Any, TypeVar
from uuid import UUID

from anyio.to_thread import run_sync
from fastapi import Depends, Request
from starlette.datastructures import Headers

from clipwarden.shared.codes import ProblemCode
from clipwarden.shared.errors import ProblemError
from clipwarden.shared.store import Key, Store
from clipwarden.shared.tables import DEFAULT_TENANT

KEY_CACHE_S = 2.0
"""How long a key is believed without being looked up: within this a revocation takes effect."""

MOST_KNOWN = 10_000
"""Digests that are remembered, good and bad, so that guessing does not fill the memory."""

Answer = TypeVar("Answer")
SECRET = re.compile(r"cw_[A-Za-z0-9_-]{43}")


class Scope(StrEnum):
    """What a key may do; `admin` does not include the others."""

    SUBMIT = "submit"
    READ = "read"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class Caller:
    """A tenant, and the key it came with: None where no keys are in use, and everything is allowed.

    `concurrent` bounds the key's analyses that have not ended; None in either limit is no limit.
    """

    tenant_id: UUID = DEFAULT_TENANT
    key_id: UUID | None = None
    scopes: frozenset[Scope] = frozenset(Scope)
    callback_hosts: frozenset[str] = frozenset()
    requests_per_minute: int | None = None
    concurrent: int | None = None

    @classmethod
    def of_key(cls, key: Key) -> "Caller":
        return cls(
            tenant_id=key.tenant_id,
            key_id=key.id,
            scopes=frozenset(map(Scope, key.scopes)),
            callback_hosts=frozenset(key.callback_hosts),
            requests_per_minute=key.requests_per_minute,
            concurrent=key.concurrent,
        )


NOBODY = Caller(scopes=frozenset())
"""Who came without a key, to what needs none or carries its own proof."""


def digest_of(secret: str) -> str:
    """What is kept of a secret. A plain hash does: the secret is 256 random bits, which no dictionary holds."""
    return hashlib.sha256(secret.encode()).hexdigest()


def presented(headers: Headers) -> set[str]:
    """The secrets that a request carries, in either header; an empty one where a scheme is not Bearer."""
    sent = set(headers.getlist("x-api-key"))
    for value in headers.getlist("authorization"):
        scheme, _, secret = value.partition(" ")
        sent.add(secret.strip() if scheme.lower() == "bearer" else "")
    return sent


class Keyring:
    """Recognises callers. It asks the database about one secret at most once in KEY_CACHE_S.

    While no key was ever made everybody is let in, if `may_be_open`; after the first one never again.
    """

    def __init__(self, store: Store, *, may_be_open: bool) -> None:
        self._store = store
        self._closed = not may_be_open
        self._open_until = 0.0
        self._known: dict[str, tuple[Caller | None, float]] = {}
        self._asking: dict[str, asyncio.Future[Any]] = {}

    async def caller(self, headers: Headers) -> Caller:
        """Who sent these headers, NOBODY without a key. Raises ProblemError for a bad key, or Unavailable."""
        if await self._is_open():
            return Caller()
        sent = presented(headers)
        if not sent:
            return NOBODY
        secret = sent.pop()
        found = await self._look_up(digest_of(secret)) if not sent and SECRET.fullmatch(secret) else None
        if found is None:
            raise ProblemError(ProblemCode.UNAUTHORIZED, "This API key is not known, has expired or was revoked.")
        return found

    async def _is_open(self) -> bool:
        if not self._closed and time.monotonic() >= self._open_until:
            self._closed = await self._asked("", self._store.any_key)
            self._open_until = time.monotonic() + KEY_CACHE_S
        return not self._closed

    async def _asked(self, question: str, ask: Callable[[], Answer]) -> Answer:
        """The store's answer, shared by all who want it at once: a change wakes every stream that tells of it."""
        asking: asyncio.Future[Answer] | None = self._asking.get(question)
        if asking is None:
            asking = self._asking[question] = asyncio.ensure_future(run_sync(ask))
            asking.add_done_callback(lambda _: self._asking.pop(question))
        return await asyncio.shield(asking)

    async def _look_up(self, digest: str) -> Caller | None:
        """Found by its digest, so that the time it takes tells nothing of other secrets. Bad ones are known too."""
        caller, until = self._known.get(digest, (None, 0.0))
        if time.monotonic() < until:
            return caller
        key = await self._asked(digest, partial(self._store.live_key, digest))
        caller = None if key is None else Caller.of_key(key)
        if len(self._known) >= MOST_KNOWN:
            self._known.clear()
        self._known[digest] = caller, time.monotonic() + KEY_CACHE_S
        return caller


def caller_of(request: Request) -> Caller:
    """Whom the guard let in."""
    caller: Caller = request.state.caller
    return caller


@dataclass(frozen=True, slots=True)
class Having:
    """A dependency: the caller, if its key has the scope. Raises ProblemError."""

    scope: Scope

    async def __call__(self, request: Request) -> Caller:
        """A coroutine, or the framework would run it in a thread for each request."""
        return self.of(request)

    def of(self, request: Request) -> Caller:
        caller = caller_of(request)
        if caller is NOBODY:
            raise ProblemError(ProblemCode.UNAUTHORIZED)
        if self.scope not in caller.scopes:
            raise ProblemError(ProblemCode.FORBIDDEN, f"This key has no scope {self.scope!r}.")
        return caller


Submitter = Annotated[Caller, Depends(Having(Scope.SUBMIT))]
Reader = Annotated[Caller, Depends(Having(Scope.READ))]
Admin = Annotated[Caller, Depends(Having(Scope.ADMIN))]
