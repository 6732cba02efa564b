// `node server.mjs <npm prefix>`: a channel for each topic.
//
// better-sse's guide to batching shows how to encode once and send to every session of a channel
// (an event buffer); Channel.broadcast would encode each event again for each session.
import { createServer } from "node:http";
import { createRequire } from "node:module";

const require = createRequire(`${process.argv[2]}/`);
const { createChannel, createEventBuffer, createSession } = require("better-sse");

const channels = new Map();
let last = 0;

async function subscribe(topic, request, response) {
  const session = await createSession(request, response);
  if (!channels.has(topic)) channels.set(topic, createChannel());
  // The channel forgets a session that disconnects.
  if (session.isConnected) channels.get(topic).register(session);
}

function publish(topic, data) {
  // The data is text already: nothing to serialise.
  const buffer = createEventBuffer({ serializer: (text) => text });
  buffer.push(data, "message", String(++last));
  for (const session of channels.get(topic)?.activeSessions ?? []) session.batch(buffer);
}

function receive(topic, request, response) {
  let data = "";
  request.setEncoding("utf8");
  request.on("data", (part) => (data += part));
  request.on("end", () => {
    publish(topic, data);
    response.writeHead(204).end();
  });
}

const server = createServer((request, response) => {
  const topic = new URL(request.url, "http://localhost").searchParams.get("topic");
  if (request.method === "POST") receive(topic, request, response);
  else subscribe(topic, request, response);
});
server.listen({ host: "127.0.0.1", port: 0, backlog: 4096 }, () => {
  const { address, port } = server.address();
  console.log(`listening on ${address}:${port}`);
});
