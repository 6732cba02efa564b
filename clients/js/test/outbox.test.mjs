// The outbox against a server, or a proxy, that answers as each test says.
import assert from "node:assert/strict";
import { test } from "node:test";
import { connect } from "../dist/index.js";
import { createOutbox } from "../dist/outbox.js";
import { serve, until } from "./server.mjs";

const limits = { timeout: 30_000 };

function open(t, url, options = {}) {
  const outbox = createOutbox(connect(url), { retryMinMs: 100, ...options });
  t.after(() => outbox.close());
  return outbox;
}

const taken = (response, n) => response.writeHead(200, { "Content-Type": "application/json" }).end(`{"id": "1-${n}"}`);

/** Answers that are not of the server, so that the event may be taken later. */
const PASSING = {
  "an HTML page with 200": (response) => response.writeHead(200, { "Content-Type": "text/html" }).end("<h1>Log in</h1>"),
  "JSON of another server": (response) => response.writeHead(200).end('{"ok": true}'),
  "null": (response) => response.writeHead(200).end("null"),
  "522 with a page": (response) => response.writeHead(522).end("<h1>Timed out</h1>"),
  "503": (response) => response.writeHead(503).end(),
  "429": (response) => response.writeHead(429).end(),
  "an end before the answer": (response) => response.destroy(),
  "a redirect loop": (response) => response.writeHead(307, { Location: "/events" }).end(),
};

for (const [name, answer] of Object.entries(PASSING)) {
  test(`${name}: the event is sent again, with the same key and waits that grow`, limits, async (t) => {
    let isBack = false;
    const server = await serve(t, (request, response, url, n) => {
      request.resume();
      if (isBack) taken(response, n);
      else answer(response);
    });
    const outbox = open(t, server.url);
    const sent = outbox.publish("a", { n: 1 });
    // A redirect loop is 21 requests an attempt.
    const each = name.includes("loop") ? 21 : 1;
    await until(() => server.requests.length > 2 * each);
    const [first, second, third] = [0, each, 2 * each].map((at) => server.requests[at].at);
    assert.ok(second - first >= 95 && third - second >= 195, `${second - first}, ${third - second}`);
    isBack = true;
    assert.match(await sent, /^1-/);
    const keys = new Set(server.requests.map(({ headers }) => headers["idempotency-key"]));
    assert.equal(keys.size, 1);
    assert.equal(outbox.size, 0);
  });
}

for (const status of [400, 401, 403, 409, 413, 422]) {
  test(`${status} is final, and the events behind it are sent`, limits, async (t) => {
    const server = await serve(t, (request, response, url, n) => {
      request.resume();
      if (n > 1) return taken(response, n);
      response.writeHead(status, { "Content-Type": "application/problem+json" }).end('{"detail": "The topic has ended."}');
    });
    const failed = [];
    const outbox = open(t, server.url, { onFailed: (event) => failed.push(event.data) });
    const first = assert.rejects(outbox.publish("a", 1), /topic has ended/);
    const second = outbox.publish("a", 2);
    await first;
    assert.equal(await second, "1-2");
    assert.equal(server.requests.length, 2);
    assert.deepEqual(failed, [1]);
  });
}

test("an event is given up when its time is over", limits, async (t) => {
  const server = await serve(t, (request, response) => response.writeHead(503).end());
  const outbox = open(t, server.url, { maxAgeMs: 300 });
  await assert.rejects(outbox.publish("a", 1), /503/);
  assert.equal(outbox.size, 0);
});

test("what is stored and is no event is dropped, and the others are sent", limits, async (t) => {
  const server = await serve(t, (request, response, url, n) => {
    request.resume();
    taken(response, n);
  });
  const stored = new Map([["fastsse outbox chat cut", '{"topic": "a'], ["fastsse outbox chat null", "null"], ["other", "5"]]);
  const at = Date.now();
  stored.set("fastsse outbox chat k", JSON.stringify({ topic: "a", data: 7, key: "k", at }));
  globalThis.localStorage = new Proxy({
    getItem: (name) => stored.get(name) ?? null,
    removeItem: (name) => stored.delete(name),
    setItem: (name, text) => stored.set(name, text),
  }, { ownKeys: () => [...stored.keys()], getOwnPropertyDescriptor: () => ({ enumerable: true, configurable: true }) });
  t.after(() => delete globalThis.localStorage);
  const ids = [];
  open(t, server.url, { persist: "chat", onSent: (event, id) => ids.push([event.data, id]) });
  await until(() => ids.length);
  assert.deepEqual(ids, [[7, "1-1"]]);
  await until(() => stored.size === 1);
  assert.deepEqual([...stored.keys()], ["other"]);
});
