"""Litestar."""

from typing import Any

from litestar import Litestar, get, post

from tests.asgi.programs.common import counts, mounted


@post("/publish")
async def publish(data: dict[str, Any]) -> dict[str, str]:
    return {"id": await app.publish(**data)}


@get("/counts", sync_to_thread=False)
def of_the_mount() -> dict[str, Any]:
    return counts(app)


app = mounted(Litestar([publish, of_the_mount]))
