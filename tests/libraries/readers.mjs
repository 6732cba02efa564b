// Reads a stream with one client library and prints a line of JSON for all that the application sees.
//
//     node readers.mjs LIBRARY URL
//
// `{"open": true}` comes when the library says so, `{"type", "data", "id"}` for each event,
// `{"error": text}` and `{"closed": true}` when it gives up.

const [library, url] = process.argv.slice(2);
const print = (line) => process.stdout.write(JSON.stringify(line) + "\n");
const shown = (event) => ({ type: event.type || event.event || "message", data: event.data, id: event.lastEventId ?? event.id ?? "" });

// What the two implementations of the EventSource interface share.
function watch(source) {
  source.onopen = () => print({ open: true });
  source.onmessage = (event) => print(shown(event));
  source.onerror = () => source.readyState === 2 && print({ closed: true });
}

const readers = {
  async eventsource() {
    const { EventSource } = await import("eventsource");
    watch(new EventSource(url));
  },
  async polyfill() {
    const { default: library } = await import("event-source-polyfill");
    watch(new library.EventSourcePolyfill(url));
  },
  async client() {
    const { createEventSource } = await import("eventsource-client");
    createEventSource({
      url,
      onConnect: () => print({ open: true }),
      onMessage: (event) => print(shown(event)),
    });
  },
  // It is made for pages: what it asks of one is here.
  async fetching() {
    globalThis.window = globalThis;
    globalThis.document = { hidden: false, addEventListener() {}, removeEventListener() {} };
    const { fetchEventSource } = await import("@microsoft/fetch-event-source");
    await fetchEventSource(url, {
      onopen: async (response) => {
        if (!response.ok) throw new Error(`status ${response.status}`);
        print({ open: true });
      },
      onmessage: (event) => print(shown(event)),
      onerror: (error) => {
        print({ error: String(error) });
        throw error;
      },
    }).catch(() => print({ closed: true }));
  },
  async openai() {
    const { default: OpenAI } = await import("openai");
    const { origin, pathname, search } = new URL(url);
    const client = new OpenAI({ apiKey: "none", baseURL: origin, maxRetries: 0 });
    try {
      const stream = await client.get(pathname + search, { stream: true });
      print({ open: true });
      for await (const chunk of stream) print({ data: JSON.stringify(chunk) });
    } catch (error) {
      print({ error: String(error) });
    }
    print({ closed: true });
  },
  async mcp() {
    const { StreamableHTTPClientTransport } = await import(
      "@modelcontextprotocol/sdk/client/streamableHttp.js"
    );
    const wait = { initialReconnectionDelay: 20, maxReconnectionDelay: 20, reconnectionDelayGrowFactor: 1, maxRetries: 20 };
    const transport = new StreamableHTTPClientTransport(new URL(url), { reconnectionOptions: wait });
    transport.onmessage = (message) => print({ data: JSON.stringify(message) });
    transport.onerror = (error) => print({ error: String(error) });
    await transport.start();
    await transport.resumeStream("earliest", { onresumptiontoken: (id) => print({ type: "token", id }) });
    print({ open: true });
  },
};

await readers[library]();
