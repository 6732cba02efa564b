// Several subscriptions on one stream, and subscriptions that come and go while it is open.
import assert from "node:assert/strict";
import { Writable } from "node:stream";
import { setTimeout as sleep } from "node:timers/promises";
import { test } from "node:test";
import { connect } from "../dist/index.js";
import { STREAM, envelope, opening, record, serve, until } from "./server.mjs";

const limits = { timeout: 30_000 };

function open(t, url) {
  const hub = connect(url, { retryMinMs: 100 });
  t.after(() => hub.close());
  return hub;
}

/** A server with one log of events, which it serves as streams and, a few a page, as pages. */
async function log(t, options = {}) {
  const events = [];
  const streams = new Set();
  let n = 0;
  const place = (id) => events.find((event) => event.id === id)?.n ?? Number(id.split("-")[1]);
  const text = ({ topic, id, n }) => envelope(n, { topic, id });
  const server = await serve(t, async (request, response, url) => {
    const topics = url.searchParams.getAll("topic");
    const wants = (event) => topics.includes(event.topic);
    const after = url.searchParams.get("last_event_id");
    const last = url.searchParams.get("last");
    const isPage = url.searchParams.has("wait");
    if ((await options.before?.(url)) === "cut") return response.destroy();
    // From here on in one turn, as in a server that loses nothing between history and live.
    let found = after ? events.filter((event) => event.n > place(after) && wants(event)) : [];
    if (last) found = events.filter(wants).slice(-last);
    if (isPage) {
      const page = found.slice(0, options.pageEvents);
      const next = found.length > page.length ? page.at(-1).n : n;
      const body = page.map(({ topic, id, n }) => ({ topic, id, event: null, data: n, meta: null, time: 1000 }));
      response.writeHead(200, { "Content-Type": "application/json" });
      return response.end(JSON.stringify({ events: body, next: `1000-${next}`, gap: null, ended: false }));
    }
    response.writeHead(200, STREAM).write(opening(after ?? `1000-${last ? 0 : n}`));
    for (const event of found) response.write(text(event));
    const stream = { wants, response };
    streams.add(stream);
    response.on("close", () => streams.delete(stream));
  });
  const publish = (topic, id) => {
    const event = { topic, id: id ?? `1000-${n + 1}`, n: ++n };
    events.push(event);
    for (const { wants, response } of streams) if (wants(event)) response.write(text(event));
    return n;
  };
  const opened = () => server.requests.filter(({ url }) => !url.searchParams.has("wait"));
  return { ...server, publish, streams, opened };
}

test("subscriptions of one moment share one request, and each gets its own events", limits, async (t) => {
  const server = await log(t);
  const hub = open(t, server.url);
  const [a, b, user, all] = ["a", "b", "user/{id}", "*"].map((selector) => record(hub, selector));
  await until(() => all.states.includes("open"));
  for (const topic of ["a", "b", "user/7", "c"]) server.publish(topic);
  // The server of this test matches names only.
  await until(() => b.events.length);
  assert.deepEqual([a.events, b.events, user.events, all.events], [[1], [2], [], [1, 2]]);
  assert.equal(server.requests.length, 1);
  assert.deepEqual(server.requests[0].url.searchParams.getAll("topic"), ["*", "a", "b", "user/{id}"]);
});

test("an added topic begins with the next event and costs the others none", limits, async (t) => {
  const server = await log(t);
  const hub = open(t, server.url);
  const a = record(hub, "a");
  await until(() => a.states.includes("open"));
  server.publish("b");
  for (let round = 0; round < 20; round++) server.publish("a");
  await until(() => a.events.length === 20);
  server.publish("b");
  const b = record(hub, "b");
  // Events of both all the time, also while one stream takes the place of the other.
  const wanted = [...a.events];
  const publishing = setInterval(() => {
    wanted.push(server.publish("a"));
    server.publish("b");
  }, 1);
  await until(() => b.events.length > 20);
  for (const { response } of server.streams) response.destroy();
  await until(() => b.events.length > 60);
  clearInterval(publishing);
  const last = server.publish("a");
  wanted.push(last);
  await until(() => a.events.at(-1) === last);
  assert.deepEqual(a.events, wanted);
  assert.deepEqual(b.events, b.events.toSorted((x, y) => x - y));
  assert.ok(b.events[0] > 22, "an event from before the subscription");
  const gaps = b.events.slice(1).filter((event, at) => event !== b.events[at] + 2);
  assert.deepEqual(gaps, []);
  await until(() => server.streams.size === 1);
});

