import { StreamError, type ErrorKind } from "./errors.js";
import type { Transport } from "./transport.js";

// `OPEN` of an EventSource; above it is `CLOSED`.
const CONNECTED = 1;
const TYPES = ["message", ...["gap", "refused", "end", "snapshot", "expiring"].map((name) => `fastsse.${name}`)];

/** Streams by the browser's EventSource: its network view shows events; types must be known. */
export const eventSourceTransport: Transport = {
  name: "eventsource",
  isAvailable: () => typeof EventSource === "function",
  async run(request, sink) {
    const { url, signal } = request;
    await request.prepare();
    const ticket = await request.ticket();
    if (ticket) url.searchParams.set("ticket", ticket);
    // Ids that come without an event are not visible to scripts.
    url.searchParams.set("initial_id", "data");
    return new Promise((_, reject) => {
      const source = new EventSource(url, { withCredentials: request.credentials === "include" });
      let timer: ReturnType<typeof setTimeout>;
      // False: it returns by itself.
      let isOpen: boolean | undefined;
      const close = (kind: ErrorKind) => {
        clearTimeout(timer);
        source.close();
        reject(new StreamError(kind, "closed"));
      };
      const expect = (ms: number) => {
        clearTimeout(timer);
        timer = setTimeout(close, ms, "buffered");
      };
      // Headers alone say nothing: a proxy may hold back what follows.
      (source.onopen = () => expect(request.openTimeoutMs))();
      const stop = () => close("network");
      signal.addEventListener("abort", stop);
      if (signal.aborted) stop();
      const take = (event: MessageEvent<string>) => {
        clearTimeout(timer);
        if (!isOpen) sink.open();
        isOpen = true;
        sink.block(event.type, event.data || null, event.lastEventId);
      };
      const named = ["event", "until"].flatMap((name) => url.searchParams.get(name)?.split(",") ?? []);
      for (const type of new Set([...TYPES, ...(request.eventTypes ?? []), ...named])) source.addEventListener(type, take);
      // It returns by itself once, after the server's `retry:`, which scripts do not see.
      source.onerror = () => {
        if (source.readyState > CONNECTED || isOpen === false) return stop();
        isOpen = false;
        expect(request.idleTimeoutMs);
        sink.waiting();
      };
    });
  },
};
