// The choice between transports, against servers and proxies that do what each test says.
import assert from "node:assert/strict";
import { test } from "node:test";
import { connect } from "../dist/index.js";
import { STREAM, envelope, opening, record, serve, until } from "./server.mjs";

const limits = { timeout: 30_000 };

/** What the client keeps for the pages of a tab. */
class Storage {
  items = new Map();
  getItem = (name) => this.items.get(name) ?? null;
  setItem = (name, value) => this.items.set(name, value);
  get transport() {
    return [...this.items.values()].at(-1);
  }
}

function kept(t) {
  globalThis.sessionStorage = new Storage();
  t.after(() => delete globalThis.sessionStorage);
  return globalThis.sessionStorage;
}

function open(t, url, options = {}) {
  const hub = connect(url, { retryMinMs: 100, openTimeoutMs: 200, ...options });
  t.after(() => hub.close());
  return hub;
}

const isPage = (url) => url.searchParams.has("wait");

/** A server of ten events, whose pages have one each. A stream is answered as `stream(response, from)` says. */
function serveBehind(t, stream) {
  return serve(t, (request, response, url) => {
    const from = Number(url.searchParams.get("last_event_id")?.split("-")[1] ?? 0);
    if (!isPage(url)) return stream(response, from);
    if (from > 9) return;
    response.writeHead(200, { "Content-Type": "application/json" });
    const event = { topic: "a", id: `1000-${from + 1}`, event: null, data: from + 1, meta: null, time: 1 };
    response.end(JSON.stringify({ events: [event], next: event.id, gap: null, ended: false }));
  });
}

const streams = (server) => server.requests.filter(({ url }) => url.pathname === "/events" && !isPage(url)).length;
const TEN = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10];

const BLOCKED = {
  "that cuts streams": (response) => response.destroy(),
  "that answers streams with 504": (response) => response.writeHead(504).end("late"),
  "that answers streams with a page": (response) => response.writeHead(200, { "Content-Type": "text/html" }).end("no"),
  "that holds streams back": (response) => response.writeHead(200, STREAM).flushHeaders(),
};
for (const [name, stream] of Object.entries(BLOCKED)) {
  test(`behind a proxy ${name} it polls, and remembers it`, limits, async (t) => {
    const storage = kept(t);
    const server = await serveBehind(t, stream);
    const seen = record(open(t, server.url, { openTimeoutMs: 400 }), "a");
    await until(() => seen.events.length === 10);
    assert.deepEqual(seen.events, TEN);
    assert.equal(storage.transport, "poll");
    assert.ok(server.requests.find(({ url }) => isPage(url)).at - server.requests[0].at >= 250);
    // The next page of the tab.
    const asked = streams(server);
    const next = record(open(t, server.url), "a");
    await until(() => next.events.length === 10);
    assert.equal(streams(server), asked);
    assert.deepEqual(next.errors, []);
  });
}

test("it polls at once behind a proxy that holds streams back", limits, async (t) => {
  const server = await serveBehind(t, BLOCKED["that holds streams back"]);
  const seen = record(open(t, server.url, { retryMinMs: 20_000 }), "a");
  await until(() => seen.events.length === 10);
  assert.ok(!seen.states.includes("waiting"), seen.states.join());
});

test("it goes back to streams when they work, without loss or repeat", limits, async (t) => {
  const storage = kept(t);
  let works = false;
  const server = await serveBehind(t, (response, from) => {
    response.writeHead(200, STREAM).flushHeaders();
    if (!works) return;
    response.write(opening(`1000-${from}`));
    for (let n = 11; from === 10 && n < 14; n++) response.write(envelope(n));
  });
  const seen = record(open(t, server.url, { openTimeoutMs: 50 }), "a");
  await until(() => seen.events.length === 10 && streams(server) >= 3);
  assert.equal(storage.transport, "poll");
  assert.equal(seen.states.at(-1), "open");
  works = true;
  await until(() => seen.events.length === 13);
  assert.deepEqual(seen.events, [...TEN, 11, 12, 13]);
  assert.equal(storage.transport, "fetch");
  // What was missing stays missing for a trial: it asks for no history.
  const trial = server.requests.filter(({ url }) => !isPage(url))[1].url.searchParams;
  assert.deepEqual([trial.get("topic"), trial.has("last_event_id")], ["a", false]);
  assert.equal(seen.errors.length, 1);
});

