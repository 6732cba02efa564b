// Long-polling against a server that answers as each test says.
import assert from "node:assert/strict";
import { setTimeout as sleep } from "node:timers/promises";
import { test } from "node:test";
import { connect } from "../dist/index.js";
import { longPoll } from "../dist/poll.js";
import { STREAM, record, serve, until } from "./server.mjs";

const limits = { timeout: 30_000 };
const event = (n) => ({ topic: "a", id: `1000-${n}`, event: null, data: n, meta: null, time: 1 });

function open(t, url, options = {}) {
  const hub = connect(url, { retryMinMs: 100, transports: [longPoll], ...options });
  t.after(() => hub.close());
  return hub;
}

const answer = (response, page) => {
  response.writeHead(200, { "Content-Type": "application/json" });
  response.end(JSON.stringify({ events: [], gap: null, ended: false, ...page }));
};

test("the first request names the place at once, the next ones wait behind it", limits, async (t) => {
  const server = await serve(t, (request, response, url, n) => {
    if (n < 4) return answer(response, { events: n > 1 ? [event(n)] : [], next: `1000-${n}` });
    request.on("close", () => {});
  });
  const seen = record(open(t, server.url), "a");
  await until(() => server.requests.length === 4);
  assert.deepEqual(seen.events, [2, 3]);
  const asked = server.requests.map(({ url }) => [url.searchParams.get("wait"), url.searchParams.get("last_event_id")]);
  assert.deepEqual(asked, [["0s", null], ["25s", "1000-1"], ["25s", "1000-2"], ["25s", "1000-3"]]);
  assert.equal(seen.states.at(-1), "open");
  assert.equal(seen.subscription.lastEventId, "1000-3");
});

test("a start is asked for once, and gaps are reported", limits, async (t) => {
  const gap = { reason: "evicted", requested: "last=3", from: "1000-1" };
  const server = await serve(t, (request, response, url, n) => {
    if (n === 1) answer(response, { events: [event(2)], next: "1000-2", gap });
  });
  const seen = record(open(t, server.url), "a", { last: 3 });
  await until(() => server.requests.length === 2);
  assert.deepEqual([seen.events, seen.gaps], [[2], [gap]]);
  assert.equal(server.requests[1].url.searchParams.has("last"), false);
});

test("an answer that says ended, and a 204, end the subscription", limits, async (t) => {
  const server = await serve(t, (request, response, url) => {
    if (url.searchParams.get("topic") === "b") return response.writeHead(204).end();
    answer(response, { events: [event(1)], next: "1000-1", ended: true });
  });
  const hub = open(t, server.url);
  const a = record(hub, "a");
  await until(() => a.ends);
  const b = record(hub, "b");
  await until(() => b.ends);
  assert.deepEqual(a.events, [1]);
  await sleep(300);
  assert.equal(server.requests.length, 2);
});

test("a server that does not wait is not asked all the time", limits, async (t) => {
  const server = await serve(t, (request, response) => answer(response, { next: "1000-1" }));
  record(open(t, server.url), "a");
  await until(() => server.requests.length >= 2);
  await sleep(1_500);
  assert.ok(server.requests.length <= 4, `${server.requests.length} requests`);
});

test("errors and pages of proxies are retried with waits that grow", limits, async (t) => {
  const server = await serve(t, (request, response, url, n) => {
    if (n % 2) response.writeHead(502).end("bad");
    else response.writeHead(200, { "Content-Type": "text/html" }).end("<h1>Log in</h1>");
  });
  const seen = record(open(t, server.url), "a");
  await until(() => seen.errors.length >= 3);
  await sleep(1_000);
  assert.ok(server.requests.length <= 5, `${server.requests.length} requests`);
});

test("a stream through a buffering proxy becomes polls from where it was", limits, async (t) => {
  let n = 0;
  const server = await serve(t, (request, response, url) => {
    if (!url.searchParams.has("wait")) return response.writeHead(200, STREAM).flushHeaders();
    if (n < 3) answer(response, { events: [event(++n)], next: `1000-${n}` });
  });
  const hub = open(t, server.url, { openTimeoutMs: 200, transports: ["fetch", longPoll] });
  const seen = record(hub, "a", { lastEventId: "1000-0" });
  await until(() => seen.events.length === 3);
  assert.equal(seen.errors[0].kind, "buffered");
  assert.deepEqual(seen.events, [1, 2, 3]);
});
