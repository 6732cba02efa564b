// Streams against a server that answers as each test says: what is retried, how often, and from where.
import assert from "node:assert/strict";
import { setTimeout as sleep } from "node:timers/promises";
import { test } from "node:test";
import { gzipSync } from "node:zlib";
import { connect } from "../dist/index.js";
import { STREAM, envelope, opening, record, serve, until } from "./server.mjs";

/** A hub with short waits, closed with the test. */
function open(t, url, options = {}) {
  const hub = connect(url, { retryMinMs: 100, ...options });
  t.after(() => hub.close());
  return hub;
}

const limits = { timeout: 30_000 };

test("a stream that is cut resumes after its last event", limits, async (t) => {
  const server = await serve(t, (request, response, url, n) => {
    response.writeHead(200, STREAM);
    response.write(opening(url.searchParams.get("last_event_id") ?? "1000-0"));
    response.write(envelope(n) + "data: half of an ev");
    setTimeout(() => response.destroy(), 20);
  });
  const seen = record(open(t, server.url), "a");
  await until(() => seen.events.length === 3);
  assert.deepEqual(seen.events, [1, 2, 3]);
  const places = server.requests.map(({ url }) => url.searchParams.get("last_event_id"));
  assert.deepEqual(places.slice(0, 3), [null, "1000-1", "1000-2"]);
  assert.deepEqual(seen.states.slice(0, 4), ["open", "waiting", "connecting", "open"]);
  assert.equal(seen.errors[0].kind, "network");
});

test("a stream that is cut before its first event resumes at its opening", limits, async (t) => {
  const server = await serve(t, (request, response, url, n) => {
    response.writeHead(200, STREAM);
    response.write(opening("1000-5"));
    if (n === 1) setTimeout(() => response.destroy(), 20);
    else response.write(envelope(6));
  });
  const seen = record(open(t, server.url), "a", { last: 3 });
  await until(() => seen.events.length === 1);
  const [first, second] = server.requests.map(({ url }) => url.searchParams);
  assert.equal(first.get("last"), "3");
  assert.equal(second.get("last_event_id"), "1000-5");
  assert.equal(second.has("last"), false);
});

test("attempts are at least the retry time of the server apart", limits, async (t) => {
  const server = await serve(t, (request, response) => {
    response.writeHead(200, STREAM);
    response.end(opening("1000-0", 400));
  });
  record(open(t, server.url), "a");
  await until(() => server.requests.length === 3);
  const [first, second, third] = server.requests.map(({ at }) => at);
  assert.ok(second - first >= 390, `${second - first}`);
  // A stream that ends at once is a failure: the wait doubles.
  assert.ok(third - second >= 790, `${third - second}`);
});

/** Answers that are no stream, and the kind of the error. */
const BAD = {
  "an HTML page with 200": ["content-type", (response) => {
    response.writeHead(200, { "Content-Type": "text/html" }).end("<h1>Log in</h1>");
  }],
  "no content type": ["content-type", (response) => response.writeHead(200).end("data: 1\n\n")],
  "JSON with 200": ["content-type", (response) => {
    response.writeHead(200, { "Content-Type": "application/json" }).end("{}");
  }],
  "a redirect loop": ["network", (response, url) => response.writeHead(302, { Location: url.href.replace("http://x", "") }).end()],
  "a redirect to no server": ["network", (response) => response.writeHead(302, { Location: "http://127.0.0.1:1/" }).end()],
  "503 without a time": ["status", (response) => response.writeHead(503).end()],
  "502 with a page": ["status", (response) => response.writeHead(502, { "Content-Type": "text/html" }).end("x".repeat(1e5))],
  "a head and the end": ["network", (response) => response.destroy()],
  "rubbish for gzip": ["network", (response) => {
    response.writeHead(200, { ...STREAM, "Content-Encoding": "gzip" }).end("no gzip at all");
  }],
  "retry: 0 and the end": [undefined, (response) => response.writeHead(200, STREAM).end("retry: 0\n\n")],
  "an event of 200 kB": ["too-large", (response) => response.writeHead(200, STREAM).write(`data: ${"x".repeat(200_000)}`)],
  "a cut in a letter": ["network", (response) => {
    response.writeHead(200, STREAM).write(Buffer.from([0x64, 0x61, 0x74, 0x61, 0x3a, 0xe2, 0x98]));
    setTimeout(() => response.destroy(), 5);
  }],
};

