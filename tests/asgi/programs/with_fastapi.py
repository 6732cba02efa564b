"""FastAPI with middleware that wraps `send`, inside the mount."""

from typing import Any

from fastapi import FastAPI
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import Response

from tests.asgi.programs.common import counts, mounted


class Through(BaseHTTPMiddleware):
    async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
        return await call_next(request)


api = FastAPI()
api.add_middleware(Through)
api.add_middleware(GZipMiddleware)
api.add_middleware(CORSMiddleware, allow_origins=["*"])


@api.post("/publish")
async def publish(request: Request) -> dict[str, str]:
    return {"id": await app.publish(**await request.json())}


@api.post("/end")
async def end(topic: str) -> dict[str, str]:
    return {"id": await app.end_topic(topic)}


@api.get("/counts")
def of_the_mount() -> dict[str, Any]:
    return counts(app)


app = mounted(api)
