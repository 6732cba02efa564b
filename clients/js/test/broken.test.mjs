// Answers that break off, never end, or are no HTTP: each is an error, and waits that grow.
import assert from "node:assert/strict";
import { setTimeout as sleep } from "node:timers/promises";
import { test } from "node:test";
import { connect } from "../dist/index.js";
import { envelope, opening, record, serveBytes, until } from "./server.mjs";

const limits = { timeout: 30_000 };
const OK = "HTTP/1.1 200 OK\r\n";
const HEAD = `${OK}Content-Type: text/event-stream\r\n`;
const CHUNKED = `${HEAD}Transfer-Encoding: chunked\r\n\r\n`;
const chunk = (text) => `${text.length.toString(16)}\r\n${text}\r\n`;

function open(t, url, options) {
  const hub = connect(url, { retryMinMs: 100, transports: ["fetch"], ...options });
  t.after(() => hub.close());
  return hub;
}

/** Sends this again and again, until the client closes. */
function repeat(socket, text, ms) {
  const timer = setInterval(() => socket.write(text), ms);
  socket.on("close", () => clearInterval(timer));
}

for (const name of ["end", "reset"]) {
  test(`a ${name} at any byte of the head: an error each, and a stream behind them`, limits, async (t) => {
    const whole = `${HEAD}\r\n`;
    const server = await serveBytes(t, (socket, n) => {
      if (n > whole.length) return socket.write(whole + opening() + envelope(1));
      socket.write(whole.slice(0, n - 1), () => (name === "end" ? socket.end() : socket.resetAndDestroy()));
    });
    const seen = record(open(t, server.url, { retryMaxMs: 100 }), "a");
    await until(() => seen.events.length);
    assert.equal(server.requests.length, whole.length + 1);
    assert.equal(seen.errors.length, whole.length);
    assert.deepEqual([...new Set(seen.errors.map(({ kind }) => kind))], ["network"]);
    const gaps = server.requests.slice(1).map((at, n) => at - server.requests[n]);
    assert.ok(Math.min(...gaps) >= 95, `${Math.min(...gaps)} ms`);
  });
}

const BROKEN = {
  "a head without an end": ["network", (socket) => socket.write(OK) && repeat(socket, `X: ${"y".repeat(10_000)}\r\n`, 1)],
  "a head that drips": ["buffered", (socket) => socket.write(`${OK}X: `) && repeat(socket, "y", 5)],
  "interim answers without an end": ["buffered", (socket) => repeat(socket, "HTTP/1.1 102 Processing\r\n\r\n", 5)],
  "a status that is none": ["network", (socket) => socket.write("HTTP/1.1 2000 OK\r\n\r\n")],
  "another protocol": ["network", (socket) => socket.write("SSH-2.0-OpenSSH_9.2\r\n\r\n")],
  "two lengths": ["network", (socket) => socket.write(`${HEAD}Content-Length: 5\r\nContent-Length: 6\r\n\r\n`)],
  "rubbish for a chunk": ["network", (socket) => socket.write(`${CHUNKED}ZZ\r\nrubbish\r\n`)],
  "a size of a chunk without an end": ["network", (socket) => socket.write(CHUNKED) && repeat(socket, "1", 1)],
  "a chunk that is longer than its size": ["network", (socket) => socket.write(`${CHUNKED}3\r\n: too long\r\n`)],
  "chunks without the last one": ["network", (socket) => socket.end(CHUNKED + chunk(opening()))],
};

for (const [name, [kind, answer]] of Object.entries(BROKEN)) {
  test(`${name}: an error, and waits that grow`, limits, async (t) => {
    const server = await serveBytes(t, answer);
    const seen = record(open(t, server.url, { openTimeoutMs: 200, idleTimeoutMs: 200 }), "a");
    await until(() => seen.errors.length >= 3);
    assert.equal(seen.errors[0].kind, kind, String(seen.errors[0]));
    // Waits of 100, 200, 400 and 800 ms at least.
    await sleep(1_000);
    assert.ok(server.requests.length <= 5, `${server.requests.length} requests`);
    assert.deepEqual(seen.events, []);
  });
}

test("a refusal whose body drips is a refusal", limits, async (t) => {
  const server = await serveBytes(t, (socket) => {
    socket.write("HTTP/1.1 403 Forbidden\r\nContent-Length: 1000\r\n\r\n");
    repeat(socket, "x", 5);
  });
  const seen = record(open(t, server.url, { openTimeoutMs: 200 }), "a");
  await until(() => seen.errors.length);
  assert.deepEqual([seen.errors[0].kind, seen.errors[0].status, seen.errors[0].isFinal], ["status", 403, true]);
  await until(() => seen.states.at(-1) === "closed");
  assert.equal(server.requests.length, 1);
});

test("bytes that drip and bring no event keep one stream", limits, async (t) => {
  const server = await serveBytes(t, (socket) => {
    socket.write(`${HEAD}\r\n${opening()}`);
    for (const [n, byte] of [...`: x\n\n${envelope(1)}`].entries()) setTimeout(() => socket.write(byte), 5 * n);
  });
  const seen = record(open(t, server.url, { idleTimeoutMs: 1_000 }), "a");
  await until(() => seen.events.length);
  assert.deepEqual([seen.events, seen.errors, server.requests.length], [[1], [], 1]);
});
