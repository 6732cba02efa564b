"""The transports for AI SDK and TanStack AI of the protocol's authors, with a stand-in model: an
answer is whole after a reload, in a second tab, and over a network that is cut again and again."""

import asyncio
import contextlib
import json
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from fastsse.server import Server
from tests.browser.chromium import PROGRAM, Page, chromium
from tests.clients.javascript import bundled
from tests.http.conftest import Start
from tests.libraries.node import MODULES, NODE
from tests.streams.cutting import cutting

# One loop: these tests are about the other side.
pytestmark = pytest.mark.asyncio(loop_factories=["uvloop"])
HERE = Path(__file__).parent
WORDS = 400
PAGES = {
    "aisdk": """
import { createElement as h } from "react";
import { createRoot } from "react-dom/client";
import { Chat, useChat } from "@ai-sdk/react";
import { createDurableChatTransport } from "@durable-streams/aisdk-transport";

const transport = createDurableChatTransport({ api: "/api/chat" });
const chat = new Chat({ id: "one", transport, messages: window.stored });
function Page() {
  const { messages, status } = useChat({ chat, resume: true });
  window.send = () => void chat.sendMessage({ text: "hi" });
  window.state = () => status;
  window.answer = () => messages.filter((one) => one.role === "assistant")
    .flatMap((one) => one.parts).map((part) => part.text ?? "").join("");
  return h("pre", {}, status);
}
createRoot(document.getElementById("root")).render(h(Page));
""",
    "tanstack": """
import { ChatClient } from "@tanstack/ai-client";
import { durableStreamConnection } from "@durable-streams/tanstack-ai-transport";

let all = [];
const open = async () => {
  const { url } = await (await fetch("/read")).json();
  const client = new ChatClient({
    connection: durableStreamConnection({ sendUrl: "/api/session", readUrl: url }),
    onMessagesChange: (messages) => { all = messages; },
    onError: (error) => { window.failed = String(error); },
  });
  client.subscribe();
  window.send = () => void client.sendMessage("hi");
  window.state = () => "ready";
};
void open();
window.answer = () => all.filter((one) => one.role === "assistant")
  .flatMap((one) => one.parts).map((part) => part.content ?? "").join("");
""",
}


def answer(count: int) -> str:
    return "".join(f"word-{n} " for n in range(count))


def prepare(folder: Path) -> None:
    """A folder for the program. Skips the test without the packages."""
    for name in ("aisdk-transport", "tanstack-ai-transport"):
        if not (MODULES / "@durable-streams" / name).is_dir():
            pytest.skip("the packages of tests/node are not installed; `make test-all` does it")
    shutil.copy(HERE / "transports.mjs", folder)
    (folder / "node_modules").symlink_to(MODULES)


@contextlib.asynccontextmanager
async def program(folder: Path, *words: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """The model server, under way."""
    process = await asyncio.create_subprocess_exec(
        *(NODE, folder / "transports.mjs", *words),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


@pytest.mark.timeout(180)
@pytest.mark.parametrize("library", ["aisdk", "tanstack"])
async def test_an_answer_is_whole_when_the_network_is_cut_a_hundred_times(
    server: Server, tmp_path: Path, library: str
) -> None:
    prepare(tmp_path)
    port = int(server.addresses[0].rpartition(":")[2])
    async with cutting(port, cuts_max=100) as (url, proxy):
        urls = f"{server.addresses[0]}/streams", f"{url}/streams"
        async with (
            program(tmp_path, *urls, str(tmp_path), library, str(WORDS)) as process,
            asyncio.timeout(150),
        ):
            output, _ = await process.communicate()
    assert json.loads(output) == {"text": answer(WORDS), "posts": 1}
    assert proxy.cuts >= 20


@pytest.mark.skipif(PROGRAM is None, reason="no Chromium here")
@pytest.mark.parametrize("library", ["aisdk", "tanstack"])
async def test_a_page_loaded_in_mid_answer_and_a_second_tab_show_the_whole(
    start: Start, tmp_path: Path, library: str
) -> None:
    prepare(tmp_path)
    server = await start(cors_origins=("*",))
    (tmp_path / "page.js").write_text(bundled(PAGES[library], tmp_path))
    url = f"{server.addresses[0]}/streams"
    async with (
        program(tmp_path, url, url, str(tmp_path), "serve") as process,
        httpx.AsyncClient(trust_env=False, timeout=60) as http,
        chromium(tmp_path / "profile") as browser,
    ):
        assert process.stdout is not None
        base = (await process.stdout.readline()).decode().strip()

        async def shows(page: Page, words: int) -> None:
            # The library reads nothing while its tab is hidden, and goes on when it is shown.
            await page.ask("Page.bringToFront", {})
            await page.settled("window.answer?.()", answer(words))

        async def say(words: int, *pages: Page) -> None:
            await http.post(f"{base}/say?words={words}")
            for page in pages:
                await shows(page, words)

        first = await browser.open(base)
        await first.settled("window.state?.()", "ready")
        await first.run("send()")
        await say(4, first)
        second = await browser.open(base)
        await shows(second, 4)
        await first.ask("Page.reload", {})
        await shows(first, 4)
        await say(8, first, second)
        await second.ask("Page.reload", {})
        await shows(second, 8)
        await say(12, first, second)
        for page in (first, second):
            await page.ask("Page.bringToFront", {})
            await page.settled("window.state()", "ready")
            assert await page.run("answer()") == answer(12)
        assert (await http.get(f"{base}/posts")).json() == 1
