"""What the gateway is measured against: handlers that do the least that the same answer takes.

Run as a program, it serves them: `python -m tests.bench.gateway_rivals PORT DATABASE_URL DIRECTORY`.
"""

import sys
from pathlib import Path
from uuid import UUID, uuid4

import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel
from sqlalchemy import text
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from clipwarden.api.gateway import POOL_SIZE
from clipwarden.shared.store.connection import Database


class Row(BaseModel):
    id: UUID
    state: str
    filename: str


class Rows(Database):
    def row(self, row_id: UUID) -> Row:
        with self._transaction() as c:
            found = c.execute(text("SELECT id, state, filename FROM analyses WHERE id = :id"), {"id": row_id}).one()
        return Row(id=found.id, state=found.state, filename=found.filename)


def rivals(database_url: str, directory: Path) -> FastAPI:
    """`POST /upload` streams the body to disk, without FastAPI; `GET /rows/{id}` does one indexed SELECT, with it."""
    rows = Rows(database_url, POOL_SIZE)

    async def upload(request: Request) -> JSONResponse:
        path, size = directory / uuid4().hex, 0
        with path.open("wb") as file:
            async for chunk in request.stream():
                size += file.write(chunk)
        return JSONResponse({"id": path.name, "bytes": size}, 202)

    app = FastAPI(openapi_url=None)
    app.router.routes.append(Route("/upload", upload, methods=["POST"]))

    @app.get("/rows/{row_id}", response_model=Row)
    def show(row_id: UUID) -> Row:
        return rows.row(row_id)

    return app


if __name__ == "__main__":
    port, database_url, directory = sys.argv[1:]
    uvicorn.run(
        rivals(database_url, Path(directory)),
        host="127.0.0.1",
        port=int(port),
        http="httptools",
        log_config=None,
        access_log=False,
        server_header=False,
    )
