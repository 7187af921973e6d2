"""The gateway's application and the command that serves it."""

import argparse
import ipaddress
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any

import uvicorn
from anyio import CapacityLimiter
from anyio.to_thread import run_sync
from fastapi import FastAPI

from clipwarden.api import (
    acting,
    batches,
    events,
    evidence,
    listing,
    openapi,
    pages,
    problems,
    report,
    routes,
    seed_routes,
    uploads,
    views,
    webhooks,
)
from clipwarden.api.access import Keyring
from clipwarden.api.changes import Changes
from clipwarden.api.connection import Connection
from clipwarden.api.events import Streams
from clipwarden.api.gateway import Gateway
from clipwarden.api.guard import Guard
from clipwarden.api.limits import Limits
from clipwarden.api.memory import keep_freed
from clipwarden.shared.errors import ConfigError
from clipwarden.shared.exposing import expose
from clipwarden.shared.logs import configure_logging
from clipwarden.shared.metrics import GATEWAY
from clipwarden.shared.settings import Settings, load_settings
from clipwarden.shared.tracing import start_tracing, stop_tracing

DESCRIPTION = (
    "Send a clip, poll the analysis, read the verdict and what each branch found. Errors are problem documents"
    " (RFC 9457) with a stable `code`. A verdict is evidence for a human decision, not a decision."
)
GRACE_S = 30
SERVER: dict[str, Any] = {
    "http": Connection,
    "ws": "none",
    "log_config": None,
    "access_log": False,
    "server_header": False,
}
"""What every uvicorn that serves the gateway is told."""


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches what is bound to the address; an empty one is all of them."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def create_app(settings: Settings) -> FastAPI:
    """The gateway. Its start-up raises ConfigError or Unavailable rather than serve the wrong blob store."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        gateway = app.state.gateway = await run_sync(Gateway.open, settings)
        app.state.keyring = Keyring(gateway.store, may_be_open=is_loopback(settings.host))
        limits = app.state.limits = Limits(settings, gateway.store)
        app.state.streams = Streams(settings.max_streams)
        app.state.completers = CapacityLimiter(uploads.COMPLETERS)
        changes = app.state.changes = Changes(settings.database_url)
        changes.start()
        try:
            yield
        finally:
            await changes.close()
            await limits.close()
            await run_sync(gateway.close)

    app = FastAPI(
        title="Clipwarden",
        version=version("clipwarden"),
        summary="Was this clip manipulated, and why do we think so?",
        description=DESCRIPTION,
        lifespan=lifespan,
        docs_url=None,  # the framework's page loads scripts from another host
        redoc_url=None,
        redirect_slashes=False,
    )
    app.include_router(routes.router)
    app.include_router(uploads.router)
    app.include_router(batches.router)
    app.include_router(listing.router)
    app.include_router(acting.router)
    app.include_router(views.router)
    app.include_router(events.router)
    app.include_router(evidence.router)
    app.include_router(report.router)
    app.include_router(webhooks.router)
    app.include_router(seed_routes.router)
    app.include_router(pages.router)
    app.openapi = openapi.document(app)  # type: ignore[method-assign]  # the framework's documented way
    problems.install(app)
    app.add_middleware(Guard, settings=settings)
    return app


def main(argv: Sequence[str]) -> int:
    """`clipwarden serve`."""
    parser = argparse.ArgumentParser(prog="clipwarden serve", description="Run the gateway until it is told to stop.")
    parser.add_argument("--host", help="address to bind to, instead of CLIPWARDEN_HOST")
    parser.add_argument("--port", type=int, help="port to bind to, instead of CLIPWARDEN_PORT; 0 takes a free one")
    given = {name: value for name, value in vars(parser.parse_args(argv)).items() if value is not None}
    settings = load_settings(**given)
    configure_logging("gateway", settings.log_level)
    _check(settings)
    expose(settings, GATEWAY)
    start_tracing("gateway")
    keep_freed()
    uvicorn.run(
        create_app(settings), host=settings.host, port=settings.port, timeout_graceful_shutdown=GRACE_S, **SERVER
    )
    stop_tracing()
    return 0


def _check(settings: Settings) -> None:
    """A fault of the installation is told in one sentence, not in a traceback. Raises ConfigError or Unavailable."""
    gateway = Gateway.open(settings)
    try:
        if not is_loopback(settings.host) and not gateway.store.any_key():
            raise ConfigError(
                f"without a key the gateway serves this machine only, not {settings.host or 'every address'}:"
                " run `clipwarden keys create NAME` first, or set CLIPWARDEN_HOST=127.0.0.1"
            )
    finally:
        gateway.close()