for (const selector of ["a", "b"]) {
  test(`a subscription to ${selector} that is added while the stream is lost costs the other none`, limits, async (t) => {
    let isAway = false;
    const server = await log(t, { before: () => (isAway ? "cut" : undefined) });
    const hub = open(t, server.url);
    const first = record(hub, "a");
    await until(() => first.states.includes("open"));
    server.publish("a");
    await until(() => first.events.length === 1);
    isAway = true;
    for (const { response } of server.streams) response.destroy();
    await until(() => first.states.at(-1) === "waiting");
    record(hub, selector);
    // Longer than it waits for more subscriptions of the same moment.
    await sleep(60);
    server.publish("a");
    isAway = false;
    await until(() => first.events.length === 2 || first.states.at(-1) === "open");
    server.publish("a");
    await until(() => first.events.at(-1) === 3);
    assert.deepEqual(first.events, [1, 2, 3]);
  });
}

test("last of an added subscription is its own, whether its topic is new or not", limits, async (t) => {
  const server = await log(t);
  for (let n = 0; n < 10; n++) server.publish(n % 2 ? "a" : "b");
  const hub = open(t, server.url);
  const a = record(hub, "a");
  await until(() => a.states.includes("open"));
  const b = record(hub, "b", { last: 2 });
  await until(() => b.events.length === 2);
  const again = record(hub, "a", { last: 3 });
  await until(() => again.events.length === 3);
  server.publish("a");
  server.publish("b");
  await until(() => b.events.length === 3 && again.events.length === 4);
  assert.deepEqual([a.events, b.events, again.events], [[11], [7, 9, 12], [6, 8, 10, 11]]);
  assert.deepEqual([b.subscription.state, again.subscription.state], ["open", "open"]);
  await until(() => server.streams.size === 1);
});

for (const ids of ["positions", "own"]) {
  test(`events that come while history is fetched come once (ids: ${ids})`, limits, async (t) => {
    let release = () => {};
    let isAsked = false;
    const server = await log(t, {
      before(url) {
        if (!url.searchParams.has("last")) return;
        isAsked = true;
        return new Promise((resolve) => (release = resolve));
      },
    });
    const id = (n) => (ids === "own" ? `own ${n}` : undefined);
    const hub = open(t, server.url);
    const first = record(hub, "a");
    await until(() => first.states.includes("open"));
    for (let n = 1; n <= 5; n++) server.publish("a", id(n));
    await until(() => first.events.length === 5);
    const second = record(hub, "a", { last: 9 });
    await until(() => isAsked);
    server.publish("a", id(6));
    server.publish("a", id(7));
    await until(() => first.events.length === 7);
    assert.deepEqual(second.events, []);
    release();
    await until(() => second.events.length === 7);
    server.publish("a", id(8));
    await until(() => second.events.length === 8 && first.events.length === 8);
    assert.deepEqual([first.events, second.events], [[1, 2, 3, 4, 5, 6, 7, 8], [1, 2, 3, 4, 5, 6, 7, 8]]);
    // A place that is an id of its own says nothing of pages, so the stream is opened again.
    assert.equal(server.opened().length, ids === "own" ? 2 : 1);
  });
}

test("an added history that is cut in its middle goes on where it was", limits, async (t) => {
  let pages = 0;
  const server = await log(t, {
    pageEvents: 10,
    before: (url) => (url.searchParams.has("wait") && ++pages % 3 === 0 ? "cut" : undefined),
  });
  for (let n = 0; n < 95; n++) server.publish("b");
  const hub = open(t, server.url);
  const a = record(hub, "a");
  await until(() => a.states.includes("open"));
  const b = record(hub, "b", { lastEventId: "1000-0" });
  await until(() => b.events.length > 30);
  server.publish("b");
  for (const { response } of server.streams) response.destroy();
  await until(() => b.events.length > 60);
  server.publish("b");
  await until(() => b.events.length === 97);
  server.publish("b");
  await until(() => b.events.length === 98);
  assert.deepEqual(b.events, Array.from({ length: 98 }, (_, at) => at + 1));
  assert.ok(b.errors.length > 2);
});

