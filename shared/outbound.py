"""The one HTTP client for addresses that users name: it connects only to what `addresses` allows, and to nothing twice
resolved. Redirects are followed by hand, replies are read within limits, and no proxy is taken from the environment.
"""

import contextlib
import http.client
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from urllib.parse import urljoin

from clipwarden.shared.addresses import AddressRefused, Lookup, Rules, Target, parse, resolve
from clipwarden.shared.codes import RejectCode
from clipwarden.shared.errors import ClipwardenError

CONNECT_S = 10.0
STALL_S = 30.0
"""Longest silence of a server that has begun to answer."""
MAX_REDIRECTS = 5
CHUNK_BYTES = 256 * 1024
REDIRECTS = frozenset({301, 302, 303, 307, 308})


class NoAnswer(ClipwardenError):  # noqa: N818 - what happened
    """The server did not answer, or not in full, or not in time; it may the next time."""

    code = RejectCode.FETCH_FAILED


class ReplyTooLarge(ClipwardenError):  # noqa: N818 - what happened
    """The reply is over the limit of bytes."""

    code = RejectCode.FETCH_TOO_LARGE


class _Connection(http.client.HTTPConnection):
    """A connection to addresses that were judged, whatever the host's name resolves to by now."""

    def __init__(self, target: Target, addresses: Sequence[str], context: ssl.SSLContext, deadline: float) -> None:
        super().__init__(target.host, target.port, timeout=STALL_S)
        self.default_port = 443 if target.tls else 80  # it goes without saying in the Host header
        self._addresses, self._context, self._tls = addresses, context, target.tls
        self._deadline = deadline
        self._plug: socket.socket | None = None

    def connect(self) -> None:
        self.sock = _dial(self._addresses, self.port, self._deadline)
        self._plug = self.sock.dup()
        _left_s(self._deadline)  # someone may have pulled before there was a plug
        self.sock.settimeout(STALL_S)
        if self._tls:
            self.sock = self._context.wrap_socket(self.sock, server_hostname=self.host)

    def pull(self) -> None:
        """End the connection from another thread, under whatever waits on it."""
        if self._plug is not None:
            with contextlib.suppress(OSError):
                self._plug.shutdown(socket.SHUT_RDWR)

    def release(self) -> None:
        """Close it for good; `close` is also called by a reply that is the last one, before its body is read."""
        self.close()
        if self._plug is not None:
            self._plug.close()


def _left_s(deadline: float) -> float:
    left_s = deadline - time.monotonic()
    if left_s <= 0:
        raise TimeoutError("the time is over")
    return left_s


def _dial(addresses: Sequence[str], port: int, deadline: float) -> socket.socket:
    failure: OSError = OSError("the name has no address")
    for address in addresses:
        left_s = _left_s(deadline)
        try:
            return socket.create_connection((address, port), timeout=min(CONNECT_S, left_s))
        except OSError as error:
            failure = error
    raise failure


class _Clock:
    """Ends a connection when the time for the whole exchange is over, also under a server that sends byte by byte."""

    def __init__(self, connection: _Connection, seconds: float) -> None:
        self.over = False
        self._connection = connection
        self._timer = threading.Timer(max(0.0, seconds), self._strike)
        self._timer.daemon = True

    def _strike(self) -> None:
        self.over = True
        self._connection.pull()

    @contextmanager
    def running(self) -> Iterator[None]:
        """Foreign errors as NoAnswer."""
        self._timer.start()
        try:
            yield
        except ssl.SSLCertVerificationError as error:
            raise NoAnswer(f"the server's certificate is not valid: {error.verify_message}") from error
        except (OSError, http.client.HTTPException) as error:
            raise NoAnswer("the time is over" if self.over else _words(error)) from error
        finally:
            self._timer.cancel()


def _words(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "the server is silent"
    return str(error) or type(error).__name__


def _joined(url: str, location: str) -> str:
    try:
        return urljoin(url, location)
    except ValueError as error:
        raise AddressRefused(f"The address redirects to a malformed one: {error}.") from error


@dataclass(frozen=True, slots=True)
class Reply:
    """A server's reply; `chunks` reads its body, once."""

    target: Target
    status: int
    headers: Mapping[str, str]
    """Names in lower case; of those that come twice, the last."""
    body: http.client.HTTPResponse = field(repr=False)

    def chunks(self, max_bytes: int) -> Iterator[bytes]:
        """The body as it arrives. Raises ReplyTooLarge, and NoAnswer if it ends early."""
        announced = self.body.length
        if announced is not None and announced > max_bytes:
            raise ReplyTooLarge
        seen = 0
        while chunk := self.body.read(CHUNK_BYTES):
            seen += len(chunk)
            if seen > max_bytes:
                raise ReplyTooLarge
            yield chunk
        if announced is not None and seen < announced:
            raise NoAnswer(f"the reply broke off after {seen} of {announced} bytes")


@dataclass(frozen=True, slots=True)
class Outbound:
    """Requests to addresses that users name. Raises AddressRefused, NoAnswer.

    The time of a request counts from before its name is resolved, but cannot cut that short: the system's resolver ends
    by limits of its own, and only then is a time that is over seen.
    """

    rules: Rules
    lookup: Lookup | None = None
    context: ssl.SSLContext = field(default_factory=ssl.create_default_context)

    @contextmanager
    def get(self, url: str, timeout_s: float) -> Iterator[Reply]:
        """The reply at the end of at most five redirects, each judged anew, while the context lasts."""
        deadline = time.monotonic() + timeout_s
        for _ in range(MAX_REDIRECTS + 1):
            with self._exchange("GET", parse(url, self.rules), deadline) as reply:
                if reply.status not in REDIRECTS:
                    yield reply
                    return
                url = _joined(url, reply.headers.get("location", ""))
        raise AddressRefused(f"The address redirects more than {MAX_REDIRECTS} times.")

    def post(self, url: str, body: bytes, headers: Mapping[str, str], timeout_s: float) -> Reply:
        """Status and headers of the reply to a body; redirects are not followed and the reply's body is not read."""
        deadline = time.monotonic() + timeout_s
        with self._exchange("POST", parse(url, self.rules), deadline, body, headers) as reply:
            return reply

    @contextmanager
    def _exchange(
        self,
        method: str,
        target: Target,
        deadline: float,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Iterator[Reply]:
        try:
            addresses = resolve(target, self.rules, self.lookup)
        except OSError as error:
            raise NoAnswer(f"{target.host} is not known: {error}") from error
        connection = _Connection(target, addresses, self.context, deadline)
        clock = _Clock(connection, deadline - time.monotonic())
        sent = {"User-Agent": f"clipwarden/{version('clipwarden')}", "Accept": "*/*", "Accept-Encoding": "identity"}
        with contextlib.ExitStack() as stack:
            stack.callback(connection.release)
            stack.enter_context(clock.running())
            connection.request(method, target.path, body, {**sent, **(headers or {}), "Connection": "close"})
            response = connection.getresponse()
            found = {name.lower(): value for name, value in response.getheaders()}
            yield Reply(target, response.status, found, stack.enter_context(response))
            if clock.over:
                raise NoAnswer("the time is over")
