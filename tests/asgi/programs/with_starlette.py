"""Starlette with a lifespan of its own."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from tests.asgi.programs.common import counts, mounted


@asynccontextmanager
async def lifespan(_: Starlette) -> AsyncIterator[None]:
    await app.publish("started", "yes")
    yield


async def publish(request: Request) -> JSONResponse:
    return JSONResponse({"id": await request.scope["fastsse"].publish(**await request.json())})


async def of_the_mount(_: Request) -> JSONResponse:
    return JSONResponse(counts(app))


app = mounted(
    Starlette(
        routes=[Route("/publish", publish, methods=["POST"]), Route("/counts", of_the_mount)],
        lifespan=lifespan,
    )
)
