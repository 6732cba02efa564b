"""The React hook in Chromium, with the React of npm."""

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.browser.chromium import PROGRAM, Browser, chromium
from tests.clients.javascript import MODULES, PACKAGE, bundled
from tests.clients.test_js_chromium import server, until
from tests.docs.blocks import ROOT, blocks_of

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="no Chromium here")

APPLICATION = """
import { createElement as h, StrictMode, useState } from "react";
import { createRoot } from "react-dom/client";
import { connect } from "./src/index.js";
import { useEvents } from "./src/react.js";

const hub = connect("/", { retryMinMs: 100 });
const sum = (total, event) => total + event.data;
let renders = 0;

function News({ topic }) {
  renders++;
  const { events, state } = useEvents(hub, topic, { limit: 3 });
  const { value } = useEvents(hub, topic, { reduce: sum, initial: 0 });
  return h("p", null, `${state} ${events.map((event) => event.data)} ${value}`);
}

function Page() {
  const [topic, show] = useState("a");
  window.show = show;
  return topic && h(News, { topic });
}

createRoot(document.body).render(h(StrictMode, null, h(Page)));
window.renders = () => renders;
"""

RECIPES = """
import { createElement as h, useEffect } from "react";
import { createRoot } from "react-dom/client";
import useSWR, { mutate } from "swr";
import { QueryClient, QueryClientProvider, useQuery, useQueryClient } from "@tanstack/react-query";
import { connect } from "./src/index.js";

const hub = connect("/", { retryMinMs: 100 });
const fetcher = async () => "fetched";

function WithSwr() {
  SWR
  return h("p", null, JSON.stringify(data));
}

function WithQuery() {
  const client = useQueryClient();
  const { data } = useQuery({ queryKey: ["order", 7], queryFn: fetcher });
  QUERY
  return h("b", null, JSON.stringify(data));
}

createRoot(document.body).render(
  h(QueryClientProvider, { client: new QueryClient() }, h(WithSwr), h(WithQuery)));
"""

ANSWERS = """
import { createElement as h, StrictMode } from "react";
import { createRoot } from "react-dom/client";
COMPONENT
// The application that begins a run.
window.fetch = ((fetch) => (url, ...more) =>
  url === "/runs" ? Promise.resolve(Response.json({ run: "7" })) : fetch(url, ...more))(fetch);
createRoot(document.body).render(h(StrictMode, null, h(Answer, { server: "/" })));
"""


@pytest.fixture
async def browser(tmp_path: Path) -> AsyncIterator[Browser]:
    async with chromium(tmp_path / "profile") as opened:
        yield opened


def application(folder: Path, source: str = APPLICATION) -> str:
    """The page's script. Skips the test without React."""
    if not (MODULES / "react-dom").is_dir():
        pytest.skip("react-dom is not installed; `make test-all` does it")
    return bundled(source, folder)


async def test_a_component_shows_the_newest_events_and_renders_once_a_frame(
    browser: Browser, tmp_path: Path
) -> None:
    script = application(tmp_path)
    async with server() as one:
        page = await browser.open(f"{one.addresses[0]}/healthz")
        await page.run(f"{script}; 0")
        text = "document.querySelector('p')?.textContent"
        await page.settled(text, "open  0")
        for n in range(1, 2_001):
            one.publish("a", n)
        await page.settled(text, f"open 1998,1999,2000 {sum(range(2_001))}")
        assert await page.run("renders()") < 1_000
        # Another topic is another subscription; the old one ends.
        await page.run("show('b'); 0")
        await page.settled(text, "open  0")
        one.publish("a", 1)
        one.publish("b", 5)
        await page.settled(text, "open 5 5")
        await page.run("show(null); 0")
        await until(lambda: one.stream_count == 0)


async def test_the_recipes_for_swr_and_tanstack_query_show_what_the_stream_brings(
    browser: Browser, tmp_path: Path
) -> None:
    """They are the blocks of the client's README."""
    _, _, rest = (PACKAGE / "README.md").read_text().partition("// SWR\n")
    swr, _, rest = rest.partition("// TanStack Query\n")
    query = rest.partition("```")[0]
    script = application(tmp_path, RECIPES.replace("  SWR\n", swr).replace("QUERY", query))
    async with server() as one:
        page = await browser.open(f"{one.addresses[0]}/healthz")
        await page.run(f"{script}; 0")
        shown = "[...document.querySelectorAll('p, b')].map((one) => one.textContent).join(' ')"
        await page.settled(shown, '"fetched" "fetched"')
        # Both streams are open.
        await until(lambda: one.stream_count == 1)
        one.publish("orders", {"n": 1})
        await page.settled(shown, '{"n":1} "fetched"')
        one.publish("orders/7", {"id": 7})
        await page.settled(shown, '{"n":1} {"id":7}')


async def test_the_component_of_the_token_guide_shows_the_whole_answer_after_a_reload(
    browser: Browser, tmp_path: Path
) -> None:
    (component,) = (
        block.text
        for block in blocks_of(ROOT / "docs/guides/token-streams.md")
        if block.file == "Answer.jsx"
    )
    for name, source in (("fastsse/react", "./src/react.js"), ("fastsse", "./src/index.js")):
        assert f'from "{name}"' in component
        component = component.replace(f'from "{name}"', f'from "{source}"')
    script = application(tmp_path, ANSWERS.replace("COMPONENT", component))

    def say(word: str) -> None:
        one.publish("run/7", json.dumps({"choices": [{"delta": {"content": word}}]}))

    async with server() as one:
        page = await browser.open(f"{one.addresses[0]}/healthz")
        await page.run(f"{script}; 0")
        shown = "document.querySelector('p')?.textContent"
        await page.settled(shown, "")
        await page.run("document.querySelector('button').click(); 0")
        say("Every")
        say(" answer")
        await page.settled(shown, "Every answer")
        await page.command("Page.reload")
        await page.settled("document.querySelector('form') === null")
        say(" is")
        await page.run(f"{script}; 0")
        await page.settled(shown, "Every answer is")
        one.publish("run/7", "[DONE]", end=True)
        await until(lambda: one.stream_count == 0)
        assert await page.run(shown) == "Every answer is"
