"""What every request passes before a route or a body parser sees it: host, origin, key, rate, size, pace, headers.

A plain ASGI layer, because the framework parses and spools bodies before its own dependencies run.
"""

import asyncio
import re
import time

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from clipwarden.api.access import NOBODY, Caller, Keyring
from clipwarden.api.limits import Limits
from clipwarden.api.origins import Origins, is_preflight, preflight, shared_with
from clipwarden.api.problems import from_error, internal, problem
from clipwarden.api.telemetry import count_request
from clipwarden.shared.codes import ProblemCode
from clipwarden.shared.errors import ClipwardenError, ProblemError, Unavailable
from clipwarden.shared.ids import new_id
from clipwarden.shared.logs import log_context, logger
from clipwarden.shared.settings import Settings

PUBLIC_PATHS = frozenset({"/", "/page", "/livez", "/readyz", "/openapi.json"})
PAGE_PREFIX = "/page/"
LINKED_PATHS = re.compile(r"/v1/analyses/[^/]+/(media|report|evidence)(/.*)?")
"""Open to requests without a key, whose routes then want a signed link."""
UPLOAD_PATHS = re.compile(r"/v1/analyses|/analyze|/v1/uploads/.+")
ENVELOPE_BYTES = 64 * 1024
"""Room for boundaries, part headers and the small fields around an upload."""
PLAIN_BODY_BYTES = 1024 * 1024
"""Largest body of any other route: those are held in memory. What is left of a refused one is still read."""
BATCH_PATH = "/v1/batches"
BATCH_BYTES = 16 * 1024 * 1024
"""Room for the most items that a batch may have, each with the most that it may say."""
HEADER_BYTES = 8 * 1024
STALL_S = 60.0
"""How long nothing of a body may arrive."""
SLOWEST_BYTES_S = 1024
"""The pace that a body must keep on the whole, or it would hold its connection for ever."""

REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
SECURITY_HEADERS = tuple(
    Headers(
        {
            "X-Content-Type-Options": "nosniff",
            "X-Frame-Options": "DENY",
            "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
            "Referrer-Policy": "no-referrer",
            "Cross-Origin-Resource-Policy": "same-origin",
            "Cross-Origin-Opener-Policy": "same-origin",
            "Cache-Control": "no-store",
        }
    ).raw
)
"""As they are sent, where a route does not say otherwise."""

log = logger(__name__)


def is_public(path: str) -> bool:
    """Whether a path needs no key: health, the page, and the document."""
    return path in PUBLIC_PATHS or path.startswith(PAGE_PREFIX)


class Body:
    """`receive` that raises ProblemError for a body that is too large or too slow, whatever the headers said."""

    def __init__(self, receive: Receive, headers: Headers, limit: int, stall_s: float = STALL_S) -> None:
        self._receive, self._limit, self._stall_s = receive, limit, stall_s
        self._length = headers.get("content-length", "0")
        self._chunked = "transfer-encoding" in headers
        self._seen, self._started, self._whole = 0, 0.0, False

    def check_length(self) -> None:
        """Raises ProblemError for a length that is none, or over the limit."""
        if not self._length.isascii() or not self._length.isdigit():
            raise ProblemError(ProblemCode.BAD_REQUEST, "Content-Length is not a number.")
        if int(self._length) > self._limit:
            raise ProblemError(ProblemCode.TOO_LARGE)

    @property
    def much_to_come(self) -> bool:
        """Whether so much of it was not yet received that hanging up is kinder than reading it."""
        announced = int(self._length) if self._length.isascii() and self._length.isdigit() else 0
        return not self._whole and (self._chunked or announced - self._seen > PLAIN_BODY_BYTES)

    async def __call__(self) -> Message:
        if self._whole:
            return await self._receive()  # waits until the client leaves
        self._started = self._started or time.monotonic()
        try:
            async with asyncio.timeout(self._stall_s):
                message = await self._receive()
        except TimeoutError as error:
            raise self._too_slow() from error
        self._seen += len(message.get("body", b""))
        self._whole = not message.get("more_body", False)
        if self._seen > self._limit:
            raise ProblemError(ProblemCode.TOO_LARGE)
        if not self._whole and time.monotonic() - self._started > self._stall_s + self._seen / SLOWEST_BYTES_S:
            raise self._too_slow()
        return message

    def _too_slow(self) -> ProblemError:
        return ProblemError(ProblemCode.BAD_REQUEST, "The body arrives too slowly; send it again.")


