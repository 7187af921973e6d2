"""The gateway's application and the command that serves it."""

import argparse
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from importlib.metadata import version

import uvicorn
from anyio.to_thread import run_sync
from fastapi import FastAPI

from clipwarden.api import openapi, problems, routes, seed_routes
from clipwarden.api.gateway import Gateway
from clipwarden.api.guard import Guard
from clipwarden.shared.logs import configure_logging
from clipwarden.shared.settings import Settings, load_settings

DESCRIPTION = (
    "Send a clip, poll the analysis, read the verdict and what each branch found. Errors are problem documents"
    " (RFC 9457) with a stable `code`. A verdict is evidence for a human decision, not a decision."
)
GRACE_S = 30


def create_app(settings: Settings) -> FastAPI:
    """The gateway. Its start-up raises ConfigError or Unavailable rather than serve the wrong blob store."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.gateway = await run_sync(Gateway.open, settings)
        try:
            yield
        finally:
            await run_sync(app.state.gateway.close)

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
    app.include_router(seed_routes.router)
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
    Gateway.open(settings).close()  # a fault of the installation is told in one sentence, not in a traceback
    uvicorn.run(
        create_app(settings),
        host=settings.host,
        port=settings.port,
        log_config=None,
        access_log=False,
        ws="none",
        server_header=False,
        timeout_graceful_shutdown=GRACE_S,
    )
    return 0