for (const [name, [kind, answer]] of Object.entries(BAD)) {
  test(`${name}: an error, and waits that grow`, limits, async (t) => {
    const server = await serve(t, (request, response, url) => answer(response, url));
    const seen = record(open(t, server.url, { maxEventChars: 100_000 }), "a");
    const streams = () => server.requests.length;
    await until(() => (kind ? seen.errors.length >= 3 : streams() >= 3));
    if (kind) assert.equal(seen.errors[0].kind, kind, String(seen.errors[0]));
    // 100, 200 and 400 ms at least; a redirect loop is 20 requests an attempt.
    await sleep(1_000);
    const attempts = kind ? seen.errors.length : streams();
    assert.ok(attempts <= 5, `${attempts} attempts`);
    // One more attempt may be on its way.
    assert.ok(streams() <= (attempts + 1) * 22, `${streams()} requests`);
    assert.deepEqual(seen.events, []);
  });
}

test("gzip that was not asked for is read", limits, async (t) => {
  const server = await serve(t, (request, response) => {
    response.writeHead(200, { ...STREAM, "Content-Encoding": "gzip" });
    response.end(gzipSync(opening() + envelope(1)));
  });
  const seen = record(open(t, server.url), "a");
  await until(() => seen.events.length);
  assert.equal(seen.events[0], 1);
});

test("events that are no envelopes are reported and the others arrive", limits, async (t) => {
  const server = await serve(t, (request, response) => {
    response.writeHead(200, STREAM);
    response.write(`${opening()}data: {"topic\n\ndata: 5\n\ndata: null\n\ndata: {}\n\n${envelope(1)}`);
  });
  const faults = [];
  const seen = record(open(t, server.url, { onError: (error) => faults.push(error.kind) }), "a");
  await until(() => seen.events.length);
  assert.deepEqual(seen.events, [1]);
  assert.deepEqual(faults, ["format"]);
  assert.equal(server.requests.length, 1);
});

test("an event of 10 MB arrives", limits, async (t) => {
  const text = "x".repeat(10 * 2 ** 20);
  const server = await serve(t, (request, response) => {
    response.writeHead(200, STREAM);
    response.write(opening() + envelope(1, { data: text }));
  });
  const seen = record(open(t, server.url), "a");
  await until(() => seen.events.length);
  assert.equal(seen.events[0], text);
});

for (const status of [400, 403, 404, 405, 431]) {
  test(`${status} closes at once with what the server said`, limits, async (t) => {
    const server = await serve(t, (request, response) => {
      response.writeHead(status, { "Content-Type": "application/problem+json" });
      response.end('{"detail": "filter: is not valid."}');
    });
    const seen = record(open(t, server.url), "a");
    await until(() => seen.states.at(-1) === "closed");
    assert.equal(seen.errors.length, 1);
    assert.equal(seen.errors[0].status, status);
    assert.ok(seen.errors[0].isFinal);
    assert.match(seen.errors[0].message, /filter: is not valid/);
    assert.equal(seen.ends, 0);
    await sleep(300);
    assert.equal(server.requests.length, 1);
  });
}

test("204 ends the subscription for good", limits, async (t) => {
  const server = await serve(t, (request, response) => response.writeHead(204).end());
  const seen = record(open(t, server.url), "a");
  await until(() => seen.ends);
  assert.equal(seen.states.at(-1), "closed");
  assert.deepEqual(seen.errors, []);
  await sleep(300);
  assert.equal(server.requests.length, 1);
});

