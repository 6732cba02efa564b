"""The JavaScript client as the server sends it."""

import re

from tests.http.raw import connected, get


async def test_the_core_is_a_module_that_names_its_hash(ask) -> None:
    answer = await ask("GET", "/client.js")
    assert answer.status == 200
    assert answer.headers["content-type"] == "text/javascript; charset=utf-8"
    assert answer.headers["cache-control"] == "no-cache"
    assert b"export{" in answer.body
    place = answer.headers["content-location"]
    assert re.fullmatch(r"/client/[0-9a-f]{16}/index\.js", place)
    hashed = await ask("GET", place)
    assert hashed.body == answer.body
    assert hashed.headers["cache-control"] == "public, max-age=31536000, immutable"


async def test_a_browser_that_has_the_file_gets_304_and_the_connection_goes_on(server, ask) -> None:
    tag = (await ask("GET", "/client.js")).headers["etag"]
    async with connected(server) as raw:
        for _ in range(2):
            await raw.send(get("/client.js", f"If-None-Match: {tag}"))
            status, headers = await raw.head()
            assert status == 304
            assert headers["etag"] == tag
        await raw.send(get("/client/index.js", 'If-None-Match: "another"'))
        assert (await raw.head())[0] == 200


async def test_the_hash_of_another_version_is_sent_and_not_kept(ask) -> None:
    answer = await ask("GET", "/client/0123456789abcdef/index.js")
    assert answer.status == 200
    assert answer.headers["cache-control"] == "no-cache"


async def test_other_names_are_404_with_the_names_that_exist(ask) -> None:
    for path in (
        "/client/no.js",
        "/client/",
        "/client/a/b/index.js",
        "/client/..%2f..%2fconsole.html",
        "/client/%00",
    ):
        answer = await ask("GET", path)
        assert answer.status == 404, path
        assert "index.js" in answer.json["detail"]
    assert (await ask("POST", "/client.js", body=b"x")).status == 405
