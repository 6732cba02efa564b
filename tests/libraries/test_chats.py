"""Chat libraries in Chromium: an answer that a reload, a drain and a restart cut is whole."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.browser.chromium import PROGRAM, Browser, chromium
from tests.clients.javascript import MODULES, bundled
from tests.libraries.chats import Chats
from tests.loopback import held_port

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="no Chromium here")

WORDS = ["Every ", "answer ", " is", " a\n", "stream ", "."]
ANSWER = "".join(WORDS)
HALF = "".join(WORDS[:3])

# A `Chat` of its own: the one that `useChat` makes forgets that a stream begins again at the start.
AI_SDK = """
import { createElement as h } from "react";
import { createRoot } from "react-dom/client";
import { Chat, useChat } from "@ai-sdk/react";
import { DefaultChatTransport } from "ai";

const again = new URLSearchParams(location.search).has("again");
const chat = window.chat = new Chat({
  id: "one",
  messages: window.stored,
  transport: new DefaultChatTransport(),
  onError: () => again && setTimeout(() => chat.resumeStream(), 100),
});

function Page() {
  const { messages, status } = useChat({ chat, resume: true });
  const texts = messages.map((one) =>
    one.role + ": " + one.parts.map((part) => part.text ?? "").join("|"));
  return h("pre", { id: "chat", title: status }, JSON.stringify(texts));
}
createRoot(document.getElementById("root")).render(h(Page));
window.texts = () => JSON.parse(document.getElementById("chat")?.textContent ?? "[]");
window.state = () => document.getElementById("chat")?.title;
window.send = () => void chat.sendMessage({ text: "hi" });
"""
TANSTACK = """
import { ChatClient, fetchServerSentEvents } from "@tanstack/ai-client";

window.texts = () => [];
const client = new ChatClient({
  connection: fetchServerSentEvents("/api/chat", { reconnect: { maxAttempts: 400, delayMs: 50 } }),
  onMessagesChange: (all) => { window.texts = () => all.map((one) =>
    one.role + ": " + one.parts.map((part) => part.content ?? "").join("|")); },
  onError: (error) => { window.failed = String(error); },
  onStatusChange: (status) => { window.state = () => status; },
});
window.send = () => void client.sendMessage("hi");
"""


@pytest.fixture
async def browser(tmp_path: Path) -> AsyncIterator[Browser]:
    async with chromium(tmp_path / "profile") as opened:
        yield opened


def script(library: str, program: str, folder: Path) -> str:
    """The page's script. Skips the test without the library."""
    if not (MODULES / library).is_dir():
        pytest.skip(f"{library} is not installed; `make test-all` does it")
    return bundled(program, folder)


def of_ai_sdk(words: list[str]) -> list[dict[str, Any]]:
    return [{"type": "text-delta", "id": "t", "delta": word} for word in words]


def of_ag_ui(words: list[str]) -> list[dict[str, Any]]:
    return [{"type": "TEXT_MESSAGE_CONTENT", "messageId": "m", "delta": word} for word in words]


AI_SDK_BEGIN: list[Any] = [{"type": "start", "messageId": "m"}, {"type": "text-start", "id": "t"}]
AI_SDK_END: list[Any] = [{"type": "text-end", "id": "t"}, {"type": "finish"}, "[DONE]"]


async def test_an_ai_sdk_page_that_is_loaded_in_mid_answer_shows_the_whole(
    browser: Browser, tmp_path: Path
) -> None:
    chats = Chats(script("@ai-sdk/react", AI_SDK, tmp_path))
    store = tmp_path / "runs.db"
    with held_port() as held:
        port = held.getsockname()[1]
        async with chats.served(port, store) as mount:
            page = await browser.open(f"http://127.0.0.1:{port}/")
            await page.settled("window.state?.()", "ready")
            await page.run("send()")
            await chats.has_begun()
            chats.messages = [chats.asked[0]]
            await chats.publish(mount, *AI_SDK_BEGIN, *of_ai_sdk(WORDS[:3]))
            await page.settled("texts()", ["user: hi", f"assistant: {HALF}"])
            await page.ask("Page.reload", {})
            await page.settled("window.texts?.()", ["user: hi", f"assistant: {HALF}"])
        await page.settled("state()", "error")
        async with chats.served(port, store) as mount:
            await page.ask("Page.reload", {})
            await page.settled("window.texts?.()", ["user: hi", f"assistant: {HALF}"])
            await chats.publish(mount, *of_ai_sdk(WORDS[3:]), *AI_SDK_END, end=True)
            await page.settled("state()", "ready")
            assert await page.run("texts()") == ["user: hi", f"assistant: {ANSWER}"]
            # A run that is over draws the stored answer again, and the page is idle without one.
            answer = {"type": "text", "text": ANSWER}
            chats.messages.append({"id": "m", "role": "assistant", "parts": [answer]})
            for run in (chats.run, None):
                chats.run = run
                await page.ask("Page.reload", {})
                await page.settled("window.texts?.()", ["user: hi", f"assistant: {ANSWER}"])
                await page.settled("state()", "ready")
    assert (chats.requests, len(chats.asked)) == (1, 1)


async def test_an_ai_sdk_page_goes_on_after_a_restart_without_being_loaded(
    browser: Browser, tmp_path: Path
) -> None:
    chats = Chats(script("@ai-sdk/react", AI_SDK, tmp_path))
    store = tmp_path / "runs.db"
    with held_port() as held:
        port = held.getsockname()[1]
        async with chats.served(port, store) as mount:
            page = await browser.open(f"http://127.0.0.1:{port}/?again")
            await page.settled("window.state?.()", "ready")
            await page.run("send()")
            await chats.has_begun()
            await chats.publish(mount, *AI_SDK_BEGIN, *of_ai_sdk(WORDS[:3]))
            await page.settled("texts()", ["user: hi", f"assistant: {HALF}"])
        async with chats.served(port, store) as mount:
            await chats.publish(mount, *of_ai_sdk(WORDS[3:]), *AI_SDK_END, end=True)
            await page.settled("texts()", ["user: hi", f"assistant: {ANSWER}"])
            await page.settled("state()", "ready")
    assert (chats.requests, len(chats.asked)) == (1, 1)


async def test_a_tanstack_chat_goes_on_after_a_restart_and_asks_once(
    browser: Browser, tmp_path: Path
) -> None:
    chats = Chats(script("@tanstack/ai-client", TANSTACK, tmp_path))
    store = tmp_path / "runs.db"
    with held_port() as held:
        port = held.getsockname()[1]
        async with chats.served(port, store) as mount:
            page = await browser.open(f"http://127.0.0.1:{port}/")
            await page.run("send()")
            await chats.has_begun()
            run = {"threadId": "one", "runId": chats.run}
            begin = {"type": "TEXT_MESSAGE_START", "messageId": "m", "role": "assistant"}
            await chats.publish(mount, {"type": "RUN_STARTED", **run}, begin, *of_ag_ui(WORDS[:3]))
            await page.settled("texts()", ["user: hi", f"assistant: {HALF}"])
        async with chats.served(port, store) as mount:
            await chats.publish(
                mount,
                *of_ag_ui(WORDS[3:]),
                {"type": "TEXT_MESSAGE_END", "messageId": "m"},
                {"type": "RUN_FINISHED", **run},
                end=True,
            )
            await page.settled("state()", "ready")
            assert await page.run("texts()") == ["user: hi", f"assistant: {ANSWER}"]
            assert await page.run("window.failed") is None
    assert len(chats.asked) == 1
    assert chats.requests > 1