test("fastsse.end ends the subscription for good", limits, async (t) => {
  const server = await serve(t, (request, response) => {
    response.writeHead(200, STREAM);
    response.end(`${opening()}${envelope(1)}event: fastsse.end\ndata: {"topic":"a"}\n\n`);
  });
  const seen = record(open(t, server.url), "a");
  await until(() => seen.ends);
  assert.deepEqual(seen.events, [1]);
  await sleep(300);
  assert.equal(server.requests.length, 1);
});

test("fastsse.refused waits for the time of the server", limits, async (t) => {
  const server = await serve(t, (request, response) => {
    response.writeHead(200, STREAM);
    response.end('retry: 700\nevent: fastsse.refused\ndata: {"reason":"full","retry_ms":700}\n\n');
  });
  const seen = record(open(t, server.url), "a");
  await until(() => server.requests.length === 2);
  assert.equal(seen.errors[0].kind, "refused");
  assert.match(seen.errors[0].message, /full/);
  assert.ok(server.requests[1].at - server.requests[0].at >= 690);
});

test("Retry-After of 429 and 503 is respected", limits, async (t) => {
  const server = await serve(t, (request, response, url, n) => {
    response.writeHead(n % 2 ? 429 : 503, { "Retry-After": "1" }).end();
  });
  record(open(t, server.url), "a");
  await until(() => server.requests.length === 3);
  const [first, second, third] = server.requests.map(({ at }) => at);
  assert.ok(second - first >= 990 && third - second >= 990);
});

test("retries bounds the failures in a row", limits, async (t) => {
  const server = await serve(t, (request, response) => response.writeHead(500).end());
  const seen = record(open(t, server.url, { retries: 3 }), "a");
  await until(() => seen.states.at(-1) === "closed");
  assert.equal(server.requests.length, 3);
  assert.deepEqual(seen.errors.map((error) => error.isFinal), [false, false, true]);
});

test("a gap event reaches onGap of every subscription of the stream", limits, async (t) => {
  const gap = { reason: "evicted", requested: "1-1", from: "1000-1" };
  const server = await serve(t, (request, response) => {
    response.writeHead(200, STREAM);
    response.write(`: fastsse\nretry: 100\nevent: fastsse.gap\nid: 1000-1\ndata: ${JSON.stringify(gap)}\n\n`);
  });
  const hub = open(t, server.url);
  const one = record(hub, "a", { lastEventId: "1-1" });
  const two = record(hub, "b", { lastEventId: "1-1" });
  await until(() => one.gaps.length && two.gaps.length);
  assert.deepEqual(one.gaps, [gap]);
  assert.equal(one.subscription.lastEventId, "1000-1");
});

test("a connection without a byte is left after idleTimeoutMs", limits, async (t) => {
  const server = await serve(t, (request, response) => response.writeHead(200, STREAM).write(opening()));
  const seen = record(open(t, server.url, { idleTimeoutMs: 300 }), "a");
  await until(() => server.requests.length === 2);
  assert.equal(seen.errors[0].kind, "idle");
});

test("heartbeats keep a quiet connection", limits, async (t) => {
  const server = await serve(t, (request, response) => {
    response.writeHead(200, STREAM).write(opening());
    const beats = setInterval(() => response.write(":\n\n"), 50);
    response.on("close", () => clearInterval(beats));
  });
  const seen = record(open(t, server.url, { idleTimeoutMs: 400 }), "a");
  await sleep(1_200);
  assert.equal(server.requests.length, 1);
  assert.deepEqual(seen.errors, []);
});

test("an opening that is held back is reported as a proxy that buffers", limits, async (t) => {
  const server = await serve(t, (request, response) => response.writeHead(200, STREAM).flushHeaders());
  const seen = record(open(t, server.url, { openTimeoutMs: 200 }), "a");
  await until(() => seen.errors.length);
  assert.equal(seen.errors[0].kind, "buffered");
  assert.equal(seen.errors[0].isFinal, false);
});

