"""A page reads the stream of `GET /ws` with its token, and returns to its place after a cut."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from fastsse.config import Config
from fastsse.server import Server
from tests.auth.minting import SECRET, grants, mint
from tests.browser.chromium import PROGRAM, chromium

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="no Chromium here")
# Opens again with the last id whenever it is closed.
READER = """
(() => {
  window.seen = []; window.codes = []; window.last = 'earliest'
  const open = () => {
    window.socket = new WebSocket(`${ADDRESS}&last_event_id=${encodeURIComponent(window.last)}`)
    window.socket.onmessage = (message) => {
      const fields = Object.fromEntries(message.data.split('\\n').map((line) => line.split(': ')))
      if (fields.data !== undefined) window.seen.push(fields.data)
      if (fields.id) window.last = fields.id
    }
    window.socket.onclose = (event) => {
      window.codes.push(event.code)
      setTimeout(open, 20)
    }
  }
  open()
})()
"""


async def test_a_page_with_a_token_gets_each_event_once_over_cuts(tmp_path: Path) -> None:
    async with (
        Server(Config(port=0, jwt_key=SECRET)) as server,
        chromium(tmp_path / "profile") as browser,
    ):

        async def until(script: str, value: Any) -> None:
            async with asyncio.timeout(60):
                while await page.run(script) != value:  # noqa: ASYNC110
                    await asyncio.sleep(0.02)

        page = await browser.open(f"http://127.0.0.1:{server.port}/healthz")
        token = mint(grants(subscribe=["t"])).decode()
        address = f"ws://127.0.0.1:{server.port}/ws?topic=t&authorization={token}"
        await page.run(READER.replace("${ADDRESS}", address))
        sent = []
        for cut in range(4):
            for number in range(5):
                sent.append(f"{cut} {number}")
                server.publish("t", sent[-1], private=True)
            await until("JSON.stringify(window.seen)", json.dumps(sent, separators=(",", ":")))
            # What comes while it is away is sent when it returns.
            await page.run("window.socket.close()")
        wrong = f"ws://127.0.0.1:{server.port}/ws?topic=t&authorization={token[:-8]}AAAAAAAA"
        await page.run(
            f"window.refused = new Promise((done) => {{ const one = new WebSocket('{wrong}');"
            " one.onopen = () => done('open'); one.onclose = () => done('refused') })"
        )
        assert await page.run("window.refused") == "refused"
