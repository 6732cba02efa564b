// `node better-sse.mjs <port> <node_modules>`: better-sse as its guides "Getting started" and
// "Channels" show it, a channel for each topic.
import { createServer } from "node:http";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const [port, modules] = process.argv.slice(2);
const require = createRequire(pathToFileURL(`${modules}/`));
const { createChannel, createSession } = require("better-sse");

const channels = new Map();
const channel = (topic) => {
  if (!channels.has(topic)) channels.set(topic, createChannel());
  return channels.get(topic);
};

async function subscribe(query, request, response) {
  const session = await createSession(request, response);
  if (session.isConnected) channel(query.get("topic")).register(session);
}

async function publish(query, request, response) {
  let data = "";
  request.setEncoding("utf8");
  for await (const part of request) data += part;
  const options = query.has("id") ? { eventId: query.get("id") } : undefined;
  channel(query.get("topic")).broadcast(data, query.get("event") ?? "message", options);
  response.writeHead(204).end();
}

const routes = { GET: subscribe, POST: publish };
const server = createServer(async (request, response) => {
  const query = new URL(request.url, "http://localhost").searchParams;
  const route = routes[request.method];
  if (!route) return response.writeHead(405).end();
  try {
    await route(query, request, response);
  } catch (error) {
    // A request that was aborted; one that cannot be served is answered.
    if (!response.headersSent) response.writeHead(500).end();
  }
});
server.listen(Number(port), "127.0.0.1");
process.on("SIGTERM", () => {
  server.close();
  server.closeAllConnections();
});