test("a buffering proxy leads to a transport that polls, and stays there", limits, async (t) => {
  const server = await serve(t, (request, response) => response.writeHead(200, STREAM).flushHeaders());
  let runs = 0;
  const polling = {
    name: "poll",
    afterMs: 0,
    isAvailable: () => true,
    run(request, sink) {
      sink.open();
      sink.block("message", JSON.stringify({ topic: "a", id: "1-1", data: ++runs }), `1-${runs}`);
      return new Promise((_, reject) => setTimeout(reject, 50, new Error("cut")));
    },
  };
  const hub = open(t, server.url, { openTimeoutMs: 100, transports: ["fetch", polling] });
  const seen = record(hub, "a");
  await until(() => seen.events.length >= 2);
  assert.equal(server.requests.length, 1);
});

test("callbacks that throw do not end the stream", limits, async (t) => {
  const thrown = [];
  process.setUncaughtExceptionCaptureCallback((error) => thrown.push(error.message));
  t.after(() => process.setUncaughtExceptionCaptureCallback(null));
  const server = await serve(t, (request, response) => {
    response.writeHead(200, STREAM).write(opening() + envelope(1) + envelope(2));
  });
  const seen = [];
  open(t, server.url).subscribe("a", {
    onEvent(event) {
      seen.push(event.data);
      throw new Error(`no ${event.data}`);
    },
  });
  await until(() => thrown.length === 2);
  assert.deepEqual([seen, thrown], [[1, 2], ["no 1", "no 2"]]);
  assert.equal(server.requests.length, 1);
});

test("unsubscribe closes the stream, and an AbortSignal does too", limits, async (t) => {
  let open_ = 0;
  const server = await serve(t, (request, response) => {
    open_++;
    response.on("close", () => open_--);
    response.writeHead(200, STREAM).write(opening());
  });
  const hub = open(t, server.url);
  const abort = new AbortController();
  const one = record(hub, "a");
  const two = record(hub, "b", { signal: abort.signal });
  await until(() => one.states.includes("open"));
  one.subscription.unsubscribe();
  one.subscription.unsubscribe();
  abort.abort();
  await until(() => open_ === 0);
  assert.equal(one.states.at(-1), "closed");
  assert.equal(two.states.at(-1), "closed");
  const late = record(hub, "c", { signal: abort.signal });
  assert.equal(late.subscription.state, "closed");
});

test("wrong options are errors of the call", () => {
  const hub = connect("http://127.0.0.1:1");
  const onEvent = () => {};
  assert.throws(() => hub.subscribe("a", {}), /onEvent is missing/);
  assert.throws(() => hub.subscribe("a", { onEvent, max_rate: 5 }), /max_rate is unknown.*maxRate/);
  assert.throws(() => hub.subscribe("a", { onEvent, last: 5, since: "10m" }), /last,since/);
  assert.throws(() => connect("nonsense"), /URL/);
});

test("options have the names of the HTTP parameters", limits, async (t) => {
  const server = await serve(t, (request, response) => response.writeHead(204).end());
  const view = { event: ["tick", "trade"], filter: "data.price > 5", maxRate: 2.5, until: "done", untilData: "[DONE]" };
  const seen = record(open(t, `${server.url}/events`), "prices/{id}", { ...view, since: "10m" });
  await until(() => seen.ends);
  const [{ url }] = server.requests;
  assert.equal(url.pathname, "/events");
  assert.deepEqual(Object.fromEntries(url.searchParams), {
    topic: "prices/{id}", event: "tick,trade", filter: "data.price > 5", max_rate: "2.5", until: "done",
    until_data: "[DONE]", since: "10m", envelope: "json", initial_id: "true",
  });
});
