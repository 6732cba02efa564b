// Reads a stream with one client library and prints what it reports, one JSON line each: the texts
// of its events, then how it ended: "whole", "error", or "again" when it came back by itself.
// A chat without a stream is "idle". Arguments: the folder with node_modules, the library, the server's
// URL, more of the query, and the id to go on after, for a library that sends one; for TanStack AI how
// often it may return without an event.
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const [folder, library, server, more = "", lastEventId] = process.argv.slice(2);
const require = createRequire(pathToFileURL(folder + "/"));
const load = (name) => import(pathToFileURL(require.resolve(name)));
const url = `${server}/events?topic=answer&fastsse=false${more}`;
const say = (what) => console.log(JSON.stringify(what));

let requests = 0;
// Whatever the library would ask for, it gets our stream; a second request is a return.
async function ourFetch(_, options = {}) {
  requests += 1;
  if (requests > 1) {
    say({ end: "again" });
    process.exit(0);
  }
  const { method, body, ...rest } = options;
  return fetch(url, rest);
}

async function readAll(stream, textOf) {
  for await (const chunk of stream) {
    const text = textOf(chunk);
    if (text !== undefined) say({ text });
  }
}

const readers = {
  async "fetch-event-source"() {
    // It is made for browsers.
    globalThis.window = globalThis;
    globalThis.document = new EventTarget();
    const { fetchEventSource } = await load("@microsoft/fetch-event-source");
    await fetchEventSource(url, {
      fetch: ourFetch,
      openWhenHidden: true,
      onmessage: (event) => event.data && say({ text: JSON.parse(event.data).text }),
      onerror: (error) => {
        throw error;
      },
    });
  },
  async ai() {
    const { DefaultChatTransport } = await load("ai");
    const transport = new DefaultChatTransport({ fetch: ourFetch });
    const stream = await transport.reconnectToStream({ chatId: "answer" });
    if (!stream) return say({ idle: true });
    await readAll(stream, (chunk) => chunk.data?.text);
  },
  async "ag-ui"() {
    const { runHttpRequest, parseSSEStream } = await load("@ag-ui/client");
    const source = parseSSEStream(runHttpRequest(() => ourFetch()));
    await new Promise((resolve, reject) =>
      source.subscribe({
        next: (event) => event.text !== undefined && say({ text: event.text }),
        error: reject,
        complete: resolve,
      }),
    );
  },
  async langgraph() {
    const { Client } = await load("@langchain/langgraph-sdk");
    const client = new Client({
      apiUrl: server,
      apiKey: null,
      callerOptions: { fetch: ourFetch, maxRetries: 0 },
    });
    await readAll(client.runs.joinStream("thread", "run", { lastEventId }), (chunk) => chunk.data?.text);
  },
  // It asks with `offset=-1` and returns by itself, so the query and the returns are its own.
  async tanstack() {
    // It has no entry for `require`.
    const entry = `${folder}/node_modules/@tanstack/ai-client/dist/esm/index.js`;
    const { fetchServerSentEvents } = await import(pathToFileURL(entry));
    const maxAttempts = Number(lastEventId ?? 0);
    const connection = fetchServerSentEvents(url, { reconnect: { maxAttempts, delayMs: 50 } });
    await readAll(connection.joinRun("run"), (chunk) => chunk.data?.text);
  },
};

try {
  await readers[library]();
  say({ end: "whole" });
} catch (error) {
  say({ end: "error", error: String(error) });
}
process.exit(0);