test("a history that is refused closes its subscription and no other", limits, async (t) => {
  const server = await log(t);
  const refusing = await serve(t, (request, response, url) => {
    if (url.searchParams.has("since")) {
      response.writeHead(400, { "Content-Type": "application/problem+json" });
      return response.end('{"detail": "since: wrong"}');
    }
    const answer = async ({ body }) => {
      response.writeHead(200, url.searchParams.has("wait") ? { "Content-Type": "application/json" } : STREAM);
      for await (const part of body) response.write(part);
      response.end();
    };
    fetch(server.url + request.url).then(answer).catch(() => response.destroy());
  });
  const hub = open(t, refusing.url);
  const a = record(hub, "a");
  await until(() => a.states.includes("open"));
  const b = record(hub, "b", { since: "wrong" });
  await until(() => b.states.includes("closed"));
  assert.match(b.errors[0].message, /since: wrong/);
  assert.deepEqual([b.ends, a.errors], [0, []]);
  // Two streams, and a page for each.
  assert.equal(refusing.requests.length, 4);
  server.publish("a");
  await until(() => a.events.length);
});

test("pages that fail are asked for with waits that grow", limits, async (t) => {
  const server = await log(t, { before: (url) => (url.searchParams.has("wait") ? "cut" : undefined) });
  const hub = open(t, server.url);
  const a = record(hub, "a");
  await until(() => a.states.includes("open"));
  const b = record(hub, "a", { last: 1 });
  await until(() => b.errors.length >= 3);
  await sleep(500);
  assert.ok(server.requests.length <= 6, `${server.requests.length} requests`);
});

test("a history that fails is asked for again and costs the shared stream nothing", limits, async (t) => {
  let fails = 2;
  const server = await log(t, {
    before: (url) => (url.searchParams.has("last") && fails-- > 0 ? "cut" : undefined),
  });
  for (let n = 0; n < 4; n++) server.publish(n % 2 ? "a" : "b");
  const hub = open(t, server.url);
  const a = record(hub, "a");
  await until(() => a.states.includes("open"));
  const again = record(hub, "a", { last: 1 });
  server.publish("a");
  await until(() => a.events.length === 1);
  await until(() => again.events.length === 1);
  server.publish("a");
  await until(() => again.events.length === 2 && a.events.length === 2);
  assert.deepEqual([a.events, again.events], [[5, 6], [5, 6]]);
  assert.equal(a.states.filter((state) => state === "open").length, 1);
});

test("an unsubscribed topic gets no event more and leaves the stream a second later", limits, async (t) => {
  const server = await log(t);
  const hub = open(t, server.url);
  const [a, b] = [record(hub, "a"), record(hub, "b")];
  await until(() => a.states.includes("open"));
  b.subscription.unsubscribe();
  server.publish("b");
  server.publish("a");
  await until(() => a.events.length);
  await until(() => server.opened().length === 2);
  server.publish("a");
  await until(() => a.events.length === 2);
  assert.deepEqual([a.events, b.events], [[2, 3], []]);
  assert.deepEqual(server.requests[1].url.searchParams.getAll("topic"), ["a"]);
});

test("subscribing again at once, as React does, costs no request", limits, async (t) => {
  const server = await log(t);
  const hub = open(t, server.url);
  const a = record(hub, "a");
  await until(() => a.states.includes("open"));
  for (let round = 0; round < 10; round++) {
    const b = record(hub, "a");
    await sleep(5);
    b.subscription.unsubscribe();
  }
  await sleep(1_200);
  assert.equal(server.requests.length, 1);
});

test("an application that subscribes all the time does not open streams all the time", limits, async (t) => {
  const server = await log(t);
  const hub = open(t, server.url);
  for (let n = 0; n < 200; n++) {
    record(hub, `topic ${n}`);
    await sleep(5);
  }
  // One second of additions; requests are 100 ms apart.
  assert.ok(server.opened().length < 40, `${server.opened().length} streams`);
});

