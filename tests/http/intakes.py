"""The intake of a server under test, and a usual publish for it."""

from fastsse._intake import Intake
from fastsse.server import Server
from tests.http.conftest import asked
from tests.http.raw import HOST, Answer, Raw

POST = b"POST /events?topic=t HTTP/1.1\r\n" + HOST

USUAL = POST + b"Content-Length: 5\r\n\r\nhello"

SLOW = "Content-Encoding: identity"


def intake_of(server: Server) -> Intake:
    intake = server._worker.frontend._acceptors[0].context.intake  # type: ignore[union-attr]
    assert intake is not None
    return intake


async def metric(server: Server, name: str) -> float:
    text = (await asked(server, "GET", "/metrics")).body.decode()
    return sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith(name))


async def exchange(raw: Raw, data: bytes) -> Answer:
    await raw.send(data)
    return await raw.answer()
