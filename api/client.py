"""The HTTP client behind the command line, fit for scripts: submit a file, read an analysis, wait for its end."""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self, cast
from urllib.parse import urlsplit
from uuid import UUID

import httpx
from pydantic import ValidationError

from clipwarden.api.schemas import AnalysisView
from clipwarden.shared.codes import ProblemCode
from clipwarden.shared.errors import ClipwardenError, ConfigError, ProblemError, Unavailable

READ_TRIES = 4
FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 10.0
TIMEOUT = httpx.Timeout(10.0, read=120.0, write=120.0)
LOOPBACK = {"localhost", "127.0.0.1", "::1"}

Progress = Callable[[int, int], None]
"""Called with the bytes sent so far and the size of the file."""


class _Watched:
    """A file that reports how much of it was read."""

    def __init__(self, file: BinaryIO, progress: Progress) -> None:
        self._file, self._progress = file, progress
        self._size = os.fstat(file.fileno()).st_size

    def fileno(self) -> int:
        return self._file.fileno()

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def read(self, size: int = -1) -> bytes:
        chunk = self._file.read(size)
        self._progress(self._file.tell(), self._size)
        return chunk


class Client:
    """A connection to one gateway. Errors of the gateway are raised as ProblemError or Unavailable."""

    def __init__(self, base_url: str, api_key: str = "") -> None:
        try:
            parts = urlsplit(base_url)
            if parts.scheme not in {"http", "https"} or not parts.hostname:
                raise ValueError("it must begin with http:// or https:// and name a host")  # noqa: TRY301
            local = parts.hostname in LOOPBACK
            headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
            self._http = httpx.Client(base_url=base_url, headers=headers, timeout=TIMEOUT, trust_env=not local)
        except (ValueError, httpx.InvalidURL) as error:
            raise ConfigError(f"{base_url!r} is not the address of a gateway: {error}") from error
        self.base_url = base_url

    def close(self) -> None:
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def submit(
        self,
        path: Path,
        tag: str | None = None,
        metadata: dict[str, Any] | None = None,
        progress: Progress | None = None,
        reuse: bool = True,
    ) -> AnalysisView:
        """Upload a file, streamed from disk. Not repeated on failure: it may have been taken.

        `reuse` allows the findings of an earlier analysis of the same content to be taken over.
        """
        fields = {
            "tag": tag,
            "metadata": None if metadata is None else json.dumps(metadata),
            "reuse": None if reuse else "false",
        }
        data = {name: value for name, value in fields.items() if value is not None}
        try:
            opened = path.open("rb")
        except OSError as error:
            raise ConfigError(f"{path} cannot be read: {error.strerror or error}") from error
        with opened as file:
            watched = cast("BinaryIO", _Watched(file, progress)) if progress else file
            reply = self._request("POST", "/v1/analyses", data=data, files={"file": (path.name, watched)})
        return _view(reply)

    def get(self, analysis_id: UUID | str) -> AnalysisView:
        """Read an analysis. A gateway that is away for a moment is asked again."""
        return self._read(analysis_id)[0]

    def wait(
        self, analysis_id: UUID | str, timeout_s: float, progress: Callable[[AnalysisView], None] | None = None
    ) -> AnalysisView:
        """Read an analysis until it ended, at the pace the gateway asks for. Raises Unavailable after `timeout_s`."""
        deadline = time.monotonic() + timeout_s
        while True:
            view, pause_s = self._read(analysis_id)
            if progress:
                progress(view)
            if view.ended:
                return view
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                raise Unavailable(
                    f"the analysis {view.id} is {view.state} after {timeout_s:g} s: `clipwarden status {view.id}`"
                )
            time.sleep(min(pause_s, left_s))

    def _read(self, analysis_id: UUID | str) -> tuple[AnalysisView, float]:
        """The analysis, and the seconds to wait before reading it again."""
        try:
            analysis_id = UUID(str(analysis_id))
        except ValueError as error:
            raise ConfigError(f"{analysis_id!r} is not an analysis id") from error
        pause_s = FIRST_PAUSE_S
        for tries_left in range(READ_TRIES - 1, -1, -1):
            try:
                reply = self._request("GET", f"/v1/analyses/{analysis_id}")
            except Unavailable:
                if not tries_left:
                    raise
                time.sleep(pause_s)
                pause_s *= 2
            else:
                return _view(reply), _retry_after_s(reply, FIRST_PAUSE_S)
        raise AssertionError("the last try returns or raises")

    def _request(self, method: str, path: str, **content: Any) -> httpx.Response:
        try:
            reply = self._http.request(method, path, **content)
        except httpx.TransportError as error:
            raise Unavailable(
                f"the gateway at {self.base_url} does not answer ({error}): is `clipwarden up` running?"
            ) from error
        if reply.is_error:
            raise _error(reply)
        return reply


def _view(reply: httpx.Response) -> AnalysisView:
    try:
        return AnalysisView.model_validate_json(reply.content)
    except ValidationError as error:
        raise _not_ours(reply) from error


def _not_ours(reply: httpx.Response) -> Unavailable:
    return Unavailable(f"{reply.request.url} answered {reply.status_code}, and not as a Clipwarden gateway does")


def _retry_after_s(reply: httpx.Response, default: float) -> float:
    try:
        return min(max(0.05, float(reply.headers["Retry-After"])), LONGEST_PAUSE_S)
    except (KeyError, ValueError):
        return default


def _error(reply: httpx.Response) -> ClipwardenError:
    """The gateway's problem document as our own error."""
    try:
        document = reply.json()
        code, detail = str(document["code"]), str(document["detail"])
    except (ValueError, KeyError, TypeError):
        return _not_ours(reply)
    if reply.status_code == 503:
        return Unavailable(detail)
    if code in set(ProblemCode):
        return ProblemError(ProblemCode(code), detail)
    return ClipwardenError(f"{detail} (request {document.get('request_id', 'unknown')})")