test("each view has a stream of its own, equal ones share it", limits, async (t) => {
  const server = await log(t);
  const hub = open(t, server.url);
  const views = [{}, { filter: "data > 1" }, { filter: "data > 1" }, { maxRate: 5 }, { event: ["x", "y"] }, { event: "x,y" }];
  const seen = views.map((view) => record(hub, "a", view));
  await until(() => seen.every(({ states }) => states.includes("open")));
  assert.equal(server.requests.length, 4);
});

for (const [name, count, topicOf] of [
  ["more topics than an address may name", 150, (n) => `topic ${n}`],
  ["topics with long names", 20, (n) => `${"long".repeat(60)}/${n}`],
]) {
  test(`${name} become a feed, stored at each opening`, limits, async (t) => {
    const server = await log(t);
    const feeds = [];
    const asked = [];
    // In front of the server: it knows feeds.
    const front = await serve(t, async (request, response, url) => {
      asked.push([request.method, url.pathname, url.searchParams.getAll("topic").length]);
      if (request.method === "POST") {
        feeds.push(JSON.parse(Buffer.concat(await request.toArray()).toString()));
        return response.end(JSON.stringify({ feed: `f${feeds.length}`, topics: 1, expires_in_s: 60 }));
      }
      const feed = url.searchParams.get("feed");
      for (const topic of feed ? feeds[Number(feed.slice(1)) - 1] : []) url.searchParams.append("topic", topic);
      const { headers, body } = await fetch(server.url + url.pathname + url.search);
      response.writeHead(200, { "Content-Type": headers.get("content-type") });
      // It ends with the server.
      await body.pipeTo(Writable.toWeb(response)).catch(() => response.destroy());
    });
    const hub = open(t, front.url);
    const seen = Array.from({ length: count }, (_, n) => record(hub, topicOf(n)));
    await until(() => seen.every(({ states }) => states.includes("open")));
    for (let n = 0; n < count; n++) server.publish(topicOf(n));
    await until(() => seen.every(({ events }) => events.length));
    assert.deepEqual(seen.map(({ events }) => events), seen.map((_, n) => [n + 1]));
    assert.deepEqual(asked, [["POST", "/feeds", 0], ["GET", "/events", 0]]);
    assert.equal(feeds[0].length, count);
    // One more: its history is a page of its own, the others go on by a page of their feed.
    server.publish("more");
    const more = record(hub, "more", { last: 1 });
    await until(() => more.events.length);
    server.publish(topicOf(0));
    server.publish("more");
    await until(() => more.events.length === 2 && seen[0].events.length === 2);
    assert.deepEqual([more.events, seen[0].events], [[count + 1, count + 3], [1, count + 2]]);
    assert.ok(asked.every(([, , topics]) => topics <= 1), String(asked));
  });
}

test("a long filter of one topic is no feed", limits, async (t) => {
  const server = await log(t);
  const b = record(open(t, server.url), "b", { filter: `data != "${"x".repeat(1_000)}"` });
  await until(() => b.states.includes("open"));
  assert.equal(b.errors.length, 0);
  assert.deepEqual(server.requests.at(-1).url.searchParams.getAll("topic"), ["b"]);
});

test("a snapshot of a later subscription has a stream of its own", limits, async (t) => {
  const server = await log(t);
  const hub = open(t, server.url);
  const [one, two] = [record(hub, "a", { lastEach: 1 }), record(hub, "b", { lastEach: 1 })];
  await until(() => one.states.includes("open") && two.states.includes("open"));
  assert.equal(server.requests.length, 1);
  const three = record(hub, "c", { lastEach: 1 });
  await until(() => three.states.includes("open"));
  assert.equal(server.requests.length, 2);
  assert.deepEqual(server.requests[1].url.searchParams.getAll("topic"), ["c"]);
});

test("an event of several topics reaches each subscription once", limits, async (t) => {
  const server = await serve(t, (request, response) => {
    response.writeHead(200, STREAM).write(opening() + envelope(1, { topic: ["a", "b", "c"] }));
  });
  const hub = open(t, server.url);
  const seen = ["a", "b", "*", "z"].map((selector) => record(hub, selector));
  await until(() => seen[0].events.length);
  assert.deepEqual(seen.map(({ events }) => events), [[1], [1], [1], []]);
});
