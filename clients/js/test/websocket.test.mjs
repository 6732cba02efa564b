// Streams over WebSocket, and the choice between transports, against servers that do what each test says.
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import { test } from "node:test";
import { connect } from "../dist/index.js";
import { STREAM, envelope, opening, record, serve, until } from "./server.mjs";

const limits = { timeout: 30_000, skip: typeof WebSocket !== "function" && "this Node has no WebSocket" };

function open(t, url, options = {}) {
  const hub = connect(url, { retryMinMs: 100, transports: ["websocket"], ...options });
  t.after(() => hub.close());
  return hub;
}

/** Serves WebSockets with `accept(socket, url, n)`; `socket` has `say(text)` and `close(code)`. */
async function serveSockets(t, accept, answer = (request, response) => response.writeHead(404).end()) {
  const server = await serve(t, answer);
  const sockets = [];
  server.server.on("upgrade", (request, raw) => {
    const url = new URL(request.url, "http://x");
    sockets.push({ url, headers: request.headers });
    raw.on("error", () => {});
    const key = request.headers["sec-websocket-key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    const digest = createHash("sha1").update(key).digest("base64");
    raw.write(
      "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
        `Sec-WebSocket-Accept: ${digest}\r\n\r\n`,
    );
    const frame = (opcode, body) => {
      const head = body.length < 126 ? [body.length] : [126, body.length >> 8, body.length & 255];
      raw.write(Buffer.concat([Buffer.from([0x80 | opcode, ...head]), body]));
    };
    accept(
      {
        say: (text) => frame(1, Buffer.from(text.replace(/\n\n$/, ""))),
        close(code) {
          frame(8, Buffer.from([code >> 8, code & 255]));
          raw.end();
        },
        cut: () => raw.destroy(),
      },
      url,
      sockets.length,
    );
  });
  return { ...server, sockets };
}

test("each message is a block, and a return has the last id", limits, async (t) => {
  const server = await serveSockets(t, (socket, url, n) => {
    socket.say(n > 1 ? opening(url.searchParams.get("last_event_id")) : opening());
    socket.say(envelope(n * 2 - 1));
    socket.say(envelope(n * 2));
    if (n < 3) socket.cut();
  });
  const seen = record(open(t, server.url), "a", { filter: "data > 0" });
  await until(() => seen.events.length === 6);
  assert.deepEqual(seen.events, [1, 2, 3, 4, 5, 6]);
  const asked = server.sockets.map(({ url }) => url.searchParams.get("last_event_id"));
  assert.deepEqual(asked, [null, "1000-2", "1000-4"]);
  assert.equal(server.sockets[0].url.pathname, "/ws");
  assert.equal(server.sockets[0].url.searchParams.get("filter"), "data > 0");
  assert.deepEqual(seen.errors.map(({ kind }) => kind), ["network", "network"]);
});

test("1012 is a return without an error, and 1000 is the end", limits, async (t) => {
  const server = await serveSockets(t, (socket, url, n) => {
    socket.say(opening());
    socket.say(envelope(n));
    socket.close(n < 2 ? 1012 : 1000);
  });
  const seen = record(open(t, server.url), "a");
  await until(() => seen.ends);
  assert.deepEqual([seen.events, seen.errors, server.sockets.length], [[1, 2], [], 2]);
});

test("a socket that is silent for long is opened again without an error", limits, async (t) => {
  const server = await serveSockets(t, (socket, url, n) => {
    socket.say(opening(`1000-${n}`));
    if (n === 3) socket.say(envelope(4));
  });
  const seen = record(open(t, server.url, { idleTimeoutMs: 200 }), "a");
  await until(() => seen.events.length === 1);
  assert.equal(server.sockets[2].url.searchParams.get("last_event_id"), "1000-2");
  assert.deepEqual(seen.errors, []);
});

test("a socket without an opening, or that is refused, is tried with waits that grow", limits, async (t) => {
  const silent = await serveSockets(t, () => {});
  const seen = record(open(t, silent.url, { openTimeoutMs: 100, transports: ["websocket"] }), "a");
  await until(() => seen.errors.length === 3);
  assert.deepEqual(new Set(seen.errors.map(({ kind }) => kind)), new Set(["buffered"]));
  const refusing = await serve(t, (request, response) => response.writeHead(404).end());
  refusing.server.on("upgrade", (request, raw) => raw.end("HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n"));
  const refused = record(open(t, refusing.url), "a");
  await until(() => refused.errors.length === 3);
  assert.equal(refused.errors[0].kind, "network");
});

test("an event above the limit cuts the socket", limits, async (t) => {
  const server = await serveSockets(t, (socket) => {
    socket.say(opening());
    socket.say(`data: ${"x".repeat(3_000)}`);
  });
  const seen = record(open(t, server.url, { maxEventChars: 2_000 }), "a");
  await until(() => seen.errors.length);
  assert.equal(seen.errors[0].kind, "too-large");
});

test("a token is not in the address: a ticket is", limits, async (t) => {
  const server = await serveSockets(
    t,
    (socket) => socket.say(opening() + "x"),
    (request, response) => {
      assert.equal(request.headers.authorization, "Bearer secret");
      response.end('{"ticket": "t7"}');
    },
  );
  record(open(t, server.url, { token: "secret" }), "a");
  await until(() => server.sockets.length);
  const { url } = server.sockets[0];
  assert.equal(url.searchParams.get("ticket"), "t7");
  assert.ok(!url.search.includes("secret"));
});

test("a WebSocket is tried when no stream has opened for 30 s, and is then kept", limits, async (t) => {
  const now = Date.now;
  let shift = 0;
  t.mock.method(Date, "now", () => now() + shift);
  let isUp = true;
  const server = await serveSockets(
    t,
    (socket, url, n) => {
      if (!isUp) return socket.cut();
      socket.say(opening(url.searchParams.get("last_event_id") ?? "1000-0"));
      socket.say(envelope(n));
      if (n === 1) socket.cut();
    },
    (request, response) => response.destroy(),
  );
  const hub = open(t, server.url, { transports: undefined });
  const seen = record(hub, "a");
  await until(() => seen.errors.length === 2);
  assert.equal(server.sockets.length, 0);
  shift = 31_000;
  await until(() => seen.events.length === 2);
  // The return after the cut does not try the others first.
  const asked = server.requests.length;
  assert.ok(asked <= 8, `${asked} requests`);
  assert.deepEqual(seen.events, [1, 2]);
  assert.equal(server.sockets.length, 2);
});

test("while nothing works each wait is followed by one attempt with each", limits, async (t) => {
  const now = Date.now;
  let shift = 0;
  t.mock.method(Date, "now", () => now() + shift);
  let isUp = false;
  const server = await serveSockets(
    t,
    (socket) => socket.cut(),
    (request, response) => {
      if (!isUp) return response.destroy();
      response.writeHead(200, STREAM).write(opening() + envelope(1));
    },
  );
  const seen = record(open(t, server.url, { transports: undefined }), "a");
  await until(() => seen.errors.length === 1);
  shift = 31_000;
  await until(() => server.sockets.length === 3);
  await sleep(50);
  const polls = server.requests.filter(({ url }) => url.searchParams.has("wait")).length;
  assert.deepEqual([polls, server.requests.length - polls], [3, 4]);
  isUp = true;
  await until(() => seen.events.length === 1);
  // The stream works again, so that is what is kept.
  assert.equal(seen.states.at(-1), "open");
});

test("a proxy that buffers makes it poll by itself", limits, async (t) => {
  let n = 0;
  const server = await serve(t, (request, response, url) => {
    if (!url.searchParams.has("wait")) return response.writeHead(200, STREAM).flushHeaders();
    if (n > 3) return;
    response.writeHead(200, { "Content-Type": "application/json" });
    const events = n ? [{ topic: "a", id: `1000-${n}`, event: null, data: n, meta: null, time: 1 }] : [];
    response.end(JSON.stringify({ events, next: `1000-${n++}`, gap: null, ended: false }));
  });
  const seen = record(open(t, server.url, { openTimeoutMs: 200, transports: undefined }), "a");
  await until(() => seen.events.length === 3);
  assert.deepEqual(seen.errors.map(({ kind }) => kind), ["buffered"]);
});