test("trials of the first transport become rare, and end with the subscription", limits, async (t) => {
  const server = await serveBehind(t, BLOCKED["that holds streams back"]);
  const seen = record(open(t, server.url, { openTimeoutMs: 25 }), "a");
  await until(() => streams(server) === 4);
  const at = server.requests.filter(({ url }) => !isPage(url)).map((request) => request.at);
  assert.ok(at[3] - at[2] > 1.2 * (at[2] - at[1]), at.join());
  seen.subscription.unsubscribe();
  const asked = server.requests.length;
  await new Promise((resolve) => setTimeout(resolve, 2_500));
  assert.equal(server.requests.length, asked);
});

test("a browser whose fetch has no streams takes the next transport at once", limits, async (t) => {
  const server = await serveBehind(t, (response, from) => response.writeHead(200, STREAM).end(opening()));
  const whole = async (...words) => {
    const response = await fetch(...words);
    const { status, ok, headers } = response;
    return { status, ok, headers, body: undefined, json: () => response.json() };
  };
  const seen = record(open(t, server.url, { fetch: whole, retryMinMs: 20_000 }), "a");
  await until(() => seen.events.length === 10);
  assert.deepEqual(seen.errors.map(({ kind, isFinal }) => [kind, isFinal]), [["unsupported", false]]);
  const only = record(open(t, server.url, { fetch: whole, transports: ["fetch"] }), "a");
  await until(() => only.states.at(-1) === "closed");
  assert.deepEqual(only.errors.map(({ kind, isFinal }) => [kind, isFinal]), [["unsupported", true]]);
});

/** Lets the page have an EventSource that does what a test says. */
function eventSource(t, begin) {
  globalThis.EventSource = class extends EventTarget {
    static CLOSED = 2;
    readyState = 0;
    close() {
      this.readyState = 2;
    }
    constructor() {
      super();
      setTimeout(() => begin(this), 5);
    }
  };
  t.after(() => delete globalThis.EventSource);
}

test("where EventSource is blocked it polls", limits, async (t) => {
  eventSource(t, (source) => {
    source.readyState = 2;
    source.onerror();
  });
  const server = await serveBehind(t);
  const seen = record(open(t, server.url, { transports: ["eventsource", "poll"] }), "a");
  await until(() => seen.events.length === 10);
  assert.deepEqual(seen.events, TEN);
  assert.equal(streams(server), 0);
});

test("an EventSource with headers alone is no open stream", limits, async (t) => {
  eventSource(t, (source) => source.onopen());
  const server = await serveBehind(t);
  const seen = record(open(t, server.url, { transports: ["eventsource", "poll"] }), "a");
  await until(() => seen.errors.length);
  assert.equal(seen.errors[0].kind, "buffered");
  assert.ok(!seen.states.includes("open"), seen.states.join());
  await until(() => seen.events.length === 10);
});

test("an EventSource that returned and brings nothing is given up", limits, async (t) => {
  let count = 0;
  eventSource(t, (source) => {
    if (count++) return;
    source.onopen();
    source.dispatchEvent(Object.assign(new Event("message"), { data: "", lastEventId: "1000-0" }));
    source.onerror();
  });
  const server = await serveBehind(t);
  const seen = record(open(t, server.url, { transports: ["eventsource"], idleTimeoutMs: 300 }), "a");
  await until(() => count === 2);
  assert.deepEqual(seen.errors.map(({ kind }) => kind), ["buffered"]);
  assert.deepEqual(seen.states.slice(0, 3), ["open", "waiting", "connecting"]);
});

test("a server that is away for long is found by streams again", limits, async (t) => {
  const storage = kept(t);
  let isUp = false;
  const server = await serve(t, (request, response, url) => {
    if (!isUp) return response.destroy();
    if (!isPage(url)) return response.writeHead(200, STREAM).write(opening() + envelope(1));
    response.writeHead(200, { "Content-Type": "application/json" });
    if (url.searchParams.get("wait") === "0s") response.end('{"events":[],"next":"1000-0","gap":null,"ended":false}');
  });
  const seen = record(open(t, server.url, { openTimeoutMs: 50 }), "a");
  await until(() => server.requests.some(({ url }) => isPage(url)) && seen.states.at(-1) === "waiting");
  isUp = true;
  await until(() => seen.events.length === 1);
  assert.notEqual(storage.transport, "poll");
});