class _Reply:
    """`send` that adds our headers and remembers the status."""

    def __init__(self, send: Send, request_id: str, body: Body) -> None:
        self._send, self._body = send, body
        self.headers = {"X-Request-ID": request_id}
        self.status = 0

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            headers.update(self.headers)
            said = {name for name, _ in headers.raw}
            headers.raw.extend((name, value) for name, value in SECURITY_HEADERS if name not in said)
            if "access-control-allow-origin" in headers:
                headers.add_vary_header("Origin")
            if self.status == 413 or (self.status >= 400 and self._body.much_to_come):
                headers["Connection"] = "close"  # or the server would go on reading what was just refused
        await self._send(message)


class Guard:
    """The ASGI layer itself."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self.app = app
        self.origins = Origins(settings)
        self.upload_bytes = settings.max_upload_bytes + ENVELOPE_BYTES

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        given = headers.get("x-request-id", "")
        request_id = given if REQUEST_ID.fullmatch(given) else new_id().hex
        scope.setdefault("state", {}).update(request_id=request_id, caller=NOBODY)
        limit = self._most_bytes(scope["path"])
        body = Body(receive, headers, limit)
        reply, started = _Reply(send, request_id, body), time.perf_counter()
        with log_context(request_id=request_id):
            try:
                await self._answer(scope, headers, body, reply)
            finally:
                _told(scope, reply.status, time.perf_counter() - started)

    def _most_bytes(self, path: str) -> int:
        if UPLOAD_PATHS.fullmatch(path):
            return self.upload_bytes
        return BATCH_BYTES if path == BATCH_PATH else PLAIN_BODY_BYTES

    async def _answer(self, scope: Scope, headers: Headers, body: Body, reply: _Reply) -> None:
        where = {"path": scope["path"], "request_id": scope["state"]["request_id"]}
        try:
            if sum(len(name) + len(value) + 4 for name, value in headers.raw) > HEADER_BYTES:
                detail = f"The headers are over {HEADER_BYTES} bytes; send fewer."
                await problem(ProblemCode.BAD_REQUEST, detail, status=431, **where)(scope, body, reply)
                return
            origin = self.origins.admit(headers)
            if origin is not None:
                reply.headers |= shared_with(origin)
                if is_preflight(scope["method"], headers):
                    await preflight()(scope, body, reply)
                    return
            body.check_length()
            scope["state"]["caller"] = await self._identify(scope, headers, reply)
            await self.app(scope, body, reply)
        except ClientDisconnect:
            log.info("client left")
        except ClipwardenError as error:
            await from_error(error, **where)(scope, body, reply)
        except Exception:
            log.exception("request failed")
            if reply.status:
                raise
            await internal(**where)(scope, body, reply)

    async def _identify(self, scope: Scope, headers: Headers, reply: _Reply) -> Caller:
        """Who asks, within its rate. Public paths do not wait for the services that know.

        Raises ProblemError, or Unavailable while keys cannot be looked up.
        """
        if is_public(scope["path"]):
            return NOBODY
        services = scope["app"].state
        keyring: Keyring | None = getattr(services, "keyring", None)
        if keyring is None:
            raise Unavailable("the gateway has not been started")
        caller = await keyring.caller(headers)
        if caller is NOBODY and not LINKED_PATHS.fullmatch(scope["path"]):
            raise ProblemError(ProblemCode.UNAUTHORIZED)
        limits: Limits = services.limits
        if quota := await limits.spend(caller):
            reply.headers |= quota.headers
            quota.check()
        return caller


def _told(scope: Scope, status: int, elapsed_s: float) -> None:
    """Count and log a request; `status` is 0 if it was never answered."""
    count_request(scope, status, elapsed_s)
    said = {"method": scope["method"], "path": scope["path"], "status": status, "elapsed_ms": round(1000 * elapsed_s)}
    key_id = scope["state"]["caller"].key_id
    log.info("request", **said, **({"key_id": str(key_id)} if key_id else {}))
