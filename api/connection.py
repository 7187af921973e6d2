"""The server's side of one connection: uvicorn's, with bounds on the time and the size of a request's head.

uvicorn itself waits for ever for the first request of a connection, and keeps whatever headers it is sent.
"""

import asyncio
from enum import Enum
from http import HTTPStatus

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_S = 10.0
HEAD_BYTES = 64 * 1024
"""After the first read. Nothing is parsed beyond it; the guard refuses far smaller heads, and with a sentence."""


class _Part(Enum):
    NOTHING = 0
    HEAD = 1
    BODY = 2


class Connection(HttpToolsProtocol):
    """Hangs up with 408 if a head is not whole in HEAD_S, and with 431 if it is over HEAD_BYTES.

    What a client still sends of a request that was already answered is read for HEAD_S too, and no longer.
    """

    _part = _Part.NOTHING
    _head_bytes = 0
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
        super().connection_made(transport)
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.cycle is None or self.cycle.response_complete:
            self._wait()
        continued = self._part is _Part.HEAD
        super().data_received(data)
        if continued and self._part is _Part.HEAD and not self.transport.is_closing():
            self._head_bytes += len(data)
            if self._head_bytes > HEAD_BYTES:
                self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)

    def on_message_begin(self) -> None:
        self._part, self._head_bytes = _Part.HEAD, 0
        self._wait()
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._part = _Part.BODY
        self._stop_waiting()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._part = _Part.NOTHING
        self._stop_waiting()
        super().on_message_complete()

    def shutdown(self) -> None:
        """Lets what was begun be answered, but for streams of events, which would go on for ever."""
        super().shutdown()
        if self.cycle is not None and not self.cycle.response_complete and self.cycle.scope["path"].endswith("/events"):
            self.transport.close()

    def _wait(self) -> None:
        if self._timer is None:
            self._timer = self.loop.call_later(HEAD_S, self._hang_up)

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _hang_up(self) -> None:
        self._timer = None
        if self.cycle is not None and not self.cycle.response_complete:
            self._wait()  # the head of a request that was sent before the answer to the last one
        elif self._part is _Part.HEAD:
            self._refuse(HTTPStatus.REQUEST_TIMEOUT)
        elif not self.transport.is_closing():
            self.transport.close()

    def _refuse(self, status: HTTPStatus) -> None:
        if not self.transport.is_closing():
            head = f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            self.transport.write(head.encode())
            self.transport.close()
