"""Revoking ends every stream that it means, whatever its token says or leaves out."""

import json
import time

from tests.http.conftest import Start
from tests.http.raw import connected, request
from tests.mercure.client import KEY, ask, bearer, in_a_while


async def test_a_token_that_says_nothing_about_itself_is_older_than_any_revocation(
    start: Start,
) -> None:
    server = await start(jwt_key=KEY, anonymous=True)
    async with connected(server) as bare, connected(server) as anonymous:
        await bare.send(request("GET", "/events?topic=a", bearer(subscribe=["a"])))
        ends = await bare.stream()
        await ends.opening()
        await anonymous.send(request("GET", "/events?topic=a"))
        stays = await anonymous.stream()
        await stays.opening()
        admin = bearer(["*"], iat=in_a_while(30))
        body = json.dumps({"issued_before": time.time() - 60}).encode()
        assert (await ask(server, "POST", "/revoke", admin, body=body)).status == 204
        await ends.to_end()
        answer = await ask(server, "POST", "/events?topic=a", admin, body=b"still")
        assert answer.status == 200
        assert (await stays.next()).data == "still"
