"""What was published, as a subscriber and the operator see it."""

from tests.http.raw import connected, get

JSON = "Content-Type: application/json"
NDJSON = "Content-Type: application/x-ndjson"
FORM = "Content-Type: application/x-www-form-urlencoded"


async def newest(server, count: int = 1, topic: str = "*"):
    """The newest events, as a subscriber sees them."""
    async with connected(server) as raw:
        await raw.send(get(f"/events?topic={topic}&last={count}"))
        stream = await raw.stream()
        return [await stream.next() for _ in range(count)]


async def published_count(server) -> int:
    async with connected(server) as raw:
        await raw.send(get("/stats"))
        return (await raw.answer()).json["totals"]["events_published"]
