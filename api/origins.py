"""Which hosts the gateway answers to, and pages of which origins may use it."""

import re
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import Response

from clipwarden.shared.codes import ProblemCode
from clipwarden.shared.errors import ProblemError
from clipwarden.shared.settings import Settings

DEFAULT_PORTS = {"http": ":80", "https": ":443"}
LOOPBACK = frozenset({"localhost", "127.0.0.1", "[::1]"})
"""Always served: no page of another host can make a browser send these names for its own address."""
PREFLIGHT = {
    "Access-Control-Allow-Methods": "GET, POST, PUT, DELETE",
    "Access-Control-Allow-Headers": "Authorization, Content-Digest, Content-Type, Idempotency-Key, Last-Event-ID,"
    " Prefer, Range, Repr-Digest, X-API-Key, X-Request-ID",
    "Access-Control-Max-Age": "600",
}
EXPOSED = "Content-Range, Location, Preference-Applied, RateLimit, RateLimit-Policy, Retry-After, X-Request-ID"


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


class Origins:
    """The settings' hosts and origins. No origin but our own is admitted unless it is named there."""

    def __init__(self, settings: Settings) -> None:
        self._hosts = LOOPBACK | {host.lower() for host in settings.allowed_hosts}
        self._named = frozenset(settings.cors_origins)

    def admit(self, headers: Headers) -> str | None:
        """The named origin that the request comes from, None for our own. Raises ProblemError for a foreign one."""
        hosts, origins = headers.getlist("host"), headers.getlist("origin")
        if len(hosts) != 1 or host_name(hosts[0]) not in self._hosts:
            raise ProblemError(
                ProblemCode.FORBIDDEN,
                "This host name is not served; the operator allows it in CLIPWARDEN_ALLOWED_HOSTS.",
            )
        if all(same_origin(origin, hosts[0]) for origin in origins):
            return None
        if len(origins) == 1 and origins[0] in self._named:
            return origins[0]
        raise ProblemError(
            ProblemCode.FORBIDDEN,
            "Requests from pages of another origin are refused; the operator allows one in CLIPWARDEN_CORS_ORIGINS.",
        )


def is_preflight(method: str, headers: Headers) -> bool:
    """Whether a browser asks, before a page's request and without its key, if the page may send it."""
    return method == "OPTIONS" and "access-control-request-method" in headers


def preflight() -> Response:
    """The answer; that the origin may do so is said by the headers that all of its answers carry."""
    return Response(status_code=204, headers=PREFLIGHT)


def shared_with(origin: str) -> dict[str, str]:
    """Headers by which a browser lets a page of this origin read an answer. Cookies are never asked for."""
    return {"Access-Control-Allow-Origin": origin, "Access-Control-Expose-Headers": EXPOSED}
