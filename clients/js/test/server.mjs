// A server that does what a test says, on a free port of the loopback address.
import { createServer } from "node:http";
import { createServer as createTcpServer } from "node:net";

export const STREAM = { "Content-Type": "text/event-stream; charset=utf-8" };

/** An event as `envelope=json` sends it. */
export function envelope(n, { topic = "a", data = n, event = null, id = `1000-${n}` } = {}) {
  const text = JSON.stringify({ topic, id, event, data, meta: null, time: 1000 });
  return `id: ${id}\n${event ? `event: ${event}\n` : ""}data: ${text}\n\n`;
}

export const opening = (id = "1000-0", retry = 100) => `: fastsse\nretry: ${retry}\nid: ${id}\n\n`;

/**
 * Serves until the test ends.
 *
 * @param t the test
 * @param answer called with (request, response, url, number of the request)
 * @returns its url, the server, and the requests: {method, url, headers}
 */
export async function serve(t, answer) {
  const requests = [];
  const server = createServer((request, response) => {
    const url = new URL(request.url, "http://x");
    requests.push({ method: request.method, url, headers: request.headers, at: Date.now() });
    answer(request, response, url, requests.length);
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  const sockets = new Set();
  server.on("connection", (socket) => sockets.add(socket));
  t.after(() => {
    // `closeAllConnections` leaves those that were upgraded.
    for (const socket of sockets) socket.destroy();
    return new Promise((resolve) => server.close(resolve));
  });
  return { url: `http://127.0.0.1:${server.address().port}`, requests, server };
}

/** Waits until a condition holds. */
export async function until(condition) {
  for (const end = Date.now() + 25_000; !condition(); ) {
    if (Date.now() > end) throw new Error(`it never was so: ${condition}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

/** Subscribes and records what the callbacks get. */
export function record(hub, selector, options = {}) {
  const seen = { events: [], states: [], gaps: [], errors: [], ends: 0, snapshots: 0 };
  seen.subscription = hub.subscribe(selector, {
    onEvent: (event) => seen.events.push(event.data),
    onState: (state) => seen.states.push(state),
    onGap: (gap) => seen.gaps.push(gap),
    onError: (error) => seen.errors.push(error),
    onEnd: () => seen.ends++,
    onSnapshot: () => seen.snapshots++,
    ...options,
  });
  return seen;
}

/**
 * As `serve`, for bytes that are no answer of a server.
 *
 * @param answer called with (socket, number of the request) when the head of a request has come
 */
export async function serveBytes(t, answer) {
  const requests = [];
  const sockets = new Set();
  const server = createTcpServer((socket) => {
    sockets.add(socket);
    socket.on("error", () => {});
    let head = "";
    socket.on("data", (data) => {
      if (head.includes("\r\n\r\n")) return;
      head += data;
      if (head.includes("\r\n\r\n")) answer(socket, requests.push(Date.now()));
    });
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  t.after(() => {
    for (const socket of sockets) socket.destroy();
    return new Promise((resolve) => server.close(resolve));
  });
  return { url: `http://127.0.0.1:${server.address().port}`, requests };
}
