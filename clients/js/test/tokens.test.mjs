// Tokens: where they are sent, when they are fetched again, and what a 401 leads to.
import assert from "node:assert/strict";
import { setTimeout as sleep } from "node:timers/promises";
import { test } from "node:test";
import { connect } from "../dist/index.js";
import { STREAM, envelope, opening, record, serve, until } from "./server.mjs";

const limits = { timeout: 30_000 };

/** A JWT whose `exp` is so many seconds away; no server here checks its signature. */
function jwt(name, inS) {
  const part = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");
  return `${part({ alg: "HS256" })}.${part({ sub: `${name}\u00ff\u00fe?>`, exp: Date.now() / 1000 + inS })}.x`;
}

function open(t, url, options) {
  const hub = connect(url, { retryMinMs: 100, ...options });
  t.after(() => hub.close());
  return hub;
}

const bearer = ({ headers }) => headers.authorization?.replace("Bearer ", "");

test("a token is sent in the header and never in the URL", limits, async (t) => {
  const server = await serve(t, (request, response) => response.writeHead(204).end());
  const seen = record(open(t, server.url, { token: "secret" }), "a");
  await until(() => seen.ends);
  assert.equal(bearer(server.requests[0]), "secret");
  assert.ok(!server.requests[0].url.href.includes("secret"));
});

test("a token is used again until its exp is near", limits, async (t) => {
  const server = await serve(t, (request, response, url, n) => {
    response.writeHead(200, STREAM).end(opening() + envelope(n));
  });
  const given = [jwt("a", 600), jwt("b", 600)];
  let calls = 0;
  const seen = record(open(t, server.url, { token: async () => given[calls++] }), "a");
  await until(() => seen.events.length === 3);
  assert.equal(calls, 1);
});

test("a token whose exp is near is fetched again for a later connection", limits, async (t) => {
  const server = await serve(t, (request, response, url, n) => {
    response.writeHead(200, STREAM).end(opening() + envelope(n));
  });
  let calls = 0;
  record(open(t, server.url, { token: () => jwt(String(calls++), 10) }), "a");
  await until(() => new Set(server.requests.map(bearer)).size === 3);
  assert.equal(calls, 3);
});

test("a token that takes longer than an opening is no proxy that buffers", limits, async (t) => {
  const server = await serve(t, (request, response) => {
    response.writeHead(200, STREAM).write(opening() + envelope(1));
  });
  const token = () => sleep(500, "slow");
  const seen = record(open(t, server.url, { token, openTimeoutMs: 250 }), "a");
  await until(() => seen.events.length);
  assert.deepEqual(seen.errors, []);
});

test("a 401 fetches a fresh token once and goes on", limits, async (t) => {
  const server = await serve(t, (request, response) => {
    if (bearer({ headers: request.headers }) === "old") return response.writeHead(401).end();
    response.writeHead(200, STREAM).write(opening() + envelope(1));
  });
  const given = [jwt("old", 600), "new"];
  given[0] = "old";
  const seen = record(open(t, server.url, { token: () => given.shift() }), "a");
  await until(() => seen.events.length);
  assert.deepEqual(server.requests.map(bearer), ["old", "new"]);
  assert.deepEqual(seen.errors.map((error) => [error.status, error.isFinal]), [[401, false]]);
});

test("a second 401 with a fresh token closes the subscription", limits, async (t) => {
  const server = await serve(t, (request, response) => response.writeHead(401).end());
  const seen = record(open(t, server.url, { token: () => "bad" }), "a");
  await until(() => seen.states.at(-1) === "closed");
  await sleep(300);
  assert.equal(server.requests.length, 2);
  assert.deepEqual(seen.errors.map((error) => error.isFinal), [false, true]);
});

test("a 401 for a token that is a text closes at once", limits, async (t) => {
  const server = await serve(t, (request, response) => response.writeHead(401).end());
  const seen = record(open(t, server.url, { token: "bad" }), "a");
  await until(() => seen.states.at(-1) === "closed");
  await sleep(300);
  assert.equal(server.requests.length, 1);
});

test("a token function that fails is an error, and is called again later", limits, async (t) => {
  const server = await serve(t, (request, response) => {
    response.writeHead(200, STREAM).write(opening() + envelope(1));
  });
  let calls = 0;
  const token = async () => {
    if (++calls < 3) throw new Error("the application is away");
    return "good";
  };
  const seen = record(open(t, server.url, { token }), "a");
  await until(() => seen.events.length);
  assert.deepEqual(seen.errors.map((error) => error.kind), ["token", "token"]);
  assert.match(seen.errors[0].message, /the application is away/);
  assert.equal(server.requests.length, 1);
});

test("fastsse.expiring renews the stream without another connection", limits, async (t) => {
  const server = await serve(t, (request, response, url) => {
    if (url.pathname === "/renew") return response.writeHead(204).end();
    response.writeHead(200, STREAM);
    response.write(`${opening()}event: fastsse.expiring\ndata: {"stream":"s 1"}\n\n${envelope(1)}`);
  });
  let calls = 0;
  const seen = record(open(t, server.url, { token: () => jwt(String(calls++), 600) }), "a");
  await until(() => server.requests.length === 2);
  const [stream, renewal] = server.requests;
  assert.equal(renewal.method, "POST");
  assert.equal(renewal.url.searchParams.get("stream"), "s 1");
  assert.notEqual(bearer(renewal), bearer(stream));
  await sleep(200);
  assert.equal(server.requests.length, 2);
  assert.deepEqual(seen.errors, []);
});

test("requests of the application carry the token, and a fresh one after a 401", limits, async (t) => {
  const server = await serve(t, (request, response) => {
    response.writeHead(bearer({ headers: request.headers }) === "2" ? 200 : 401).end("here");
  });
  let calls = 0;
  const hub = open(t, `${server.url}/base/events`, { token: () => String(++calls) });
  const answer = await hub.request("presence?topic=a", { headers: { "X-More": "1" } });
  assert.equal(await answer.text(), "here");
  assert.equal(server.requests[1].url.pathname, "/base/presence");
  assert.equal(server.requests[1].headers["x-more"], "1");
});
