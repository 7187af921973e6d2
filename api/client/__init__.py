"""The HTTP client, fit for scripts: submit files, read analyses, wait for their ends.

`Client` does what it is asked where it is called; `AsyncClient` has the same methods, to be awaited. After repeating
what may help, both raise the gateway's problems as ProblemError, a gateway that cannot be reached as Unavailable, and
a file that cannot be read as ConfigError.
"""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from functools import update_wrapper
from types import TracebackType
from typing import Any, Generic, ParamSpec, Self, TypeVar, cast, overload
from urllib.parse import urlsplit

import anyio
import httpx

from clipwarden.api.client import operations
from clipwarden.api.client.operations import Filters as Filters
from clipwarden.api.client.operations import Item as Item
from clipwarden.api.client.operations import Options as Options
from clipwarden.api.client.operations import Sent as Sent
from clipwarden.api.client.operations import Source as Source
from clipwarden.api.client.operations import is_address as is_address
from clipwarden.api.client.progress import Progress as Progress
from clipwarden.api.client.steps import Flow, Pause, Request, Step, Together
from clipwarden.shared.errors import ClipwardenError, ConfigError, Unavailable

SIDE_BY_SIDE = 4
"""Operations that run at the same time, where many are asked for together."""
TIMEOUT = httpx.Timeout(10.0, read=120.0, write=120.0)
LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})

P = ParamSpec("P")
T = TypeVar("T")


class Operation(Generic[P, T]):
    """A method of both clients: of the one it returns the answer, of the other it is awaited."""

    def __init__(self, flow: Callable[P, Flow[T]]) -> None:
        self._flow = flow
        self.__doc__ = flow.__doc__

    @overload
    def __get__(self, client: "Client", kind: type) -> Callable[P, T]: ...

    @overload
    def __get__(self, client: "AsyncClient", kind: type) -> Callable[P, Coroutine[Any, Any, T]]: ...

    @overload
    def __get__(self, client: None, kind: type) -> Callable[P, Flow[T]]: ...

    def __get__(self, client: "Client | AsyncClient | None", kind: type) -> Callable[P, Any]:
        if client is None:
            return self._flow
        run = client.run

        def method(*args: P.args, **kwargs: P.kwargs) -> Any:
            return run(self._flow(*args, **kwargs))

        return update_wrapper(method, self._flow)


class Operations(ABC):
    """What both clients can do. `base_url` is the gateway's address."""

    submit = Operation(operations.submit)
    submit_batch = Operation(operations.submit_batch)
    upload = Operation(operations.upload)
    get = Operation(operations.get)
    get_all = Operation(operations.get_all)
    report = Operation(operations.report)
    wait = Operation(operations.wait)
    batch = Operation(operations.batch)
    wait_batch = Operation(operations.wait_batch)
    analyses = Operation(operations.analyses)
    cancel = Operation(operations.cancel)
    rerun = Operation(operations.rerun)
    delete = Operation(operations.delete)
    feedback = Operation(operations.feedback)
    detectors = Operation(operations.detectors)

    def __init__(self, base_url: str, api_key: str = "") -> None:
        """Raises ConfigError for what is no address."""
        self.base_url = base_url
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        try:
            parts = urlsplit(base_url)
            if parts.scheme not in {"http", "https"} or not parts.hostname:
                raise ValueError("it must begin with http:// or https:// and name a host")  # noqa: TRY301
            self._open(base_url=base_url, headers=headers, timeout=TIMEOUT, trust_env=parts.hostname not in LOOPBACK)
        except (ValueError, httpx.InvalidURL) as error:
            raise ConfigError(f"{base_url!r} is not the address of a gateway: {error}") from error

    @abstractmethod
    def _open(self, **connection: Any) -> None: ...

    def _silent(self, error: httpx.TransportError) -> Unavailable:
        told = f"the gateway at {self.base_url} does not answer ({error}): is `clipwarden up` running?"
        unavailable = Unavailable(told)
        unavailable.__cause__ = error
        return unavailable


class Client(Operations):
    """A connection to one gateway."""

    def _open(self, **connection: Any) -> None:
        self._http = httpx.Client(**connection)

    def close(self) -> None:
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def run(self, flow: Flow[T]) -> T:
        """Do the steps of an operation."""
        came: Any = None
        while True:
            try:
                step = flow.send(came)
            except StopIteration as end:
                return cast("T", end.value)
            came = self._done(step)

    def _done(self, step: Step) -> Any:
        match step:
            case Request():
                return self._sent(step)
            case Pause():
                return time.sleep(step.seconds)
            case Together():
                return self._together(step)

    def _sent(self, request: Request) -> httpx.Response | Unavailable:
        content = request.body.pieces() if request.body else None
        try:
            return self._http.request(**_said(request), content=content)
        except httpx.TransportError as error:
            return self._silent(error)

    def _together(self, step: Together) -> list[Any]:
        pool = ThreadPoolExecutor(SIDE_BY_SIDE, "clipwarden-client")
        try:
            return list(pool.map(self.run, step.flows))
        finally:
            pool.shutdown(cancel_futures=True)


class AsyncClient(Operations):
    """A connection to one gateway, in an event loop."""

    def _open(self, **connection: Any) -> None:
        self._http = httpx.AsyncClient(**connection)

    async def close(self) -> None:
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def run(self, flow: Flow[T]) -> T:
        """Do the steps of an operation."""
        came: Any = None
        while True:
            try:
                step = flow.send(came)
            except StopIteration as end:
                return cast("T", end.value)
            came = await self._done(step)

    async def _done(self, step: Step) -> Any:
        match step:
            case Request():
                return await self._sent(step)
            case Pause():
                return await anyio.sleep(step.seconds)
            case Together():
                return await self._together(step)

    async def _sent(self, request: Request) -> httpx.Response | Unavailable:
        content = request.body.pieces_later() if request.body else None
        try:
            return await self._http.request(**_said(request), content=content)
        except httpx.TransportError as error:
            return self._silent(error)

    async def _together(self, step: Together) -> list[Any]:
        answers: list[Any] = [None] * len(step.flows)
        errors: list[ClipwardenError] = []
        places = anyio.CapacityLimiter(SIDE_BY_SIDE)

        async def one(index: int, flow: Flow[Any]) -> None:
            async with places:
                try:
                    answers[index] = await self.run(flow)
                except ClipwardenError as error:
                    errors.append(error)
                    group.cancel_scope.cancel()

        async with anyio.create_task_group() as group:
            for index, flow in enumerate(step.flows):
                group.start_soon(one, index, flow)
        if errors:
            raise errors[0]
        return answers


def _said(request: Request) -> dict[str, Any]:
    headers = {**request.headers, **(request.body.headers if request.body else {})}
    return {
        "method": request.method,
        "url": request.path,
        "params": dict(request.params),
        "headers": headers,
        "json": request.json,
    }
