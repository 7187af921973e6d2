"""What every request passes before a route or a body parser sees it: host, origin, size, request id, headers.

A plain ASGI layer, because the framework parses and spools bodies before its own dependencies run.
"""

import re
import time
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from clipwarden.api.access import Caller
from clipwarden.api.problems import from_error, internal
from clipwarden.shared.codes import ProblemCode
from clipwarden.shared.errors import ClipwardenError, ProblemError
from clipwarden.shared.ids import new_id
from clipwarden.shared.logs import log_context, logger
from clipwarden.shared.settings import Settings

UPLOAD_PATHS = frozenset({"/v1/analyses", "/analyze"})
ENVELOPE_BYTES = 64 * 1024
"""Room for boundaries, part headers and the small fields around an upload."""
PLAIN_BODY_BYTES = 1024 * 1024
"""Largest body of any other route: those are held in memory."""

REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
DEFAULT_PORTS = {"http": ":80", "https": ":443"}
SECURITY_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}

log = logger(__name__)


def host_name(host: str) -> str:
    """A Host header without its port, in lower case; IPv6 addresses keep their brackets."""
    return re.sub(r":\d*$", "", host.strip().lower())


def same_origin(origin: str, host: str) -> bool:
    """Whether an Origin header names the host and port that the request was sent to."""
    try:
        parts = urlsplit(origin.lower())
    except ValueError:
        return False
    port = DEFAULT_PORTS.get(parts.scheme)
    return port is not None and parts.netloc.removesuffix(port) == host.strip().lower().removesuffix(port)


LOOPBACK = frozenset({"localhost", "127.0.0.1", "[::1]"})
"""Always served: no page of another host can make a browser send these names for its own address."""


def admit(headers: Headers, allowed_hosts: frozenset[str], limit: int) -> None:
    """Raises ProblemError for a foreign Host or Origin, or for a body that says it is over `limit` bytes."""
    hosts = headers.getlist("host")
    if len(hosts) != 1 or host_name(hosts[0]) not in allowed_hosts:
        raise ProblemError(
            ProblemCode.FORBIDDEN, "This host name is not served; the operator allows it in CLIPWARDEN_ALLOWED_HOSTS."
        )
    if any(not same_origin(origin, hosts[0]) for origin in headers.getlist("origin")):
        raise ProblemError(ProblemCode.FORBIDDEN, "Requests from pages of another origin are refused.")
    length = headers.get("content-length", "0")
    if not length.isascii() or not length.isdigit():
        raise ProblemError(ProblemCode.BAD_REQUEST, "Content-Length is not a number.")
    if int(length) > limit:
        raise too_large()


def too_large() -> ProblemError:
    return ProblemError(ProblemCode.TOO_LARGE)


def capped(receive: Receive, limit: int) -> Receive:
    """`receive` that raises ProblemError once more than `limit` body bytes arrived, whatever the headers said."""
    seen = 0

    async def count() -> Message:
        nonlocal seen
        message = await receive()
        seen += len(message.get("body", b""))
        if seen > limit:
            raise too_large()
        return message

    return count


class _Reply:
    """`send` that adds our headers and remembers the status."""

    def __init__(self, send: Send, request_id: str) -> None:
        self._send, self._request_id = send, request_id
        self.status = 0

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            headers["X-Request-ID"] = self._request_id
            for name, value in SECURITY_HEADERS.items():
                headers.setdefault(name, value)
            if self.status == 413:
                headers["Connection"] = "close"  # or the server would go on reading what was just refused
        await self._send(message)


class Guard:
    """The ASGI layer itself."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self.app = app
        self.allowed_hosts = LOOPBACK | {host.lower() for host in settings.allowed_hosts}
        self.upload_bytes = settings.max_upload_bytes + ENVELOPE_BYTES

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        given = Headers(scope=scope).get("x-request-id", "")
        request_id = given if REQUEST_ID.fullmatch(given) else new_id().hex
        scope.setdefault("state", {}).update(request_id=request_id, caller=Caller())
        reply, started = _Reply(send, request_id), time.perf_counter()
        with log_context(request_id=request_id):
            await self._answer(scope, receive, reply, request_id)
            elapsed_ms = round(1000 * (time.perf_counter() - started))
            log.info("request", method=scope["method"], path=scope["path"], status=reply.status, elapsed_ms=elapsed_ms)

    async def _answer(self, scope: Scope, receive: Receive, reply: _Reply, request_id: str) -> None:
        limit = self.upload_bytes if scope["path"] in UPLOAD_PATHS else PLAIN_BODY_BYTES
        try:
            admit(Headers(scope=scope), self.allowed_hosts, limit)
            await self.app(scope, capped(receive, limit), reply)
        except ClientDisconnect:
            log.info("client left")
        except ClipwardenError as error:
            await from_error(error, path=scope["path"], request_id=request_id)(scope, receive, reply)
        except Exception:
            log.exception("request failed")
            if reply.status:
                raise
            await internal(path=scope["path"], request_id=request_id)(scope, receive, reply)
